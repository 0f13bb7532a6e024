"""What is found of a factory's module by trying it: in this very process, where it does no harm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from models.job import ModelSpec
from models.nets.losses import LOSSES
from models.nets.net import ModelError
from models.nets.torch_trial import Found, find

MOST = 10**9


class Given(nn.Module):
    """A module of layers, and what becomes of its outputs."""

    def __init__(self, *layers: nn.Module, then: Callable[[Any], Any] = lambda outputs: outputs) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.then = then

    def forward(self, X: torch.Tensor) -> Any:
        return self.then(self.layers(X))


def dense(outputs: int = 3, **how: Any) -> nn.Module:
    return Given(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs), **how)


def found(make: Callable[[], nn.Module], outputs: int = 3, most: int = MOST, **fields: Any) -> Found:
    return find(ModelSpec("trial_nets:any", 6, (), outputs, **fields), make, most, exports=True)


class Words(nn.Module):
    """Takes its rows for indices."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(self.embedding(X.long()).mean(dim=1))


class Short(nn.Module):
    """An embedding that its own forward keeps short, as Torch's max_norm does: the same again changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 8, max_norm=0.5)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.embedding(X.long()).sum(dim=1)


class Restless(nn.Linear):
    """Does something to itself in forward."""

    def __init__(self, change: Callable[[Restless], Any]) -> None:
        super().__init__(6, 3)
        self.register_buffer("seen", torch.ones(2))
        self.change = change

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (Torch's own name)
        with torch.no_grad():
            self.change(self)
        return super().forward(input)


class Sequence(nn.Module):
    """A recurrent module; `given`: whether it gives all that its layer does."""

    input_shape = (3, 2)

    def __init__(self, layer: type[nn.Module] = nn.LSTM, *, given: bool = False) -> None:
        super().__init__()
        self.layer, self.last = layer(2, 5, batch_first=True), nn.Linear(5, 3)
        self.given = given

    def forward(self, X: torch.Tensor) -> Any:
        states = self.layer(X)
        return states if self.given else self.last(states[0][:, -1])


class Attending(nn.Module):
    """Layer norm, attention, two inputs, no bias, and a weight that two layers share."""

    input_shapes = ((2, 2), (2,))

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(2), nn.MultiheadAttention(2, 1, batch_first=True)
        self.first = nn.Linear(2, 3, bias=False)
        self.again = nn.Linear(2, 3, bias=False)
        self.again.weight = self.first.weight

    def forward(self, X: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        X = self.norm(X)
        return self.first(self.attention(X, X, X)[0].mean(dim=1)) + self.again(more)


class Images(nn.Module):
    """Wants rows in a shape of their own, and does not say which."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Conv1d(3, 4, 2), nn.Linear(4, 3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(X).mean(dim=2))


