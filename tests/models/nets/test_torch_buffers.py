from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from models.buffers import NO_BUFFERS, first_of, for_training, named
from models.data.dataset import Dataset
from models.job import ModelSpec, TrainSpec
from models.lattice import initial
from models.nets.buffered import buffered
from models.nets.net import ModelError
from models.nets.torch_export import export_module
from models.nets.torch_net import TorchNet
from models.params import Params
from models.training import train
from models.training.checkpoint import from_bytes, to_bytes

MODEL = ModelSpec("linear", inputs=4, outputs=3)


class Odd(nn.Module):
    """Has buffers of all kinds that are not refused."""

    def __init__(self, *, reassigns: bool = False, **beside: torch.Tensor | None) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)
        self.reassigns = reassigns
        self.register_buffer("seen", torch.zeros(4))
        self.register_buffer("table", torch.arange(3))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("mask", torch.full((4,), -torch.inf), persistent=False)
        self.register_buffer("turns", torch.ones(4, dtype=torch.complex64) * 1j, persistent=False)
        for name, value in beside.items():
            self.register_buffer(name, value)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        assert self.turns.dtype == torch.complex64
        if self.training and self.reassigns:
            self.seen = 0.9 * self.seen + 0.1 * X.mean(0)
            self.steps = self.steps + 1
        elif self.training:
            self.seen.mul_(0.9).add_(0.1 * X.mean(0))
            self.steps += 1
        out: torch.Tensor = self.last(X - self.seen)
        return out


def normed(momentum: float | None = 0.1) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=momentum), nn.ReLU(), nn.Linear(5, 3))


def net_of(module: nn.Module) -> TorchNet:
    return TorchNet(MODEL, module)


def quantised() -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):  # Torch means to give them up
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def rows(n: int = 50, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset((rng.standard_normal((n, 4)) + 3).astype(np.float32), rng.integers(0, 3, n), "made up")


def params_of(net: TorchNet) -> Params:
    return initial(net.spec, 1).params(net.spec)


@pytest.mark.parametrize("reassigns", [False, True])
def test_a_step_changes_the_arrays_that_it_is_given_and_nothing_in_the_net(reassigns: bool) -> None:
    net, data = net_of(Odd(reassigns=reassigns)), rows()
    assert [t.name for t in net.buffers] == ["seen"]
    assert set(net.first_buffers) == {"seen", "table", "steps"}
    beside = for_training(net, NO_BUFFERS)
    before = net.predict(params_of(net), data.X)
    net.loss_and_gradients(params_of(net) | beside, data.X, data.y)
    np.testing.assert_allclose(beside["seen"], 0.1 * data.X.mean(axis=0), rtol=1e-5)
    assert beside["steps"] == 1
    net.loss_and_gradients(params_of(net), data.X, data.y)
    np.testing.assert_array_equal(net.predict(params_of(net), data.X), before)
    assert not first_of(net).values[0].any()
    given = named(beside, net.buffers)
    after = net.predict(params_of(net) | given.params(), data.X)
    assert np.abs(after - before).max() > 0
    np.testing.assert_array_equal(buffered(net, given).predict(params_of(net), data.X), after)
    np.testing.assert_array_equal(buffered(net, given).predict(params_of(net) | first_of(net).params(), data.X), before)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.zeros(2, dtype=torch.complex64), "of torch.complex64"),
        (torch.zeros(2, dtype=torch.bool), "of torch.bool"),
        (torch.eye(2).to_sparse(), "that is sparse"),
        (quantised(), "that is quantised"),
        (torch.tensor([1.0, -torch.inf]), "with numbers that are not finite"),
        (torch.tensor([1e300], dtype=torch.float64), "with numbers that are not finite"),
        (nn.parameter.UninitializedBuffer(), "of a lazy module, which has no shape yet"),
    ],
)
def test_what_cannot_be_averaged_is_refused_by_name(value: torch.Tensor, why: str) -> None:
    with pytest.raises(ModelError, match=f'has a buffer "spare" {why}'):
        net_of(Odd(spare=value))


