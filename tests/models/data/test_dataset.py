from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data.dataset import Dataset, DatasetError, fit, load, load_rows
from models.job import ModelSpec


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


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


def test_what_fits_already_is_not_copied() -> None:
    X = np.ones((4, 6), np.float32)
    assert np.shares_memory(fit(Dataset(X, np.zeros(4)), ModelSpec(inputs=6)).X, X)


def test_rows_that_fit_already_are_the_very_ones() -> None:
    data = Dataset(np.ones((4, 6), np.float32), np.array([0, 1, 2, 1]))
    found = fit(data, ModelSpec(inputs=6, outputs=3))
    assert found.X is data.X
    assert found.y is data.y


def test_a_factorys_net_gets_the_shape_of_the_file() -> None:
    data = Dataset(np.ones((4, 1, 2, 3), np.float32), np.zeros(4))
    assert fit(data, ModelSpec(kind="a:b", inputs=6)).X.shape == (4, 1, 2, 3)


def test_labels_take_the_form_that_the_loss_wants() -> None:
    data = Dataset(np.ones((3, 2), np.float32), np.array([[0.0], [2.0], [1.0]], np.float32))
    classes = fit(data, ModelSpec(inputs=2, outputs=3)).y
    assert classes.dtype == np.int64
    assert classes.tolist() == [0, 2, 1]
    values = fit(data._replace(y=np.array([0, 2, 1])), ModelSpec(inputs=2, outputs=1, loss="mse")).y
    assert values.dtype == np.float32
    assert values.tolist() == [[0], [2], [1]]


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
    with pytest.raises(DatasetError, match="no array y; it has X, labels"):
        load(save(npz, X=np.ones((1, 1)), labels=np.ones(1)))


def test_a_pickle_is_refused(npz: Path) -> None:
    save(npz, X=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(DatasetError, match="cannot be read"):
        load(npz)


def test_a_single_array_or_another_ending_is_refused(npz: Path, tmp_path: Path) -> None:
    with npz.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DatasetError, match="single array"):
        load(npz)
    with pytest.raises(DatasetError, match=r"neither \.npz nor \.csv"):
        load(tmp_path / "data.parquet")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "MISSING.CSV")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "missing.npz")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "missing.csv")


@given(cut=st.integers(0, 400), at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_npz_raises_nothing_but_a_dataset_error(npz: Path, cut: int, at: int, value: int) -> None:
    save(npz, X=np.ones((3, 2)), y=np.zeros(3))
    body = bytearray(npz.read_bytes())
    body[at % len(body)] = value
    npz.write_bytes(body[: len(body) - max(0, cut - 200)])
    with contextlib.suppress(DatasetError):
        load(npz)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, None].repeat(2, 1), "2 labels a row"),
        (lambda y: np.add(y, [0, 0, 3]), "row 2: label 5 is not one of 0..2"),
        (lambda y: np.subtract(y, [0, 2, 0]), "row 1: label -1 is not one of 0..2"),
        (lambda y: y + np.float32(0.5), "row 0: label 0.5 is not one of 0..2"),
    ],
)
def test_labels_that_the_model_does_not_know_say_where(change: Any, message: str) -> None:
    data = Dataset(np.ones((3, 2), np.float32), change(np.array([0, 1, 2])), "some.npz")
    with pytest.raises(DatasetError, match=f"some.npz.*{message}"):
        fit(data, ModelSpec(inputs=2, outputs=3))


def test_a_wrong_number_of_features_or_values_is_said_in_the_models_words() -> None:
    data = Dataset(np.ones((3, 2), np.float32), np.zeros((3, 1), np.float32), "some.npz")
    with pytest.raises(DatasetError, match="2 features an example where the model has inputs = 5"):
        fit(data, ModelSpec(inputs=5))
    with pytest.raises(DatasetError, match="1 values a row where the model has outputs = 4"):
        fit(data, ModelSpec(inputs=2, outputs=4, loss="mse"))


def test_a_csv_gives_all_columns_but_the_label_or_those_asked_for(csv: Path) -> None:
    csv.write_text("\ufefftemp,y, hum\n1,0,2.5\n\n3,1,-4e1\n", encoding="utf-8")
    data = load(csv)
    assert data.X.tolist() == [[1, 2.5], [3, -40]]
    assert data.y.tolist() == [0, 1]
    chosen = load(csv, label="temp", features=["hum"])
    assert chosen.X.tolist() == [[2.5], [-40]]
    assert chosen.y.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column 'y'; the header has a, b"),
        ("a,a,y\n1,2,3\n", "more than one column 'a'"),
        ("a,y\n1,0\n1,0,9\n", "line 3: 3 columns where the header has 2"),
        ("a,y\n1,0\nwarm,0\n", "line 3, column a: 'warm' is no number"),
        ("a,y\n1,\n", "line 2, column y: '' is no number"),
        ("a,y\n1,0\nnan,0\n", "row 1: the features has"),
        ("a,y\n", "no rows"),
        ("", "no column 'y'; the header has nothing"),
        ("y\n1\n", "no rows"),
    ],
)
def test_a_csv_that_cannot_be_trained_on_says_where(csv: Path, text: str, message: str) -> None:
    csv.write_text(text)
    with pytest.raises(DatasetError, match=rf"data\.csv.*{message}"):
        load(csv)


@given(body=st.binary(max_size=80) | st.text('ay,"\n01.', max_size=40).map(str.encode))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_csv_raise_nothing_but_a_dataset_error(csv: Path, body: bytes) -> None:
    csv.write_bytes(b"a,y\n" + body)
    for read in (load, lambda path: load_rows(path, 2)):
        with contextlib.suppress(DatasetError):
            read(csv)


def test_rows_for_a_prediction_may_have_a_header(csv: Path) -> None:
    for text in ("a,b\n1,2\n3,4\n", "1,2\n3,4\n"):
        csv.write_text(text)
        assert load_rows(csv, 2).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DatasetError, match="line 1: 2 columns where the model has inputs = 3"):
        load_rows(csv, 3)
    csv.write_text("a,b\n")
    with pytest.raises(DatasetError, match="no rows"):
        load_rows(csv, 2)
