from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.layer import Layer
from models.nets.layers.norm import LayerNorm
from models.nets.layers.residual import Residual
from models.nets.layers.rows import Flatten, Rows
from tests.models.nets.twins import hold_layer


@st.composite
def layers(draw: st.DrawFn) -> list[Layer]:
    """Layers of (4,) in any order, those that overwrite, that give views and that keep what they get among them."""
    views: list[Layer] = [Rows((2, 2)), Flatten((2, 2))]
    one: list[list[Layer]] = [
        [Dense(4, 4)],
        [Activation("relu", (4,))],
        [Activation("gelu", (4,))],
        [LayerNorm((4,))],
        views,
        [Residual((4,), [Activation("tanh", (4,))])],
        [Residual((4,), views)],
    ]
    return [layer for part in draw(st.lists(st.sampled_from(one), min_size=1, max_size=4)) for layer in part]


@given(within=layers(), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_x_is_added_to_whatever_layers_give(within: list[Layer], seed: int) -> None:
    hold_layer(Residual((4,), within), (4,), seed)


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_a_projection_fits_other_shapes(activation: str) -> None:
    within: list[Layer] = [Dense(5, 3), Activation(activation, (3,))]
    residual = Residual((5,), within, Dense(5, 3))
    assert [t.name for t in residual.tensors] == ["0.weight", "0.bias", "projection.weight", "projection.bias"]
    hold_layer(residual, (5,))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"adds \(5,\) to \(3,\): a projection has to fit them"):
        Residual((5,), [Dense(5, 3)])
    with pytest.raises(ValueError, match=r"adds \(2,\) to \(3,\)"):
        Residual((5,), [Dense(5, 3)], Dense(5, 2))
