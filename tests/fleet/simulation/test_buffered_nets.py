"""A fleet whose net has batch norms: what is served has the statistics of all devices."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from torch import nn

from fleet.simulation.left import Left
from fleet.simulation.simulate import simulate
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec
from models.nets.table import by_torch

TRUE = np.random.default_rng(7).standard_normal((4, 3))
MODEL = ModelSpec("batch_norms_for_tests:make", inputs=4, outputs=3)


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("batch_norms_for_tests")
    module.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "batch_norms_for_tests", module)


def rows(seed: int, n: int) -> Dataset:
    """Rows whose features have the mean 3, as the issue's have."""
    X = np.random.default_rng(seed).standard_normal((n, 4)) + 3
    return Dataset(X.astype(np.float32), ((X - 3) @ TRUE).argmax(axis=1), "made up")


@pytest.mark.parametrize("averaged", [1, 4])
def test_what_is_served_of_raw_features_is_as_good_as_what_is_trained(averaged: int) -> None:
    spec = JobSpec(
        *("normed", MODEL),
        train=TrainSpec(epochs=2, batch_size=16, learning_rate=0.1),
        rounds=RoundsSpec(quorum=3, max_rounds=12),
        deploy_average=averaged,
    )
    left: list[Left] = []
    test = rows(99, 300)
    result = simulate(spec, [rows(seed, 64) for seed in range(3)], test, on_end=left.append)
    assert result.accuracy is not None
    assert result.accuracy > 0.8
    assert (left[0].params["1.running_var"] > 0).all()
    found = by_torch(MODEL).evaluate(left[0].params, test.X, test.y).accuracy
    assert found == pytest.approx(result.accuracy if averaged == 1 else result.deployed_accuracy)
    bare = {name: value for name, value in left[0].params.items() if "running" not in name}
    assert found is not None
    assert (by_torch(MODEL).evaluate(bare, test.X, test.y).accuracy or 0) < found - 0.1
    # 24 numbers in 2 bytes at most, 2 of how they are said, and the table of two sections
    assert result.body_bytes_up <= 12 * 3 * (48 + 2 + 6 + 2 * 5) + 12 * 3 * 60
