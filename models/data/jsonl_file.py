"""JSON lines: one object a line, as MQTT bridges, databases and programs log them.

    {"t": 1700000000, "v": {"temp": 21.5, "acc": [0.1, 0.2]}}      columns: t, v.temp, v.acc.0, v.acc.1

What is nested is named with points. A key that an object does not have, or that is null, is a missing cell. The columns
are those of the first lines, in the order in which they come. A line that is no object is a fault of the whole line
(its column is ""). Python's NaN is missing.

Limits: a line as in textfile.py, MOST_COLUMNS of them, MOST_DEPTH of what is nested.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind
from models.data.cells import CellError, Cells, Doubles, missing_of
from models.data.dataset import DatasetError
from models.data.naming import called, places
from models.data.settings import SourceSettings
from models.data.textfile import Piece, TextFile, split
from models.data.values import Values

MOST_COLUMNS = 10_000
MOST_DEPTH = 8
_SAMPLE = 2**20
NO_OBJECT = "is no JSON object"
_LIST = "write one object a line (jq -c '.[]' makes such lines of a list)"
_OF_A_LIST = f"is part of a list, and no JSON object alone: {_LIST}"


def open_table(settings: SourceSettings, *, ended: bool) -> JsonlTable:
    """Open JSON lines as they are now. ended: leave out a last line that has no end. Raises DatasetError."""
    file = TextFile(settings.path, settings.encoding, ended=ended, what="JSON lines")
    try:
        return JsonlTable(file, settings)
    except BaseException:
        file.close()
        raise


class JsonlTable:
    """See `Table`."""

    def __init__(self, file: TextFile, settings: SourceSettings) -> None:
        """Look at its first lines. Raises DatasetError."""
        self._file = file
        self._values = Values(Cells(missing=missing_of(settings.missing_values)), settings.time_format)
        self._inner = self._columns()
        self.header = called(self._inner, settings)
        self.notes = file.notes

    def _columns(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        n_characters = n_lines = 0
        for piece in self._file.pieces():
            for line in split(piece):
                n_lines += bool(line.strip())
                if (row := _object(line)) is not None:
                    _note_names(row, "", found, 1)
            n_characters += len(piece.text)
            if len(found) > MOST_COLUMNS:
                raise DatasetError(f"{self._file.path}: has more than {MOST_COLUMNS:,} columns")
            if n_characters >= _SAMPLE:
                break
        if found:
            return tuple(found)
        if not n_lines:
            raise DatasetError(f"{self._file.path}: no rows yet: it is empty")
        raise DatasetError(f"{self._file.path}, line 1: {NO_OBJECT}: {_LIST}")

    def close(self) -> None:
        """See `Table`."""
        self._file.close()

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        at = places(self.header, wanted, self._file.path)
        paths = {name: self._inner[at[name]] for name in wanted}
        return self._blocks(wanted, paths)

    def _blocks(self, wanted: Mapping[str, Kind], paths: Mapping[str, str]) -> Iterator[Block]:
        for piece in self._file.pieces():
            rows: list[dict[str, object]] = []
            lines: list[int] = []
            faults: list[Fault] = []
            for line, row in _rows(piece):
                if isinstance(row, str):
                    faults.append(Fault(line, "", row))
                rows.append({} if isinstance(row, str) else row)
                lines.append(line)
                if len(rows) == BLOCK_ROWS:
                    yield self._block(wanted, paths, rows, lines, faults)
                    rows, lines, faults = [], [], []
            if rows:
                yield self._block(wanted, paths, rows, lines, faults)

    def _block(
        self,
        wanted: Mapping[str, Kind],
        paths: Mapping[str, str],
        rows: Sequence[dict[str, object]],
        lines: Sequence[int],
        faults: list[Fault],
    ) -> Block:
        columns: dict[str, Doubles | list[str]] = {}
        for name, kind in wanted.items():
            cells = [lookup(row, paths[name]) for row in rows]
            try:
                columns[name], whys = self._values.column(name, kind, cells)
            except CellError as error:
                raise DatasetError(f"{self._file.path}, column {name}: {error}") from None
            faults += [Fault(lines[at], name, why) for at, why in whys]
        faults.sort(key=lambda fault: fault.line)
        return Block(columns, np.array(lines, np.int64), tuple(faults))


def lookup(row: Mapping[str, object], path: str) -> object:
    """Return what an object has under a name with points; None where it has nothing there."""
    if path in row:
        return row[path]
    found: object = row
    for part in path.split("."):
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and part.isdecimal() and len(part) < 6 and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _rows(piece: Piece) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Yield the objects of lines; why a line is none."""
    for at, line in enumerate(split(piece), piece.line):
        if plain := line.strip():
            found = _object(line)
            if found is None:
                listed = plain in ("[", "]") or _object(plain.removeprefix("[").rstrip(",]")) is not None
                yield at, _OF_A_LIST if listed else NO_OBJECT
            else:
                yield at, found


def _object(line: str) -> dict[str, object] | None:
    """Return the object of a line; None for anything else."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        found = _loose(line) if "NaN" in line or "Infinity" in line else None
    return found if isinstance(found, dict) else None


def _loose(line: str) -> object:
    """Return what a line is that Python has written, which has NaN and Infinity beside JSON; None for anything else."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def names_of(row: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of all that is in an object, with points."""
    found: dict[str, None] = {}
    _note_names(row, "", found, 1)
    return tuple(found)


def _note_names(value: object, path: str, found: dict[str, None], depth: int) -> None:
    """Note the names of all that is within a value."""
    inner: Sequence[tuple[str, object]]
    match value:
        case dict():
            inner = list(value.items())
        case list():
            inner = [(str(at), item) for at, item in enumerate(value[: MOST_COLUMNS + 1])]
        case _:
            found[path] = None
            return
    if depth > MOST_DEPTH:
        return
    for name, item in inner:
        if len(found) > MOST_COLUMNS:
            return
        _note_names(item, f"{path}.{name}" if path else name, found, depth + 1)
