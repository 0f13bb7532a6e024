from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nets.layers.layer import Place, Scratch, Shape
from models.nets.layers.pool import MeanOfPlaces, Pool, Pooling
from tests.models.nets.twins import hold_layer

shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 5)), st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
)
poolings = st.sampled_from(("max", "average"))


@given(shape=shapes, size=st.integers(2, 4), pooling=poolings, seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_pool_is_torchs_with_what_is_left_over_and_without(
    shape: Shape, size: int, pooling: Pooling, seed: int
) -> None:
    if min(shape[:-1]) < size:
        with pytest.raises(ValueError, match=f"a pool of {size} is longer than the"):
            Pool(shape, size, pooling)
    else:
        hold_layer(Pool(shape, size, pooling), shape, seed)


@given(shape=shapes, seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_the_mean_of_all_places_is_torchs(shape: Shape, seed: int) -> None:
    hold_layer(MeanOfPlaces(shape), shape, seed)


@pytest.mark.parametrize("free", [True, False])
@given(n=st.integers(1, 3), size=st.integers(2, 3), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_the_first_of_several_that_are_the_largest_has_the_gradient_as_in_torch(
    free: bool, n: int, size: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 2, (n, 6, 6, 3)).astype(np.float32)
    da = generator.normal(size=(n, 6 // size, 6 // size, 3)).astype(np.float32)
    theirs = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).requires_grad_()
    torch.nn.functional.max_pool2d(theirs, size).backward(torch.from_numpy(np.moveaxis(da, -1, 1).copy()))
    layer, place = Pool((6, 6, 3), size, "max"), Place(Scratch(), "0", draw=1, free=free)
    before = x.copy()
    layer.forward(place, (), x)
    assert free or np.array_equal(x, before)
    found = layer.backward(place, (), (), da.copy(), first=False)
    assert found is not None
    assert free or np.array_equal(x, before)
    assert theirs.grad is not None
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), theirs.grad.numpy(), atol=1e-6)
