from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import ContractSpec
from models.data.dataset import Dataset, fit
from models.job import ModelSpec, TrainSpec
from models.nets.table import build
from models.params import Params, Spec
from models.training.checkpoint import TrainingState, from_bytes, to_bytes
from models.training.probe import ROWS, some_rows
from models.training.train import (
    TrainingError,
    TrainingStep,
    begin,
    finish,
    learning_rate,
    n_steps,
    order_of,
    seed_for,
    steps,
)
from models.training.weights import weights_of

MODEL = ModelSpec(inputs=3, hidden=(5,), outputs=4)
NET = build(MODEL)
SEED = seed_for(0, 3, "pi-1")


def make_params(spec: Spec = NET.spec, seed: int = 0) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in spec}


def make_data(n: int = 23) -> Dataset:
    generator = np.random.default_rng(1)
    return Dataset(generator.standard_normal((n, 3)).astype(np.float32), generator.integers(0, 4, n))


def run(train: TrainSpec, state: TrainingState | None = None, data: Dataset | None = None) -> list[TrainingStep]:
    state = state or begin(make_params(), SEED)
    # a step's arrays are overwritten by the next, so each is written down
    return [
        step._replace(state=from_bytes(to_bytes(step.state), NET.spec))
        for step in steps(NET, state, data or make_data(), train, version_number=3)
    ]


def assert_same_bits(left: Params, right: Params) -> None:
    assert {name: value.tobytes() for name, value in left.items()} == {
        name: value.tobytes() for name, value in right.items()
    }


OPTIMIZERS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"optimizer": "adam"},
    {"optimizer": "adamw"},
]


@given(
    cut=st.integers(0, 14),
    optimizer=st.sampled_from(OPTIMIZERS),
    weight_decay=st.sampled_from([0.0, 1e-2]),
    clip_norm=st.sampled_from([None, 0.5]),
    schedule=st.sampled_from(["constant", "cosine"]),
    batch_size=st.sampled_from([5, 23, 40]),
)
@settings(max_examples=60, deadline=None)
def test_a_run_resumed_anywhere_ends_in_the_very_bits_of_an_undisturbed_one(
    cut: int, optimizer: dict[str, Any], weight_decay: float, clip_norm: float | None, schedule: Any, batch_size: int
) -> None:
    train = TrainSpec(
        epochs=3,
        batch_size=batch_size,
        learning_rate=0.05,
        weight_decay=weight_decay or (0.1 if optimizer.get("optimizer") == "adamw" else 0.0),
        clip_norm=clip_norm,
        schedule=schedule,
        warmup=0.3 if schedule == "cosine" else 0.0,
        **optimizer,
    )
    whole = run(train)
    cut = min(cut, len(whole) - 1)
    rest = run(train, whole[cut].state)
    assert len(whole) == cut + 1 + len(rest) == n_steps(train, 23)
    last = (rest or [whole[cut]])[-1]
    assert_same_bits(last.state.params, whole[-1].state.params)
    assert (last.loss, last.state.epoch, last.state.batch) == (whole[-1].loss, 3, 0)


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own() -> None:
    first, second = order_of(SEED, 0, 23), order_of(SEED, 1, 23)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first.tolist() != second.tolist()
    assert order_of(SEED, 0, 23).tolist() == first.tolist()


def test_the_seed_depends_on_job_version_and_device() -> None:
    seeds = {seed_for(0, 3, "pi-1"), seed_for(1, 3, "pi-1"), seed_for(0, 4, "pi-1"), seed_for(0, 3, "pi-2")}
    assert len(seeds) == 4
    assert all(len(seed) == 32 for seed in seeds)


def test_the_position_counts_batches_and_epochs_and_the_loss_is_the_mean_so_far() -> None:
    # at a rate of nothing each loss is that of the given parameters, so the mean is the whole data's
    train = TrainSpec(epochs=2, batch_size=10, learning_rate=1e-30)
    taken = run(train)
    assert [(s.epoch, s.batch) for s in taken] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert {(s.n_epochs, s.n_batches) for s in taken} == {(2, 3)}
    loss = NET.evaluate(make_params(), make_data().X, make_data().y).loss
    assert taken[2].loss == pytest.approx(loss, rel=1e-5)
    assert taken[5].loss == pytest.approx(loss, rel=1e-5)


def test_training_lowers_the_loss_and_changes_the_given_state_only_where_it_may() -> None:
    params = make_params()
    state = begin(params, SEED)
    data = make_data()
    train = TrainSpec(epochs=20, batch_size=5, learning_rate=0.1)
    done = finish(steps(NET, state, data, train, version_number=0), state)
    assert_same_bits(params, make_params())
    before, after = (NET.evaluate(p, data.X, data.y).loss for p in (params, done.params))
    assert after < 0.7 * before
    here = finish(steps(NET, state, data, train, version_number=0, in_place=True), state)
    assert_same_bits(here.params, done.params)
    assert all(here.params[name] is values for name, values in params.items())


