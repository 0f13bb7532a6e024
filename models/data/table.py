"""The one list of the formats that rows are read from.

    settings ──find──▶ Format ──open──▶ Table ──blocks──▶ rows by name (blocks.py)

A format is a row of functions of a source's settings. A new one is a file beside this one, and a row here; a library
that is heavy is imported where the file is read, not before.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol

from models.data import csv_file, factory_source, jsonl_file, npz_file, ring_file, sqlite_file, textfile, times
from models.data.blocks import Table
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings

Stamp = tuple[tuple[int, ...], ...]


class Opening(Protocol):
    """What opens a table."""

    def __call__(self, settings: SourceSettings, *, ended: bool, allow: Sequence[str] = ()) -> Table:
        """Open a table as it is now; who calls this closes it.

        ended: leave out a last row that somebody may be in the middle of writing. allow: the factories that may run
        here. Raises DatasetError.
        """


class Format(NamedTuple):
    """How examples are written."""

    name: str
    """For messages."""
    called: str
    """As `format` of a source's settings says it."""
    endings: tuple[str, ...]
    """Of the paths of such files, in small letters."""
    open: Opening
    is_ended: Callable[[str], bool] = lambda _path: True
    """Return whether the last row is whole, as far as that shows."""
    keys: frozenset[str] = frozenset()
    """Those that it takes beside those that all formats have."""
    beside: tuple[str, ...] = ()
    """What is put behind the path to name other files that hold rows too, if they are there."""
    files: Callable[[SourceSettings], tuple[str, ...]] | None = None
    """The files that hold rows, where the path is that of a folder of them."""
    time: str | None = None
    """The column that says when each row was, where all such tables have one."""


def _always(open_table: Callable[..., Table]) -> Opening:
    """Return what opens a table of a format that needs no leave."""

    def opening(settings: SourceSettings, *, ended: bool, allow: Sequence[str] = ()) -> Table:
        del allow
        return open_table(settings, ended=ended)

    return opening


_TEXT = frozenset({"encoding", "time_format", "missing_values"})
_JSONL = _always(jsonl_file.open_table)
_RING = _always(ring_file.open_table)

FORMATS = (
    Format("NPZ", "npz", (".npz",), _always(npz_file.open_table), keys=_TEXT - {"encoding"}),
    Format(
        *("CSV", "csv", (".csv", ".tsv", ".txt"), _always(csv_file.open_table)),
        is_ended=textfile.is_ended,
        keys=_TEXT | {"delimiter", "decimal", "comment", "thousands", "quote", "header", "skip_lines"},
    ),
    Format(
        *("SQLite", "sqlite", (".db", ".sqlite", ".sqlite3"), _always(sqlite_file.open_table)),
        keys=(_TEXT - {"encoding"}) | {"query"},
        beside=("-wal", "-journal"),
    ),
    Format(
        *("a ring of live rows", "ring", (ring_file.ENDING,), _RING),
        keys=_TEXT - {"encoding"},
        files=ring_file.files,
        time=ring_file.TIME,
    ),
    Format(
        *("JSON lines", "jsonl", (".jsonl", ".ndjson", ".jsonlines", ".json"), _JSONL),
        is_ended=textfile.is_ended,
        keys=_TEXT,
    ),
)
FACTORY = Format(
    *("code", "package.module:factory", (), factory_source.open_table),
    keys=(_TEXT - {"encoding"}) | {"options"},
)
"""All others."""
COMPRESSED = ".gz"
"""May stand behind the ending of a format of text."""

SOME = frozenset[str]().union(*(row.keys for row in (*FORMATS, FACTORY)))
"""Keys that only some formats have."""


def find(settings: SourceSettings) -> Format | None:
    """Return the format of a source: the one that it names, else by the ending of its path; None for none of them."""
    if factory_source.named_by(settings) is not None:
        return FACTORY
    if settings.format is not None:
        return next((row for row in FORMATS if row.called == settings.format), None)
    path = PurePath(settings.path.lower())
    is_text = path.suffix == COMPRESSED
    ending = PurePath(path.stem).suffix if is_text else path.suffix
    return next((row for row in FORMATS if ending in row.endings and (not is_text or "encoding" in row.keys)), None)


def factories_of(settings: SourceSettings) -> tuple[str, ...]:
    """Return what has to be allowed before this source may be read: the factory that it names, or nothing."""
    name = factory_source.named_by(settings)
    return () if name is None else (name,)


def check(settings: SourceSettings) -> None:
    """Raise ValueError for keys that do not go together, or not with the source's format.

    A source that has none may name anything.
    """
    row = find(settings)
    if row is None:
        if settings.format is not None:
            known = ", ".join(f'"{one.called}"' for one in (*FORMATS, FACTORY))
            raise ValueError(f'format = "{settings.format[:100]}" is none of {known}')
        return
    for key in sorted(SOME - row.keys):
        if getattr(settings, key) not in (None, {}):
            raise ValueError(f"{key} is no key of a source in {row.name}")
    _check_marks(settings)
    _check_names(settings)


def _check_marks(settings: SourceSettings) -> None:
    marks = {key: getattr(settings, key) for key in ("delimiter", "decimal", "thousands", "quote")}
    for key, mark in marks.items():
        if other := next((one for one in marks if one < key and mark and marks[one] == mark), None):
            raise ValueError(f"{key} and {other} are both {mark!r}: no cell could be told from another")
    if settings.encoding is not None:
        try:
            codecs.getincrementaldecoder(settings.encoding)
            with contextlib.suppress(UnicodeError):
                b"    ".decode(settings.encoding)  # of nothing at all it would not even look for the codec
        except LookupError:
            raise ValueError(
                f'encoding = "{settings.encoding}" is not known: "utf-8", "latin-1", "cp1252", "utf-16-le"'
            ) from None
    if settings.time_format is not None:
        times.check(settings.time_format)


def _check_names(settings: SourceSettings) -> None:
    new = list(settings.rename.values())
    if doubled := next((name for at, name in enumerate(new) if name in new[:at]), None):
        raise ValueError(f"rename gives two columns the name {doubled!r}")
    header = settings.header or ()
    if doubled := next((name for at, name in enumerate(header) if name in header[:at]), None):
        raise ValueError(f"header names {doubled!r} twice")
    for key in ("time", "group"):
        if getattr(settings, key) == settings.label:
            raise ValueError(f"{key} is the label {settings.label!r}")


def known(settings: SourceSettings) -> Format:
    """Return the format of a source. Raises DatasetError for none that is known."""
    row = find(settings)
    if row is None and Path(settings.path).is_dir():
        raise DatasetError(f"{settings.path} is a folder: name the file in it that has the rows")
    if row is None:
        if settings.path.lower().endswith((".xlsx", ".xls", ".xlsm", ".ods")):
            raise DatasetError(f"{settings.path}: is a workbook of a spreadsheet: save its table as CSV")
        endings = ", ".join(ending for row in FORMATS for ending in row.endings)
        raise DatasetError(
            f"{settings.path} is none of {endings} (or of text with {COMPRESSED} behind it): say its format beside its "
            'path, as in format = "csv"'
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
