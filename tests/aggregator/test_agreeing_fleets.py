"""A fleet that agrees before it trains, as services over a broker: killed at any moment, joined late, told twice."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from aggregator.config import AggregatorConfig
from aggregator.evaluation import Scorer
from models.agreement import Agreed
from models.chain import Chain
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.data.source import DataSource
from models.job import AggregateSpec, CompressionSpec, JobSpec, RoundsSpec
from models.nets.normalised import normalised
from tests.aggregator.conftest import INPUTS, OUTPUTS, Fleet

STANDARD = ContractSpec(normalise="standard")
ROUNDS = RoundsSpec(quorum=3, min_devices=3, max_rounds=10, wait="all", deadline_s=30.0)
KINDS: dict[str, dict[str, Any]] = {
    "strong": {"compression": "strong"},
    "off": {"compression": "off"},
    "int8": {"compression": CompressionSpec(codec="int8")},
    "fedadam": {"aggregate": AggregateSpec(strategy="fedadam", server_learning_rate=0.05)},
    "fedadam, off": {
        "compression": "off",
        "aggregate": AggregateSpec(strategy="fedadam", server_learning_rate=0.05),
    },
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def raw(seed: int, n: int = 40) -> Dataset:
    """Two clouds that differ in what is small: raw, the large ones are all that a net sees."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % OUTPUTS
    z = rng.standard_normal((n, INPUTS)) + 2.0 * y[:, None]
    return Dataset((z * [1e5, 1, 1e-2, 1e4] + [1e5, 0, 0, 1e9]).astype(np.float32), y)


@pytest.fixture(autouse=True)
def _raw_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Fleet.__module__], "rows", raw)


def accuracy(fleet: Fleet) -> float:
    run = fleet.job()
    held = run._learner.now.held
    net = normalised(run._net, run.spec.contract, held.agreed)
    found = net.evaluate(held.model.params(net.spec), raw(99).X, raw(99).y).accuracy
    assert found is not None
    return found


def one_thing_each(fleet: Fleet) -> None:
    """Let a little happen, so that a death may come between any two things."""
    fleet.aggregator.step(0.0)
    for agent in fleet.agents.values():
        agent.step(0.0)
    fleet.now += 0.1


@every_kind
def test_raw_rows_train_where_the_fleet_agrees(
    kind: dict[str, Any], fleet: Fleet, spec: Callable[..., JobSpec]
) -> None:
    fleet.submit(spec(contract=STANDARD, rounds=ROUNDS, **kind))
    assert fleet.finish().version.number == 10
    assert accuracy(fleet) > 0.9
    bodies = [work._trail.now for agent in fleet.agents.values() for work in agent.jobs.works.values() if work._trail]
    assert all(held.agreed == fleet.job()._learner.now.held.agreed for held in bodies)


def test_raw_rows_do_not_train_without_it(fleet: Fleet, spec: Callable[..., JobSpec]) -> None:
    fleet.submit(spec(rounds=structs.replace(ROUNDS, deadline_s=1.0)))
    for _ in range(200):
        fleet.step()
    assert accuracy(fleet) < 0.6


@every_kind
def test_deaths_at_any_moment_of_the_round_change_nothing(
    kind: dict[str, Any], fleet: Fleet, spec: Callable[..., JobSpec], undisturbed: Callable[[JobSpec], str]
) -> None:
    job = spec(contract=STANDARD, rounds=structs.replace(ROUNDS, max_rounds=3), **kind)
    fleet.submit(job)
    beside: list[int] = []
    turn = 0
    while fleet.aggregator.runs == {} or not fleet.job().coordinator.ended:
        turn += 1
        if turn % 2 and turn < 24 and fleet.aggregator.runs:
            run = fleet.job()
            beside.append(run.version.number * 10 + len(fleet.store.verdicts(run.job)))
            if turn % 4 == 1:
                fleet.kill_aggregator()
                fleet.start_aggregator()
            else:
                name = f"d{turn % 3}"
                fleet.kill_agent(name)
                fleet.agents[name] = fleet.start_agent(name)
        one_thing_each(fleet)
        assert turn < 3000, fleet.aggregator.doing
    assert any(0 < at < 10 for at in beside)  # some died between the first statistic and version 1
    assert fleet.job().sha256 == undisturbed(job)


