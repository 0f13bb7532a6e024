"""A part of a net stays as it is: what is trained, its gradients, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import frozen
from models.frozen import MissingError
from models.job import AdapterSpec, JobSpec, ModelSpec, TrainSpec
from models.lattice import initial
from models.nets import table
from models.nets.finetune import DOWN, UP, Tuned, plan, served
from models.nets.net import ModelError, Net
from models.params import Params, TensorSpec

MODEL = ModelSpec("mlp", 4, (8, 6), 3)
SPEC = (
    TensorSpec("a.weight", (8, 4)),
    TensorSpec("a.bias", (8,)),
    TensorSpec("b.c.weight", (6, 2, 4)),
    TensorSpec("b.c.bias", (6,)),
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 4)).astype(np.float32)
Y = np.arange(7) % 3


class Backbone(nn.Module):
    """A module that freezes its first layer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        for p in self.first.parameters():
            p.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return found


FACTORY = f"{__name__}:Backbone"
CODE = ModelSpec(FACTORY, 4, (), 3)


@pytest.fixture(autouse=True)
def _factory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are modules that nobody can import by name."""
    row = table.FACTORY._replace(torch=lambda _spec, _nn: Backbone())
    monkeypatch.setattr(table, "FACTORY", row)


def net_of(train: TrainSpec, model: ModelSpec = MODEL, framework: str = "numpy") -> Tuned:
    net = table.of_job(JobSpec("job", model, seed=5, train=train), framework=framework, allow=(FACTORY,))
    assert isinstance(net, Tuned)
    return net


def params_of(net: Net) -> Params:
    """Values that are nowhere zero."""
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in net.spec}


def names(train: TrainSpec) -> list[str]:
    found = plan(train, SPEC)
    assert found is not None
    return [tensor.name for tensor in found.trained]


def test_patterns_are_of_tensors_or_of_modules_that_hold_them() -> None:
    assert names(TrainSpec(freeze=("a",))) == ["b.c.weight", "b.c.bias"]
    assert names(TrainSpec(freeze=("*.bias",))) == ["a.weight", "b.c.weight"]
    assert names(TrainSpec(only=("b", "a.bias"))) == ["a.bias", "b.c.weight", "b.c.bias"]
    assert names(TrainSpec(only=("b.c.w*",))) == ["b.c.weight"]


def test_an_adapter_has_two_small_tensors_in_the_place_of_a_large_one() -> None:
    found = plan(TrainSpec(adapter=AdapterSpec(2, 6.0), only=("a.bias",)), SPEC)
    assert found is not None
    assert found.trained == (
        TensorSpec(f"a.weight.{DOWN}", (2, 4)),
        TensorSpec(f"a.weight.{UP}", (16,)),
        TensorSpec("a.bias", (8,)),
        TensorSpec(f"b.c.weight.{DOWN}", (2, 8)),
        TensorSpec(f"b.c.weight.{UP}", (12,)),
    )
    assert [adapter.scale for adapter in found.adapters] == [3.0, 3.0]
    assert [tensor.name for tensor in found.frozen] == ["a.weight", "b.c.weight", "b.c.bias"]


def test_what_is_trained_whole_needs_no_adapter() -> None:
    assert names(TrainSpec(adapter=AdapterSpec(2), only=("a",))) == [
        "a.weight",
        "a.bias",
        f"b.c.weight.{DOWN}",
        f"b.c.weight.{UP}",
    ]


def test_all_of_a_net_that_nothing_is_frozen_of_is_trained() -> None:
    assert plan(TrainSpec(), SPEC) is None
    assert plan(TrainSpec(only=("*",)), SPEC) is None


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (TrainSpec(freeze=("x",)), r"freeze: no tensor is called 'x'; the net has a.weight \(8, 4\), "),
        (TrainSpec(only=("a", "b.d")), "only: no tensor is called 'b.d'"),
        (TrainSpec(freeze=("*",)), "nothing is left to train: .*a.weight"),
        (TrainSpec(freeze=("a", "b")), "nothing is left to train"),
        (TrainSpec(adapter=AdapterSpec(5)), "rank = 5 is more than the smaller side of a.weight, 4 of"),
        (TrainSpec(adapter=AdapterSpec(7, layers=("b",))), "rank = 7 .* b.c.weight, 6 of"),
        (TrainSpec(adapter=AdapterSpec(1, layers=("a", "x*"))), "layers: 'x\\*' is no tensor"),
        (TrainSpec(adapter=AdapterSpec(1, layers=("*.bias",))), "only tensors of one axis"),
        (TrainSpec(adapter=AdapterSpec(1, layers=("a",)), only=("a",)), "there is nothing to adapt"),
        (TrainSpec(base="0" * 64), "no tensor of the net is frozen"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_key_and_with_the_names(train: TrainSpec, words: str) -> None:
    with pytest.raises(ValueError, match=rf"\[train.*{words}"):
        plan(train, SPEC)


def test_a_job_of_a_built_in_net_is_refused_as_it_is_read() -> None:
    with pytest.raises(ValueError, match=r"freeze: no tensor is called '9'; the net has 0.weight"):
        JobSpec("job", MODEL, train=TrainSpec(freeze=("9",)))
    with pytest.raises(ValueError, match="freeze and only"):
        TrainSpec(freeze=("0",), only=("2",))
    with pytest.raises(ValueError, match="freeze and adapter"):
        TrainSpec(freeze=("0",), adapter=AdapterSpec())


def test_version_0_of_an_adapted_net_is_the_net_itself() -> None:
    net = net_of(TrainSpec(adapter=AdapterSpec(2)))
    first = served(net, initial(net.spec, 5).params(net.spec))
    whole = table.build(MODEL)
    assert list(first) == [tensor.name for tensor in whole.spec]
    np.testing.assert_array_equal(first["2.weight"], initial(whole.spec, 5).params(whole.spec)["2.weight"])


class Adapted(nn.Module):
    """LoRA by hand: y = x W^T + b + (alpha / rank) (x A^T) B^T (Hu et al. 2021, equation 3)."""

    def __init__(self, base: Params, params: Params, at: str, scale: float) -> None:
        super().__init__()
        self.weight, self.bias = torch.tensor(base[f"{at}.weight"]), torch.tensor(base[f"{at}.bias"])
        self.down = nn.Parameter(torch.tensor(params[f"{at}.weight.{DOWN}"]))
        up = params[f"{at}.weight.{UP}"].reshape(len(self.bias), -1)
        self.up = nn.Parameter(torch.tensor(up))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.bias + self.scale * (x @ self.down.T) @ self.up.T


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_gradients_of_adapters_are_those_of_torch(framework: str) -> None:
    net = net_of(TrainSpec(adapter=AdapterSpec(2, 5.0, ("0", "2")), only=("4",)), framework=framework)
    params = params_of(net)
    first, second = (Adapted(net.frozen, params, at, 2.5) for at in ("0", "2"))
    head = nn.Linear(6, 3)
    head.load_state_dict({name: torch.tensor(params[f"4.{name}"]) for name in ("weight", "bias")})
    module = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), head)
    right = nn.CrossEntropyLoss()(module(torch.tensor(X)), torch.tensor(Y))
    right.backward()
    out = {name: np.full_like(value, np.nan) for name, value in params.items()}
    loss, found = net.loss_and_gradients(params, X, Y, scale=3.0, out=out)
    assert loss == pytest.approx(right.item(), rel=1e-5)
    assert list(found) == [tensor.name for tensor in net.spec]
    of = {
        f"0.weight.{DOWN}": first.down,
        f"0.weight.{UP}": first.up,
        f"2.weight.{DOWN}": second.down,
        f"2.weight.{UP}": second.up,
        "4.weight": head.weight,
        "4.bias": head.bias,
    }
    for name, p in of.items():
        assert p.grad is not None
        np.testing.assert_allclose(found[name], 3.0 * p.grad.numpy().reshape(found[name].shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        net.predict(params, X), torch.softmax(module(torch.tensor(X)), 1).detach().numpy(), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 5), min_size=1, max_size=5), st.sampled_from(["numpy", "torch"]))
def test_gradients_of_a_part_are_those_of_the_whole(chosen: set[int], framework: str) -> None:
    whole = table.build(MODEL, framework=framework)
    only = [whole.spec[i].name for i in chosen]
    net = net_of(TrainSpec(only=tuple(only)), framework=framework)
    params = params_of(net)
    loss, right = whole.loss_and_gradients(served(net, params), X, Y)
    found_loss, found = net.loss_and_gradients(params, X, Y)
    assert found_loss == loss
    assert found.keys() == set(only)
    for name, value in found.items():
        np.testing.assert_allclose(value, right[name], rtol=1e-5, atol=1e-7)


def test_a_step_changes_nothing_that_is_frozen() -> None:
    net = net_of(TrainSpec(adapter=AdapterSpec(2)))
    before = {name: value.copy() for name, value in net.frozen.items()}
    params = params_of(net)
    net.loss_and_gradients(params, X, Y)
    net.evaluate(params, X, Y)
    for name, value in net.frozen.items():
        np.testing.assert_array_equal(value, before[name])


def test_what_a_factory_freezes_does_not_travel_and_is_its_own() -> None:
    net = net_of(TrainSpec(), CODE)
    assert [tensor.name for tensor in net.spec] == ["second.weight", "second.bias"]
    again = net_of(TrainSpec(), CODE)
    assert frozen.sha256(net.frozen, net.plan.frozen) == frozen.sha256(again.frozen, again.plan.frozen)
    torch.manual_seed(5)
    np.testing.assert_array_equal(net.frozen["first.weight"], Backbone().first.weight.detach().numpy())
    assert net.frozen["first.weight"].ctypes.data == net.whole.module.first.weight.data_ptr()  # type: ignore[attr-defined]


def test_adapters_on_what_a_factory_freezes_leave_the_rest_to_be_trained() -> None:
    adapted = net_of(TrainSpec(adapter=AdapterSpec(2, layers=("first",))), CODE)
    assert [tensor.name for tensor in adapted.spec] == [
        f"first.weight.{DOWN}",
        f"first.weight.{UP}",
        "second.weight",
        "second.bias",
    ]


def test_a_factory_whose_last_tensors_are_frozen_by_the_job_has_nothing_to_train() -> None:
    with pytest.raises(ModelError, match="nothing is left to train"):
        net_of(TrainSpec(freeze=("second",)), CODE)


def test_a_base_that_a_job_names_and_nobody_has_is_missing() -> None:
    with pytest.raises(MissingError, match="base = 0000"):
        net_of(TrainSpec(freeze=("0",), base="0" * 64))
    net = net_of(TrainSpec(freeze=("0",)))
    mine = frozen.sha256(net.frozen, net.plan.frozen)
    assert net_of(TrainSpec(freeze=("0",), base=mine)).spec == net.spec