def test_a_constant_that_a_step_changes_is_refused_by_name() -> None:
    class Forgets(Odd):
        def forward(self, X: torch.Tensor) -> torch.Tensor:
            self.mask.add_(1.0)
            return super().forward(X)

    net, data = net_of(Forgets()), rows()
    with pytest.raises(ModelError, match=r'its buffer "mask" as it trains, but has it with persistent=False'):
        net.loss_and_gradients(params_of(net), data.X, data.y)


def test_a_buffer_that_becomes_another_shape_is_refused_by_name() -> None:
    class Grows(Odd):
        def forward(self, X: torch.Tensor) -> torch.Tensor:
            out = super().forward(X)
            self.seen = torch.zeros(5)
            return out

    net, data = net_of(Grows()), rows()
    with pytest.raises(ModelError, match=r'has made of its buffer "seen" one of another shape'):
        net.loss_and_gradients(params_of(net) | for_training(net, NO_BUFFERS), data.X, data.y)


@pytest.mark.parametrize("make", [normed, lambda: normed(None), lambda: Odd(reassigns=True)])
def test_a_run_that_is_resumed_anywhere_ends_in_the_same_bits(make: Callable[[], nn.Module]) -> None:
    how, data = TrainSpec(epochs=2, batch_size=16, learning_rate=0.1, momentum=0.9), rows()

    def begun(net: TorchNet) -> train.TrainingState:
        return train.begin(params_of(net), bytes(32), for_training(net, NO_BUFFERS))

    net = net_of(make())
    start = begun(net)
    whole = to_bytes(train.finish(train.steps(net, start, data, how, version_number=0), start))
    for stop in (1, 4, 6):
        state = begun(net)
        for _, step in zip(range(stop), train.steps(net, state, data, how, version_number=0), strict=False):
            state = from_bytes(to_bytes(step.state), net.spec)
        again = net_of(make())  # another process
        assert begun(again).has_as_much(state)
        assert to_bytes(train.finish(train.steps(again, state, data, how, version_number=0), state)) == whole


def test_it_trains_as_plain_torch_does() -> None:
    data, how = rows(), TrainSpec(epochs=3, batch_size=10, learning_rate=0.1)
    net, plain = net_of(normed()), normed()
    plain.load_state_dict({name: torch.from_numpy(p.copy()) for name, p in params_of(net).items()}, strict=False)
    state = train.begin(params_of(net), bytes(32), for_training(net, NO_BUFFERS))
    state = train.finish(train.steps(net, state, data, how, version_number=0), state)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for epoch in range(3):
        for index in train.order_of(bytes(32), epoch, 50).reshape(-1, 10):
            optimizer.zero_grad()
            X, y = torch.from_numpy(data.X[index]), torch.from_numpy(data.y[index])
            nn.functional.cross_entropy(plain(X), y).backward()
            optimizer.step()
    theirs: dict[str, Any] = plain.state_dict()
    for name, value in state.all_params.items():
        np.testing.assert_allclose(value, theirs[name].numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_onnx_has_the_statistics_that_it_is_given() -> None:
    net, data = net_of(normed()), rows()
    beside = for_training(net, NO_BUFFERS)
    for _ in range(20):
        net.loss_and_gradients(params_of(net) | beside, data.X, data.y)
    params = params_of(net) | named(beside, net.buffers).params()
    body = export_module(net, params, opset=17, output="probabilities")
    (found,) = onnxruntime.InferenceSession(body).run(None, {"input": data.X})
    np.testing.assert_allclose(found, net.predict(params, data.X), rtol=1e-4, atol=1e-5)
    assert np.abs(found - net.predict(params_of(net), data.X)).max() > 0.1


def test_a_net_that_answers_by_the_rows_beside_a_row_is_not_written_as_onnx() -> None:
    net = net_of(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3)))
    with pytest.raises(ModelError, match=r'"1" has track_running_stats=False.*leave that out, or take a GroupNorm'):
        export_module(net, params_of(net), opset=17, output="probabilities")
