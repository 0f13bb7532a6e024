"""Simulated fleets that train a part of a net: built-in kinds and a factory, from a seed, a file or code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fleet.console.versions import read_weights
from fleet.simulation.left import Left
from fleet.simulation.simulate import Result, simulate
from models.data.dataset import Dataset
from models.job import AdapterSpec, JobSpec, ModelSpec, RoundsSpec, TrainSpec
from models.lattice import initial
from models.nets import table
from runtime.settings import SettingsError

MODEL = ModelSpec("mlp", 6, (16,), 3)
WIDE = np.random.default_rng(0).normal(size=(6, 3))


def rows(n: int, seed: int) -> Dataset:
    X = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return Dataset(X, (X @ WIDE).argmax(1))


SHARES = [rows(60, seed) for seed in range(1, 5)]
TEST = rows(200, 99)


def run(train: TrainSpec, model: ModelSpec = MODEL, base: Path | None = None, **more: object) -> tuple[Result, Left]:
    job = JobSpec("part", model, train=train, rounds=RoundsSpec(max_rounds=6), **more)  # type: ignore[arg-type]
    left: list[Left] = []
    weights = None if base is None else read_weights(base, job)
    result = simulate(job, SHARES, TEST, on_end=left.append, weights=weights)
    assert result.idle == {}
    return result, left[0]


@pytest.mark.parametrize("compression", ["off", "strong"])
@pytest.mark.parametrize(
    ("train", "stays"),
    [
        (TrainSpec(epochs=3, freeze=("0",)), {"0.weight", "0.bias"}),
        (TrainSpec(epochs=3, only=("2.weight",)), {"0.weight", "0.bias", "2.bias"}),
        (TrainSpec(epochs=3, adapter=AdapterSpec(2, 4.0, ("0",)), only=("2",)), {"0.bias"}),
        (TrainSpec(epochs=3, adapter=AdapterSpec(1)), {"0.bias", "2.bias"}),
    ],
    ids=["freeze", "only", "adapter and head", "adapter"],
)
def test_a_fleet_trains_a_part_and_the_rest_stays_as_version_0_has_it(
    train: TrainSpec, stays: set[str], compression: str
) -> None:
    result, left = run(train, compression=compression)
    before = initial(table.build(MODEL).spec, 0).params(table.build(MODEL).spec)
    assert result.accuracy is not None
    assert result.rounds[0].accuracy is not None
    assert result.accuracy > 0.5
    assert list(left.params) == list(before)
    assert {name for name in before if np.array_equal(left.params[name], before[name])} == stays


def test_a_fleet_that_is_given_a_trained_net_goes_on_from_it(tmp_path: Path) -> None:
    trained, left = run(TrainSpec(epochs=5))
    np.savez(tmp_path / "net.npz", **left.params)  # type: ignore[arg-type]
    for train in (TrainSpec(freeze=("0",)), TrainSpec(adapter=AdapterSpec(2), learning_rate=0.01)):
        result, after = run(train, base=tmp_path / "net.npz")
        assert result.accuracy is not None
        assert trained.accuracy is not None
        assert result.rounds[0].accuracy == pytest.approx(trained.accuracy, abs=0.1)
        np.testing.assert_array_equal(after.params["0.bias"], left.params["0.bias"])


def test_a_new_head_is_drawn_where_the_file_has_another(tmp_path: Path) -> None:
    _, left = run(TrainSpec(epochs=5))
    np.savez(tmp_path / "net.npz", **(left.params | {"2.weight": np.zeros((9, 16)), "2.bias": np.zeros(9)}))
    result, after = run(TrainSpec(freeze=("0",)), base=tmp_path / "net.npz")
    np.testing.assert_array_equal(after.params["0.weight"], left.params["0.weight"])
    assert result.rounds[0].participants == 4


def test_a_file_without_what_is_frozen_is_refused_with_the_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", x=np.zeros(3))
    job = JobSpec("part", MODEL, train=TrainSpec(freeze=("0",)))
    with pytest.raises(SettingsError, match=r"no array '0.weight'; the frozen tensors are 0.weight \(16, 6\), 0.bias"):
        read_weights(tmp_path / "net.npz", job)
    np.savez(tmp_path / "whole.npz", **{t.name: np.zeros(t.shape) for t in table.build(MODEL).spec})
    named = JobSpec("part", MODEL, train=TrainSpec(freeze=("0",), base="0" * 64))
    with pytest.raises(SettingsError, match="others than those of SHA-256 0000"):
        read_weights(tmp_path / "whole.npz", named)


class Backbone(nn.Module):
    """A module that freezes its first layer, with what Torch draws."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)
        self.first.requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(torch.relu(self.first(x)))
        return found


@pytest.mark.parametrize(
    "train", [TrainSpec(epochs=3), TrainSpec(epochs=3, adapter=AdapterSpec(2, layers=("first",)))], ids=["", "adapter"]
)
def test_what_a_factory_freezes_stays_what_its_code_gives(train: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FACTORY", table.FACTORY._replace(torch=lambda _spec, _nn: Backbone()))
    monkeypatch.setattr("models.budget.size.of_job", lambda *_: None)  # its child would look for the code by name
    result, left = run(train, ModelSpec("somewhere:backbone", 6, (), 3))
    assert result.accuracy is not None
    assert result.accuracy > 0.5
    torch.manual_seed(0)
    right = Backbone()
    np.testing.assert_array_equal(left.params["first.bias"], right.first.bias.detach().numpy())
    same = np.array_equal(left.params["first.weight"], right.first.weight.detach().numpy())
    assert same == (train.adapter is None)
    per_update = result.body_bytes_up / (4 * len(result.rounds))
    assert per_update < 4 * sum(p.numel() for p in right.parameters() if p.requires_grad)
