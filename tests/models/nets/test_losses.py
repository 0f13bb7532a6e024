from __future__ import annotations

import numpy as np
import pytest

from models.nets.losses import LOSSES, cross_entropy, measure, softmax


def test_softmax_is_a_distribution_of_each_row() -> None:
    given = np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]], np.float32)
    np.testing.assert_allclose(softmax(given), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)


def test_cross_entropy_of_knowing_nothing_is_the_logarithm_of_the_choices() -> None:
    loss, gradient = cross_entropy(np.zeros((2, 4), np.float32), np.array([1, 3]))
    assert loss == pytest.approx(np.log(4))
    np.testing.assert_allclose(gradient, (0.25 - np.eye(4)[[1, 3]]) / 2, rtol=1e-6)


def test_the_squared_error_is_a_mean_over_rows_and_columns() -> None:
    outputs = np.array([[1, 2], [3, 4]], np.float32)
    loss, gradient = LOSSES["mse"].gradient(outputs.copy(), np.array([[1, 2], [3, 0]], np.float32))
    assert loss == 4.0
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 2]])


def test_measuring_gives_the_share_of_right_classes() -> None:
    metrics = measure("cross_entropy", np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.n == 3
