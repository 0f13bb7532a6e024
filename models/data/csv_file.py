"""CSV files, as loggers, spreadsheets and people write them: a header, then a row a line (or more, in quotes).

How one is written is found out from its beginning (dialect.py); how its cells are read, cells.py and times.py say. A
piece of the file is a block of rows. Most pieces hold plain numbers alone and are divided and read in a few steps; what
has quotes, comments or anything else goes through Python's csv, row by row.

Lines are counted from 1, as in an editor. A row that has more or fewer cells than the header is a fault of the whole
line (its column is ""), but for empty cells at its end. Rows of empty cells, and headers that a logger has written
again, are no rows; a header of other columns ends the reading with an error.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from models.data import dialect as dialects
from models.data import times
from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind
from models.data.cells import CellError, Doubles, Why, each, is_number
from models.data.dataset import DatasetError, checked
from models.data.dialect import Dialect, NoHeaderError, is_comment
from models.data.naming import called, counted, places
from models.data.settings import SourceSettings
from models.data.textfile import Piece, TextFile, split
from models.params import Float32

MOST_COLUMNS = 100_000
_SAMPLE_LINES, _SAMPLE = 400, 2**18
"""How many lines, or if they are long characters, show how a file is written."""
MOST_CELLS = 2**20
"""Of a block: fewer rows where there are many columns."""


def open_table(settings: SourceSettings, *, ended: bool) -> CsvTable:
    """Open a CSV file as it is now. ended: leave out a last line that has no end. Raises DatasetError."""
    file = TextFile(settings.path, settings.encoding, ended=ended)
    try:
        return CsvTable(file, settings)
    except BaseException:
        file.close()
        raise


class CsvTable:
    """See `Table`."""

    def __init__(self, file: TextFile, settings: SourceSettings) -> None:
        """Find out how it is written. Raises DatasetError."""
        self._file, self._settings = file, settings
        try:
            self._dialect = dialects.found(self._beginning(), settings)
        except NoHeaderError as error:
            raise DatasetError(f"{file.path}, {error}") from None
        if not self._dialect.header:
            raise DatasetError(f"{file.path}: no rows yet: it is empty")
        if len(self._dialect.header) > MOST_COLUMNS:
            raise DatasetError(
                f"{file.path}: has {len(self._dialect.header):,} columns, where {MOST_COLUMNS:,} can be read"
            )
        self.is_named = self._dialect.is_named
        self.header = called(self._dialect.header, settings, is_named=self.is_named)
        self.notes = (*file.notes, *self._dialect.notes)
        self._formats: dict[str, str] = {}
        """Of the columns whose times were looked at: how they are written."""
        if settings.time is not None and self.header.count(settings.time) == 1:
            next(self.blocks({settings.time: Kind.TIME}), None)
            if not settings.time_format and (form := self._formats.get(settings.time)):
                self.notes = (*self.notes, f"times as {form}")

    def _beginning(self) -> str:
        """Return its first lines, enough to see how it is written."""
        texts: list[str] = []
        n_lines, n_characters, wanted = 0, 0, (self._settings.skip_lines or 0) + _SAMPLE_LINES
        for piece in self._file.pieces():
            texts.append(piece.text)
            n_lines += piece.text.count("\n") or piece.text.count("\r")
            n_characters += len(piece.text)
            if n_lines >= wanted or (n_lines > (self._settings.skip_lines or 0) + 2 and n_characters >= _SAMPLE):
                break
        return "".join(texts)

    def close(self) -> None:
        """See `Table`."""
        self._file.close()

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        at = places(self.header, wanted, self._file.path)
        reading = _Reading(self._file, self._dialect, self._settings, self._formats, wanted, at)
        return reading.blocks(self._file.pieces())


class _Reading:
    """One pass over the rows, for some columns."""

    def __init__(
        self,
        file: TextFile,
        dialect: Dialect,
        settings: SourceSettings,
        formats: dict[str, str],
        wanted: Mapping[str, Kind],
        at: Mapping[str, int],
    ) -> None:
        self._file, self._dialect, self._settings, self._formats = file, dialect, settings, formats
        self._wanted, self._at, self._width = wanted, at, len(dialect.header)
        self._names = frozenset(filter(None, dialect.header))
        self._n_rows = max(1, min(BLOCK_ROWS, MOST_CELLS // max(1, self._width)))
        self._is_quick = dialect.delimiter != " " and self._width > 1 and Kind.NUMBER in wanted.values()

    def blocks(self, pieces: Iterator[Piece]) -> Iterator[Block]:
        for whole in pieces:
            piece = self._without_header(whole)
            quick = self._quick(piece) if self._is_quick and piece.line >= self._dialect.first else None
            if quick is not None:
                yield from quick
            else:
                yield from self._slow(piece, pieces)

    def _without_header(self, piece: Piece) -> Piece:
        """Return a piece from the first row on, if that is in it."""
        n_lines = self._dialect.first - piece.line
        if n_lines <= 0:
            return piece
        above = list(islice(split(piece), n_lines))
        text = piece.text[sum(map(len, above)) :]
        return Piece(text, self._dialect.first) if text else piece

    # A piece of plain cells: divided at once.

    def _quick(self, piece: Piece) -> list[Block] | None:
        """Return the rows of a piece whose cells need no look; None where something has to be looked at."""
        text, dialect = piece.text, self._dialect
        if "_" in text or "\x00" in text or (dialect.quote and dialect.quote in text):
            return None
        if (dialect.comment and dialect.comment in text) or text.count("\r") != text.count("\r\n"):
            return None
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        delimiter = dialect.delimiter
        if {line.count(delimiter) for line in lines} != {self._width - 1}:
            return None
        cells = text.removesuffix("\n").replace("\n", delimiter).split(delimiter)
        numbers = self._all(cells, len(lines)) if len(self._wanted) == self._width else None
        columns: dict[str, Doubles | list[str]] = {}
        faults: list[Fault] = []
        for name, kind in self._wanted.items():
            own = cells[self._at[name] :: self._width]
            if kind is Kind.NUMBER:
                values = dialect.cells.quick(own) if numbers is None else numbers[:, self._at[name]]
                if values is None:
                    return None
                columns[name] = values
            else:
                columns[name], whys = self._column(name, kind, own)
                faults += [Fault(piece.line + at, name, why) for at, why in whys]
        if _has_empty_rows(columns):
            return None
        found = np.arange(piece.line, piece.line + len(lines))
        return list(_cut(Block(columns, found, tuple(faults)), self._n_rows))

    def _all(self, cells: Sequence[str], n_rows: int) -> Doubles | None:
        """Return the numbers of rows whose every cell is one, (n, columns)."""
        if any(kind is not Kind.NUMBER for kind in self._wanted.values()):
            return None
        numbers = self._dialect.cells.quick(cells)
        return None if numbers is None else numbers.reshape(n_rows, self._width)

    # Anything else: row by row.

    def _slow(self, piece: Piece, pieces: Iterator[Piece]) -> Iterator[Block]:
        rows: list[list[str]] = []
        lines: list[int] = []
        faults: list[Fault] = []
        for line, cells in self._rows(piece, pieces):
            if len(cells) != self._width:
                cells = self._fitted(line, cells, faults)
            rows.append(cells)
            lines.append(line)
            if len(rows) == self._n_rows:
                yield self._block(rows, lines, faults)
                rows, lines, faults = [], [], []
        if rows:
            yield self._block(rows, lines, faults)

    def _rows(self, piece: Piece, pieces: Iterator[Piece]) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of a piece with their lines, and of those after it as far as a row goes on there."""
        lines = _Lines(piece, pieces, self._dialect)
        try:
            for cells in self._dialect.reader(lines):
                line, lines.begins = lines.begins, 0
                if lines.is_torn:
                    if self._file.ended:
                        return
                    raise DatasetError(f"{self._file.path}, line {line}: a quote is opened there that is never closed")
                if not any(map(str.strip, cells)):
                    continue
                if self._is_header(line, cells):
                    continue
                yield line, cells
        except csv.Error as error:
            raise DatasetError(
                f"{self._file.path}, line {lines.begins}: cannot be read as CSV: {error}: is a quote left open there?"
            ) from None

    def _is_header(self, line: int, cells: Sequence[str]) -> bool:
        """Return whether a row is the header once more, as where files were joined or a logger began anew.

        Raises DatasetError where it names the columns in another order, or others: the rows after it are others too.
        """
        if self._names.isdisjoint(map(str.strip, cells)):
            return False
        names, header = [cell.strip() for cell in cells], self._dialect.header
        if names[0] == header[0] and tuple(names[: self._width]) == header:
            return True
        known = self._names.intersection(names)
        if len(known) < 2 or len(known) * 2 < sum(map(bool, names)) or any(map(is_number, names)):
            return False
        if all(at < len(names) and names[at] == header[at] for at in self._at.values()):
            return True
        raise DatasetError(
            f"{self._file.path}, line {line}: there is another header, with other columns or in another order, for the "
            "rows after it: put them into a file of their own, with that header"
        )

    def _fitted(self, line: int, cells: list[str], faults: list[Fault]) -> list[str]:
        """Return a row of as many cells as there are columns: without empty ones at its end, else with a fault."""
        more = cells[self._width :]
        if len(cells) > self._width and not any(map(str.strip, more)):
            return cells[: self._width]
        hint = ""
        if more and self._dialect.delimiter == ",":
            hint = ": a comma within a cell wants quotes around the cell, a decimal comma another delimiter"
        faults.append(Fault(line, "", f"has {counted(len(cells), 'cell')} where the header has {self._width}{hint}"))
        return [""] * self._width

    def _block(self, rows: Sequence[Sequence[str]], lines: Sequence[int], faults: list[Fault]) -> Block:
        columns: dict[str, Doubles | list[str]] = {}
        for name, kind in self._wanted.items():
            at = self._at[name]
            own = [row[at] for row in rows]
            columns[name], whys = self._column(name, kind, own)
            faults += [Fault(lines[n] + _breaks(rows[n][:at]), name, why) for n, why in whys]
        faults.sort(key=lambda fault: fault.line)
        return Block(columns, np.array(lines, np.int64), tuple(faults))

    def _column(self, name: str, kind: Kind, cells: Sequence[str]) -> tuple[Doubles | list[str], Sequence[Why]]:
        form = self._dialect.cells
        match kind:
            case Kind.TEXT:
                return form.texts(cells), ()
            case Kind.LABEL:
                return [cell.strip() for cell in cells], ()
            case Kind.NUMBER:
                return form.numbers(cells)
        read = self._time(name, cells)
        if read is None:
            return np.full(len(cells), math.nan), ()
        return each(read, cells)

    def _time(self, name: str, cells: Sequence[str]) -> Callable[[str], float] | None:
        """Return what reads the times of a column; None where nothing shows yet how they are written."""
        form = self._formats.get(name) or self._settings.time_format
        is_missing = self._dialect.cells.is_missing
        if not form:
            try:
                form = times.found_format([cell for cell in map(str.strip, cells) if not is_missing(cell)])
            except CellError as error:
                raise DatasetError(f"{self._file.path}, column {name}: {error}") from None
            if form:
                self._formats[name] = form
        read = times.reader(form)
        return lambda cell: math.nan if is_missing(cell.strip()) else read(cell.strip())


