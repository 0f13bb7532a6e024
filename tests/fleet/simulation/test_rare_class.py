"""Three percent of faults: who finds none is named, and who is to find them goes on until it does."""

from __future__ import annotations

import numpy as np

from fleet.simulation.simulate import Result, simulate
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec, TrainSpec

N_DEVICES = 4


def vibrations(n: int, seed: int) -> Dataset:
    """Rows of which 3 % are faults, that a line tells apart once it is steep enough."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 100 < 3).astype(np.int64)
    X = rng.normal(size=(n, 2)) * 0.3
    X[:, 0] += y * 4.0
    return Dataset(X.astype(np.float32), y)


def run(stop: StopSpec, **rounds: object) -> Result:
    data = vibrations(2000, 0)
    shares = [Dataset(data.X[k::N_DEVICES], data.y[k::N_DEVICES]) for k in range(N_DEVICES)]
    job = JobSpec(
        "faults",
        ModelSpec("linear", 2, (), 2),
        compression="off",
        contract=ContractSpec(classes=("ok", "fault")),
        train=TrainSpec(batch_size=100, learning_rate=0.3),
        rounds=RoundsSpec(quorum=2, max_rounds=100, stop=stop, **rounds),  # type: ignore[arg-type]
    )
    return simulate(job, shares, vibrations(1400, 1))


def test_a_target_on_the_accuracy_that_always_saying_ok_reaches_is_named_as_that() -> None:
    result = run(StopSpec("accuracy", target=0.96))
    assert result.rounds[-1].measures["recall:fault"] == 0.0
    assert result.rounds[-1].measures["balanced_accuracy"] < 0.51
    assert result.reason.startswith("accuracy 0.96")
    assert result.reason.endswith("has reached the target 0.96, but the model is as good as always answering 'ok'")


def test_a_target_on_the_recall_goes_on_until_the_faults_are_found() -> None:
    blind, found = run(StopSpec("accuracy", target=0.96)), run(StopSpec("recall:fault", target=0.8))
    assert len(found.rounds) > len(blind.rounds)
    assert found.rounds[-1].measures["recall:fault"] >= 0.8
    assert all(row.measures.get("recall:fault", 0.0) < 0.8 for row in found.rounds[:-1])
    assert found.reason == f"recall:fault {found.rounds[-1].measures['recall:fault']:.4f} has reached the target 0.8"


def test_a_target_on_a_measure_of_values_is_reached_from_above() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)).astype(np.float32)
    y = X @ np.array([[1.0], [-2.0]], np.float32)
    shares = [Dataset(X[k:500:2], y[k:500:2]) for k in range(2)]
    rounds = RoundsSpec(quorum=2, max_rounds=40, stop=StopSpec("rmse", target=0.1))
    result = simulate(
        JobSpec("line", ModelSpec("linear", 2, (), 1, loss="mse"), compression="off", rounds=rounds),
        shares,
        Dataset(X[500:], y[500:]),
    )
    assert result.rounds[-1].measures["rmse"] <= 0.1
    assert result.rounds[-1].measures["r2"] > 0.9
    assert result.reason.startswith("rmse 0.0")
