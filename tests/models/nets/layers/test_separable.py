from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.nets.layers.axis import Padding
from models.nets.layers.layer import Shape
from models.nets.layers.separable import Depthwise, Pointwise
from tests.models.nets.twins import hold_layer

shapes = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 5)), st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
)


@given(
    shape=shapes,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.sampled_from(("same", "valid")),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_a_kernel_for_each_channel_is_torchs_convolution_in_as_many_groups(
    shape: Shape, kernel: int, stride: int, padding: Padding, seed: int
) -> None:
    hold_layer(Depthwise(shape, min(kernel, *shape[:-1]), stride, padding), shape, seed)


@given(shape=shapes, outputs=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_a_dense_layer_at_each_place_is_torchs_convolution_with_a_kernel_of_1(
    shape: Shape, outputs: int, seed: int
) -> None:
    hold_layer(Pointwise(shape, outputs), shape, seed)
