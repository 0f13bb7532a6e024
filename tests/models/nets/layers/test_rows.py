from __future__ import annotations

import pytest

from models.nets.layers.conv import Conv
from models.nets.layers.rows import Flatten, Rows
from tests.models.nets.twins import hold_layers


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (1, 5), (5, 1)], ids=str)
def test_a_flat_row_gets_a_shape_and_loses_it_again(shape: tuple[int, ...]) -> None:
    inputs = Flatten(shape).shape[0]
    hold_layers([Rows(shape), Conv(shape, shape[-1], 1), Flatten(shape)], inputs, inputs)
