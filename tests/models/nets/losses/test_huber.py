from __future__ import annotations

import numpy as np

from models.nets.losses.huber import huber


def test_a_near_error_counts_by_its_square_and_a_far_one_by_its_size() -> None:
    loss, gradient = huber(np.array([[1.0], [-10.0]], np.float32), np.zeros((2, 1), np.float32), delta=2.0)
    assert loss == (0.5 + 2 * (10 - 1)) / 2
    np.testing.assert_array_equal(gradient, [[0.5], [-1.0]])


def test_what_is_very_far_off_is_not_squared() -> None:
    with np.errstate(all="raise"):
        loss, gradient = huber(np.array([[3e30]], np.float32), np.array([[-1.0]], np.float32), delta=1.0)
    assert np.isfinite(loss)
    assert gradient == [[1.0]]
