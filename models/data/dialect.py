"""How a table of text is written, found out from its first lines. Pure.

   first lines ──marks (sep=, TOA5)──▶ ──comments──▶ ──delimiter──▶ ──header──▶ ──decimal sign──▶ Dialect

1. What is said in the source's settings is so; the rest is found out by looking, and said in the notes.
2. The delimiter is the one that gives all lines as many cells as the first one, most of them numbers; a comma in case
   of doubt. Spaces are tried where nothing else divides the lines.
3. A first line of numbers is no header, unless a name that is wanted stands there, or they count the columns.
4. A comma is a decimal sign where numbers have commas and none has a point. Where "1,234" may be meant in two ways it
   is none, and such cells are named: nothing is read on a guess.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from models.data.cells import MISSING, Cells, is_number, missing_of
from models.data.settings import SourceSettings
from models.data.times import is_time

DELIMITERS = (",", ";", "\t", "|", " ")
"""Those that are tried, the first of equals first."""
_CALLED = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "spaces"}
_LINES = 200
"""Rows that are looked at."""
_DIVIDED = 50
"""Of these, for the delimiter."""
_PAIR = re.compile(r"\w[\w ]*[:=]\s*[+-]?[\d.]")
"""A cell with its name, as sketches for the Arduino print them: T:21.5."""
_NAMED = re.compile(r"\w[\w ]*[:=]\s*\S")
"""The same, with a word: state=ok."""
_SEP = re.compile(r'\A"?sep=(.)"?\s*\Z')
_TOA5 = {'"TOA5"': 4, '"TOACI1"': 2, "TOA5": 4, "TOACI1": 2}
"""Lines of the header of a Campbell logger's file; the second one has the names."""
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+")
_US = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+\.\d+")
_CODES = re.compile(r"#(?:N/A|NV|DIV/0!|VALUE!|WERT!|REF!|BEZUG!|NAME\?|NUM!|ZAHL!|NULL!)")
"""What a spreadsheet writes into a cell that it cannot work out: no comment, where it is the first one of a line."""
_BOTH = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+")


class NoHeaderError(ValueError):
    """The first line has no names. The message goes on after the name of the file."""


class Dialect(NamedTuple):
    """How a table is written."""

    delimiter: str
    quote: str
    """"" for none."""
    comment: str
    """What begins a line that is none of the table; "" for nothing."""
    cells: Cells
    header: tuple[str, ...]
    """The names of its columns, in the table's own order."""
    first: int
    """The line of the first row, from 1; lines before it are not of the table."""
    notes: tuple[str, ...]
    is_named: bool = True
    """Whether the header can be nothing else: a name that is wanted stands there, or numbers stand below."""

    def reader(self, lines: Iterable[str]) -> Iterable[list[str]]:
        """Return the cells of lines: those of one row a list, none for an empty line."""
        return _reader(lines, self.delimiter, self.quote)


def _reader(lines: Iterable[str], delimiter: str, quote: str) -> Iterable[list[str]]:
    if quote:
        return csv.reader(lines, delimiter=delimiter, quotechar=quote, skipinitialspace=True)
    return csv.reader(lines, delimiter=delimiter, quotechar=None, quoting=csv.QUOTE_NONE, skipinitialspace=True)


def is_comment(line: str, comment: str) -> bool:
    """Return whether a line is none of the table. comment: what such lines begin with; "" for nothing."""
    begins = line.lstrip()
    return bool(comment) and begins.startswith(comment) and not (comment == "#" and _CODES.match(begins))


def _divided(text: str, delimiter: str, quote: str) -> list[str]:
    """Return the stripped cells of one row; none where one is longer than Python's csv has them."""
    try:
        return [cell.strip() for cell in next(iter(_reader(io.StringIO(text, newline=""), delimiter, quote)), [])]
    except csv.Error:
        return []