@pytest.mark.parametrize("kind", [KINDS["strong"], KINDS["off"], KINDS["fedadam"]], ids=["strong", "off", "fedadam"])
def test_a_device_that_comes_late_takes_what_was_agreed_on(
    kind: dict[str, Any], fleet: Fleet, spec: Callable[..., JobSpec]
) -> None:
    fleet.submit(spec(contract=STANDARD, rounds=structs.replace(ROUNDS, max_rounds=60, wait="target"), **kind))
    while not fleet.aggregator.runs or fleet.job().version.number < 12:
        one_thing_each(fleet)
    agreed = fleet.job()._learner.now.held.agreed
    fleet.agents["d3"] = fleet.start_agent("d3")
    while not fleet.job().coordinator.ended:
        one_thing_each(fleet)
    (work,) = fleet.agents["d3"].jobs.works.values()
    assert work._trail is not None
    assert work._trail.now.number > 12
    assert work._trail.now.agreed == agreed
    counted = {verdict.device for verdict in fleet.store.verdicts(fleet.job().job)}
    assert "d3" in counted


def test_devices_of_few_rows_make_nobody_wait(
    fleet: Fleet, spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[Fleet.__module__], "rows", lambda seed: raw(seed, 40 if seed else 7))
    fleet.submit(spec(contract=STANDARD, rounds=structs.replace(ROUNDS, max_rounds=4)))
    assert fleet.finish().version.number == 4
    assert fleet.job()._history[1]["agreeing"] == 2
    assert fleet.job()._history[1]["participants"] == 3


def test_the_counts_of_classes_are_agreed_on_where_they_are_to_be_balanced(
    fleet: Fleet, spec: Callable[..., JobSpec]
) -> None:
    fleet.submit(spec(contract=ContractSpec(class_weight="balanced"), rounds=structs.replace(ROUNDS, max_rounds=1)))
    fleet.finish()
    agreed = fleet.job()._learner.now.held.agreed
    assert agreed is not None
    assert agreed.class_counts == (60, 60)


def test_the_first_trained_round_has_all_the_time_that_there_is(fleet: Fleet, spec: Callable[..., JobSpec]) -> None:
    """Statistics come at once: a deadline that is learned of them would cut all who train."""
    rounds = structs.replace(ROUNDS, deadline_s="learned", max_deadline_s=500.0)
    fleet.submit(spec(contract=STANDARD, rounds=rounds))
    while not fleet.aggregator.runs or fleet.job().version.number < 1:
        one_thing_each(fleet)
    opened = fleet.job().coordinator.rounds.last
    assert opened is not None
    assert (opened.base.number, opened.seconds) == (1, 500.0)


def test_a_version_before_the_fleet_has_agreed_has_no_score_but_is_tried(
    tmp_path: Path, spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So whoever submits a job whose net cannot be evaluated hears of it at once."""
    test = raw(99)
    np.savez(tmp_path / "test.npz", X=test.X, y=test.y)
    config = AggregatorConfig(fleet="f", tests={"toy": DataSource(str(tmp_path / "test.npz"))})
    scorer = Scorer(spec(contract=STANDARD), config)
    first = Chain(scorer.net.spec, spec()).first().model
    agreed = Agreed(test.X.mean(axis=0), 1 / test.X.std(axis=0))
    assert scorer(first) == {}
    assert scorer(first, agreed).keys() >= {"loss", "accuracy"}
    assert pickle.loads(pickle.dumps(scorer))(first, agreed) == scorer(first, agreed)  # noqa: S301 -- its own

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of the net")

    monkeypatch.setattr(scorer.net, "evaluate", fail)
    with pytest.raises(RuntimeError, match="of the net"):
        scorer(first)
