"""What a job begins with whose net's own code gives weights: they are version 1, once and for all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from torch import nn

from aggregator import creation, starting
from aggregator.config import AggregatorConfig, ModelSettings
from aggregator.convergence import STARTED
from aggregator.inbox import Inbox
from aggregator.run import Run
from aggregator.store import Store
from fleet.problems.central import trained_centrally
from fleet.simulation.simulate import Result, simulate
from models.chain import Chain
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets import table as nets
from models.nets.net import ModelError
from models.params import Params
from runtime.faults import Marks

KIND = "starting_nets:make"
CONFIG = AggregatorConfig(fleet="f", models=ModelSettings(allow=(KIND,)))
MARKS = Marks(Path("/dev/null/none"))
CALLS: list[str] = []


def make(bias: float = 0.25) -> nn.Module:
    """A module whose weights are not as any rule of Torch's would draw them."""
    CALLS.append("made")
    module = nn.Linear(3, 2)
    nn.init.constant_(module.bias, bias)
    with torch.no_grad():
        module.bias *= bias / bias if bias < 1e38 else bias
    return module


class Scaled(nn.Module):
    """Has a parameter that is one number, without an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 2), nn.Parameter(torch.tensor(1.5))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.scale * self.layer(X)
        return outputs


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    code: Any = ModuleType("starting_nets")
    code.make, code.scaled = make, Scaled
    monkeypatch.setitem(sys.modules, "starting_nets", code)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def spec(max_rounds: int = 2, start: Any = None, **changes: Any) -> JobSpec:
    options = changes.pop("options", {})
    model = ModelSpec(KIND, 3, (), 2, options=options, start=start)
    return JobSpec("toy", model, seed=7, rounds=RoundsSpec(quorum=2, max_rounds=max_rounds), **changes)


def begun(store: Store, job: JobSpec) -> Run:
    creation.create("toy-1", job, store, CONFIG)
    return again(store)


def again(store: Store) -> Run:
    (row,) = store.jobs()
    return Run(row, store, CONFIG, Inbox(10**6), 1, 0.0, marks=MARKS)


def weights(run: Run) -> Params:
    chain = Chain(nets.of_job(run.spec, allow=(KIND,)).spec, run.spec)
    return chain.take(chain.first(), run.version.number, run.state().body).model.params(chain.spec)


def by_torch(seed: int) -> Params:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: p.detach().numpy() for name, p in make().named_parameters()}


@pytest.mark.parametrize("compression", ["off", "strong"])
def test_a_factorys_weights_are_version_1_and_stay_so_whatever_it_gives_later(
    store: Store, compression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store, spec(compression=compression))
    assert (run.version.number, STARTED in run.metrics) == (1, True)
    for name, value in by_torch(7).items():
        np.testing.assert_allclose(weights(run)[name], value, atol=2.0**-24)
    sha256 = run.state().sha256
    monkeypatch.setitem(make.__globals__, "CALLS", [])
    monkeypatch.setattr(make, "__defaults__", (9.0,))
    assert (again(store).version.number, again(store).state().sha256) == (1, sha256)


def test_another_seed_gives_other_weights_and_drawing_them_disturbs_nobody() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (nets.of_job(structs.replace(spec(), seed=seed), allow=(KIND,)).start for seed in (1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert one is not None
    assert other is not None
    assert not np.array_equal(one["weight"], other["weight"])
    np.testing.assert_array_equal(one["bias"], other["bias"])


def test_a_job_that_says_seed_begins_with_version_0(store: Store) -> None:
    run = begun(store, spec(start="seed"))
    assert run.version.number == 0
    assert not weights(run)["bias"].any()


def test_built_in_nets_begin_with_their_seed_and_say_no_other_start() -> None:
    assert starting.of_net(nets.build(ModelSpec("mlp", 3))) is None
    assert nets.of_job(JobSpec("toy", ModelSpec("mlp", 3, framework="torch"))).start is None
    with pytest.raises(ValueError, match='kind = "mlp" has no key "start"'):
        ModelSpec("mlp", 3, start="factory")


def test_weights_that_no_version_can_have_are_refused(store: Store) -> None:
    with pytest.raises(ModelError, match=r"cannot start from the weights of .*: bias has numbers that are not"):
        begun(store, spec(options={"bias": 2.0**127}))
    assert store.jobs() == []


def rows(n: int, seed: int) -> Dataset:
    X = np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)
    return Dataset(X, (X[:, 0] + 3 * X[:, 1] > 0).astype(np.int64))


def simulated(job: JobSpec) -> Result:
    return simulate(job, [rows(30, 1), rows(30, 2)], rows(50, 3))


@pytest.mark.parametrize("normalise", ["none", "standard"])
def test_a_fleet_trains_on_from_them(normalise: Any) -> None:
    """Every device fetches version 1, which is no round."""
    result = simulated(spec(3, contract=ContractSpec(normalise=normalise)))
    assert [row.participants for row in result.rounds] == [0, 2, 2, 2]
    assert result.rounds[1].body_bytes_down > 0
    assert (result.accuracy or 0) > 0.8
    drawn = simulated(spec(3, "seed", contract=ContractSpec(normalise=normalise)))
    assert [row.participants for row in drawn.rounds] == [2, 2, 2]


@pytest.mark.parametrize("compression", ["off", "strong", CompressionSpec(codec="int8")])
@pytest.mark.parametrize(
    "aggregate",
    [AggregateSpec(server_momentum=0.5), AggregateSpec(strategy="fedadam", server_learning_rate=0.02)],
)
def test_a_parameter_that_is_one_number_trains_like_any_other(compression: Any, aggregate: AggregateSpec) -> None:
    job = structs.replace(spec(3, compression=compression), aggregate=aggregate)
    job = structs.replace(job, model=structs.replace(job.model, kind="starting_nets:scaled"))
    assert [row.participants for row in simulated(job).rounds] == [0, 2, 2, 2]


def test_the_central_comparison_starts_from_them_and_trains_as_often() -> None:
    data = rows(40, 1)
    _, untrained = trained_centrally(spec(), data, 1)
    np.testing.assert_array_equal(untrained["bias"], np.full(2, 0.25, np.float32))
    _, trained = trained_centrally(spec(), data, 2)
    _, drawn = trained_centrally(spec(start="seed"), data, 0)
    assert not np.array_equal(trained["weight"], untrained["weight"])
    assert not drawn["bias"].any()
