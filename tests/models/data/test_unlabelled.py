"""Rows without labels, in every format: normal ones, for jobs that need none."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from models.contract import ContractSpec, WindowSpec
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings
from models.data.source import load, read
from models.job import ModelSpec

MODEL = ModelSpec("autoencoder", inputs=2, hidden=(1,))
CONTRACT = ContractSpec(features=("a", "b"))
ROWS = [(1.0, 2.0), (3.0, 4.0), (5.0, 7.0)]


def csv(folder: Path, *, label: str | None = None) -> Path:
    path = folder / "rows.csv"
    lines = [f"{a},{b}" + ("" if label is None else f",{int(a == 5)}") for a, b in ROWS]
    path.write_text("\n".join(["a,b" + ("" if label is None else f",{label}"), *lines]) + "\n")
    return path


def jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in ROWS))
    return path


def sqlite(folder: Path) -> Path:
    path = folder / "rows.db"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE readings (a REAL, b REAL)")
        base.executemany("INSERT INTO readings VALUES (?, ?)", ROWS)
    base.close()
    return path


def npz(folder: Path) -> Path:
    path = folder / "rows.npz"
    np.savez(path, X=np.array(ROWS, np.float32))
    return path


def columns(folder: Path) -> Path:
    path = folder / "columns.npz"
    np.savez(path, a=[a for a, _ in ROWS], b=[b for _, b in ROWS])
    return path


@pytest.mark.parametrize("write", [csv, jsonl, sqlite, npz, columns])
def test_so_they_do_where_the_job_has_names_for_normal_and_not(write: object, tmp_path: Path) -> None:
    named = ContractSpec(features=("a", "b"), label="state", classes=("ok", "worn"))
    found = read(SourceSettings(str(write(tmp_path))), MODEL, named)  # type: ignore[operator]
    assert found.y.tolist() == [0, 0, 0]


@pytest.mark.parametrize("write", [csv, jsonl, sqlite, npz, columns])
def test_all_rows_count_as_normal(write: object, tmp_path: Path) -> None:
    found = read(SourceSettings(str(write(tmp_path))), MODEL, CONTRACT)  # type: ignore[operator]
    assert found.X.tolist() == [list(row) for row in ROWS]
    assert (found.y.tolist(), found.y.dtype) == ([0, 0, 0], np.int64)


@pytest.mark.parametrize("write", [csv, npz])
def test_a_job_without_a_contract_reads_them_as_well(write: object, tmp_path: Path) -> None:
    found = read(SourceSettings(str(write(tmp_path))), MODEL)  # type: ignore[operator]
    assert (found.X.shape, found.y.tolist()) == ((3, 2), [0, 0, 0])


def test_a_label_column_that_is_there_is_read(tmp_path: Path) -> None:
    assert read(SourceSettings(str(csv(tmp_path, label="y"))), MODEL, CONTRACT).y.tolist() == [0, 0, 1]
    named = ContractSpec(features=("a", "b"), label="fault")
    assert read(SourceSettings(str(csv(tmp_path, label="fault"))), MODEL, named).y.tolist() == [0, 0, 1]
    assert read(SourceSettings(str(csv(tmp_path))), MODEL, named).y.tolist() == [0, 0, 0]


def test_a_feature_that_is_called_as_labels_usually_are_is_a_feature(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    found = read(SourceSettings(str(path)), MODEL, ContractSpec(features=("x", "y")))
    assert (found.X.tolist(), found.y.tolist()) == ([[1.0, 2.0], [3.0, 4.0]], [0, 0])


def test_other_labels_are_refused_with_their_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n1,2,0\n3,4,2\n")
    with pytest.raises(DatasetError, match=r"row 1: the label is neither 0 \(normal\) nor 1"):
        read(SourceSettings(str(path)), MODEL, CONTRACT)


def test_windows_have_the_label_of_most_of_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,y\n" + "".join(f"{at},{int(at >= 5)}\n" for at in range(10)))
    contract = ContractSpec(features=("a",), window=WindowSpec(4, hop=1))
    found = read(SourceSettings(str(path)), ModelSpec("autoencoder", inputs=4, hidden=(2,)), contract)
    assert found.y.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_rows_are_held_back_as_if_they_were_labelled(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "".join(f"{at},{at * at % 7}\n" for at in range(200)))
    found = read(SourceSettings(str(path)), MODEL, ContractSpec(features=("a", "b"), validation=0.2))
    assert found.held_out is not None
    assert len(found.y) + len(found.held_out.y) == 200
    assert 20 <= len(found.held_out.y) <= 60


def test_where_labels_are_needed_they_are_missed_as_ever(tmp_path: Path) -> None:
    for write in (csv, npz):
        with pytest.raises(DatasetError, match=r"no (column|array)"):
            load(SourceSettings(str(write(tmp_path))), CONTRACT)


def test_what_is_no_source_is_none_without_labels_either(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, a=np.zeros((3, 2)), b=np.zeros(4))
    with pytest.raises(DatasetError, match="no array"):
        read(SourceSettings(str(path)), MODEL)
