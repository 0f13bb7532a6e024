from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.job import ModelSpec
from models.nets.layered import Layered
from models.nets.mlp import ROWS_AT_ONCE, Mlp, multiply, spec_of_mlp
from models.nets.table import build
from models.params import Params, zeros


def make_params(net: Mlp, seed: int = 0) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in net.spec}


def test_names_order_and_shapes_are_those_of_a_sequential() -> None:
    spec = spec_of_mlp(ModelSpec(inputs=4, hidden=(3, 2), outputs=5))
    assert [(t.name, t.shape) for t in spec] == [
        ("0.weight", (3, 4)),
        ("0.bias", (3,)),
        ("2.weight", (2, 3)),
        ("2.bias", (2,)),
        ("4.weight", (5, 2)),
        ("4.bias", (5,)),
    ]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_gradient_is_the_slope_of_the_loss(loss: str) -> None:
    net = Mlp(ModelSpec(inputs=3, hidden=(4,), outputs=2, activation="tanh", loss=loss))  # type: ignore[arg-type]
    params, generator = make_params(net), np.random.default_rng(1)
    X = generator.standard_normal((5, 3)).astype(np.float32)
    y = generator.integers(0, 2, 5) if loss == "cross_entropy" else X[:, :2].copy()
    direction = make_params(net, 2)
    _, gradients = net.loss_and_gradients(params, X, y)
    ahead, behind = (
        net.loss_and_gradients({k: v + np.float32(h) * direction[k] for k, v in params.items()}, X, y)[0]
        for h in (1e-2, -1e-2)
    )
    slope = sum(float((gradients[k] * direction[k]).sum()) for k in gradients)
    assert (ahead - behind) / 2e-2 == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_the_buffers_are_used_and_the_scale_multiplies_the_gradient_alone() -> None:
    net = Mlp(ModelSpec(inputs=3, hidden=(4,), outputs=2))
    params = make_params(net)
    X, y = np.ones((5, 3), np.float32), np.zeros(5, np.int64)
    out = zeros(net.spec)
    loss, scaled = net.loss_and_gradients(params, X, y, scale=0.5, out=out)
    plain_loss, plain = net.loss_and_gradients(params, X, y)
    assert scaled is out
    assert loss == plain_loss
    for name, gradient in plain.items():
        np.testing.assert_allclose(2 * scaled[name], gradient, rtol=1e-6)


def test_neither_params_nor_data_are_touched() -> None:
    net = Mlp(ModelSpec(inputs=3, outputs=3, loss="mse"))  # no hidden layer: outputs come straight from X
    params, X, y = make_params(net), np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    for array in (*params.values(), X, y):
        array.flags.writeable = False
    net.loss_and_gradients(params, X, y)
    net.predict(params, X)
    net.evaluate(params, X, y)


def test_huge_outputs_give_probabilities_not_nan() -> None:
    net = Mlp(ModelSpec(inputs=1, outputs=2))
    params = {"0.weight": np.array([[1e4], [-1e4]], np.float32), "0.bias": np.zeros(2, np.float32)}
    X = np.array([[1.0], [-1.0]], np.float32)
    np.testing.assert_array_equal(net.predict(params, X), [[1, 0], [0, 1]])
    metrics = net.evaluate(params, X, np.array([0, 0]))
    assert metrics == (1e4, 0.5, 2)


def test_diverged_params_show_in_the_loss_without_a_warning() -> None:
    net = Mlp(ModelSpec(inputs=2, hidden=(2,), outputs=2))
    params = {name: np.full_like(value, 3e38) for name, value in make_params(net).items()}
    X = np.ones((1, 2), np.float32)
    assert np.isnan(net.evaluate(params, X, np.array([0])).loss)
    assert np.isnan(net.predict(params, X)).all()


def test_evaluation_of_values_has_no_accuracy() -> None:
    net = Mlp(ModelSpec(inputs=1, outputs=1, loss="mse"))
    params = {"0.weight": np.ones((1, 1), np.float32), "0.bias": np.zeros(1, np.float32)}
    X = np.array([[1.0], [2.0]], np.float32)
    assert net.evaluate(params, X, np.array([1.0, 4.0], np.float32)) == (2.0, None, 2)


def test_many_rows_are_answered_as_few_are() -> None:
    net = Mlp(ModelSpec(inputs=3, hidden=(4,), outputs=2))
    params = make_params(net)
    X = np.random.default_rng(3).standard_normal((2 * ROWS_AT_ONCE + 5, 3)).astype(np.float32)
    answers = net.predict(params, X)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers[-5:], net.predict(params, X[-5:]), atol=1e-6)


