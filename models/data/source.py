"""Where rows come from: a source is opened once, and asked for a snapshot whenever a training begins.

    settings, contract ──open──▶ Source ──snapshot──▶ Dataset, with its fingerprint ──fit──▶ what a model trains on

What tells one state of the rows from another is the fingerprint of the arrays; no clock is asked. The stamp of a file
(table.py) only saves the reading of what has not changed. A large file that could not be used is not read again either
before it has changed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import structs

from models.contract import NO_CONTRACT, Column, ContractSpec
from models.data import reader, table
from models.data.dataset import Dataset, DatasetError, fit
from models.data.settings import FilePath, SourceSettings
from models.data.table import Stamp
from models.job import ModelSpec

__all__ = [
    "Column",
    "DataSource",
    "FilePath",
    "InMemory",
    "Opener",
    "Source",
    "Unchanging",
    "kept",
    "load",
    "open",
    "read",
    "stamp",
]

log = logging.getLogger(__name__)

SETTLED_S = 2.0
"""A file is taken for unchanged by its stamp only if its last change was at least so long before it was read: what is
written within a tick of the kernel's clock (10 ms; 2 s on FAT) leaves no trace in the stamp."""
LOOK_S = 0.1
LARGE_BYTES = 8 * 2**20
"""A file of this size that cannot be used is not read again as it is: that takes long, and comes to the same."""
BUFFER = 4096
"""Bytes that C's stdio writes at a time, or a multiple of it."""
TRIES = 3
"""How often a file that is written to while it is read is read before it counts as damaged."""


class DataSource(SourceSettings, frozen=True):
    """A file of examples. On a device they never leave it."""

    def __post_init__(self) -> None:
        """Raise ValueError for keys that do not go together. A ring has a time, whatever is said of it."""
        row = table.find(self)
        if row is not None and row.time is not None and self.time is None:
            structs.force_setattr(self, "time", self.rename.get(row.time, row.time))
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


Opener = Callable[..., Source]
"""What `open` is, and is called as: who runs a fleet in one process gives each device its rows without a file."""


