from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nets.layers import columns
from models.nets.layers.axis import Padding
from models.nets.layers.conv import Conv
from models.nets.layers.layer import Place, Scratch, Shape
from tests.models.nets.twins import hold_layer

PADDINGS: tuple[Padding, ...] = ("same", "valid")
shapes = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 7)), st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4))
)


@given(
    shape=shapes,
    outputs=st.integers(1, 5),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.sampled_from(PADDINGS),
    most=st.sampled_from([columns.MOST_NUMBERS, 200]),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_a_convolution_is_torchs_whatever_its_shape_and_however_many_examples_are_taken_at_once(
    shape: Shape, outputs: int, kernel: int, stride: int, padding: Padding, most: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MOST_NUMBERS", most)
        hold_layer(Conv(shape, outputs, min(kernel, *shape[:-1]), stride, padding), shape, seed)


def test_a_frozen_weight_has_no_gradient_and_a_frozen_bias_neither() -> None:
    layer, place = Conv((6, 2), 3, 3), Place(Scratch(), "0", draw=1, free=False)
    generator = np.random.default_rng(0)
    weight, bias = (generator.normal(size=t.shape).astype(np.float32) for t in layer.tensors)
    x, da = (generator.normal(size=(4, 6, n)).astype(np.float32) for n in (2, 3))
    found = [np.empty_like(weight), np.empty_like(bias)]
    layer.forward(place, (weight, bias), x)
    layer.backward(place, (weight, bias), found, da.copy(), first=True)
    for at, wanted in enumerate(found):
        alone: list[np.ndarray | None] = [None, None]
        alone[at] = np.empty_like(wanted)
        layer.forward(place, (weight, bias), x)
        layer.backward(place, (weight, bias), alone, da.copy(), first=True)
        np.testing.assert_array_equal(alone[at], wanted)


def test_the_room_for_a_matrix_does_not_grow_with_the_batch() -> None:
    layer, scratch = Conv((16, 16, 8), 8, 5), Scratch()
    tensors = [np.zeros(t.shape, np.float32) for t in layer.tensors]
    x = np.zeros((20, 16, 16, 8), np.float32)
    layer.forward(Place(scratch, "0", draw=None, free=False), tensors, x)
    taken = scratch.array("columns", shape=(1,)).base
    assert taken is not None
    assert taken.nbytes <= 4 * columns.MOST_NUMBERS