class _Lines:
    """The lines of a piece as csv.reader asks for them, and of those after it while a row is not at its end.

    begins: the line at which the row begins that is being read; whoever gets a row sets it to 0. is_torn: the file
    ended within a row.
    """

    def __init__(self, piece: Piece, pieces: Iterator[Piece], dialect: Dialect) -> None:
        self._own, self._line, self._pieces, self._dialect = split(piece), piece.line - 1, pieces, dialect
        self.begins = 0
        self.is_torn = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        comment, first = self._dialect.comment, self._dialect.first
        while True:
            line = next(self._own, None)
            if line is None:
                piece = next(self._pieces, None) if self.begins else None
                self.is_torn = piece is None and self.begins > 0
                if piece is None:
                    raise StopIteration
                self._own = split(piece)
                continue
            self._line += 1
            if not self.begins:
                if self._line < first or is_comment(line, comment):
                    continue
                self.begins = self._line
            return line


def _has_empty_rows(columns: Mapping[str, Doubles | list[str]]) -> bool:
    """Return whether a row has no number at all: it may be empty."""
    numbers = [values for values in columns.values() if not isinstance(values, list)]
    empty = np.isnan(numbers[0])
    for values in numbers[1:]:
        if not empty.any():
            break
        empty &= np.isnan(values)
    return bool(empty.any())


