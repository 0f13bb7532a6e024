"""Each optimizer against the one of torch.optim, on the same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.job import TrainSpec
from models.nets.mlp import quietly
from models.params import Params
from models.training.optimizers import OPTIMIZERS, SLAB, Kept, Pace, clipped, init

SHAPES = {"0.weight": (5, 3), "0.bias": (5,), "scalar": ()}
STEPS = 50


def params_of(rng: np.random.Generator, shapes: dict[str, tuple[int, ...]] | None = None) -> Params:
    return {n: np.array(rng.standard_normal(shape), np.float32) for n, shape in (shapes or SHAPES).items()}


def torchs(train: TrainSpec, tensors: list[torch.Tensor]) -> torch.optim.Optimizer:
    rate, decay, betas = train.learning_rate, train.weight_decay, (train.beta1, train.beta2)
    match train.optimizer:
        case "sgd":
            return torch.optim.SGD(tensors, rate, train.momentum, 0, decay, train.nesterov)
        case "adam":
            return torch.optim.Adam(tensors, rate, betas, train.epsilon, decay)
        case "adamw":
            return torch.optim.AdamW(tensors, rate, betas, train.epsilon, decay)


SGD = st.fixed_dictionaries(
    {
        "momentum": st.sampled_from([0.0, 0.5, 0.9, 0.99]),
        "nesterov": st.booleans(),
        "learning_rate": st.sampled_from([0.1, 0.01, 1e-4]),
        "weight_decay": st.sampled_from([0.0, 0.01, 0.1]),
    }
).map(lambda keys: keys | {"nesterov": keys["nesterov"] and keys["momentum"] > 0})
ADAM = st.fixed_dictionaries(
    {
        "optimizer": st.sampled_from(["adam", "adamw"]),
        "beta1": st.sampled_from([0.0, 0.5, 0.9, 0.99]),
        "beta2": st.sampled_from([0.9, 0.999]),
        "epsilon": st.sampled_from([1e-8, 1e-3]),
        "learning_rate": st.sampled_from([0.1, 0.01, 1e-4]),
        "weight_decay": st.sampled_from([0.01, 0.1, 1.0]),
    }
) | st.just({"optimizer": "adam", "learning_rate": 0.01})


@given(
    keys=SGD | ADAM,
    clip_norm=st.sampled_from([None, 0.5, 1e3]),
    rates=st.sampled_from([(1.0,), (1.0, 0.5, 0.01, 0.7)]),
    size=st.sampled_from([1.0, 1e-4, 1e3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_fifty_steps_are_those_of_torch(
    keys: dict[str, Any], clip_norm: float | None, rates: tuple[float, ...], size: float, seed: int
) -> None:
    train = TrainSpec(**keys, clip_norm=clip_norm)
    rng = np.random.default_rng(seed)
    ours = params_of(rng)
    theirs = {name: torch.tensor(p, requires_grad=True) for name, p in ours.items()}
    optimizer, kept, row = torchs(train, list(theirs.values())), init(train, ours), OPTIMIZERS[train.optimizer]
    before, farthest = None, 1.0
    for number in range(1, STEPS + 1):
        rate = train.learning_rate * rates[number % len(rates)]
        gradients = {name: np.float32(size) * p for name, p in params_of(rng).items()}
        for name, tensor in theirs.items():
            tensor.grad = torch.tensor(gradients[name])
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(theirs.values()), clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        share = (1.0 if clip_norm is None else clipped(gradients, clip_norm)) * (rate if row.takes_rate else 1.0)
        changes = {name: np.asarray(np.float32(share) * gradient) for name, gradient in gradients.items()}
        row.step(train, ours, kept, changes, Pace(rate, rate / (before or rate), number))
        before, farthest = rate, max(farthest, *(float(np.abs(p).max()) for p in ours.values()))
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor.detach().numpy(), rtol=1e-5, atol=1e-5 * farthest, err_msg=name)


@pytest.mark.parametrize(
    "train",
    [
        TrainSpec(weight_decay=0.1),
        TrainSpec(momentum=0.9, nesterov=True, weight_decay=0.1),
        TrainSpec(optimizer="adamw", weight_decay=0.1),
    ],
)
def test_a_tensor_of_several_slabs_is_moved_everywhere_alike(train: TrainSpec) -> None:
    shape = (3, SLAB // 2 + 1)
    params, gradients = {"w": np.ones(shape, np.float32)}, {"w": np.full(shape, 0.5, np.float32)}
    kept = init(train, params)
    OPTIMIZERS[train.optimizer].step(train, params, kept, gradients, Pace(0.1, 1.0, 1))
    assert len(np.unique(params["w"])) == 1
    assert params["w"][0, 0] < 1
    assert all(len(np.unique(row["w"])) == 1 for row in kept if row)


def test_each_keeps_what_it_says() -> None:
    params = params_of(np.random.default_rng(0))
    for train in (TrainSpec(), TrainSpec(momentum=0.9), TrainSpec(optimizer="adam")):
        kept = init(train, params)
        assert sum(map(bool, kept)) == OPTIMIZERS[train.optimizer].rows(train)
        assert all([(n, p.shape) for n, p in row.items()] == list(SHAPES.items()) for row in kept if row)
    assert init(TrainSpec(), params) == Kept({}, {})


def test_a_gradient_whose_squares_overflow_is_clipped_and_not_lost() -> None:
    gradients = {"w": np.full(4, 1e30, np.float32), "b": np.zeros(2, np.float32)}
    with quietly():  # as in training
        assert clipped(gradients, 1.0) == pytest.approx(0.5e-30)
    assert clipped({"w": np.zeros(3, np.float32)}, 1.0) == 1.0
