"""Devices score versions on rows that they hold back: from a device's rows to what the job is stopped by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from aggregator import curves, notes
from aggregator.learner import Learner
from broker.messages import Offer, Quarantine, Release, Verdict, Version
from edge_agent import trainer, workspace
from edge_agent.work import Work
from models import sections
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.data.source import DataSource
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.lattice import Model
from models.measures import tally
from models.nets.table import build
from tests.aggregator import conftest
from tests.aggregator.conftest import Fleet, toy

HELD_OUT = {"d0": 10, "d1": 20, "d2": 40}
plain_rows = conftest.rows


def held_out_by(device: str) -> Dataset:
    """Other rows of the same two clouds."""
    rng = np.random.default_rng(100 + int(device[1:]))
    y = np.arange(HELD_OUT[device]) % 2
    X = rng.standard_normal((len(y), conftest.INPUTS)) + 2.0 * y[:, None]
    return Dataset(np.ascontiguousarray(X, np.float32), y)


def with_held_out(seed: int) -> Dataset:
    return plain_rows(seed)._replace(held_out=held_out_by(f"d{seed}"))


def rounds(most: int = 3, **stop: object) -> RoundsSpec:
    return RoundsSpec(
        quorum=3,
        min_devices=3,
        max_rounds=most,
        wait="all",
        deadline_s=30.0,
        stop=StopSpec(**stop),
    )  # type: ignore[arg-type]  # the tests know the fields


def evaluated(**changes: object) -> JobSpec:
    fields: dict[str, object] = {"contract": ContractSpec(validation=0.2, classes=("ok", "fault")), "rounds": rounds()}
    return toy(**(fields | changes))


@pytest.fixture
def scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(conftest, "rows", with_held_out)
    whole = Fleet(tmp_path, 3)
    whole.lead()
    yield whole
    whole.store.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[int, Model]:
    """Every version of the one job there is, by its number."""
    found: dict[int, Model] = {}
    take = Learner._take

    def keep(self: Learner, now: object) -> None:
        take(self, now)  # type: ignore[arg-type]  # it is passed on
        found[self.now.held.number] = self.now.model

    monkeypatch.setattr(Learner, "_take", keep)
    return found


def accuracies(model: ModelSpec, version: Model) -> dict[str, float]:
    """What each device must find of a version: by the net itself, on its rows."""
    net = build(model)
    found = {}
    for name in HELD_OUT:
        rows = held_out_by(name)
        found[name] = net.evaluate(version.params(net.spec), rows.X, rows.y).accuracy or 0.0
    return found


def weights(spec: JobSpec) -> dict[str, int]:
    """Twenty rows to train on, each, and so no more weight than twenty; and nobody more than half."""
    return {"d0": 10, "d1": 20, "d2": 20}


def test_a_version_is_scored_by_its_devices_one_round_later_and_without_test_data(
    scoring: Fleet, made: dict[int, Model]
) -> None:
    spec = evaluated()
    scoring.submit(spec)
    run = scoring.finish()
    assert run.version == Version(1, 3)
    history = scoring.store.history(run.job)
    for number in range(3):
        of = accuracies(spec.model, made[number])
        mean = sum(of[name] * weight for name, weight in weights(spec).items()) / 50
        assert history[number]["accuracy"] == pytest.approx(mean)
        assert history[number]["federated_devices"] == 3
        assert "unscored" not in history[number]
    assert "accuracy" not in history[3]  # nobody has trained on it, and nobody here deploys it
    assert history[3]["unscored"] == 1
    point = scoring.store.curve(run.job, after=1, most=1)[0]
    of = accuracies(spec.model, made[2])
    told = point.federated
    assert told["devices"] == 3
    assert told["worst"]["accuracy"] == [min(of, key=lambda name: (of[name], name)), min(of.values())]  # type: ignore[index]
    assert told["spread"]["accuracy"] == pytest.approx(float(np.std(list(of.values()))))  # type: ignore[index]
    assert set(told["labels"]) == {"ok", "fault"}  # type: ignore[call-overload]
    assert sum(label["rows"] for label in told["labels"].values()) == 70  # type: ignore[attr-defined]


def test_nobody_is_said_to_measure_nothing_while_devices_have_the_first_version_still_before_them(
    scoring: Fleet,
) -> None:
    contract = ContractSpec(validation=0.2, classes=("ok", "fault"), normalise="standard")
    scoring.submit(evaluated(contract=contract, rounds=rounds(3, patience=9)))
    run, seen = scoring.job(), dict[int, list[str]]()
    while not run.coordinator.ended:
        for part in (scoring.aggregator, *scoring.agents.values()):
            part.step(0.0)
            seen[run.version.number] = notes.of(run)
        scoring.now += 0.01
    assert seen.keys() == {0, 1, 2, 3}
    assert not any("nobody measures" in said for told in seen.values() for said in told)


def test_a_job_is_stopped_by_what_its_devices_say(scoring: Fleet) -> None:
    scoring.submit(evaluated(rounds=rounds(30, target=0.8)))
    run = scoring.finish()
    assert run.reason.startswith("accuracy 0.")
    by = "has reached the target 0.8, by its devices: 3 of them, on rows that they hold back"
    last = run.version.number
    assert run.reason.endswith(f"{by}: version 1.{last} is version {last - 2} again, the best")
    history = scoring.store.history(run.job)
    assert history[-3]["accuracy"] >= 0.8
    assert all(metrics["accuracy"] < 0.8 for metrics in history[:-3])


def test_patience_goes_by_versions_that_are_scored(scoring: Fleet) -> None:
    """With min_delta = 0.99 nothing improves on version 0: two scored versions after it, and the job ends at the third
    after it, which nobody has scored. The best of these two is served."""
    scoring.submit(evaluated(rounds=rounds(30, patience=2, min_delta=0.99)))
    run = scoring.finish()
    assert run.version.number == 4
    assert run.reason.endswith(f"for 2 rounds: version 1.4 is version {run.best} again, the best")
    assert run.best in (1, 2)


def test_beside_a_test_split_it_has_names_of_its_own(scoring: Fleet, made: dict[int, Model], tmp_path: Path) -> None:
    path = tmp_path / "test.npz"
    rows = plain_rows(9)
    np.savez(path, X=rows.X, y=rows.y)
    scoring.tests["toy"] = DataSource(str(path))
    spec = evaluated()
    scoring.submit(spec)
    run = scoring.finish()
    net = build(spec.model)
    for number, metrics in enumerate(scoring.store.history(run.job)):
        here = net.evaluate(made[number].params(net.spec), rows.X, rows.y).accuracy
        assert metrics["accuracy"] == pytest.approx(here)
        assert ("federated_accuracy" in metrics) == (number < 3)
        assert "unscored" not in metrics


def test_what_was_reported_in_mid_round_outlives_the_aggregator(
    scoring: Fleet, made: dict[int, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, waits = Work.train_for, [True]

    def slow(self: Work, *how: Any) -> list[workspace.Out]:
        return [] if self._device == "d2" and waits[0] else train(self, *how)

    monkeypatch.setattr(Work, "train_for", slow)
    spec = evaluated(rounds=rounds(1))
    scoring.submit(spec)
    scoring.run(lambda: bool(scoring.aggregator.runs) and len(scoring.store.verdicts(scoring.job().job)) == 2)
    scoring.kill_aggregator()
    waits[0] = False
    scoring.start_aggregator()
    run = scoring.finish()
    brought = scoring.store.contributions(run.job, 0)
    assert [one.device for one in brought] == ["d0", "d1", "d2"]
    assert all(one.counted and one.evaluation for one in brought)
    of = accuracies(spec.model, made[0])
    mean = sum(of[name] * weight for name, weight in weights(spec).items()) / 50
    assert scoring.store.history(run.job)[0]["accuracy"] == pytest.approx(mean)


def with_section(section: bytes) -> Callable[[Mapping[str, bytes]], bytes]:
    """Return what joins sections with another evaluation in the place of that of the device."""
    join = sections.join
    return lambda some: join({name: section if name == sections.EVALUATION else what for name, what in some.items()})


PERFECT = tally.tally(
    ModelSpec(inputs=4, hidden=(16,), outputs=2),
    np.eye(2, dtype=np.float32)[np.arange(2**12) % 2],
    np.arange(2**12) % 2,
    curves=False,
)
ABSURD = PERFECT._replace(n=2**20, counts=PERFECT.counts * 2**8, sums=tuple(each * 2**8 for each in PERFECT.sums))
"""2**20 rows, all answered right."""


@pytest.mark.parametrize("claims", [20, 2**20])
def test_a_claim_of_perfection_moves_the_mean_by_no_more_than_its_share(
    claims: int, scoring: Fleet, made: dict[int, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = tally.to_bytes(ABSURD)
    inner = with_section(section)
    start = Work._finish

    def finish(self: Work, training: workspace.Training, now: float) -> list[workspace.Out]:
        with monkeypatch.context() as patch:
            if self._device == "d0":
                patch.setattr(trainer.sections, "join", inner)
                patch.setattr(workspace, "Offer", lambda *fields: Offer(*fields[:3], claims, *fields[4:]))
            return start(self, training, now)

    monkeypatch.setattr(Work, "_finish", finish)
    spec = evaluated(rounds=structs.replace(rounds(), max_share=0.4))
    scoring.submit(spec)
    run = scoring.finish()
    assert {one.device: one.n_examples for one in scoring.store.contributions(run.job, 1)}["d0"] == claims
    for number, metrics in enumerate(scoring.store.history(run.job)[:3]):
        of = accuracies(spec.model, made[number])
        others = (of["d1"] + of["d2"]) / 2  # twenty rows each count
        moved = metrics["accuracy"] - others
        share = 20 / 60 if claims == 20 else 26 / 66  # of 0.4 at most, in whole rows
        assert moved == pytest.approx(share * (1.0 - others))
        assert 0 < moved <= 0.4 * (1.0 - others)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (b"\x07\x01", "a tally begins with 0 or 1"),
        (tally.to_bytes(ABSURD)[:-1], "no tally"),
        (tally.to_bytes(ABSURD._replace(counts=ABSURD.counts + 1)), "are not those of 1048576 rows"),
        (tally.to_bytes(tally.empty(ModelSpec(inputs=4, outputs=2), curves=False)), "it is of no rows"),
        (bytes(1400), "has 1400 bytes, where this job wants 1 to 121"),
    ],
)
def test_what_is_no_scoring_is_refused_with_its_update(
    section: bytes, why: str, scoring: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.sections, "join", with_section(section))
    scoring.submit(evaluated())
    scoring.run(lambda: bool(scoring.aggregator.runs) and len(scoring.store.verdicts(scoring.job().job)) == 3)
    refused = {verdict.refused for verdict in scoring.store.verdicts(scoring.job().job)}
    assert all('its body is not as the job has it: section "evaluation"' in each for each in refused)
    assert all(why in each for each in refused), refused
    assert not scoring.store.evaluations(scoring.job().job, Version(1, 0))


def test_who_holds_nothing_back_counts_as_before(scoring: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HELD_OUT, "d2", 40)
    agent = scoring.agents["d2"]
    agent.jobs._open_source = lambda *_asked, **_how: conftest.InMemory(plain_rows(2))  # type: ignore[assignment]
    scoring.submit(evaluated())
    run = scoring.finish()
    brought = {one.device: one for one in scoring.store.contributions(run.job, 1)}
    assert brought["d2"].counted
    assert not brought["d2"].evaluation
    assert scoring.store.history(run.job)[1]["federated_devices"] == 2


def test_a_job_without_validation_has_bodies_models_and_metrics_as_ever(
    spec: Callable[..., JobSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows in (plain_rows, with_held_out):
        monkeypatch.setattr(conftest, "rows", rows)
        fleet = Fleet(tmp_path / rows.__name__, 3)
        fleet.submit(spec())
        run = fleet.finish()
        brought = fleet.store.contributions(run.job, 1)
        history = fleet.store.history(run.job)
        found.append((run.sha256, history, [(one.body_bytes, one.evaluation) for one in brought]))
        assert not sections.allowed(run.spec, run._net.spec).keys() - {"delta"}
        fleet.store.close()
    assert found[0] == found[1]
    assert not any("federated_devices" in metrics or "unscored" in metrics for metrics in found[0][1])
    assert all(evaluation == b"" for _, evaluation in found[0][2])


def test_what_each_device_brought_can_be_had_with_its_fate(scoring: Fleet) -> None:
    scoring.submit(evaluated())
    run = scoring.finish()
    lines, more = curves.devices(run, scoring.store, "", 10**6)
    assert more == ""
    assert [(line["version"], line["device"]) for line in lines] == [(n, d) for n in range(3) for d in HELD_OUT]
    assert all(line["fate"] == "counted" and line["counted"] and line["weight"] == 20 for line in lines)
    assert all(line["scores"]["n"] == HELD_OUT[line["device"]] for line in lines)
    again, after = [], ""
    for _ in range(len(lines)):
        page, after = curves.devices(run, scoring.store, after, 1)  # one line a page
        again += page
        if not after:
            break
    assert again == lines


def test_rows_of_earlier_versions_go_beyond_the_bound(scoring: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.contributions.MOST_ROWS", 5)
    monkeypatch.setattr("aggregator.contributions.PRUNED_EVERY", 1)
    scoring.submit(evaluated(rounds=rounds(6)))
    run = scoring.finish()
    kept = [number for number in range(7) if scoring.store.contributions(run.job, number)]
    assert kept == [4, 5]  # six rows, of whole versions


def offers_of_last(fleet: Fleet, said: tally.Tally, device: str, base: Version, rows: int = 20) -> Offer:
    body = sections.join({sections.EVALUATION: tally.to_bytes(said)})
    return Offer(fleet.job().job, device, base, rows, workspace.chunks.digest(body, 16), len(body), body=body)


def scored_last(fleet: Fleet, device: str, n: int = 20) -> tally.Tally:
    run, rows = fleet.job(), held_out_by(device)
    answers = run._net.predict(run._learner.now.model.params(run._net.spec), rows.X[:n])
    return tally.tally(run.spec.model, answers, rows.y[:n], curves=False)


def verdicts(fleet: Fleet, offer: Offer) -> list[Verdict]:
    return [one for one in fleet.job().handle(offer, fleet.now) if isinstance(one, Verdict)]


@pytest.mark.parametrize("dies", [False, True])
def test_the_last_version_is_scored_by_who_has_it_after_the_end(
    dies: bool, scoring: Fleet, made: dict[int, Model]
) -> None:
    spec = evaluated()
    scoring.submit(spec)
    last = scoring.finish().version
    of = accuracies(spec.model, made[3])
    for device in HELD_OUT:
        offer = offers_of_last(scoring, scored_last(scoring, device, 99), device, last)
        assert [one.refused for one in verdicts(scoring, offer)] == [""]
        assert [one.refused for one in verdicts(scoring, offer)] == [""]  # it is said again, and nothing changes
    mean = sum(of[name] * weight for name, weight in weights(spec).items()) / 50
    assert "accuracy" not in scoring.job().metrics  # that is worked out once, when several have said it
    if dies:
        scoring.kill_aggregator()
        scoring.start_aggregator()
        scoring.lead()
    scoring.run(lambda: "accuracy" in scoring.job().metrics, 10.0)
    assert scoring.job().metrics["accuracy"] == pytest.approx(mean)
    assert scoring.store.history(scoring.job().job)[3] == scoring.job().metrics
    assert "unscored" not in scoring.job().metrics
    assert scoring.job().coordinator.ended == "finished"


def test_of_the_last_version_each_device_says_one_thing_and_strangers_nothing(scoring: Fleet) -> None:
    scoring.submit(evaluated())
    last = scoring.finish().version
    said = scored_last(scoring, "d0")
    assert verdicts(scoring, offers_of_last(scoring, said, "d0", last))[0].counted
    scoring.run(lambda: "accuracy" in scoring.job().metrics, 10.0)
    known = dict(scoring.job().metrics)
    for said_, device, base, rows, why in (
        (ABSURD, "d0", last, 20, "has said before"),
        (said, "x9", last, 20, "has not taken part"),
        (said, "d1", Version(1, 2), 20, "this device already has a verdict for this base"),
        (said, "x9", Version(1, 1), 20, "the job has ended"),
        (ABSURD._replace(counts=ABSURD.counts + 1), "d1", last, 20, "is not as the job has it"),
    ):
        (verdict,) = verdicts(scoring, offers_of_last(scoring, said_, device, base, rows))
        assert why in verdict.refused
    for _ in range(50):
        scoring.step()
    assert scoring.job().metrics == known


def test_of_a_device_in_quarantine_no_score_of_the_last_version_is_taken_either(scoring: Fleet) -> None:
    scoring.submit(evaluated())
    last = scoring.finish().version
    before = offers_of_last(scoring, scored_last(scoring, "d1"), "d1", last)
    assert verdicts(scoring, before)[0].counted
    scoring.say(Quarantine("cli", "q", "d0", "its clock"))
    scoring.say(Quarantine("cli", "q1", "d1", "its clock"))
    scoring.step()
    offer = offers_of_last(scoring, scored_last(scoring, "d0"), "d0", last)
    assert [one.refused for one in verdicts(scoring, offer)] == ["in quarantine: its clock"]
    assert verdicts(scoring, before)[0].counted, "what was taken before stays so"
    assert [one.device for one in scoring.store.evaluations(scoring.job().job, last)] == ["d1"]
    scoring.say(Release("cli", "r", "d0"))
    scoring.step()
    assert verdicts(scoring, offer)[0].counted


def test_of_a_job_that_goes_on_nothing_is_heard_that_is_no_update(scoring: Fleet) -> None:
    scoring.submit(evaluated(rounds=structs.replace(rounds(), min_devices=4, quorum=4)))
    scoring.run(lambda: bool(scoring.aggregator.runs))
    offer = offers_of_last(scoring, scored_last(scoring, "d0"), "d0", Version(1, 0))
    assert verdicts(scoring, offer) == []
    assert scoring.store.verdicts(scoring.job().job) == []
