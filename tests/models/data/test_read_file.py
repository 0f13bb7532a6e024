"""Files as they lie on devices, read for a job: the right numbers, or a sentence; never others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
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