@given(m=st.integers(1, 300), k=st.integers(1, 900), n=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_product_in_blocks_is_the_product(m: int, k: int, n: int) -> None:
    generator = np.random.default_rng(m * k * n)
    left = generator.integers(-3, 4, (m, k)).astype(np.float32)
    right = generator.integers(-3, 4, (k, n)).astype(np.float32)
    out = np.full((m, n), np.nan, np.float32)
    assert multiply(left, right, out) is out
    np.testing.assert_array_equal(out, left @ right)  # small integers: exact in any order


# Norm, dropout, residual, and other activations.


@pytest.mark.parametrize("options", [{}, {"norm": "none", "dropout": 0, "residual": False}, {"colour": 3}], ids=str)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_one_without_options_is_the_fast_one(options: dict[str, Any], activation: Any) -> None:
    assert isinstance(build(ModelSpec("mlp", 3, (4, 4), 2, activation=activation, options=options)), Mlp)


@pytest.mark.parametrize(
    "said",
    [{"activation": "gelu"}, *({"options": one} for one in ({"norm": "layer"}, {"dropout": 0.1}, {"residual": True}))],
    ids=str,
)
def test_any_other_is_a_stack_of_layers(said: dict[str, Any]) -> None:
    assert isinstance(build(ModelSpec("mlp", 3, (4, 4), 2, **said)), Layered)


def test_the_names_say_which_layer_of_a_block_a_tensor_is_of() -> None:
    options = {"norm": "layer", "dropout": 0.1, "residual": True}
    spec = build(ModelSpec("mlp", 3, (4, 4, 5), 2, options=options)).spec
    assert [(t.name, t.shape) for t in spec] == [
        *(("0.weight", (4, 3)), ("0.bias", (4,)), ("1.weight", (4,)), ("1.bias", (4,))),
        *(("4.0.weight", (4, 4)), ("4.0.bias", (4,)), ("4.1.weight", (4,)), ("4.1.bias", (4,))),
        *(("5.0.weight", (5, 4)), ("5.0.bias", (5,)), ("5.1.weight", (5,)), ("5.1.bias", (5,))),
        *(("5.projection.weight", (5, 4)), ("5.projection.bias", (5,))),
        *(("6.weight", (2, 5)), ("6.bias", (2,))),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"droput": 0.1}, 'has no key "options.droput"'),
        ({"norms": "layer"}, 'has no key "options.norms"'),
        ({"norm": "layer", "width": 3}, 'has no key "options.width"'),
        ({"norm": "batch"}, "options.norm: Invalid enum value"),
        ({"dropout": 0.95}, r"options.dropout: Expected `float` <= 0.9"),
        ({"dropout": -0.1}, r"options.dropout: Expected `float` >= 0"),
        ({"dropout": "much"}, r"options.dropout: Expected `float`"),
        ({"residual": 1}, r"options.residual: Expected `bool`"),
        ({"residual": True}, r"options.residual = true, where hidden = \[4\]: .* two or more"),
        ({"norm": "layer", "hidden": [3]}, 'has no key "options.hidden"'),
        ({"hidden": [3]}, r'has no key "options.hidden": hidden stands in \[model\] itself$'),
        ({"units": 3}, 'has no key "options.units": leave it out, or say kind = "gru"$'),
        ({"columns": 3, "width": 3}, 'has no key "options.columns": leave it out, or say kind = "cnn1d" or "gru"$'),
    ],
)
def test_an_option_that_is_none_is_refused_by_its_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelSpec("mlp", 3, (4,), 2, options=options)


@pytest.mark.parametrize(
    ("hidden", "options", "words"),
    [
        ((), {"norm": "layer"}, r"options\.norm is of hidden layers, where hidden = \[\]"),
        ((), {"dropout": 0.1}, r"options\.dropout is of hidden layers, where hidden = \[\]"),
        ((4, 1), {"norm": "layer"}, r"options\.norm is over one number alone"),
    ],
)
def test_options_that_come_to_nothing_are_refused(hidden: tuple[int, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelSpec("mlp", 3, hidden, 2, options=options)


def test_a_stack_has_the_size_limits_of_every_net() -> None:
    ModelSpec("mlp", 3, (60_000,), 2)
    with pytest.raises(ValueError, match=r"units are more than the 131,072 .* hidden = \[60000\]"):
        ModelSpec("mlp", 3, (60_000,), 2, options={"norm": "layer"})
    with pytest.raises(ValueError, match=r"parameters are more than .* hidden = \[3500, 3600\]"):
        ModelSpec("mlp", 3, (3500, 3600), 2, options={"residual": True})  # the projection counts
