from __future__ import annotations

import numpy as np
import pytest

from models.job import ModelSpec
from models.nets.losses import of
from models.nets.losses.cross_entropy import cross_entropy, softmax


def test_softmax_is_a_distribution_of_each_row() -> None:
    given = np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]], np.float32)
    np.testing.assert_allclose(softmax(given), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)


def test_cross_entropy_of_knowing_nothing_is_the_logarithm_of_the_choices() -> None:
    loss, gradient = cross_entropy(np.zeros((2, 4), np.float32), np.array([1, 3]))
    assert loss == pytest.approx(np.log(4))
    np.testing.assert_allclose(gradient, (0.25 - np.eye(4)[[1, 3]]) / 2, rtol=1e-6)


def test_smoothed_labels_want_a_net_that_is_not_too_sure() -> None:
    smoothed = of(ModelSpec(outputs=2, loss_options={"label_smoothing": 0.2}))
    sure = np.log(np.array([[0.9, 0.1]], np.float32))  # 0.9 is what label 0 is worth: 1 - 0.2 + 0.2 / 2
    np.testing.assert_allclose(smoothed.gradient(sure, np.array([0]), None)[1], [[0, 0]], atol=1e-6)


def test_no_smoothing_is_the_very_same_computation() -> None:
    assert of(ModelSpec(loss_options={"label_smoothing": 0.0})).gradient is cross_entropy
