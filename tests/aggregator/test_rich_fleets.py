"""A fleet whose job asks for all there is: it agrees, balances, holds back, stops by patience, keeps, averages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from onnxruntime import InferenceSession

from aggregator.creation import as_tree
from aggregator.effects import EndJob, Pause, RollBack, Unpause
from aggregator.poll import Poll
from aggregator.run import Run
from aggregator.store import Scored
from broker.messages import Int8, Version
from edge_agent.config import ModelSettings
from edge_agent.slots import Install, InstallOutcome
from fleet.console import versions
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import AggregateSpec, CompressionSpec, JobSpec, RoundsSpec, StopSpec
from models.nets.normalised import normalised
from models.serving.export import to_onnx
from tests.aggregator.conftest import INPUTS, OUTPUTS, Fleet
from tests.aggregator.test_agreeing_fleets import one_thing_each

SpecMaker = Callable[..., JobSpec]
FLEET = sys.modules[Fleet.__module__]
CONTRACT = ContractSpec(normalise="standard", class_weight="balanced", validation=0.2, classes=("ok", "fault"))
ROUNDS = RoundsSpec(
    quorum=3, min_devices=3, max_rounds=6, wait="all", deadline_s=30.0, late="fold", max_share=0.5, keep_every=2
)
CODINGS: dict[str, Any] = {"off": "off", "light": "light", "strong": "strong", "int8": CompressionSpec(codec="int8")}
STRATEGIES = {
    "fedavg": AggregateSpec(),
    "momentum": AggregateSpec(server_momentum=0.9),
    "fedadam": AggregateSpec(strategy="fedadam", server_learning_rate=0.02),
    "median": AggregateSpec(strategy="median"),
}

KINDS = {
    f"{strategy}, {coding}": (STRATEGIES[strategy], CODINGS[coding])
    for strategy in STRATEGIES
    for coding in CODINGS
    if strategy != "median" or coding in ("off", "int8")  # of a sketch there is none
}
SHOWN = {"fedavg, off", "fedavg, strong", "momentum, light", "fedadam, strong", "median, int8"}
"""Each strategy and each coding; `make long` tries each with each."""
every_kind = pytest.mark.parametrize(
    ("rules", "coding"),
    [pytest.param(*kind, id=name, marks=[pytest.mark.long] * (name not in SHOWN)) for name, kind in KINDS.items()],
)


def raw(seed: int, n: int = 40, scale: Sequence[float] = (1e5, 1, 1e-2, 1e4)) -> Dataset:
    """Two clouds that differ in what is small, of which some are held back."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % OUTPUTS
    z = rng.standard_normal((n, INPUTS)) + 2.0 * y[:, None]
    X = ((z + np.array([1, 0, 0, 1e5])) * scale).astype(np.float32)
    return Dataset(X[n // 5 :], y[n // 5 :], held_out=Dataset(X[: n // 5], y[: n // 5]))


@pytest.fixture(autouse=True)
def _raw_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FLEET, "rows", raw)


INSTALLS: list[Install] = []


class NoChildren:
    """Slots that note what they are given, and have it in service at once."""

    def __init__(self, *_: object, **__: object) -> None:
        self._done: list[InstallOutcome] = []

    def deployed(self, *_: object) -> Version | None:
        return None

    def put(self, install: Install) -> None:
        INSTALLS.append(install)
        self._done.append(InstallOutcome(install.name, install.release))

    def finished(self) -> list[InstallOutcome]:
        done, self._done = self._done, []
        return done

    def int8(self) -> dict[str, Int8]:
        """Nothing is served in int8."""
        return {}

    def sweep(self, *_: object) -> None:
        """Nothing lies anywhere."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[Install]:
    """What is put into service, of all devices of fleets that are made from here on."""
    monkeypatch.setattr("edge_agent.service.Slots", NoChildren)
    monkeypatch.setattr(FLEET, "ModelSettings", lambda **_: ModelSettings(inference=True))
    INSTALLS.clear()
    return INSTALLS


def accuracy(run: Run, rows: Dataset) -> float:
    held = run._learner.now.held
    net = normalised(run._net, run.spec.contract, held.agreed)
    found = net.evaluate(held.model.params(net.spec), rows.X, rows.y).accuracy
    assert found is not None
    return found


def test_the_last_version_is_scored_on_rows_as_its_fleet_normalises_them(
    installs: list[Install], fleet: Fleet, spec: SpecMaker
) -> None:
    fleet.submit(spec(contract=CONTRACT, rounds=ROUNDS, deploy="final"))
    run = fleet.finish()
    fleet.run(lambda: fleet.job().metrics.get("federated_devices", 0) == 3)
    held_out = [rows for seed in range(3) if (rows := raw(seed).held_out) is not None]
    assert fleet.job().metrics["accuracy"] == pytest.approx(sum(accuracy(run, rows) for rows in held_out) / 3)
    assert len(installs) == 3


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What devices say of version 0, 1, …: its accuracy. The last one goes on."""
    accuracies = [0.1, 0.5, 0.9, 0.4, 0.3]
    scored = Poll.scored

    def say(self: Poll, version: Version, metrics: Mapping[str, float]) -> Scored | None:
        found = scored(self, version, metrics)
        if found is None:
            return None
        return dict(found[0]) | {"accuracy": accuracies[min(version.number, len(accuracies) - 1)]}, found[1]

    monkeypatch.setattr(Poll, "scored", say)
    return accuracies


def asked(rules: AggregateSpec, rounds: RoundsSpec) -> RoundsSpec:
    """Return the rounds of a job as its strategy can have them."""
    return structs.replace(rounds, max_share=None) if rules.strategy == "median" else rounds


PATIENT = structs.replace(ROUNDS, max_rounds=30, keep_every=None, stop=StopSpec(patience=2))


@pytest.mark.usefixtures("told")
@every_kind
def test_a_version_whose_score_makes_it_the_best_when_it_is_left_is_served_by_patience(
    rules: AggregateSpec, coding: Any, installs: list[Install], fleet: Fleet, spec: SpecMaker
) -> None:
    how = {"aggregate": rules, "compression": coding, "deploy": "final", "deploy_average": 1}
    job = fleet.submit(spec(contract=CONTRACT, rounds=asked(rules, PATIENT), **how))
    run = fleet.finish()
    assert run.reason == "no better accuracy than 0.9000 for 2 rounds: version 1.6 is version 2 again, the best"
    sha256 = {version.number: each for version, each in fleet.store.versions(job)}
    assert sha256[6] == sha256[2] != sha256[5]
    kept = fleet.store.states.get(job, 2)
    assert kept is not None
    assert kept.metrics["accuracy"] == 0.9
    assert "unscored" not in kept.metrics
    fleet.run(lambda: len(installs) == 3)
    assert {install.release.sha256 for install in installs} == {run._learner.now.model.sha256()}
    assert all(install.agreed == run._learner.now.held.agreed for install in installs)


@every_kind
def test_every_version_that_is_kept_can_be_exported_and_answers_on_raw_rows(
    rules: AggregateSpec, coding: Any, fleet: Fleet, spec: SpecMaker
) -> None:
    job = fleet.submit(spec(contract=CONTRACT, rounds=asked(rules, ROUNDS), aggregate=rules, compression=coding))
    run = fleet.finish()
    sha256 = {version.number: each for version, each in fleet.store.versions(job)}
    numbers = {0, *fleet.store.states.sizes(job), run.version.number}
    assert numbers >= {0, 2, 4, 6}
    for number in numbers:
        state = run.state_of(number)
        assert state is not None
        assert state.sha256 == sha256[number]
        said = versions._Said(job, as_tree(run.spec), f"1.{number}", number, state.sha256, len(state.body))
        held = versions._read(run._net, run.spec, said, state.body)
        params, rows = held.model.params(run._net.spec), raw(9)
        answers = normalised(run._net, CONTRACT, held.agreed).predict(params, rows.X)
        file = to_onnx(run.spec.model, params, metadata={}, contract=CONTRACT, agreed=held.agreed)
        (found,) = InferenceSession(file).run(None, {"input": rows.X})
        np.testing.assert_allclose(found, answers, atol=1e-5)


def test_an_export_says_that_nobody_has_trained_a_version_also_of_one_that_was_agreed_on(
    fleet: Fleet, spec: SpecMaker
) -> None:
    fleet.submit(spec(contract=CONTRACT, rounds=ROUNDS))
    notes = {}
    while not fleet.aggregator.runs or not fleet.job().coordinator.ended:
        if fleet.aggregator.runs:
            run = fleet.job()
            held = run._learner.now.held
            notes[held.number] = versions._untrained(held, run.spec, run._net)
        one_thing_each(fleet)
    assert notes[0] == versions.UNTRAINED
    assert notes[1] == versions.AS_DRAWN
    assert notes[2] == notes[5] == ""


def test_where_no_device_has_enough_rows_they_train_all_the_same(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody says how many rows each class has: then none of them counts more than another."""
    monkeypatch.setattr(FLEET, "rows", lambda seed: raw(seed, 15, (1, 1, 1, 1e-5)))
    fleet.submit(spec(contract=structs.replace(CONTRACT, normalise="none"), rounds=ROUNDS))
    assert fleet.finish().version.number == 6


def roll_back(fleet: Fleet, number: int) -> None:
    fleet.aggregator.jobs.inside(fleet.job().job, lambda run, now: run.handle(RollBack(number, "it was restored"), now))


def go_to(fleet: Fleet, number: int) -> Run:
    while not fleet.aggregator.runs or fleet.job().version.number < number:
        one_thing_each(fleet)
    return fleet.job()


@every_kind
@pytest.mark.parametrize("number", [0, 2])
def test_a_rollback_also_to_before_the_agreement_leaves_that_as_it_is(
    number: int, rules: AggregateSpec, coding: Any, installs: list[Install], fleet: Fleet, spec: SpecMaker
) -> None:
    rounds = structs.replace(asked(rules, ROUNDS), max_rounds=9)
    fleet.submit(spec(contract=CONTRACT, rounds=rounds, aggregate=rules, compression=coding, deploy="final"))
    run = go_to(fleet, 5)
    agreed = run._learner.now.held.agreed
    roll_back(fleet, number)
    assert run._learner.now.held.agreed == agreed
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.agents["d3"] = fleet.start_agent("d3")
    run = fleet.finish()
    assert run.reason == "max_rounds = 9 are done"
    assert run.version.number == 10
    history = fleet.store.history(run.job)
    assert sum("agreeing" in metrics for metrics in history) == (2 if history[6].get("restored") == 1 else 1)
    assert run._learner.now.held.agreed == agreed
    fleet.run(lambda: len(installs) == 4)
    assert all(install.agreed == agreed for install in installs)
    assert len({install.release.sha256 for install in installs}) == 1


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
def test_a_pause_amid_the_agreement_and_a_death_change_nothing(
    coding: Any, fleet: Fleet, spec: SpecMaker, undisturbed: Callable[[JobSpec], str]
) -> None:
    wanted = spec(contract=CONTRACT, rounds=ROUNDS, compression=coding)
    job = fleet.submit(wanted)
    while not fleet.aggregator.runs or fleet.job().coordinator.attempt is None:
        one_thing_each(fleet)
    fleet.kill_agent("d2")
    away = fleet.agents.pop("d2")
    fleet.run(lambda: len(fleet.store.verdicts(job)) == 2)
    fleet.store.pause(job, "paused by anna")
    fleet.aggregator.jobs.inside(job, lambda run, now: run.handle(Pause("paused by anna"), now))
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.agents["d2"] = fleet.start_agent(away.home.device)
    for _ in range(100):
        fleet.step(5.0)
    assert fleet.job().version.number == 0
    fleet.store.pause(job, "")
    fleet.aggregator.jobs.inside(job, lambda run, now: run.handle(Unpause(), now))
    assert fleet.finish().sha256 == undisturbed(wanted)


def test_a_job_that_is_replaced_amid_its_agreement_leaves_nothing_of_it(fleet: Fleet, spec: SpecMaker) -> None:
    first = fleet.submit(spec(contract=CONTRACT, rounds=ROUNDS))
    while not fleet.aggregator.runs or not fleet.store.verdicts(first):
        one_thing_each(fleet)
    fleet.aggregator.jobs.inside(first, lambda run, now: run.handle(EndJob("stopped by anna"), now))
    second = fleet.submit(spec(contract=structs.replace(CONTRACT, normalise="minmax"), rounds=ROUNDS))
    assert fleet.finish().job == second
    assert fleet.job().version.number == 6
    assert fleet.store.history(second)[1]["agreeing"] == 3


@pytest.mark.parametrize("late", ["refuse", "fold"])
def test_what_is_said_under_the_former_name_of_a_restored_version_counts_in_its_score(
    late: Any, fleet: Fleet, spec: SpecMaker
) -> None:
    job = fleet.submit(spec(contract=CONTRACT, rounds=structs.replace(ROUNDS, late=late)))
    while not fleet.aggregator.runs or fleet.job().version.number < 2 or fleet.job().coordinator.attempt is None:
        one_thing_each(fleet)
    fleet.kill_aggregator()
    for _ in range(50):  # they train, and their updates wait
        for agent in fleet.agents.values():
            agent.step(0.0)
    state = fleet.folder / "aggregator"
    state.rename(fleet.folder / "before")
    shutil.copytree(fleet.folder / "before", state)
    fleet.start_aggregator()
    assert fleet.finish().version.number == 6
    assert fleet.job().version.generation > 1
    history = fleet.store.history(job)
    assert [metrics.get("federated_devices") for metrics in history[1:6]] == [3] * 5
