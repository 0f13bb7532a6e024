"""Where rows come from: a source is opened once, and asked for a snapshot whenever a training begins.

    settings ──open──▶ Source ──snapshot──▶ Dataset, with its fingerprint ──fit──▶ what a model trains on

What tells one state of the rows from another is the fingerprint of the arrays; no clock is asked. The stamp of a file
(table.py) only saves the reading of what has not changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from models.contract import Column
from models.data import table
from models.data.dataset import Dataset, DatasetError, fit
from models.data.settings import FilePath, SourceSettings
from models.data.table import Stamp
from models.job import ModelSpec

__all__ = ["Column", "DataSource", "FilePath", "InMemory", "Opener", "Source", "kept", "load", "open", "read", "stamp"]

SETTLED_S = 2.0
"""A file is taken for unchanged by its stamp only if its last change was at least so long before it was read: what is
written within a tick of the kernel's clock (10 ms; 2 s on FAT) leaves no trace in the stamp."""
LOOK_S = 0.1
TRIES = 3
"""How often a file that is written to while it is read is read before it counts as damaged."""


class DataSource(SourceSettings, frozen=True):
    """A file of examples. On a device they never leave it."""

    def __post_init__(self) -> None:
        """Raise ValueError for keys that do not go together."""
        if self.label in self.columns:
            raise ValueError(f"features has the label {self.label!r} among them")
        table.check(self)


class Source(Protocol):
    """Rows that may become others while a device runs."""

    def snapshot(self) -> Dataset:
        """Return the rows as they are now; the very object of last time where they are known to be the same.

        May take long, and is called by one thread at a time. Nobody changes the arrays. Raises DatasetError, naming the
        source and the place.
        """


Opener = Callable[[DataSource], Source]
"""What `open` is: who runs a fleet in one process gives each device its rows without a file."""


class InMemory:
    """Rows that are in memory already, and stay as they are."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def snapshot(self) -> Dataset:
        """See `Source`."""
        return self._rows


class File:
    """A file in one of the formats of table.py. The rows of the last snapshot are kept: one copy of them, no more.

    They are let go before others are read; whoever still trains on them has them until then.
    """

    def __init__(self, settings: SourceSettings) -> None:
        """Note where it is; nothing is looked at."""
        self._settings = settings
        self._kept: Dataset | None = None
        self._stamp: Stamp = ()
        self._lock = threading.Lock()

    def snapshot(self) -> Dataset:
        """See `Source`.

        A file that is written to meanwhile is read again where it could not be read so; of one that is being written to
        a row that is half there is left for the next time.
        """
        if not self._lock.acquire(blocking=False):
            raise DatasetError(f"{self._settings.path} is still being read since an earlier try: does its disk answer?")
        try:
            return self._snapshot()
        finally:
            self._lock.release()

    def kept(self, file_system: int | None) -> Dataset | None:
        """See `kept`."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            there = [one[0] for one in self._stamp if one]
            if self._kept is None or not there or any(device != file_system for device in there):
                return None
            return self._kept if table.stamp(self._settings) == self._stamp else None
        finally:
            self._lock.release()

    def _snapshot(self) -> Dataset:
        before = table.stamp(self._settings)
        if self._kept is not None and before == self._stamp:
            return self._kept
        self._kept = None
        for tries_left in reversed(range(TRIES)):
            found = None  # one copy of the rows, no more
            before, settled = self._look()
            try:
                found = self._read(settled=settled)
            except DatasetError:
                if not tries_left or table.stamp(self._settings) == before:
                    raise
                continue
            if settled and tries_left and table.stamp(self._settings) != before:
                continue  # somebody has begun to write: what was read last may be half a row
            self._kept, self._stamp = found, before if settled else ()
            return found
        raise AssertionError("the last try returns or raises")

    def _look(self) -> tuple[Stamp, bool]:
        """Return the stamp of the files, and whether they had been left alone for a while.

        A file whose last row has no end yet is given the time to get one, or to be left alone.
        """
        row, give_up_at = table.find(self._settings), time.monotonic() + SETTLED_S
        while True:
            found = table.stamp(self._settings)
            settled = _is_settled(found, time.time_ns())
            if settled or row is None or row.is_ended(self._settings) or time.monotonic() >= give_up_at:
                return found, settled
            time.sleep(LOOK_S)

    def _read(self, *, settled: bool) -> Dataset:
        row = table.known(self._settings)
        return row.read(self._settings) if settled or row.read_ended is None else row.read_ended(self._settings)


def open(settings: SourceSettings) -> Source:  # noqa: A001 -- as a module's: source.open
    """Open a source. It is looked at when a snapshot is taken, not before."""
    return File(settings)


def kept(source: Source, file_system: int | None) -> Dataset | None:
    """Return what `snapshot` would, where it is the very object of last time and that shows without any waiting.

    file_system: the device number of the one that whoever asks waits for anyway; only a file that lay there when it was
    read is looked at. (Where its path leads to another by now, and that does not answer, this waits as long.)
    """
    return source.kept(file_system) if isinstance(source, File) else None


def load(settings: SourceSettings) -> Dataset:
    """Read a source once, as it is. Raises DatasetError, naming the file and the row or column."""
    return table.known(settings).read(settings)


def read(settings: SourceSettings, model: ModelSpec) -> Dataset:
    """Read a source once, as this model takes it. Raises DatasetError, naming the file and the row or column."""
    return fit(load(settings), model)


def stamp(settings: SourceSettings) -> Stamp:
    """Return what tells one state of a source from another without reading it (see table.py)."""
    return table.stamp(settings)


def _is_settled(stamp: Stamp, now_ns: int) -> bool:
    """Return whether the files of a stamp had been left alone for a while then, as far as a clock can say."""
    return bool(stamp[0]) and all(now_ns - max(one[3:]) >= SETTLED_S * 1e9 for one in stamp if one)
