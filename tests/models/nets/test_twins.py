"""Every kind of net with options at random: the same in NumPy, in Torch and as ONNX."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from models.job import ModelSpec
from models.nets.table import NETS
from tests.models.nets.twins import hold

ACTIVATIONS = st.sampled_from(["relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu"])
SMALL = st.integers(1, 7)


@st.composite
def mlp(draw: st.DrawFn) -> dict[str, Any]:
    hidden = tuple(draw(st.lists(SMALL, max_size=4)))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["norm"] = draw(st.sampled_from(["none", "layer"]))
        options["dropout"] = draw(st.sampled_from([0.0, 0.2, 0.9]))
        options["residual"] = len(hidden) > 1 and draw(st.booleans())
    return {"inputs": draw(SMALL), "hidden": hidden, "activation": draw(ACTIVATIONS), "options": options}


KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "linear": st.fixed_dictionaries({"inputs": SMALL}),
    "mlp": mlp(),
}
"""Keys of a small model of each kind: a row here for each row of NETS."""


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    kind = draw(st.sampled_from(sorted(KINDS)))
    loss: Any = draw(st.sampled_from(["cross_entropy", "mse"]))
    keys = {"outputs": draw(st.integers(1, 4))} | draw(KINDS[kind])
    return ModelSpec(kind, loss=loss, **keys)


def test_every_kind_is_drawn() -> None:
    assert KINDS.keys() == NETS.keys()


@given(model=models(), seed=st.integers(0, 2**20))
@settings(max_examples=50, deadline=None)
def test_a_net_of_any_kind_is_the_same_in_numpy_in_torch_and_as_onnx(model: ModelSpec, seed: int) -> None:
    hold(model, seed)
