from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data import source
from models.data.dataset import Dataset, DatasetError, fit
from models.data.npz_file import read_arrays
from models.data.source import DataSource
from models.job import ModelSpec


def load(path: Path, *, key: str | None = None, label: str = "y") -> Dataset:
    return source.load(DataSource(str(path), label, key))


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


def test_bytes_are_scaled_to_one(npz: Path) -> None:
    data = load(save(npz, X=np.array([[[0, 255]], [[51, 102]]], np.uint8), y=np.array([0, 1], np.uint8)))
    assert data.X.dtype == np.float32
    np.testing.assert_allclose(data.X, np.array([[[0.0, 1.0]], [[0.2, 0.4]]]), rtol=1e-6)
    assert data.y.tolist() == [0, 1]
    assert fit(data, ModelSpec(inputs=2, outputs=2)).X.shape == (2, 2)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "bool", ">f4"])
def test_other_numbers_become_float32_unscaled(npz: Path, dtype: str) -> None:
    data = load(save(npz, X=np.ones((2, 3), dtype), y=np.zeros(2)))
    assert data.X.dtype == np.float32
    assert data.X.flags.c_contiguous
    assert data.X.tolist() == [[1, 1, 1]] * 2


def test_names_of_arrays_can_be_given(npz: Path) -> None:
    data = load(save(npz, train=np.ones((2, 3)), target=np.zeros(2)), key="train", label="target")
    assert data.X.shape == (2, 3)
    assert data.source == str(npz)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1, 2], [3, np.nan]], [0, 1], "row 1: X has a value that is not"),
        ([[1, 2], [np.inf, 3]], [0, 1], "row 1: X has a value that is not"),
        ([[1e300, 2]], [0], "row 0: X has a value that is not a finite float32"),
        ([[1, 2]], [np.nan], "row 0: y has a value that is not"),
        (np.zeros((0, 2)), [], "no rows in X"),
        ([[1, 2]], [0, 1], "1 rows in X but 2 in y"),
        ([["a", "b"]], [0], "X is <U1"),
        (3.0, 1.0, r"X is float64 \(\)"),
    ],
)
def test_an_npz_that_cannot_be_trained_on_says_where(npz: Path, X: Any, y: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"data\.npz.*{message}"):
        load(save(npz, X=X, y=y))


def test_a_missing_array_is_named_with_those_there_are(npz: Path) -> None:
    with pytest.raises(DatasetError, match="no column 'y'; the header has X, labels"):
        load(save(npz, X=np.ones((1, 1)), labels=np.ones(1)))


def test_a_pickle_is_refused(npz: Path) -> None:
    save(npz, X=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(DatasetError, match="cannot be read"):
        load(npz)


def test_a_single_array_or_a_file_that_is_not_there_is_refused(npz: Path, tmp_path: Path) -> None:
    with npz.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DatasetError, match="single array"):
        load(npz)
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "missing.npz")


@given(cut=st.integers(0, 400), at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_damaged_npz_raises_nothing_but_a_dataset_error(npz: Path, cut: int, at: int, value: int) -> None:
    save(npz, X=np.ones((3, 2)), y=np.zeros(3))
    body = bytearray(npz.read_bytes())
    body[at % len(body)] = value
    npz.write_bytes(body[: len(body) - max(0, cut - 200)])
    with contextlib.suppress(DatasetError):
        load(npz)


def test_arrays_are_read_by_name_or_all_in_the_files_order(npz: Path) -> None:
    save(npz, b=np.ones(1), a=np.zeros(2))
    assert list(read_arrays(npz)) == ["b", "a"]
    assert list(read_arrays(npz, ("a",))) == ["a"]
