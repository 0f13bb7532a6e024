from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.job import ModelSpec
from models.nets.net import ModelError, Net
from models.nets.table import build
from models.params import Params, spec_of

HERE = __name__


class Normed(nn.Module):
    """Has an input shape, a buffer, a tied weight and a parameter that nothing uses."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_shape = (1, 2, 3)
        self.norm = nn.BatchNorm1d(6)
        self.first = nn.Linear(6, width)
        self.again = self.first
        self.last = nn.Linear(width, 2)
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, X: torch.Tensor) -> Any:
        assert X.shape[1:] == self.input_shape
        return self.last(torch.relu(self.first(self.norm(X.flatten(1)))))


def make_normed(width: int = 4) -> nn.Module:
    return Normed(width)


def make_number() -> int:
    return 3


def make_half() -> nn.Module:
    return nn.Linear(3, 2).to(torch.float64)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a factory of this very file be found under a name, whatever the test runner calls the file."""
    import sys

    monkeypatch.setitem(sys.modules, "factories_for_tests", sys.modules[HERE])


def build_here(factory: str, **fields: Any) -> Net:
    kind = f"factories_for_tests:{factory}"
    return build(ModelSpec(kind=kind, **fields), allow=(kind,))


def make_params(net: Net, seed: int = 0) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in net.spec}


@given(
    hidden=st.lists(st.integers(1, 6), max_size=3),
    activation=st.sampled_from(["relu", "tanh"]),
    loss=st.sampled_from(["cross_entropy", "mse"]),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 4),
    n=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_torch_and_numpy_are_one_net(
    hidden: list[int], activation: Any, loss: Any, inputs: int, outputs: int, n: int, seed: int
) -> None:
    model = ModelSpec(inputs=inputs, hidden=tuple(hidden), outputs=outputs, activation=activation, loss=loss)
    ours, theirs = build(model), build(model, framework="torch")
    assert ours.spec == theirs.spec
    params, generator = make_params(ours, seed), np.random.default_rng(seed)
    X = generator.standard_normal((n, inputs)).astype(np.float32)
    values = generator.standard_normal((n, outputs)).astype(np.float32)
    y = generator.integers(0, outputs, n) if loss == "cross_entropy" else values
    my_loss, mine = ours.loss_and_gradients(params, X, y, scale=0.5)
    their_loss, their = theirs.loss_and_gradients(params, X, y, scale=0.5)
    assert my_loss == pytest.approx(their_loss, rel=1e-5, abs=1e-5)
    for name in mine:
        np.testing.assert_allclose(mine[name], their[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.predict(params, X), theirs.predict(params, X), rtol=1e-5, atol=1e-5)
    my_metrics, their_metrics = (net.evaluate(params, X, y) for net in (ours, theirs))
    assert my_metrics.loss == pytest.approx(their_metrics.loss, rel=1e-5, abs=1e-5)
    assert my_metrics[1:] == their_metrics[1:]


def test_a_factorys_parameters_cross_in_order_once_and_its_statistics_beside_them() -> None:
    net = build_here("make_normed", inputs=6, outputs=2, options={"width": 5})
    assert [t.name for t in net.spec] == [
        "spare",
        "norm.weight",
        "norm.bias",
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    ]
    assert [t.name for t in net.buffers] == ["norm.running_mean", "norm.running_var"]
    params = make_params(net)
    X = np.random.default_rng(1).standard_normal((8, 2, 3)).astype(np.float32)
    before = net.predict(params, X)
    _, gradients = net.loss_and_gradients(params, X, np.zeros(8, np.int64))
    assert spec_of(gradients) == net.spec
    assert not gradients["spare"].any()
    assert all(gradient.dtype == np.float32 for gradient in gradients.values())
    np.testing.assert_array_equal(net.predict(params, X), before)  # nothing of a step stays in this object
    beside = {name: np.array(value) for name, value in net.first_buffers.items()}
    net.loss_and_gradients({**params, **beside}, X, np.zeros(8, np.int64))
    assert not np.allclose(net.predict({**params, **beside}, X), before)
    np.testing.assert_array_equal(net.predict(params, X), net.predict(params, X.reshape(8, 6)))


def test_a_module_of_another_precision_computes_in_float32() -> None:
    net = build_here("make_half", inputs=3, outputs=2)
    X = np.ones((2, 3), np.float32)
    _, gradients = net.loss_and_gradients(make_params(net), X, np.array([0, 1]))
    assert {gradient.dtype for gradient in gradients.values()} == {np.dtype(np.float32)}


def test_read_only_arrays_are_taken() -> None:
    net = build(ModelSpec(inputs=3, outputs=2), framework="torch")
    params, X = make_params(net), np.ones((2, 3), np.float32)
    for array in (*params.values(), X):
        array.flags.writeable = False
    net.loss_and_gradients(params, X, np.array([0, 1]))


def test_what_a_factory_gets_wrong_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="gave a int"):
        build_here("make_number")
    with pytest.raises(ModelError, match="make_nothing"):
        build_here("make_nothing")
    with pytest.raises(ModelError, match="unexpected keyword"):
        build_here("make_normed", options={"depth": 3})
    with pytest.raises(ModelError, match="no_such_module"):
        build(ModelSpec(kind="no_such_module:make"), allow=("no_such_module:make",))


def test_outputs_of_another_shape_than_the_models_are_a_model_error() -> None:
    net = build_here("make_normed", inputs=6, outputs=3)
    with pytest.raises(ModelError, match="outputs = 3"):
        net.predict(make_params(net), np.ones((2, 6), np.float32))


def test_torch_keeps_to_one_thread() -> None:
    assert torch.get_num_threads() == 1
