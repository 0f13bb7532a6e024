from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest

from models.job import ModelSpec
from models.nets.activations import IN_PLACE, KEEPING, Name, sigmoid


def test_a_job_may_say_every_activation_there_is() -> None:
    assert set(get_args(Name)) == {*IN_PLACE, *KEEPING}
    names: Any = get_args(Name)
    assert [ModelSpec(hidden=(2,), activation=name).activation for name in names] == [*names]


@pytest.mark.parametrize("x", [-1e38, -88.0, -1.0, 0.0, 1.0, 88.0, 1e38])
def test_a_sigmoid_of_any_number_is_right_without_a_warning(x: float) -> None:
    z = np.array([x], np.float32)
    sigmoid(z, z)
    assert z[0] == pytest.approx((1 + math.tanh(x / 2)) / 2, abs=1e-7)
