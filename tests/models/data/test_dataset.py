from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from models.data.dataset import Dataset, DatasetError, fit
from models.job import ModelSpec


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
    ("change", "message"),
    [
        (lambda y: y[:, None].repeat(2, 1), "2 labels a row"),
        (lambda y: np.add(y, [0, 0, 3]), "row 2: the label is not one of 0..2"),
        (lambda y: np.subtract(y, [0, 2, 0]), "row 1: the label is not one of 0..2"),
        (lambda y: y + np.float32(0.5), "row 0: the label is not one of 0..2"),
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


def test_the_fingerprint_is_the_crc_of_the_rows_and_then_the_labels() -> None:
    """Checkpoints on disk are tied to it: it is the same as in older agents, however the arrays lie in memory."""
    X, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 0])
    expected = zlib.crc32(y.tobytes(), zlib.crc32(X.tobytes()))
    assert Dataset(X, y).fingerprint == expected
    assert Dataset(np.asfortranarray(X), np.repeat(y, 2)[::2]).fingerprint == expected


@pytest.mark.parametrize(
    "other",
    [
        Dataset(np.array([[1, 2], [3, 5]], np.float32), np.array([0, 1])),
        Dataset(np.array([[1, 2], [3, 4]], np.float32), np.array([1, 0])),
        Dataset(np.array([[3, 4], [1, 2]], np.float32), np.array([0, 1])),
        Dataset(np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([0, 1, 1])),
        Dataset(np.array([[1, 2]], np.float32), np.array([0])),
    ],
    ids=["a feature", "labels", "order", "one more", "one less"],
)
def test_other_rows_have_another_fingerprint(other: Dataset) -> None:
    assert Dataset(np.array([[1, 2], [3, 4]], np.float32), np.array([0, 1])).fingerprint != other.fingerprint


def test_what_a_cell_holds_is_for_the_log_of_this_machine_and_no_part_of_the_message() -> None:
    error = DatasetError("x.csv, line 3, column a is no number", cell="s" * 1000)
    assert str(error) == "x.csv, line 3, column a is no number"
    assert error.cell == "s" * 200
    assert DatasetError("x.csv: no rows").cell == ""
