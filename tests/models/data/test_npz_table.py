"""NPZ files as tables: by name where columns have names, else by position."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data import table
from models.data.blocks import Arrays, Fault, Kind
from models.data.dataset import DatasetError
from models.data.npz_file import NpzArrays, open_table
from models.data.source import DataSource

Save = Callable[..., Any]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "x.npz"


def by_name(path: Path, wanted: dict[str, Kind], **keys: Any) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    found = table.known(DataSource(str(path))).open(DataSource(str(path), **keys), ended=False)
    try:
        blocks = list(found.blocks(wanted))
        columns = {name: [cell for block in blocks for cell in list(block.columns[name])] for name in wanted}
        return columns, tuple(fault for block in blocks for fault in block.faults)
    finally:
        found.close()


@contextlib.contextmanager
def arrays_of(path: Path, **keys: Any) -> Any:
    found = table.known(DataSource(str(path))).open(DataSource(str(path), **keys), ended=False)
    try:
        assert isinstance(found, Arrays)
        assert found.header == ()
        yield found
    finally:
        found.close()


def test_an_array_a_column(npz: Path) -> None:
    when = np.array(["2024-01-01", "2024-01-02", "NaT"], "datetime64[D]")
    np.savez(npz, temp=np.array([1.5, np.nan, 1e300]), on=np.array([True, False, True]), y=["ok", "", "fault"], t=when)
    columns, faults = by_name(
        npz, {"temp": Kind.NUMBER, "on": Kind.NUMBER, "y": Kind.TEXT, "t": Kind.TIME}, features=("temp", "on")
    )
    assert columns["temp"][0] == 1.5
    assert np.isnan(columns["temp"][1:]).all()
    assert columns["on"] == [1, 0, 1]
    assert columns["y"] == ["ok", "", "fault"]
    assert columns["t"][:2] == [1_704_067_200, 1_704_153_600]
    assert np.isnan(columns["t"][2])
    assert faults == (Fault(2, "temp", "is beyond what a float32 holds"),)


def test_a_number_may_stand_for_nothing(npz: Path) -> None:
    np.savez(npz, a=np.array([1, 255], np.uint8), b=np.array([255.0, 2.0]), y=np.array([0, 1]))
    columns, _ = by_name(npz, {"a": Kind.NUMBER, "b": Kind.NUMBER}, features=("a", "b"), missing_values=("255",))
    assert [np.isnan(columns[name]).tolist() for name in "ab"] == [[False, True], [True, False]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("naming", ["columns", "names", "feature_names"])
def test_the_columns_of_an_array_may_be_named(npz: Path, save: Save, order: str, naming: str) -> None:
    X = np.asarray(np.arange(30_000.0).reshape(-1, 3), order=order)  # type: ignore[call-overload]
    save(npz, X=X, y=np.arange(10_000) % 2, trial=np.arange(10_000) // 100, **{naming: ["a", "b", "c"]})
    columns, faults = by_name(npz, {"c": Kind.NUMBER, "y": Kind.NUMBER, "trial": Kind.TEXT})
    assert faults == ()
    assert columns["c"] == X[:, 2].tolist()
    assert columns["y"] == (np.arange(10_000) % 2).tolist()
    assert columns["trial"][250] == "2"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_by_position_the_rows_are_those_of_ever_to_the_bit(npz: Path, save: Save, order: str) -> None:
    X = np.asarray(np.random.default_rng(1).normal(size=(9_000, 7)), order=order)  # type: ignore[call-overload]
    save(npz, X=X, y=np.arange(9_000) % 3)
    with arrays_of(npz) as found:
        X_now, y_now = found.arrays()
        assert found.n_rows == 9_000
        assert max(len(X) for X, _ in found.parts()) <= 4096
    assert X_now.tobytes() == X.astype(np.float32, order="C").tobytes()
    assert (X_now.dtype, y_now.tolist(), y_now.dtype) == (np.float32, (np.arange(9_000) % 3).tolist(), np.int64)


def test_bytes_are_divided_unless_the_job_normalises(npz: Path) -> None:
    np.savez(npz, X=np.array([[[0, 255]]], np.uint8), y=["cat"])
    with arrays_of(npz) as found:
        assert found.arrays()[0].tolist() == [[[0, 1]]]
        assert found.arrays(scaled=False)[0].tolist() == [[[0, 255]]]
        assert found.arrays()[1].tolist() == ["cat"]
        assert found.notes == ("columns by position", "bytes, 0 to 255: divided by 255, unless the job normalises")


@pytest.mark.parametrize(
    ("arrays", "keys", "why"),
    [
        (
            {"X": np.ones((2, 3)), "labels": np.ones(2)},
            {},
            "no array y; it has X, labels: it wants an array of features",
        ),
        ({"a": np.ones(2), "y": np.ones(3)}, {}, "no array X; it has a, y"),
        ({"X": np.ones((2, 3)), "y": np.ones(3)}, {}, "2 rows in X but 3 in y"),
        ({"X": np.array([["a"]]), "y": np.ones(1)}, {}, r"X is <U1 \(1, 1\), not rows of numbers"),
        ({"X": np.ones((1, 1)), "y": np.ones(1)}, {"rename": {"a": "b"}}, "X has no columns with names"),
        ({"X": np.array([{}], object), "y": np.ones(1)}, {}, "X is a pickle, which is a program"),
        ({"X": np.ones((0, 3)), "y": np.ones(0)}, {}, "no rows in X"),
        ({"X": np.array([[1.0], [np.nan]]), "y": np.ones(2)}, {}, "row 1: X has a value that is not a finite float32"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(npz: Path, arrays: Any, keys: dict[str, Any], why: str) -> None:
    np.savez(npz, **arrays)
    with pytest.raises(DatasetError, match=rf"x\.npz.*{why}"), arrays_of(npz, **keys) as found:
        found.arrays()


def test_who_asks_for_names_where_there_are_none_is_told_how_to_give_them(npz: Path) -> None:
    np.savez(npz, X=np.ones((1, 2)), y=np.ones(1))
    with (
        arrays_of(npz) as found,
        pytest.raises(DatasetError, match="so that temp cannot be found: add an array `columns`"),
    ):
        found.blocks({"temp": Kind.NUMBER})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_array_takes_the_memory_of_a_block(npz: Path, save: Save) -> None:
    save(npz, X=np.zeros((400_000, 20), np.float32), y=np.zeros(400_000, np.int8))
    tracemalloc.start()
    try:
        with arrays_of(npz) as found:
            assert sum(len(y) for _, y in found.parts()) == 400_000
        assert tracemalloc.get_traced_memory()[1] < 8 * 10**6
    finally:
        tracemalloc.stop()


def test_a_shape_that_goes_beyond_the_bytes_that_there_are_allocates_nothing(npz: Path) -> None:
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 2)})
    with zipfile.ZipFile(npz, "w") as file:
        file.writestr("X.npy", array.getvalue() + bytes(64))
        file.writestr("y.npy", array.getvalue() + bytes(64))
    with pytest.raises(DatasetError, match=r"X says that it has 16,000,000,000,000 bytes, and has not"):
        open_table(DataSource(str(npz)), ended=False)


@given(cut=st.integers(0, 400), at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_damaged_file_raises_nothing_but_a_dataset_error(npz: Path, cut: int, at: int, value: int) -> None:
    np.savez(npz, X=np.ones((3, 2)), y=np.zeros(3))
    body = bytearray(npz.read_bytes())
    body[at % len(body)] = value
    npz.write_bytes(body[: len(body) - max(0, cut - 200)])
    with contextlib.suppress(DatasetError):
        found = open_table(DataSource(str(npz)), ended=False)
        with contextlib.closing(found), contextlib.suppress(DatasetError):
            if isinstance(found, NpzArrays):
                found.arrays()
            else:
                list(found.blocks(dict.fromkeys(found.header, Kind.NUMBER)))
