from __future__ import annotations

import numpy as np
import pytest

from models.job import ModelSpec
from models.nets.losses import of
from models.nets.losses.sigmoid import both, share_right, sigmoid

BINARY = ModelSpec(outputs=1, loss="binary")


def test_a_sigmoid_neither_overflows_nor_hides_what_is_no_number() -> None:
    given = np.array([[-1e30, -1.0, 0.0, 1.0, 1e30]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(given)
    np.testing.assert_allclose(found, [[0, 0.26894143, 0.5, 0.7310586, 1]], rtol=1e-6)
    with np.errstate(invalid="ignore"):
        assert np.isnan(sigmoid(np.array([np.nan, np.inf, -np.inf], np.float32))).all()


def test_knowing_nothing_of_two_classes_costs_one_bit() -> None:
    loss, gradient = of(BINARY).gradient(np.zeros((2, 1), np.float32), np.array([0, 1]), None)
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_array_equal(gradient, [[0.25], [-0.25]])


def test_a_class_that_counts_more_pulls_as_much_more() -> None:
    heavy = of(ModelSpec(outputs=1, loss="binary", loss_options={"pos_weight": 3.0}))
    _, gradient = heavy.gradient(np.zeros((2, 1), np.float32), np.array([0, 1]), None)
    np.testing.assert_array_equal(gradient, [[0.25], [-0.75]])
    each = of(ModelSpec(outputs=2, loss="multilabel", loss_options={"pos_weight": [1.0, 3.0]}))
    _, gradient = each.gradient(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), None)
    np.testing.assert_array_equal(gradient, [[-0.25, -0.75]])


def test_right_is_what_lies_on_the_right_side_of_one_half() -> None:
    assert share_right(np.array([[2.0], [-2.0], [0.0]], np.float32), np.array([1, 1, 0])) == pytest.approx(2 / 3)
    outputs = np.array([[2.0, -2.0], [-2.0, -2.0]], np.float32)
    assert share_right(outputs, np.array([[1, 0], [1, 0]], np.float32)) == 0.75


def test_one_answer_says_how_probable_both_classes_are() -> None:
    np.testing.assert_allclose(both(np.array([[0.25], [1.0]], np.float32)), [[0.75, 0.25], [0, 1]])
