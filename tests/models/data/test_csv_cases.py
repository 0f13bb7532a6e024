"""Tables as loggers, spreadsheets and people write them: sixty rows of two features and a label, each in its own way.

Either a table reads as it was meant, with what was found out in its notes; or one line names file, line, column and
what to do.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from models.data.blocks import Fault, Kind
from models.data.dataset import DatasetError

ROWS = [(round(20 + math.sin(n), 2), n % 7 + 0.5, n % 3) for n in range(60)]
TEMP, VIB, Y = ([row[at] for row in ROWS] for at in range(3))


def text(
    rows: Sequence[Sequence[object]] = ROWS,
    header: Sequence[str] = ("temp", "vib", "y"),
    *,
    delimiter: str = ",",
    end: str = "\n",
    form: Callable[[object], str] = str,
) -> str:
    return "".join(delimiter.join(map(form, row)) + end for row in (header, *rows))


def comma(cell: object) -> str:
    return str(cell).replace(".", ",")


def with_cell(cell: object, at: int = 2) -> list[list[object]]:
    """Return the rows with another temperature in one of them: row 2 is line 4."""
    rows: list[list[object]] = [list(row) for row in ROWS]
    rows[at][0] = cell
    return rows


def gap(at: int = 2) -> list[float | None]:
    return [*TEMP[:at], None, *TEMP[at + 1 :]]


class Works(NamedTuple):
    """A table that is read as it is meant."""

    body: str | bytes
    notes: tuple[str, ...] = ()
    name: str = "x.csv"
    keys: Mapping[str, Any] = MappingProxyType({})
    columns: Mapping[str, Any] = MappingProxyType({})
    """Beside those of all tables."""
    kinds: Mapping[str, Kind] = MappingProxyType({})
    unasked: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    first: int = 2
    """The line of the first row."""


def stamped(form: Callable[[int], object]) -> str:
    rows = [(form(n), *row) for n, row in enumerate(ROWS)]
    return text(rows, ("when", "temp", "vib", "y"))


def times(kinds: Kind = Kind.TIME, **keys: Any) -> dict[str, Any]:
    return {"keys": {"time": "when", **keys}, "kinds": {"when": kinds}}


BEGIN = 1_704_067_200  # 2024-01-01 00:00:00 UTC
MINUTES = [float(BEGIN + 60 * n) for n in range(60)]
DAY_13 = 1_704_067_200 + 12 * 86_400

WORKS = {
    "UTF-8 with its mark": Works("\ufeff" + text()),
    "CRLF": Works(text(end="\r\n")),
    "a label anywhere": Works(text([(y, t, v) for t, v, y in ROWS], ("y", "temp", "vib"))),
    "one class only": Works(text([(t, v, 0) for t, v, _ in ROWS]), columns={"y": [0] * 60}),
    "one row": Works(text(ROWS[:1]), columns={"temp": TEMP[:1], "vib": VIB[:1], "y": Y[:1]}),
    "a time column that nobody asks for": Works(stamped(lambda n: f"2024-01-01 00:{n:02}:00"), unasked=("when",)),
    "semicolons": Works(text(delimiter=";"), ("delimiter semicolon",)),
    "tabs": Works(text(delimiter="\t"), ("delimiter tab",)),
    "pipes": Works(text(delimiter="|"), ("delimiter pipe",)),
    "spaces, of any number": Works(text(delimiter="   "), ("delimiter spaces",)),
    "a decimal comma with semicolons": Works(text(delimiter=";", form=comma), ("delimiter semicolon", "decimal comma")),
    "a decimal comma with tabs": Works(text(delimiter="\t", form=comma), ("delimiter tab", "decimal comma")),
    "a decimal comma in quotes": Works(text(form=lambda cell: f'"{comma(cell)}"'), ("decimal comma",)),
    "a decimal comma that is said": Works(text(delimiter=";", form=comma), keys={"delimiter": ";", "decimal": ","}),
    "UTF-16 with its mark": Works(text().encode("utf-16"), ("utf-16-le",)),
    "UTF-16, the other way round": Works(b"\xfe\xff" + text().encode("utf-16-be"), ("utf-16-be",)),
    "UTF-16 without its mark, said": Works(text().encode("utf-16-le"), keys={"encoding": "utf-16-le"}),
    "Latin-1, said": Works(
        text(header=("temp °C", "vib", "y")).encode("latin-1"),
        keys={"encoding": "latin-1", "rename": {"temp °C": "temp"}},
    ),
    **{
        f"an empty cell as {cell!r}": Works(text(with_cell(cell)), columns={"temp": gap()})
        for cell in ("", "NA", "N/A", "nan", "NaN", "NAN", "-", "null", "NULL", "None", "?", " ", '""')
    },
    "an empty cell as a number that is said": Works(
        text(with_cell("-999.0")), keys={"missing_values": ["-999"]}, columns={"temp": gap()}
    ),
    "underscores": Works(
        text(with_cell("1_000")),
        columns={"temp": gap()},
        faults=(Fault(4, "temp", "is no number: no underscores"),),
    ),
    "a word": Works(text(with_cell("warm")), columns={"temp": gap()}, faults=(Fault(4, "temp", "is no number"),)),
    "a number beyond float32": Works(
        text(with_cell("1e300")),
        columns={"temp": gap()},
        faults=(Fault(4, "temp", "is beyond what a float32 holds"),),
    ),
    "infinity": Works(
        text(with_cell("-inf")), columns={"temp": gap()}, faults=(Fault(4, "temp", "is beyond what a float32 holds"),)
    ),
    "NUL bytes": Works(
        text(with_cell("\x00\x00")),
        columns={"temp": gap()},
        faults=(Fault(4, "temp", "holds NUL bytes, as a power cut leaves them"),),
    ),
    "a comma for a point in one cell": Works(
        text(with_cell("21,5"), delimiter=";"),
        ("delimiter semicolon",),
        columns={"temp": gap()},
        faults=(Fault(4, "temp", 'is no number: say decimal = ",", if it is meant as one'),),
    ),
    "ISO time stamps": Works(
        stamped(lambda n: f"2024-01-01T00:{n:02}:00Z"), ("times as iso",), **times(), columns={"when": MINUTES}
    ),
    "ISO time stamps with a zone": Works(
        stamped(lambda n: f"2024-01-01 02:{n:02}:00+02:00"), ("times as iso",), **times(), columns={"when": MINUTES}
    ),
    "epoch seconds": Works(stamped(lambda n: BEGIN + 60 * n), ("times as s",), **times(), columns={"when": MINUTES}),
    "epoch milliseconds": Works(
        stamped(lambda n: (BEGIN + 60 * n) * 1000), ("times as ms",), **times(), columns={"when": MINUTES}
    ),
    "nanoseconds, as InfluxDB has them": Works(
        stamped(lambda n: (BEGIN + 60 * n) * 10**9), ("times as ns",), **times(), columns={"when": MINUTES}
    ),
    "milliseconds since a device was switched on, said": Works(
        stamped(lambda n: 1000 * n), (), **times(time_format="ms"), columns={"when": [float(n) for n in range(60)]}
    ),
    "dates with points": Works(
        stamped(lambda n: f"01.01.2024 00:{n:02}"), ("times as day-first",), **times(), columns={"when": MINUTES}
    ),
    "dates with the day first": Works(
        stamped(lambda n: f"13/01/2024 00:{n:02}:00"),
        ("times as day-first",),
        **times(),
        columns={"when": [float(DAY_13 + 60 * n) for n in range(60)]},
    ),
    "dates of the USA": Works(
        stamped(lambda n: f"1/13/2024 12:{n:02}:00 AM"),
        ("times as month-first",),
        **times(),
        columns={"when": [float(DAY_13 + 60 * n) for n in range(60)]},
    ),
    "dates that may be meant in two ways, said": Works(
        stamped(lambda n: f"01/02/2024 00:{n:02}"),
        (),
        **times(time_format="month-first"),
        columns={"when": [float(BEGIN + 86_400 + 60 * n) for n in range(60)]},
    ),
    "times in a format of one's own": Works(
        stamped(lambda n: f"240101-00{n:02}"), (), **times(time_format="%y%m%d-%H%M"), columns={"when": MINUTES}
    ),
    "times of which one is none": Works(
        stamped(lambda n: "later" if n == 5 else f"2024-01-01 00:{n:02}"),
        ("times as iso",),
        **times(),
        columns={"when": [*MINUTES[:5], None, *MINUTES[6:]]},
        faults=(Fault(7, "when", "is no time"),),
    ),
    "labels as words": Works(
        text([(t, v, "ok" if y else "fault") for t, v, y in ROWS]),
        kinds={"y": Kind.TEXT},
        columns={"y": ["ok" if y else "fault" for y in Y]},
    ),
    "True and False": Works(text([(t, v, y == 1) for t, v, y in ROWS]), columns={"y": [float(y == 1) for y in Y]}),
    "True and False as words": Works(
        text([(t, v, y == 1) for t, v, y in ROWS]), kinds={"y": Kind.TEXT}, columns={"y": [str(y == 1) for y in Y]}
    ),
    "labels from 1 on": Works(text([(t, v, y + 1) for t, v, y in ROWS]), columns={"y": [y + 1 for y in Y]}),
    "labels as floats": Works(text([(t, v, float(y)) for t, v, y in ROWS])),
    "no header, but said": Works(
        text(ROWS[1:], header=list(map(str, ROWS[0]))), keys={"header": ("temp", "vib", "y")}, first=1
    ),
    "a header that is said and there": Works(text(), keys={"header": ("temp", "vib", "y")}),
    "a header alone": Works(text([]), columns={"temp": [], "vib": [], "y": []}),
    "a trailing comma": Works(text([(*row, "") for row in ROWS], ("temp", "vib", "y", ""))),
    "a trailing comma behind the rows alone": Works(text([(*row, "") for row in ROWS])),
    "a trailing comma behind the header alone": Works(text(header=("temp", "vib", "y", ""))),
    "spaces after commas": Works(text(delimiter=", ")),
    "quoted cells": Works(text(form=lambda cell: f'"{cell}"')),
    "quoted cells after spaces": Works(text(form=lambda cell: f'"{cell}"', delimiter=", ")),
    "single quotes, said": Works(text(form=lambda cell: f"'{cell}'"), keys={"quote": "'"}),
    "a doubled name that nobody asks for": Works(
        text([(*row, 1, 2) for row in ROWS], ("temp", "vib", "y", "n", "n")),
        unasked=("n",),
    ),
    ".CSV": Works(text(), name="x.CSV"),
    ".csv.gz": Works(gzip.compress(text().encode()), ("gzip",), "x.csv.gz"),
    ".txt": Works(text(delimiter="\t"), ("delimiter tab",), "x.txt"),
    ".tsv": Works(text(delimiter="\t"), ("delimiter tab",), "x.tsv"),
    "another ending, and its format": Works(text(), name="x.log", keys={"format": "csv"}),
    "thousands in quotes": Works(
        text(with_cell('"1,234.5"')), keys={"thousands": ","}, columns={"temp": [*TEMP[:2], 1234.5, *TEMP[3:]]}
    ),
    "thousands in quotes, not said": Works(
        text(with_cell('"1,234.5"')),
        columns={"temp": gap()},
        faults=(Fault(4, "temp", 'is no number: say thousands = ",", if it is meant as one'),),
    ),
    "thousands as Germans write them": Works(
        text(with_cell("1.234,5"), delimiter=";", form=lambda cell: cell if cell == "1.234,5" else comma(cell)),
        ("delimiter semicolon", "decimal comma"),
        keys={"thousands": "."},
        columns={"temp": [*TEMP[:2], 1234.5, *TEMP[3:]]},
    ),
    "thousands as the French write them": Works(
        text(with_cell("1\u202f234,5"), delimiter=";", form=comma),
        ("delimiter semicolon", "decimal comma"),
        keys={"thousands": " "},
        columns={"temp": [*TEMP[:2], 1234.5, *TEMP[3:]]},
    ),
    "thousands with points beside a decimal comma": Works(
        text(with_cell("1.234"), delimiter=";", form=lambda cell: cell if cell == "1.234" else comma(cell)),
        ("delimiter semicolon", "decimal comma"),
        columns={"temp": gap()},
        faults=(Fault(4, "temp", 'is no number: say decimal = "." or thousands = ".", if it is meant as one'),),
    ),
    "what InfluxDB exports": Works(
        "#group,false,false,false,false,false\n#datatype,string,long,double,double,double\n#default,_result,,,,\n"
        + text([("", 0, *row) for row in ROWS], ("", "table", "temp", "vib", "y"))
        + "\n#group,false,false,false,false,false\n",
        first=5,
    ),
    "comments": Works('# logger 7, it said "hello\n' + text() + "# the end\n", first=3),
    "other comments": Works("// logger 7\n" + text(), keys={"comment": "//"}, first=3),
    "names in a comment": Works(
        "# " + text(delimiter=" "), ("delimiter spaces", "names of columns from the comment before them")
    ),
    "lines before the header": Works("Logger 7\nsite: roof\n\n" + text(), keys={"skip_lines": 3}, first=5),
    "Excel's sep": Works("sep=;\n" + text(delimiter=";"), first=3),
    "a Campbell logger": Works(
        '"TOA5","CR1000","1"\n' + text([("C", "g", ""), ("Avg", "Smp", ""), *ROWS]),
        ("a Campbell logger's header",),
        first=5,
    ),
    "a header that a logger has written again": Works(text(ROWS[:30]) + text(ROWS[30:])),
    "rows of nothing at the end": Works(text() + ",,\n,,\n"),
    "another order of columns": Works(text([(v, t, y) for t, v, y in ROWS], ("vib", "temp", "y"))),
    "a column more": Works(
        text([(*row, "x") for row in ROWS], ("temp", "vib", "y", "note")),
        unasked=("note",),
    ),
    "a row with a cell less": Works(
        text([*ROWS[:1], (1, 2), *ROWS[2:]]),
        columns={name: [*cells[:1], None, *cells[2:]] for name, cells in (("temp", TEMP), ("vib", VIB), ("y", Y))},
        faults=(Fault(3, "", "has 2 cells where the header has 3"),),
    ),
    "a decimal comma among commas": Works(
        text([*ROWS[:1], ("21,5", 2, 1), *ROWS[2:]]),
        columns={name: [*cells[:1], None, *cells[2:]] for name, cells in (("temp", TEMP), ("vib", VIB), ("y", Y))},
        faults=(
            Fault(
                3,
                "",
                "has 4 cells where the header has 3: a comma within a cell wants quotes around the cell, a decimal "
                "comma another delimiter",
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", WORKS.values(), ids=WORKS)
def test_a_table_is_read_as_it_is_meant(case: Works, read_back: Callable[..., Any]) -> None:
    found = read_back(case.body, case.name, case.kinds, unasked=case.unasked, **case.keys)
    expected = {"temp": TEMP, "vib": VIB, "y": Y} | dict(case.columns)
    for name, cells in expected.items():
        assert found.columns[name] == cells, name
    assert found.notes == case.notes
    assert tuple(found.faults) == case.faults
    assert not found.lines or found.lines[0] == case.first


def test_lines_are_counted_as_in_an_editor_also_within_quoted_cells(read_back: Callable[..., Any]) -> None:
    body = 'note,a,y\r\n# c\r\n\r\n"one\r\ntwo",1,0\r\nx,warm,0\r\n"one\ntwo\nthree",cold,1\r\n'
    found = read_back(body, "x.csv", {"note": Kind.TEXT})
    assert found.lines == [4, 6, 7]
    assert [fault[:2] for fault in found.faults] == [(6, "a"), (9, "a")]
    assert found.columns["note"][0] == "one\r\ntwo"


REFUSED: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "no header": (
        text(ROWS[1:], header=list(map(str, ROWS[0]))),
        {},
        (
            "x.csv, line 1: there are no names of columns: write them above the rows, or name all 3 of them in their "
            'order beside the path: header = ["c1", "c2", "y"]'
        ),
    ),
    "no header, with words": (
        text([(t, v, "ok") for t, v, _ in ROWS], header=("1.5", "2.5", "ok")),
        {},
        'header = ["c1", "c2", "y"]',
    ),
    "cells with their names in them": (
        "T:21.5\tH:40\nT:21.6\tH:41\n",
        {},
        (
            "x.csv, line 1: each cell has its name in it (NAME:VALUE): write the names once, in a line above the rows, "
            "and the values alone; or JSON lines"
        ),
    ),
    "an empty file": ("", {}, "x.csv: no rows yet: it is empty"),
    "a file of empty lines": ("\n\n", {}, "x.csv: no rows yet: it is empty"),
    "Latin-1": (
        text([*ROWS[:3], ("°", 1, 0)]).encode("latin-1"),
        {},
        (
            'x.csv, line 5: is no UTF-8: say beside its path which encoding it is, as in encoding = "latin-1" (or '
            '"cp1252", of Windows)'
        ),
    ),
    "UTF-16 without its mark": (
        text().encode("utf-16-be"),
        {},
        'x.csv: looks like UTF-16 without its mark: say encoding = "utf-16-be" beside its path',
    ),
    "a doubled name": (
        text(header=("temp", "temp", "y")),
        {},
        "x.csv: column 'temp' is doubled: give one of the 2 another name in the header",
    ),
    "dates that may be meant in two ways": (
        stamped(lambda n: f"01/02/2024 00:{n:02}"),
        {"time": "when"},
        'x.csv, column when: may be meant in two ways: say time_format = "day-first" or "month-first"',
    ),
    "a quote that is never closed": (
        text(with_cell('"1')),
        {},
        "x.csv, line 4: a quote is opened there that is never closed",
    ),
    "a quote that is closed far below": (
        text(with_cell('"1')) + "x" * 200_000 + '"\n',
        {},
        "x.csv, line 4: cannot be read as CSV: field larger than field limit (131072): is a quote left open there?",
    ),
    "a line of ten megabytes": (
        text() + "1" * 10_000_000,
        {},
        "x.csv, line 62: is longer than 4,194,304 characters: is this a table, a row a line?",
    ),
    "a million columns": (
        ",".join(map(str, range(1_000_000))) + "\n",
        {},
        "x.csv, line 1: is longer than 4,194,304 characters: is this a table, a row a line?",
    ),
    "two hundred thousand columns": (
        ",".join(f"c{n}" for n in range(200_000)) + "\n",
        {},
        "x.csv: has 200,000 columns, where 100,000 can be read",
    ),
    "NUL bytes alone": (
        bytes(5000),
        {},
        "x.csv: cannot be read as CSV: its beginning is NUL bytes, as a power cut leaves them, or it is no text",
    ),
    "an Excel workbook": (
        b"PK\x03\x04" + bytes(100),
        {},
        "x.csv: is an Excel workbook or a ZIP, not CSV: save the table as CSV",
    ),
    "a compressed file that is torn": (
        gzip.compress(text().encode())[:-20],
        {},
        "x.csv: ends in the middle: copy it again, or leave out what is damaged",
    ),
    "a compressed file that is damaged": (b"\x1f\x8b" + bytes(100), {}, "x.csv: cannot be read as CSV: "),
    "renaming what is not there": (
        text(),
        {"rename": {"Temp": "temp"}},
        "x.csv: rename: no column 'Temp'; the header has temp, vib, y",
    ),
}


@pytest.mark.parametrize(("body", "keys", "why"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_cannot_be_read_says_where_and_what_to_do(
    body: str | bytes, keys: dict[str, Any], why: str, read_back: Callable[..., Any]
) -> None:
    with pytest.raises(DatasetError, match=re.escape(why)) as error:
        read_back(body, **keys)
    assert "\n" not in str(error.value)


def test_a_column_that_is_not_there_is_named_with_those_that_are(read_back: Callable[..., Any]) -> None:
    with pytest.raises(DatasetError, match=r"x\.csv: no column 'hum'; the header has temp, vib, y"):
        read_back(text(), "x.csv", {"hum": Kind.NUMBER})


@pytest.mark.parametrize(
    "cut", [text() + "21.", text() + "21.5,1.5", text() + '"21', text() + '"21.5",1.5,"a\nb', text() + "21.5,1.5,1"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_torn_last_line_is_left_for_the_next_time(cut: str, encoding: str, read_back: Callable[..., Any]) -> None:
    body = cut.encode(encoding)
    found = read_back(body[:-1] if encoding == "utf-16" else body, ended=True)
    assert found.columns == {"temp": TEMP, "vib": VIB, "y": Y}
    assert found.faults == []


def test_a_torn_character_is_left_for_the_next_time(read_back: Callable[..., Any]) -> None:
    body = text().encode() + "21.5,1.5,°".encode()[:-1]
    assert read_back(body, ended=True).columns["temp"] == TEMP
    with pytest.raises(DatasetError, match=r"line 62: is no UTF-8"):
        read_back(body)


def test_a_compressed_file_that_is_being_written_gives_what_is_there(read_back: Callable[..., Any]) -> None:
    rows = text([(n, n * 7919 % 1000, n % 3) for n in range(20_000)])
    found = read_back(gzip.compress(rows.encode())[:-1000], "x.csv.gz", ended=True)
    n = len(found.lines)
    assert 0 < n < 20_000
    assert found.columns["temp"] == list(map(float, range(n)))
