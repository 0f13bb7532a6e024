"""Every kind of net with options at random: the same in NumPy, in Torch and as ONNX."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.job import ModelSpec
from models.nets import size, table
from models.nets.losses import LOSSES
from models.nets.table import NETS
from tests.models.nets.twins import bytes_held_by_a_step, bytes_of_a_step, hold

ACTIVATIONS = st.sampled_from(["relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu"])
SMALL = st.integers(1, 7)


def norm_of(units: tuple[int, ...]) -> st.SearchStrategy[str]:
    """Draw a norm of layers with so many units: none where one has a single one."""
    return st.just("none") if 1 in units else st.sampled_from(["none", "layer"])


@st.composite
def mlp(draw: st.DrawFn) -> dict[str, Any]:
    hidden = tuple(draw(st.lists(SMALL, max_size=4)))
    options: dict[str, Any] = {}
    if hidden and draw(st.booleans()):
        options["norm"] = draw(norm_of(hidden))
        options["dropout"] = draw(st.sampled_from([0.0, 0.2, 0.9]))
        options["residual"] = len(hidden) > 1 and draw(st.booleans())
    return {"inputs": draw(SMALL), "hidden": hidden, "activation": draw(ACTIVATIONS), "options": options}


@st.composite
def autoencoder(draw: st.DrawFn) -> dict[str, Any]:
    options = {"noise": draw(st.sampled_from([0.1, 2.0]))}  # so that the code may be as wide as it likes
    hidden = tuple(draw(st.lists(SMALL, min_size=1, max_size=3)))
    return {"inputs": draw(SMALL), "hidden": hidden, "activation": draw(ACTIVATIONS), "options": options}


@st.composite
def convolutional(draw: st.DrawFn, axes: int) -> dict[str, Any]:
    sizes = [draw(st.integers(3, 9)) for _ in range(axes)]
    last = draw(st.integers(1, 3))
    channels = draw(st.lists(st.sampled_from([2, 4]), min_size=1, max_size=3))
    options: dict[str, Any] = {"channels": channels}
    options |= {"columns": last} if axes == 1 else dict(zip(("height", "width"), sizes, strict=True))
    drawn = {
        "kernel": st.integers(1, 3),
        "pool": st.just(1),
        "pooling": st.sampled_from(["max", "average"]),
        "norm": st.sampled_from(["none", "layer", "group"]),
        "dropout": st.sampled_from([0.0, 0.3]),
        "head": st.sampled_from(["flatten", "mean"]),
    }
    options |= {key: draw(values) for key, values in drawn.items() if draw(st.booleans())}
    options |= {key: draw(st.booleans()) for key in ("residual", "separable") if len(channels) > 1}
    if options.get("norm") == "group":
        options["norm_groups"] = draw(st.sampled_from([1, 2]))
    if options.get("pool") == 1:  # so that there are always places left for a kernel
        options["stride"] = [draw(st.integers(1, 2)), *[1] * (len(channels) - 1)]
    if "kernel" in options:  # else as many as there are, at most
        options["kernel"] = [1 if i else options["kernel"] for i in range(len(channels))]
    if not options.get("residual"):
        options["padding"] = draw(st.sampled_from(["same", "valid"]))
    hidden = tuple(draw(st.lists(SMALL, max_size=1)))
    inputs = math.prod(sizes) * last
    return {"inputs": inputs, "hidden": hidden, "activation": draw(ACTIVATIONS), "options": options}


@st.composite
def gru(draw: st.DrawFn) -> dict[str, Any]:
    units = draw(SMALL)
    hidden = tuple(draw(st.lists(SMALL, max_size=2)))
    options = {
        "columns": draw(st.integers(1, 4)),
        "units": units,
        "layers": draw(st.integers(1, 4)),
        "head": draw(st.sampled_from(["last", "mean"])),
        "norm": draw(norm_of((units, *hidden))),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
    }
    inputs = draw(st.integers(1, 9)) * options["columns"]
    return {"inputs": inputs, "hidden": hidden, "activation": draw(ACTIVATIONS), "options": options}


KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "linear": st.fixed_dictionaries({"inputs": SMALL}),
    "mlp": mlp(),
    "autoencoder": autoencoder(),
    "cnn1d": convolutional(1),
    "cnn2d": convolutional(2),
    "gru": gru(),
}
"""Keys of a small model of each kind: a row here for each row of NETS."""

OF_LOSS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "mse": {},
    "huber": {},
    "multilabel": {},
    "focal": {},
    "binary": {"outputs": 1},
    "quantile": {"outputs": 2, "loss_options": {"quantiles": [0.1, 0.9]}},
}
"""Keys that fit a loss: a row here for each row of LOSSES."""


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    kind = draw(st.sampled_from(sorted(KINDS)))
    loss: Any = draw(st.sampled_from(sorted(OF_LOSS)))
    if NETS[kind].loss is not None:  # of its own, and one output
        return ModelSpec(kind, **draw(KINDS[kind]))
    keys = {"outputs": draw(st.integers(2, 4))} | draw(KINDS[kind]) | OF_LOSS[loss]
    return ModelSpec(kind, loss=loss, **keys)


def test_every_kind_and_every_loss_is_drawn() -> None:
    assert KINDS.keys() == NETS.keys()
    assert OF_LOSS.keys() | {row.loss for row in NETS.values() if row.loss} == LOSSES.keys()


@given(model=models(), seed=st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_a_net_of_any_kind_is_the_same_in_numpy_in_torch_and_as_onnx(model: ModelSpec, seed: int) -> None:
    hold(model, seed)


WIDE = {"inputs": 60, "hidden": (300, 200)}
LARGE: dict[str, dict[str, Any]] = {
    "linear": {"inputs": 300},
    "mlp": WIDE,
    "cnn1d": {"inputs": 192, "options": {"columns": 6, "channels": [16, 16], "norm": "layer", "dropout": 0.2}},
    "autoencoder": {"inputs": 200, "hidden": (300, 20), "options": {"noise": 0.1}},
    "mlp of gelu": WIDE | {"activation": "gelu"},
    "gru": {"inputs": 240, "options": {"columns": 6, "units": 16, "layers": 2, "head": "mean"}},
    "cnn2d with all": {
        "inputs": 256,
        "hidden": (50,),
        "options": {"separable": True, "residual": True, "norm": "group", "dropout": 0.3, "pooling": "average"},
    },
    "mlp with all": WIDE | {"activation": "tanh", "options": {"norm": "layer", "dropout": 0.3, "residual": True}},
}
"""A wider model of each kind, and of what has other layers."""
OUTPUTS = {"autoencoder": 1}


def test_every_kind_has_a_wider_model() -> None:
    assert {name.partition(" ")[0] for name in LARGE} == NETS.keys()


@pytest.mark.parametrize("name", LARGE)
def test_a_step_allocates_nothing_that_grows_with_its_layers(name: str) -> None:
    model = ModelSpec(name.partition(" ")[0], outputs=OUTPUTS.get(name, 7), **LARGE[name])
    # one layer of 300 units: 614,400; NumPy's own buffers: 70,000, whatever n is
    assert bytes_of_a_step(model, 512) < 90_000


@pytest.mark.parametrize("name", LARGE)
def test_what_a_step_works_in_is_what_its_units_say(name: str) -> None:
    model, n = ModelSpec(name.partition(" ")[0], outputs=OUTPUTS.get(name, 7), **LARGE[name]), 200
    held = bytes_held_by_a_step(model, n)
    said = 4 * n * size.of_net(table.build(model)).units
    assert said / 2 <= held <= 3 * said + 2**22  # models/needs.py counts four arrays a unit; blocks of some MB are free
