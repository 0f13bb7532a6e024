"""Files as they lie on devices, read for a job: the right numbers, or a sentence; never others."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.contract import ContractSpec
from models.data.dataset import DatasetError
from models.data.reader import Reading, read_file
from models.data.source import DataSource

JOB: dict[str, Any] = {"features": ["temp", "vib"], "label": "state", "classes": ["ok", "fault"]}
ROWS = [(20 + n / 2, n / 8, "ok" if n % 3 else "fault") for n in range(30)]


def read(path: Path, keys: dict[str, Any] | None = None, **contract: Any) -> Reading:
    """Return what a job makes of a file. keys: of its source."""
    settings = msgspec.convert({"path": str(path)} | (keys or {}), DataSource)
    return read_file(settings, msgspec.convert(JOB | contract, ContractSpec))


def error(path: Path, keys: dict[str, Any] | None = None, **contract: Any) -> str:
    """Return why a job can make nothing of a file."""
    with pytest.raises(DatasetError) as caught:
        read(path, keys, **contract)
    return str(caught.value)


def test_a_header_of_other_columns_further_down_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    told = f"{path}, line 3: there is another header, with other columns or in another order, for the rows after it: "
    for header in ("vib,temp,state,more", "temp,hum,state,more"):
        path.write_text(f"temp,vib,state,more\n20,1,ok,a\n{header}\n2,21,ok,a\n")
        assert error(path).startswith(told)
    path.write_text("temp,vib,state,more\n20,1,ok,a\n\ntemp,vib,state,less\n21,2,ok,a\n")
    found = read(path)  # what the job wants is where it was
    assert (found.data.X.tolist(), found.notes) == ([[20, 1], [21, 2]], ())
    path.write_text("temp,vib,state,more\n20,1,ok,temp\n21,,ok,vib\n,,ok,temp\n")  # words of a row
    assert read(path, {"max_skipped": 1.0}).data.X.tolist() == [[20, 1]]


def csv_file(path: Path) -> None:
    path.write_text("temp,vib,state\n20,1,None\n21,2,ok\n22,3,none\n23,4,\n,5,None\nNone,6,None\n24,7,?\n")


def jsonl_file(path: Path) -> None:
    rows = [(20, 1, "None"), (21, 2, "ok"), (22, 3, "none"), (23, 4, None), (None, 5, "None"), ("None", 6, "None")]
    rows.append((24, 7, "?"))
    path.write_text("".join(json.dumps(dict(zip(("temp", "vib", "state"), row, strict=True))) + "\n" for row in rows))


def sqlite_file(path: Path) -> None:
    rows = [(20, 1, "None"), (21, 2, "ok"), (22, 3, "none"), (23, 4, None), (None, 5, "None"), (None, 6, "None")]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE rows (temp, vib, state)")
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", [*rows, (24, 7, "?")])


@pytest.mark.parametrize(("name", "write"), [("x.csv", csv_file), ("x.jsonl", jsonl_file), ("x.db", sqlite_file)])
def test_a_class_may_be_called_as_what_stands_for_nothing(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    write(path)
    found = read(path, {"max_skipped": 1.0}, classes=["None", "ok"]).data
    assert (found.X.tolist(), found.y.tolist()) == ([[20, 1], [21, 2]], [0, 1])
    filled = read(path, {"max_skipped": 1.0}, classes=["None", "ok"], missing="last").data
    assert filled.X.tolist() == [[20, 1], [21, 2], [21, 5], [21, 6]]  # of a feature it stands for nothing still
    told = error(path, classes=["None", "ok"])
    assert "3 because 'state' is empty" in told
    said = read(path, {"max_skipped": 1.0, "missing_values": ["none"]}, classes=["None", "ok"]).data
    assert (said.X.tolist(), said.y.tolist()) == ([[21, 2]], [1])


def hourly(name: str, form: Callable[[int], object], path: Path) -> None:
    """Write rows whose time is form(n), of hour n since 2024 began."""
    if name.endswith(".jsonl"):
        path.write_text(
            "".join(json.dumps({"t": form(n), "temp": n, "vib": 0, "state": "ok"}) + "\n" for n in range(48))
        )
    else:
        path.write_text("t,temp,vib,state\n" + "".join(f"{form(n)},{n},0,ok\n" for n in range(48)))


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
@pytest.mark.parametrize("keys", [{}, {"time_format": "%Y%m%d%H"}])
def test_hours_of_dates_in_digits_are_those_of_the_day(tmp_path: Path, name: str, keys: dict[str, str]) -> None:
    path = tmp_path / name
    hourly(name, lambda n: 2024010100 + n // 24 * 100 + n % 24, path)
    found = read(path, {"time": "t", **keys}, time_features=["hour"]).data
    assert found.X[:, 2].tolist() == pytest.approx([math.sin(math.tau * n / 24) for n in range(48)], abs=1e-6)
    whole = read(path, {"time": "t", **keys}, window={"length": 48}).data
    assert len(whole.y) == 1  # no gap at midnight


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_small_numbers_have_no_hour_unless_it_is_said_what_they_are(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    hourly(name, lambda n: 45292 + n / 24, path)
    told = error(path, {"time": "t"}, time_features=["hour"])
    assert told.startswith(f"{path}: column 't' has no date in any row: its numbers are too small")
    found = read(path, {"time": "t", "time_format": "excel"}, time_features=["hour"]).data
    assert found.X[:, 2].tolist() == pytest.approx([math.sin(math.tau * n / 24) for n in range(48)], abs=1e-3)
    assert len(read(path, {"time": "t"}, window={"length": 48}).data.y) == 1  # which wants no date


@pytest.mark.parametrize(
    ("contract", "told"),
    [
        ({"features": ["t", "vib"]}, "column 't' is the time of a row, and a feature, a label or a weight as well"),
        ({"label": "t", "classes": []}, "column 't' is the time of a row, and a feature, a label or a weight as well"),
        ({"weight": "t"}, "column 't' is the time of a row, and a feature, a label or a weight as well"),
        ({"weight": "state"}, "column 'state' is the label, and the weight as well"),
    ],
)
def test_a_column_has_one_part(tmp_path: Path, contract: dict[str, Any], told: str) -> None:
    path = tmp_path / "x.csv"
    hourly("x.csv", lambda n: 1704067200 + 3600 * n, path)
    assert told in error(path, {"time": "t"}, window={"length": 2}, **contract)


TABLE = "time;temp;vib;state\n" + "".join(f"2024-01-01 00:{n:02d};{t};{v};{s}\n" for n, (t, v, s) in enumerate(ROWS))


@pytest.mark.parametrize(
    "above",
    [
        "Patient Name;Erika Muster\nDOB;1980-01-02\nId;12345\n\n",
        "Erika Muster\n",
        "Version CSV1|Tool SE|Delimiter semicolon\n\n;SN: 20012;SN: 20012;\n",
        "Pump 7 of Erika Muster, room 12\nfrom;1;to;30;in;minutes\n",
    ],
)
@pytest.mark.parametrize("comma", [False, True])
def test_lines_above_a_table_are_counted_and_not_told(tmp_path: Path, above: str, *, comma: bool) -> None:
    path = tmp_path / "x.csv"
    text = above + TABLE
    path.write_text(text.replace(";", ",") if comma else text)
    n = above.count("\n")
    assert error(path) == (
        f"{path}, line 1: is none of the table: its names of columns seem to be in line {n + 1}: say how many lines "
        f"are above them, beside the path: skip_lines = {n}"
    )
    assert read(path, {"skip_lines": n}).data.X.tolist() == [[t, v] for t, v, _ in ROWS]


def test_the_first_row_of_a_table_without_a_header_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("NA,17.25,fault\n" + "".join(f"{t},{v},{s}\n" for t, v, s in ROWS))
    assert error(path).startswith(f"{path}, line 1: there are no names of columns: write them above the rows")


def test_commas_between_thousands_are_no_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("temp;vib;state\n1,234;1,234.5;ok\n2,345;2,345.5;ok\n")
    assert error(path) == (
        f"{path}: column 'temp' holds no numbers, which the job wants there (in line 2 it is no number: say decimal = "
        '"," or thousands = ",", if it is meant as one): have numbers there, or leave it out of the job\'s features'
    )
    assert read(path, {"thousands": ","}).data.X.tolist() == [[1234, 1234.5], [2345, 2345.5]]


@pytest.mark.parametrize("code", ["#N/A", "#NV", "#DIV/0!", "#WERT!"])
def test_a_row_that_begins_with_an_error_of_a_spreadsheet_is_no_comment(tmp_path: Path, code: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"temp,vib,state\n1,1,ok\n{code},2,ok\n# 3,3,ok\n4,4,ok\n5,5,ok\n")
    assert "(line 3)" in read(path).notes[0]
    assert read(path, window={"length": 2, "hop": 1}).data.X.tolist() == [[4, 4, 5, 5]]


def test_a_decimal_comma_in_json_is_told_without_keys_that_are_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"temp": "21,5", "vib": 1, "state": "ok"}\n')
    assert "(in line 1 it is no number: a number has a point, and nothing else between digits)" in error(path)


@pytest.mark.parametrize(
    ("name", "has"), [("Temp °C", "Temp\u00a0°C"), ("PM (µg/m³)", "PM (μg/m³)"), ("Débit", "De\u0301bit")]
)
def test_names_that_look_alike_are_told_apart(tmp_path: Path, name: str, has: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{has},vib,state\n1,2,ok\n")
    told = error(path, features=[name, "vib"])
    assert f"no column {name!r} (is it {has!r}, which looks alike and is written in other characters?);" in told


@pytest.mark.parametrize("columns", [{"X": np.ones((2, 1))}, {"temp": np.ones(2)}])
def test_labels_in_bytes_are_utf_8(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, y=np.array(["défaut".encode(), b"ok"]), **columns)
    found = read(path, {"label": "y"}, features=["temp"], label="y", classes=["ok", "défaut"]).data
    assert found.y.tolist() == [1, 0]


def test_an_array_label_that_is_nan_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, X=np.ones((3, 2)), y=np.array([0.0, np.nan, 1.0]))
    assert "1 because 'state' is empty (row 1)" in " ".join(read(path).notes)


def test_the_lines_of_a_json_list_say_how_to_make_lines_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [json.dumps({"temp": t, "vib": v, "state": s}) for t, v, s in ROWS]
    for text in ("[\n" + ",\n".join(rows) + "\n]\n", "[" + ",\n".join(rows) + "]\n"):
        path.write_text(text)
        assert "write one object a line (jq -c '.[]' makes such lines of a list)" in error(path)
    path.write_text(rows[0] + '\n{"temp": 1, "vi\n')
    assert "1 because the line is no JSON object (line 2)" in read(path).notes[0]


@pytest.mark.parametrize("row", ["T:{} V:{} S:{}\n", "temp={}, vib={}, state={}\n"])
def test_cells_with_their_names_in_them_are_no_header_and_not_told(tmp_path: Path, row: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text("".join(row.format(*cells) for cells in ROWS))
    assert error(path).startswith(f"{path}, line 1: each cell has its name in it (NAME:VALUE): write the names once")


@pytest.mark.parametrize("first", ["NA,-,ok", "warm,much,ok"])
@pytest.mark.parametrize("header", ["temp,vib,state,", "temp,vib,state"])
def test_a_row_of_words_below_the_header_is_a_row(tmp_path: Path, header: str, first: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n{first}\n" + "".join(f"{t},{v},{s}\n" for t, v, s in ROWS))
    found = read(path, {"label": "other"})
    assert found.data.X.tolist() == [[t, v] for t, v, _ in ROWS]
    assert "1 of 31 rows are left out" in found.notes[-1]