def found(text: str, settings: SourceSettings) -> Dialect:
    """Return how a table is written that begins with these lines, whole ones. Raises NoHeaderError."""
    lines = list(io.StringIO(text, newline=""))
    notes: list[str] = []
    first = min(settings.skip_lines or 0, len(lines))
    delimiter, names_at, after = settings.delimiter, None, None
    if settings.skip_lines is None and lines:
        if match := _SEP.match(lines[0]):
            first, delimiter = 1, delimiter or match[1]
        elif depth := next((_TOA5[one] for one in _TOA5 if re.match(rf"{re.escape(one)}[,;\t]", lines[0])), 0):
            first, names_at, after = 1, 1, depth
            notes.append("a Campbell logger's header")
    comment = "#" if settings.comment is None else settings.comment
    quote = '"' if settings.quote is None else settings.quote
    wanted = _wanted(settings)
    if settings.comment is None and comment and _is_data(lines[first:], comment):
        comment = ""
    rows, remarks = _rows(lines, first, comment, quote)
    if settings.skip_lines is None and settings.header is None and not first:
        texts = [row.text for row in rows[:_DIVIDED]]
        if at := _names_below(texts, DELIMITERS[:-1] if delimiter is None else delimiter, quote, wanted):
            raise NoHeaderError(_above(rows[0].line, rows[at].line))
    if delimiter is None:
        delimiter = _delimiter([row.text for row in rows[:_DIVIDED]], quote, wanted)
        if delimiter != ",":
            notes.append(f"delimiter {_CALLED[delimiter]}")
    table = [_divided(row.text, delimiter, quote) for row in rows]
    cells = _cells(settings, delimiter, [cell for row in table for cell in row], notes)
    if settings.header is not None:
        start = rows[0].line if rows else first + 1
        if table and table[0][: len(settings.header)] == list(settings.header):
            start = rows[0].last + 1
        return Dialect(delimiter, quote, comment, cells, settings.header, start, tuple(notes))
    if not rows:
        return Dialect(delimiter, quote, comment, cells, (), first + 1, tuple(notes))
    header, start = table[0], rows[0].last + 1
    if not header:
        raise NoHeaderError(f"line {rows[0].line}: there are no names of columns: is a quote left open there?")
    if any(map(_PAIR.match, header)) and all(map(_NAMED.match, header)):
        raise NoHeaderError(_pairs(rows[0].line))
    if not names_at and _is_headless(header, table[1:], wanted):
        said = next(
            (names for remark in reversed(remarks) if len(names := _divided(remark, delimiter, quote)) == len(header)),
            None,
        )
        if said is None or _is_headless(said, table, wanted):
            raise NoHeaderError(_no_header(rows[0].line, len(header), settings.label))
        header, start = said, rows[0].line
        notes.append("names of columns from the comment before them")
    return Dialect(
        *(delimiter, quote, comment, cells, _trimmed(header, table[1:])),
        max(start, (after or 0) + 1),
        tuple(notes),
        bool(names_at) or not wanted.isdisjoint(header) or _has_figures(table[1:]),
    )


class _Row(NamedTuple):
    text: str
    line: int
    last: int


def _rows(lines: Sequence[str], first: int, comment: str, quote: str) -> tuple[list[_Row], list[str]]:
    """Return the rows among lines, of several lines each where a quote is open, and the comments before the first."""
    rows: list[_Row] = []
    remarks: list[str] = []
    at = first
    while at < len(lines) and len(rows) < _LINES:
        begin, text = at, lines[at]
        at += 1
        if is_comment(text, comment):
            if not rows:
                remarks.append(text.lstrip().removeprefix(comment))
            continue
        if not text.strip():
            continue
        if quote in text and quote:
            while text.count(quote) % 2 and at < len(lines) and at - begin < 100:
                text += lines[at]
                at += 1
            if text.count(quote) % 2:  # a quote that stands for itself, as in 5" pipe
                at, text = begin + 1, lines[begin]
        rows.append(_Row(text, begin + 1, at))
    return rows, remarks


def _is_data(lines: Sequence[str], comment: str) -> bool:
    """Return whether what looks like comments are most rows: a column of "#17", "#18"."""
    begin = [line.lstrip().startswith(comment) for line in lines if line.strip()]
    return len(begin) > 2 and not begin[0] and sum(begin) * 2 > len(begin)


def _wanted(settings: SourceSettings) -> frozenset[str]:
    """Return names of columns that a source's settings are sure of."""
    named = (settings.label, settings.time, settings.group, *settings.columns, *(settings.rename or {}))
    return frozenset(name for name in named if name)


def _delimiter(texts: Sequence[str], quote: str, wanted: Collection[str]) -> str:
    """Return what divides the cells of these rows; a comma where nothing does."""
    best, highest = ",", 0.0
    for delimiter in DELIMITERS:
        score = _score([_divided(text, delimiter, quote) for text in texts], wanted, delimiter)
        if score > highest * (1.5 if delimiter == " " else 1.0):
            best, highest = delimiter, score
    return best


def _score(table: Sequence[list[str]], wanted: Collection[str], delimiter: str) -> float:
    """Return how well rows are divided: 0 where they are not."""
    width = len(table[0]) if table else 0
    if width < 2:
        return 0.0
    widths = {width, width - 1 if not table[0][-1] else width + 1}
    alike = [row for row in table[1:] if len(row) in widths and (len(row) <= width or not row[-1])]
    if len(alike) * 2 < len(table) - 1 or (delimiter == " " and not alike):
        return 0.0
    cells = [cell for row in alike for cell in row if cell]
    known = sum(cell.lower() in MISSING or _fits(cell, delimiter) for cell in cells)
    named = any(cell in wanted for cell in table[0])
    return (len(alike) + 1) / len(table) * (1.0 + (known / len(cells) if cells else 0.0)) + named


