from __future__ import annotations

import numpy as np
import pytest

from models.nets import losses
from models.nets.losses import LOSSES, LabelError, classes, cross_entropy, measure, measure_all, softmax, values


def test_softmax_is_a_distribution_of_each_row() -> None:
    given = np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]], np.float32)
    np.testing.assert_allclose(softmax(given), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)


def test_cross_entropy_of_knowing_nothing_is_the_logarithm_of_the_choices() -> None:
    loss, gradient = cross_entropy(np.zeros((2, 4), np.float32), np.array([1, 3]))
    assert loss == pytest.approx(np.log(4))
    np.testing.assert_allclose(gradient, (0.25 - np.eye(4)[[1, 3]]) / 2, rtol=1e-6)


def test_the_squared_error_is_a_mean_over_rows_and_columns() -> None:
    outputs = np.array([[1, 2], [3, 4]], np.float32)
    loss, gradient = LOSSES["mse"].gradient(outputs.copy(), np.array([[1, 2], [3, 0]], np.float32), None)
    assert loss == 4.0
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 2]])


def test_classes_are_whole_numbers_below_the_outputs_or_the_row_is_named() -> None:
    y = np.array([0, 2])
    assert classes(y, 3) is y
    assert classes(np.array([[1.0], [2.0]], np.float32), 3).tolist() == [1, 2]
    for wrong in (3.0, -1.0, 0.5):
        with pytest.raises(LabelError, match=r"the label is not one of 0\.\.2") as caught:
            classes(np.array([1, wrong], np.float32), 3)
        assert (caught.value.row, caught.value.cell) == (1, str(wrong))
    with pytest.raises(LabelError, match="2 labels a row"):
        classes(np.zeros((2, 2)), 3)


def test_values_are_as_many_numbers_a_row_as_there_are_outputs() -> None:
    y = np.zeros((2, 3), np.float32)
    assert np.shares_memory(values(y, 3), y)
    assert values(np.array([1, 2]), 1).shape == (2, 1)
    with pytest.raises(LabelError, match="3 values a row where the model has outputs = 2") as caught:
        values(y, 2)
    assert caught.value.row is None


def test_only_classes_have_an_accuracy() -> None:
    for loss in LOSSES.values():
        assert loss.classifies == (loss.accuracy is not None)
        assert loss.n_columns(3) == (1 if loss.classifies else 3)


def test_measuring_gives_the_share_of_right_classes() -> None:
    metrics = measure(LOSSES["cross_entropy"], np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.n == 3


@pytest.mark.parametrize("loss", LOSSES)
def test_many_rows_are_measured_some_at_a_time(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    X = generator.standard_normal((23, 3)).astype(np.float32)
    y = generator.integers(0, 3, 23) if LOSSES[loss].classifies else generator.random((23, 3), np.float32)
    whole = measure_all(LOSSES[loss], np.copy, X, y)
    assert whole == measure(loss, X.copy(), y)
    monkeypatch.setattr(losses, "ROWS_AT_ONCE", 10)
    seen = []
    found = measure_all(LOSSES[loss], lambda some: (seen.append(len(some)), some.copy())[1], X, y)
    assert seen == [10, 10, 3]
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (found.accuracy, found.n) == (whole.accuracy and pytest.approx(whole.accuracy), 23)


def test_labels_of_many_rows_are_looked_at_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS_AT_ONCE", 10)
    y = np.arange(25) % 3
    assert classes(y, 3) is y
    with pytest.raises(LabelError, match=r"the label is not one of 0\.\.1") as caught:
        classes(np.append(np.zeros(21, np.int64), [2, 3]), 2)
    assert caught.value.row == 21