def test_the_step_is_torchs_sgd() -> None:
    import torch

    params, data = make_params(), make_data()
    train = TrainSpec(epochs=2, batch_size=23, learning_rate=0.2, momentum=0.9, weight_decay=0.01)
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    optimizer = torch.optim.SGD(tensors.values(), lr=0.2, momentum=0.9, weight_decay=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        hidden = torch.relu(torch.tensor(data.X) @ tensors["0.weight"].T + tensors["0.bias"])
        outputs = hidden @ tensors["2.weight"].T + tensors["2.bias"]
        torch.autograd.backward(torch.nn.functional.cross_entropy(outputs, torch.tensor(data.y)))
        optimizer.step()
    done = run(train)[-1].state.params
    for name, tensor in tensors.items():
        np.testing.assert_allclose(done[name], tensor.detach().numpy(), atol=1e-5)


def test_a_whole_round_is_torchs_with_its_clipping_and_its_schedule() -> None:
    import torch

    params, data = make_params(), make_data()
    train = TrainSpec(
        epochs=6, batch_size=23, learning_rate=0.05, momentum=0.9, nesterov=True, clip_norm=0.5, schedule="cosine"
    )
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    module.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(torch.tensor(data.X)), torch.tensor(data.y))
        torch.autograd.backward(loss)
        assert torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5) > 0.5
        optimizer.step()
        scheduler.step()
    done = run(train)[-1].state.params
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(done[name], parameter.detach().numpy(), atol=1e-5)


def test_a_state_of_another_optimizer_goes_on_with_a_fresh_one() -> None:
    adam = TrainSpec(optimizer="adam", learning_rate=0.01, batch_size=5)
    state = run(adam)[1].state
    last = run(TrainSpec(batch_size=5), state)[-1].state
    assert (last.epoch, last.momentum, last.squares) == (1, {}, {})
    assert run(adam, last._replace(epoch=0, batch=2, n_seen=10))[-1].state.squares


def test_the_learning_rate_decays_with_the_version() -> None:
    assert learning_rate(TrainSpec(learning_rate=0.5, learning_rate_decay=0.9), 2) == pytest.approx(0.405)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_that_has_decayed_to_nothing_moves_nothing(optimizer: dict[str, Any]) -> None:
    decay = {"weight_decay": 0.1} if optimizer.get("optimizer") == "adamw" else {}
    train = TrainSpec(learning_rate_decay=1e-3, schedule="cosine", batch_size=5, **optimizer, **decay)
    state, params = begin(make_params(), SEED), make_params()
    done = finish(steps(NET, state, make_data(), train, version_number=1000), state)
    assert learning_rate(train, 1000) == 0.0
    assert all(np.array_equal(done.params[name], p) for name, p in params.items())


def test_a_run_that_is_over_has_no_steps() -> None:
    train = TrainSpec(batch_size=10)
    over = run(train)[-1].state
    assert run(train, over) == []
    assert finish(iter(()), over) is over


def test_a_run_without_examples_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(TrainingError, match="no examples"):
        run(TrainSpec(), data=make_data(0))


def test_a_diverging_run_says_what_to_do() -> None:
    train = TrainSpec(epochs=50, batch_size=5, learning_rate=1e18)
    with pytest.raises(TrainingError, match=r"lower learning_rate in \[train\]"):
        run(train)


def test_parameters_that_overflow_in_the_last_step_are_noticed() -> None:
    X = np.full((1, 3), 1e3, np.float32)
    wrong = NET.predict(make_params(), X).argmin(axis=1)
    with pytest.raises(TrainingError, match="diverged"):
        run(TrainSpec(learning_rate=1e38), data=Dataset(X, wrong))


def test_a_state_of_other_data_is_refused_instead_of_going_wrong_quietly() -> None:
    train = TrainSpec(batch_size=5)
    state = run(train)[3].state
    for other in (make_data(9), make_data(20)):
        with pytest.raises(TrainingError, match="start it afresh"):
            run(train, state, other)
    with pytest.raises(TrainingError, match="start it afresh"):
        run(TrainSpec(batch_size=4), state)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_ten_million_rows_in_a_file_train_in_the_memory_of_a_few_batches(kind: str, tmp_path: Path) -> None:
    n, model = 10_000_000, ModelSpec(kind, inputs=8, outputs=2)
    X = np.memmap(tmp_path / "X", np.float32, "w+", shape=(n, 8))  # which the disk holds as a hole
    y = np.memmap(tmp_path / "y", np.int64, "w+", shape=n)
    row_weights = np.broadcast_to(np.float32(1), n)
    data = Dataset(X, y, weights=row_weights)
    net, train = build(model), TrainSpec(epochs=1, batch_size=64, learning_rate=0.1)
    contract = ContractSpec(classes=("ok", "fault"), class_weight={"fault": 3.0})
    tracemalloc.start()
    try:
        data = fit(data, model)
        weights = weights_of(data, contract)
        probed = some_rows(data, "pi-1")
        for batch in (0, 150_000):
            state = TrainingState(make_params(net.spec), {}, SEED, 0, batch, 0.0, 64 * batch)
            run = steps(net, state, data, train, version_number=3, weights=weights)
            taken = [next(run) for _ in range(5)]
            assert taken[-1].n_batches == 156_250
        assert len(probed.y) == ROWS
        net.evaluate(make_params(net.spec), X[: 2**20], y[: 2**20])
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