def _fits(cell: str, delimiter: str) -> bool:
    return is_time(cell) or (is_number(cell) and not (delimiter == "," and _COMMA.fullmatch(cell)))


def _cells(settings: SourceSettings, delimiter: str, cells: Sequence[str], notes: list[str]) -> Cells:
    """Return how numbers are written in these cells."""
    missing = missing_of(settings.missing_values)
    thousands, decimal = settings.thousands or "", settings.decimal
    if decimal is None:
        decimal = "."
        commas = [cell for cell in cells if "," in cell]
        if thousands == ".":
            decimal = ","
        elif (
            thousands != ","
            and commas
            and not any(_US.fullmatch(one) for one in commas)
            and not any(_POINT.fullmatch(one) and not _GROUPS.fullmatch(one) for one in cells)
        ):
            plain = [cell for cell in commas if _COMMA.fullmatch(cell) or _BOTH.fullmatch(cell)]
            sure = delimiter == ";" or any(not _EITHER.fullmatch(cell) for cell in plain)
            if plain and sure:
                decimal = ","
        if decimal == ",":
            notes.append("decimal comma")
    return Cells(decimal, thousands, missing)


def _is_headless(header: Sequence[str], rows: Sequence[Sequence[str]], wanted: Collection[str]) -> bool:
    """Return whether a first line is a row already, as those after it."""
    figures = [at for at, cell in enumerate(header) if is_number(cell) or is_time(cell)]
    if not figures or any(cell in wanted for cell in header):
        return False
    for at, cell in enumerate(header):
        below = [row[at] for row in rows if len(row) > at and row[at]]
        named = cell and cell.lower() not in MISSING and at not in figures
        if named and below and all(map(is_number, below)):
            return False  # a word over numbers
    counts = [int(header[at]) for at in figures if header[at].isdecimal()]
    # columns may be called after wavelengths, or after their own numbers
    return len(counts) < len(figures) or len(counts) < 4 or sorted(set(counts)) != counts


def _has_figures(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether rows of a table have a number or a time anywhere: a row of words may be a header, or a row."""
    return any(is_number(cell) or is_time(cell) for row in rows for cell in row)


def _names_below(texts: Sequence[str], delimiters: Iterable[str], quote: str, wanted: frozenset[str]) -> int:
    """Return which row has the names of the columns, where the first one is no row of the table, as a title and who it
    is about; 0 where it may be the header.
    """
    for delimiter in delimiters:
        table = [_divided(text, delimiter, quote) for text in texts]
        title = _trimmed(table[0], []) if table and table[0] else ()
        for at in range(1, len(table) // 2):
            names, below = table[at], table[at + 1 :]
            if (
                len(names) > 1
                and len(names) not in (len(title), len(table[0]))
                and len({name for name in names if name}) == len(names)
                and wanted.isdisjoint(table[0])
                and set(names).isdisjoint(table[0])
                and not any(is_number(name) or is_time(name) or name.lower() in MISSING for name in names)
                and _are_rows(below, len(names))
            ):
                return at
    return 0


def _are_rows(table: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether most of these are rows of so many cells, and one of their columns is of numbers."""
    alike = [row for row in table if len(row) == width]
    if len(alike) * 10 < len(table) * 9:
        return False
    return any(sum(is_number(row[at]) for row in alike) * 10 > len(alike) * 9 for at in range(width))


def _above(line: int, names: int) -> str:
    """Return what to do about lines above the table. What they say may be about a person, and is not told."""
    return (
        f"line {line}: is none of the table: its names of columns seem to be in line {names}: say how many lines are "
        f"above them, beside the path: skip_lines = {names - 1}"
    )


def _pairs(line: int) -> str:
    return (
        f"line {line}: each cell has its name in it (NAME:VALUE): write the names once, in a line above the rows, and "
        "the values alone; or JSON lines"
    )


def _no_header(line: int, n: int, label: str) -> str:
    names = [f'"c{at}"' for at in range(1, n)] + [f'"{label}"']
    shown = ", ".join(names if n <= 12 else [*names[:3], "…", names[-1]])
    which = f"all {n} of them in their order" if n > 1 else "the one"
    return (
        f"line {line}: there are no names of columns: write them above the rows, or name {which} beside the path: "
        f"header = [{shown}]"
    )


def _trimmed(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the header without columns at its end that have neither a name nor a cell."""
    n = len(header)
    while n > 1 and not header[n - 1] and not any(row[n - 1 : n] and row[n - 1] for row in rows):
        n -= 1
    return tuple(header[:n])
