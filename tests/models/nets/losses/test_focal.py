from __future__ import annotations

import numpy as np
import pytest

from models.nets.losses.cross_entropy import cross_entropy
from models.nets.losses.focal import focal


def test_without_gamma_it_is_the_cross_entropy() -> None:
    outputs, y = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1])
    ours, theirs = focal(outputs.copy(), y, gamma=0.0), cross_entropy(outputs.copy(), y)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_row_that_is_right_beyond_doubt_does_not_count_and_one_that_is_wrong_does(gamma: float) -> None:
    loss, gradient = focal(np.array([[500.0, -500.0], [500.0, -500.0]], np.float32), np.array([0, 1]), gamma=gamma)
    assert loss == pytest.approx(500.0)
    np.testing.assert_allclose(gradient, [[0, 0], [0.5, -0.5]])


def test_an_easy_row_counts_less_by_the_power_of_what_is_left_of_it() -> None:
    p = np.array([[0.9, 0.1]], np.float32)
    assert focal(np.log(p), np.array([0]), gamma=2.0)[0] == pytest.approx(-(0.1**2) * np.log(0.9), rel=1e-5)
