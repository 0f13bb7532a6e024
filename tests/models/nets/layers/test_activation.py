from __future__ import annotations

import numpy as np
import pytest

from models.nets.activations import IN_PLACE, KEEPING
from models.nets.layers.activation import Activation
from models.nets.layers.layer import Place, Scratch
from tests.models.nets.twins import hold_layer

NAMES = [*IN_PLACE, *KEEPING]


@pytest.mark.parametrize("name", NAMES)
def test_an_activation_is_torchs_and_onnxs(name: str) -> None:
    hold_layer(Activation(name, (6,)), (6,))
    hold_layer(Activation(name, (3, 2)), (3, 2))


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_numbers_have_a_value_and_a_slope_without_a_warning(name: str) -> None:
    x = np.array([[-1e4, -1.0, 0.0, 1.0, 1e4]], np.float32)
    layer, place = Activation(name, (5,)), Place(Scratch(), "0", draw=None, free=False)
    assert np.isfinite(layer.forward(place, (), x)).all()
    dx = layer.backward(place, (), (), np.ones_like(x), first=False)
    assert dx is not None
    assert np.isfinite(dx).all()
