from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.nets.layers.layer import Place, Scratch
from models.nets.layers.norm import GroupNorm, LayerNorm
from tests.models.nets.twins import hold_layer

PLACES = st.lists(st.integers(1, 4), max_size=2)
# Two numbers are normed to -1 and 1 whatever they are, but where they are nearly the same, where their last bits are
# all that counts: of two, only an example that is known to be further apart.


@given(places=PLACES, channels=st.integers(3, 6), seed=st.integers(0, 99))
@example(places=[3], channels=2, seed=0)
@settings(max_examples=12, deadline=None)
def test_a_layer_norm_is_torchs_and_onnxs_over_the_channels(places: list[int], channels: int, seed: int) -> None:
    shape = (*places, channels)
    hold_layer(LayerNorm(shape), shape, seed)


@given(places=PLACES, groups=st.integers(1, 2), width=st.integers(3, 4), seed=st.integers(0, 99))
@example(places=[3], groups=3, width=2, seed=0)
@settings(max_examples=12, deadline=None)
def test_a_group_norm_is_torchs_and_onnxs(places: list[int], groups: int, width: int, seed: int) -> None:
    shape = (*places, groups * width)
    hold_layer(GroupNorm(groups, shape), shape, seed)


def test_each_group_of_an_example_has_the_mean_of_the_bias_and_the_spread_of_the_weight() -> None:
    X = np.random.default_rng(0).normal(50, 9, (4, 7, 5, 6)).astype(np.float32)
    tensors = [np.full(6, 2, np.float32), np.full(6, 3, np.float32)]
    place = Place(Scratch(), "0", draw=None, free=False)
    a = GroupNorm(3, (7, 5, 6)).forward(place, tensors, X).reshape(4, 35, 3, 2)
    np.testing.assert_allclose(a.mean(axis=(1, 3)), 3, atol=1e-5)
    np.testing.assert_allclose(a.std(axis=(1, 3)), 2, atol=1e-5)


@pytest.mark.parametrize("groups", [0, 4, 7])
def test_groups_that_do_not_divide_the_channels_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match=rf"{groups} groups do not divide 6 channels"):
        GroupNorm(groups, (3, 6))
