from __future__ import annotations

import numpy as np

from models.nets.losses.squared_error import mean_squared_error


def test_the_squared_error_is_a_mean_over_rows_and_columns() -> None:
    outputs = np.array([[1, 2], [3, 4]], np.float32)
    loss, gradient = mean_squared_error(outputs, np.array([[1, 2], [3, 0]], np.float32))
    assert loss == 4.0
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 2]])