class InMemory:
    """Rows that are in memory already, and stay as they are."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def snapshot(self) -> Dataset:
        """See `Source`."""
        return self._rows


class Unchanging(InMemory):
    """The same, of which who reads them may know that they stay: they need not be asked for again."""

    __slots__ = ()

    def kept(self, file_system: int | None) -> Dataset | None:  # noqa: ARG002 -- they lie on none
        """See `kept`."""
        return self._rows


class File:
    """A file in one of the formats of table.py. The rows of the last snapshot are kept: one copy of them, no more.

    They are let go before others are read; whoever still trains on them has them until then.
    """

    def __init__(
        self,
        settings: SourceSettings,
        contract: ContractSpec = NO_CONTRACT,
        scratch: Path | None = None,
        *,
        classifies: bool = True,
        labelled: bool = True,
        allow: Sequence[str] = (),
    ) -> None:
        """Note where it is and what is made of it; nothing is looked at. See `open`."""
        self._settings, self._contract = settings, contract
        self.scratch, self._classifies, self._allow = scratch, classifies, tuple(allow)
        self._labelled = labelled
        self._kept: Dataset | None = None
        self._stamp: Stamp = ()
        self._read_last: tuple[int, ...] = ()
        """Device, inode and size of the file that was last read."""
        self._grows = False
        """Whether somebody appends to it."""
        self._failed: tuple[Stamp, DatasetError] | None = None
        """A stamp under which the rows could not be used, and why."""
        self._notes: tuple[str, ...] = ()
        """What was last said of it in the log."""
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
        if self._failed is not None and before == self._failed[0]:
            raise DatasetError(str(self._failed[1]), cell=self._failed[1].cell)
        self._failed = None
        for tries_left in reversed(range(TRIES)):
            found = None  # one copy of the rows, no more
            before, settled = self._look()
            try:
                found = self._read(ended=not settled or self._is_cut(before))
            except DatasetError as error:
                if table.stamp(self._settings) == before:
                    if settled and sum(one[2] for one in before if one) >= LARGE_BYTES:
                        self._failed = before, error.with_traceback(None)
                    raise
                if not tries_left:
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
            if settled or row is None or row.is_ended(self._settings.path) or time.monotonic() >= give_up_at:
                return found, settled
            time.sleep(LOOK_S)

    def _is_cut(self, now: Stamp) -> bool:
        """Return whether a last row without its end may be half of one, however long ago it was written.

        A program that appends to its file writes whole buffers, which end anywhere; what a person saves may have no end
        in its last line. The file has grown since it was last read, or is as long as so many buffers.
        """
        file = now[0][:3] if now else ()
        if not file:
            return False
        size = file[2]
        if self._read_last[:2] != file[:2] or size < self._read_last[2]:
            self._grows = False  # another file, maybe of the same number
        elif size > self._read_last[2]:
            self._grows = True
        self._read_last = file
        row = table.find(self._settings)
        if row is None or row.is_ended(self._settings.path):
            return False
        return self._grows or size % BUFFER == 0

    def _read(self, *, ended: bool) -> Dataset:
        found = reader.read_file(
            *(self._settings, self._contract, self.scratch),
            classifies=self._classifies,
            labelled=self._labelled,
            allow=self._allow,
            ended=ended,
        )
        if found.notes != self._notes:
            self._notes = found.notes
            for note in found.notes:
                log.info("data=%s %s", self._settings.path, note)
        return found.data


def open(  # noqa: A001 -- as a module's: source.open
    settings: SourceSettings,
    contract: ContractSpec = NO_CONTRACT,
    scratch: Path | None = None,
    *,
    classifies: bool = True,
    labelled: bool = True,
    allow: Sequence[str] = (),
) -> Source:
    """Open a source. It is looked at when a snapshot is taken, not before.

    contract: what a job makes of its rows. scratch: the folder where examples lie that are too many for the memory; all
    are in memory where it is None. classifies: whether the labels of the job are classes. labelled: whether rows need
    labels. allow: the factories that may run here.
    """
    return File(settings, contract, scratch, classifies=classifies, labelled=labelled, allow=allow)


def kept(source: Source, file_system: int | None) -> Dataset | None:
    """Return what `snapshot` would, where it is the very object of last time and that shows without any waiting.

    file_system: the device number of the one that whoever asks waits for anyway; only a file that lay there when it was
    read is looked at. (Where its path leads to another by now, and that does not answer, this waits as long.)
    """
    return source.kept(file_system) if isinstance(source, File | Unchanging) else None


def scratch_of(source: Source) -> Path | None:
    """Return the folder where the examples of a source lie that are too many for the memory; None for none."""
    return source.scratch if isinstance(source, File) else None


def load(
    settings: SourceSettings,
    contract: ContractSpec = NO_CONTRACT,
    *,
    classifies: bool = True,
    labelled: bool = True,
    allow: Sequence[str] = (),
) -> Dataset:
    """Read a source once, as it is. labelled: whether rows need labels. allow: the factories that may run here.

    Raises DatasetError, naming the file and the row or column.
    """
    found = reader.read_file(settings, contract, classifies=classifies, labelled=labelled, allow=allow)
    for note in found.notes:
        log.info("data=%s %s", settings.path, note)
    return found.data


def read(
    settings: SourceSettings, model: ModelSpec, contract: ContractSpec = NO_CONTRACT, allow: Sequence[str] = ()
) -> Dataset:
    """Read a source once, as this model takes it. Raises DatasetError, naming the file and the row or column."""
    labelled = not model.finds_anomalies
    return fit(load(settings, contract, classifies=model.labels_are_classes, labelled=labelled, allow=allow), model)


def stamp(settings: SourceSettings) -> Stamp:
    """Return what tells one state of a source from another without reading it (see table.py)."""
    return table.stamp(settings)


def _is_settled(stamp: Stamp, now_ns: int) -> bool:
    """Return whether the files of a stamp had been left alone for a while then, as far as a clock can say."""
    return bool(stamp[0]) and all(now_ns - max(one[3:]) >= SETTLED_S * 1e9 for one in stamp if one)