def _breaks(cells: Sequence[str]) -> int:
    """Return how many lines end within these cells."""
    return sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in cells)


def _cut(block: Block, n_rows: int) -> Iterator[Block]:
    """Yield a block in parts of so many rows. Rows are a line each."""
    for begin in range(0, len(block.lines), n_rows):
        part = slice(begin, begin + n_rows)
        lines = block.lines[part]
        faults = tuple(fault for fault in block.faults if lines[0] <= fault.line <= lines[-1])
        yield Block({name: values[part] for name, values in block.columns.items()}, lines, faults)


# What callers use that know no tables.


def load_rows(path: Path, inputs: int) -> Float32:
    """Read (n, inputs) float32 rows without labels from a CSV, for a prediction.

    The first line is a header if any of its cells is no number. Raises DatasetError.
    """
    lines = list(_lines(path))
    if lines and not all(_is_number(cell) for cell in lines[0][1]):
        del lines[0]
    numbers = array("f")
    for line, cells in lines:
        if len(cells) != inputs:
            raise DatasetError(f"{path}, line {line}: {len(cells)} columns where the model has inputs = {inputs}")
        numbers.extend(_numbers(path, line, cells, [f"column {i + 1}" for i in range(inputs)]))
    return checked(np.frombuffer(numbers, np.float32).reshape(-1, inputs), "X", path)


def _lines(path: Path, *, ended: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Return (line number, stripped cells) of every line that is not blank. ended: of those that have their end."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(line for line in file if line.endswith(("\r", "\n"))) if ended else csv.reader(file)
            for cells in reader:
                if cells:
                    yield reader.line_num, [cell.strip() for cell in cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV: {error}") from error


def _numbers(path: Path, line: int, cells: Sequence[str], names: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        name, cell = next((n, c) for n, c in zip(names, cells, strict=True) if not _is_number(c))
        raise DatasetError(f"{path}, line {line}, column {name}: {cell!r} is no number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