class WithLoss(nn.Module):
    """Brings a loss along."""

    def __init__(self, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.layers, self.own = nn.Linear(6, 3), loss

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers(X).softmax(dim=1)

    def loss(self, outputs: torch.Tensor, y: torch.Tensor) -> Any:
        return self.own(outputs, y)


def nll(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.nll_loss(outputs.log(), y)


class Stays(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        self.eval()
        return self.last(self.drop(self.first(X)))


def unused() -> nn.Module:
    module = dense()
    module.spare = nn.Linear(2, 2)
    return module


def not_a_number() -> nn.Module:
    module = nn.Linear(6, 3)
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    return module


def throws(_outputs: object) -> None:
    raise KeyError("what is this")


def leaves(_outputs: object) -> None:
    raise SystemExit(0)


GOOD = {
    "dense": dense,
    "twice as precise": lambda: dense().to(torch.float64),
    "half as precise": lambda: dense().to(torch.float16),
    "made for float64 outputs": lambda: dense(then=lambda outputs: outputs.double()),
    "indices": Words,
    "lstm": Sequence,
    "gru": lambda: Sequence(nn.GRU),
    "attention, two inputs, tied": Attending,
    "log-softmax, which does no harm": lambda: dense(then=lambda outputs: outputs.log_softmax(dim=1)),
    "group norm": lambda: Given(nn.GroupNorm(2, 6), nn.Linear(6, 3)),
    "batch norm": lambda: Given(nn.BatchNorm1d(6), nn.Linear(6, 3)),
    "dropout": lambda: Given(nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, 3)),
    "a weight that is kept short as it is used": lambda: Given(Short(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_a_module_that_trains_is_found_good(make: Callable[[], nn.Module]) -> None:
    result = found(make)
    assert (result.refusal, result.notes) == ("", ())
    assert len(result.spec) == len(list(make().named_parameters()))


REFUSED = {
    "softmax": (lambda: dense(then=lambda outputs: outputs.softmax(dim=1)), "gives probabilities, where loss = "),
    "tuple": (
        lambda: Sequence(given=True),
        "gave a tuple of 2 for 8 rows where the model has outputs = 3: forward",
    ),
    "dict": (lambda: dense(then=lambda outputs: {"logits": outputs}), "gave a dict of 1 for 8 rows"),
    "nothing": (lambda: dense(then=print), "gave a NoneType for 8 rows"),
    "another width": (lambda: dense(4), "gave outputs of shape (8, 4) for 8 rows where the model has outputs = 3"),
    "one column less": (lambda: dense(then=lambda outputs: outputs[:, 0]), "gave outputs of shape (8,) for 8 rows"),
    "no parameters": (lambda: Given(nn.Flatten()), "has no parameters to train"),
    "no gradient": (lambda: dense(then=lambda outputs: outputs.detach()), "its loss hangs on none of its parameters"),
    "lazy": (lambda: Given(nn.LazyLinear(3)), "the size of layers.0.weight is not known before the first row"),
    "complex": (lambda: nn.Linear(6, 3, dtype=torch.complex64), "its parameter weight is torch.complex64"),
    "meta": (lambda: dense().to("meta"), "shapes and no numbers"),
    "nan": (not_a_number, "begins with weights that are not finite: weight"),
    "throws": (lambda: dense(then=throws), "throws KeyError: 'what is this' (test_torch_trial.py, line"),
    "exits": (lambda: dense(then=leaves), "throws SystemExit: 0"),
    "too narrow": (lambda: nn.Linear(5, 3), "throws RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    "batch statistics": (
        lambda: Given(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)),
        "layers.0 has track_running_stats = False, so that an answer hangs on the rows",
    ),
    "a weight that each answer changes": (
        lambda: Restless(lambda module: module.weight.mul_(0.9)),
        "changes weight as it answers: forward may use parameters",
    ),
    "a buffer that grows": (
        lambda: Restless(lambda module: setattr(module, "seen", torch.cat([module.seen, module.seen]))),
        'has made of its buffer "seen" one of another shape or kind',
    ),
    "a loss of three numbers": (
        lambda: WithLoss(lambda outputs, _y: outputs.mean(dim=0)),
        "its own loss gave shape (3,): it has to give one number, or one for each row",
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_raw_outputs_are_good_for_every_loss(loss: Any) -> None:
    options = {"quantiles": [0.1, 0.5, 0.9]} if loss == "quantile" else {}
    for outputs in (1, 3):
        try:
            model = ModelSpec("trial_nets:any", 6, (), outputs, loss=loss, loss_options=options)
        except ValueError:
            continue  # it takes no such number of outputs
        result = find(model, partial(dense, outputs), MOST)
        assert (result.refusal, result.notes) == ("", ())


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_a_module_that_cannot_be_trained_is_refused_with_the_reason(make: Callable[[], nn.Module], why: str) -> None:
    fields: dict[str, Any] = {"outputs": 1, "loss": "binary"} if "binary" in why else {}
    result = found(make, **fields)
    assert result.refusal.startswith('model.kind = "trial_nets:any"')
    assert why in result.refusal


NOTED = {
    "relu": (lambda: dense(1, then=torch.relu), {"outputs": 1, "loss": "mse"}, "never below 0"),
    "constant": (lambda: dense(then=lambda outputs: outputs * 0), {}, "the same outputs for every row"),
    "unused": (unused, {}, "the loss does not hang on spare.weight, spare.bias, which is sent and never trained"),
    "eval": (Stays, {}, "puts the module itself, first, drop and 1 more into eval() within forward"),
    "random": (
        lambda: dense(then=lambda outputs: nn.functional.dropout(outputs, 0.5)),
        {},
        "other outputs for the same rows each time",
    ),
    "by batch": (lambda: dense(then=lambda outputs: outputs - outputs.mean(dim=0)), {}, "beside other rows"),
    "infinite": (lambda: dense(then=lambda outputs: outputs / 0), {}, "outputs that are not finite"),
    "another shape": (Images, {}, "give the module input_shape = (3, 2), to which they are then reshaped"),
    "a buffer that is infinite": (
        lambda: Restless(lambda module: module.seen.div_(0)),
        {},
        "its buffer seen has numbers",
    ),
    "written for one row": (
        lambda: dense(then=lambda outputs: outputs.reshape(len(outputs), 3)),
        {},
        "cannot be written as ONNX: as it is written down with one row it answers several wrongly",
    ),
    "no operation of ONNX": (
        lambda: dense(then=lambda outputs: outputs + torch.linalg.eigvals(outputs.T @ outputs).real.detach() * 0),
        {},
        "so nothing can be exported, and a device answers by Torch itself",
    ),
    "own loss on shares": (lambda: WithLoss(nll), {}, "its answers are made of its outputs once more"),
}


@pytest.mark.parametrize(("make", "fields", "note"), NOTED.values(), ids=NOTED)
def test_what_is_nearly_always_a_mistake_is_noted(
    make: Callable[[], nn.Module], fields: dict[str, Any], note: str
) -> None:
    result = found(make, **fields)
    assert result.refusal == ""
    assert note in result.notes[0]


def test_a_batch_norm_wants_two_rows_and_others_one() -> None:
    assert found(GOOD["batch norm"]).least_rows == 2
    assert found(GOOD["group norm"]).least_rows == 1


def test_a_loss_that_gives_one_number_cannot_weigh_rows() -> None:
    assert not found(lambda: WithLoss(nll)).weighs
    assert found(lambda: WithLoss(lambda outputs, y: -outputs[torch.arange(len(y)), y].log())).weighs
    assert found(dense).weighs


def test_a_net_that_takes_more_than_there_is_is_counted_and_not_tried() -> None:
    result = found(lambda: dense(then=throws), most=100)
    assert (result.refusal, result.notes) == ("", ())
    assert result.spec


def test_trying_a_module_leaves_the_draws_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        found(dense)
    assert torch.equal(torch.rand(2), expected)


def test_code_that_is_not_installed_is_told_from_code_that_throws() -> None:
    def missing() -> nn.Module:
        raise ModelError("nowhere") from ImportError("nowhere")

    assert found(missing).missing
    assert not found(lambda: dense(then=throws)).missing
