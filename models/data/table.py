"""The one list of the formats that rows are read from.

A format is a row of pure functions of a source's settings. A new one is a file beside this one, and a row here; a
library that is heavy is imported where the file is read, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import NamedTuple

from models.data import csv_file, npz_file, ring_file, sqlite_file
from models.data.dataset import Dataset, DatasetError
from models.data.settings import SourceSettings

Stamp = tuple[tuple[int, ...], ...]


class Format(NamedTuple):
    """How examples are written."""

    name: str
    """For messages."""
    endings: tuple[str, ...]
    """Of the paths of such files, in small letters."""
    read: Callable[[SourceSettings], Dataset]
    """Read them as they are now. Raises DatasetError, naming the file and the row, line or column."""
    check: Callable[[SourceSettings], None] = lambda _settings: None
    """Raise ValueError for keys that cannot be meant."""
    read_ended: Callable[[SourceSettings], Dataset] | None = None
    """The same without a last row that is being written; None where no row can be half there."""
    is_ended: Callable[[SourceSettings], bool] = lambda _settings: True
    """Return whether the last row is whole, as far as that shows."""
    keys: frozenset[str] = frozenset()
    """Those that it takes beside path, label and features."""
    beside: tuple[str, ...] = ()
    """What is put behind the path to name other files that hold rows too, if they are there."""
    files: Callable[[SourceSettings], tuple[str, ...]] | None = None
    """The files that hold rows, where the path is that of a folder of them."""


FORMATS = (
    Format("NPZ", (".npz",), npz_file.read, npz_file.check),
    Format(
        *("CSV", (".csv",), csv_file.read),
        read_ended=partial(csv_file.read, ended=True),
        is_ended=csv_file.is_ended,
    ),
    Format(
        *("SQLite", (".db", ".sqlite", ".sqlite3"), sqlite_file.read, sqlite_file.check),
        keys=frozenset({"query"}),
        beside=("-wal", "-journal"),
    ),
    Format("a ring of live rows", (ring_file.ENDING,), ring_file.read, files=ring_file.files),
)

SOME = frozenset[str]().union(*(row.keys for row in FORMATS))
"""Keys that only some formats have."""


def find(settings: SourceSettings) -> Format | None:
    """Return the format of a source, by the ending of its path; None for none of them."""
    ending = PurePath(settings.path).suffix.lower()
    return next((row for row in FORMATS if ending in row.endings), None)


def check(settings: SourceSettings) -> None:
    """Raise ValueError for keys that do not go with the source's format. A source that has none may name anything."""
    row = find(settings)
    if row is None:
        return
    for key in sorted(SOME - row.keys):
        if getattr(settings, key) is not None:
            raise ValueError(f"{key} is no key of a source in {row.name}")
    row.check(settings)


def known(settings: SourceSettings) -> Format:
    """Return the format of a source. Raises DatasetError for none that is known."""
    row = find(settings)
    if row is None:
        raise DatasetError(
            f"{settings.path} is none of {', '.join(ending for row in FORMATS for ending in row.endings)}"
        )
    return row


def stamp(settings: SourceSettings) -> Stamp:
    """Return what is another after the files of a source were written to or replaced, without reading them.

    Of each file: device, inode, size, and the times of the last change of its content and of anything; nothing where it
    cannot be looked at. Two writes within a tick of the kernel's clock may leave it as it is (source.py heeds it).
    """
    row = find(settings)
    if row is not None and row.files is not None:
        return tuple(_stamp(path) for path in row.files(settings))
    beside = () if row is None else row.beside
    return tuple(_stamp(settings.path + more) for more in ("", *beside))


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 -- Path throws for a name that is too long
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
