"""What a device says of itself is a claim: runs and whole fleets with one that lies.

An admitted device of 100 rows that claims 2^20 and pushes one bias of the digits' net, for eight versions, 15 devices;
the accuracy then, by the bias that it adds each time (on the way float32, a sketch, a sketch of few buckets alike,
within a point):

    nobody lies                     .94
    nothing is capped               .10, for 1, 5, 20 and 100
    max_share = 0.2                 .94 for 1, .93 for 5, .88 for 20, .92 for 100
    max_share = 0.1                 .94 for 1, .94 for 5, .92 for 20, .94 for 100
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from aggregator import creation, notes
from aggregator.config import AggregatorConfig
from aggregator.effects import CoordinatorEvent, DeviceStatus
from aggregator.inbox import Inbox
from aggregator.projection import Out
from aggregator.run import Run
from aggregator.store import Store
from aggregator.streaks import MANY
from broker import chunks
from broker.messages import Offer, Verdict, Version
from broker.server_seal import ServerSeal
from edge_agent import workspace
from edge_agent.work import Work
from fleet.problems.problem import read_problem
from fleet.simulation.simulate import Result, simulate
from identity.keys import SigningKey, text_of
from identity.record import written
from identity.registry import Enrolled, Registry, WatchedRegistry
from models.chain import Chain
from models.job import AggregateSpec, JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.nets.table import build
from runtime.faults import Marks

MODEL = ModelSpec(inputs=4, hidden=(64,), outputs=2)
NET = build(MODEL).spec
CONFIG = AggregatorConfig(fleet="f")
MARKS = Marks(Path("/dev/null/none"))
LIAR = "device-00"


def job_spec(compression: str = "light", aggregate: AggregateSpec | None = None, **rounds: Any) -> JobSpec:
    rules = RoundsSpec(**({"quorum": 3, "target": 3, "max_rounds": 50} | rounds))
    return JobSpec("toy", MODEL, compression=compression, rounds=rules, aggregate=aggregate or AggregateSpec())  # type: ignore[arg-type]


@pytest.fixture(params=[65_536, 16], ids=["in rows", "beside the database"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    opened = Store(tmp_path, synced=False, row_bytes=request.param)
    yield opened
    opened.close()


def start(store: Store, spec: JobSpec, stated_rows: Mapping[str, int] | None = None) -> Run:
    row = creation.create("toy-1", spec, store, CONFIG)
    return Run(row, store, CONFIG, Inbox(10**6), 1, 0.0, marks=MARKS, stated_rows=stated_rows)


def again(store: Store, stated_rows: Mapping[str, int] | None = None) -> Run:
    (row,) = store.jobs()
    return Run(row, store, CONFIG, Inbox(10**6), 2, 0.0, marks=MARKS, stated_rows=stated_rows)


def hear(run: Run, event: CoordinatorEvent, now: float = 1.0) -> list[Out]:
    return [*run.handle(event, now), *run.settle(now)]


def see(run: Run, *devices: str) -> None:
    for device in devices:
        hear(run, DeviceStatus(device, online=True, ready=True), 0.0)


def offer(run: Run, device: str, n: int = 10, scale: float = 0.01, loss: float | None = None) -> Offer:
    base = run.version
    rng = np.random.default_rng(len(device) + base.number)
    delta = {tensor.name: (scale * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET}
    body = Chain(NET, run.spec).coding(base.number, run._learner.terms).encode(delta, rng)
    return Offer("toy-1", device, base, n, chunks.digest(body), len(body), loss=loss, body=body)


def verdicts(outs: Sequence[Out]) -> list[Verdict]:
    return [out for out in outs if isinstance(out, Verdict)]


# What one device may weigh.


def test_a_device_that_claims_all_weight_is_capped_and_named_and_counts_as_if_it_had_claimed_less(
    store: Store, tmp_path: Path
) -> None:
    run = start(store, job_spec(max_share=0.4))
    see(run, "a", "bb", "ccc")
    for device, n in (("a", 2**20), ("bb", 10), ("ccc", 20)):
        hear(run, offer(run, device, n))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.reason == "its target of 3 updates is reached; capped at max_share = 0.4: a"
    assert round_.fates == {"a": "counted; capped: it weighs 20, not 1048576", "bb": "counted", "ccc": "counted"}
    other = Store(tmp_path / "other", synced=False)
    honest = start(other, job_spec())
    see(honest, "a", "bb", "ccc")
    for device, n in (("ccc", 20), ("a", 20), ("bb", 10)):
        hear(honest, offer(honest, device, n))
    assert run.version == honest.version == Version(1, 1)
    assert run.sha256 == honest.sha256
    other.close()


def test_a_start_in_mid_round_caps_as_much(store: Store) -> None:
    run = start(store, job_spec(max_share=0.4))
    see(run, "a", "bb", "ccc")
    for device, n in (("a", 2**20), ("bb", 10)):
        hear(run, offer(run, device, n))
        run = again(store)
        see(run, "a", "bb", "ccc")
    hear(run, offer(run, "ccc", 20))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.fates["a"] == "counted; capped: it weighs 20, not 1048576"


ROWS = {"a": 10_000_000, "bb": 5_000_000, "ccc": 625_000}


def meet(run: Run, rows: Mapping[str, int]) -> None:
    for device, n in rows.items():
        hear(run, DeviceStatus(device, online=True, ready=True, rows=n), 0.0)


def test_devices_of_more_rows_than_a_sum_takes_weigh_as_devices_of_as_many_times_fewer(
    store: Store, tmp_path: Path
) -> None:
    run = start(store, job_spec())
    meet(run, ROWS)
    for device, n in ROWS.items():
        hear(run, offer(run, device, n))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.attempt.shift == 4
    assert set(round_.fates.values()) == {"counted"}
    assert run.metrics["examples"] == sum(ROWS.values())
    other = Store(tmp_path / "other", synced=False)
    small = start(other, job_spec())
    see(small, *ROWS)
    for device, n in ROWS.items():
        hear(small, offer(small, device, n // 16))
    assert run.version == small.version == Version(1, 1)
    assert run.sha256 == small.sha256
    other.close()


def test_a_start_in_mid_round_and_another_order_come_to_the_same_weights(store: Store, tmp_path: Path) -> None:
    found = set()
    for at, (order, dies) in enumerate(((("a", "bb", "ccc"), False), (("ccc", "a", "bb"), True))):
        folder = tmp_path / str(at)
        ours = Store(folder, synced=False)
        run = start(ours, job_spec())
        meet(run, ROWS)
        for device in order:
            hear(run, offer(run, device, ROWS[device]))
            if dies:
                run = again(ours)
                meet(run, dict.fromkeys(ROWS, 1))  # who has lost its rows since changes no weight
        assert run.version == Version(1, 1)
        found.add(run.sha256)
        ours.close()
    assert len(found) == 1


def test_a_claim_beyond_what_a_rounds_devices_said_they_have_counts_as_less_and_is_named(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(store, job_spec())
    meet(run, {"a": 500, "bb": 400, "ccc": 300})
    for device, n in (("a", 2**32), ("bb", 400)):
        hear(run, offer(run, device, n))
        run = again(store)
        meet(run, {"a": 500, "bb": 400, "ccc": 300})
    remark = "counted; its 4294967296 examples count as 1048576: more than its round's devices said they have"
    assert run.fates()["a"] == remark
    hear(run, offer(run, "ccc", 300))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.fates == {"a": remark, "bb": "counted", "ccc": "counted"}
    assert "device=a counts as one of 1048576 examples, not of 4294967296" in caplog.text
    other = Store(tmp_path / "other", synced=False)
    honest = start(other, job_spec())
    meet(honest, {"a": 500, "bb": 400, "ccc": 300})
    for device, n in (("a", 2**20), ("bb", 400), ("ccc", 300)):
        hear(honest, offer(honest, device, n))
    assert run.sha256 == honest.sha256
    other.close()


def test_a_device_that_says_it_has_four_billion_rows_leaves_the_others_their_shares_where_it_is_capped(
    store: Store,
) -> None:
    rows = {"a": 2**32, "bb": 4000, "ccc": 1000}
    run = start(store, job_spec(max_share=0.5))
    meet(run, rows)
    for device, n in rows.items():
        hear(run, offer(run, device, n))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    shift = round_.attempt.shift
    assert (4000 >> shift) / (1000 >> shift) == pytest.approx(4, rel=0.05)
    assert "it weighs" in round_.fates["a"]


def test_who_counts_with_the_rows_that_were_stated_of_it_is_not_named_for_its_claim(store: Store) -> None:
    run = start(store, job_spec(), {"a": 100})
    meet(run, {"a": 2**32, "bb": 10, "ccc": 20})
    for device, n in (("a", 2**32), ("bb", 10), ("ccc", 20)):
        hear(run, offer(run, device, n))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.attempt.shift == 0
    assert round_.fates == {"a": "counted; capped: it weighs 30, not 100", "bb": "counted", "ccc": "counted"}


def test_what_is_claimed_beyond_the_rows_that_were_stated_counts_for_nothing(store: Store) -> None:
    stated = {"a": 100, "bb": 10}
    run = start(store, job_spec(), stated)
    see(run, "a", "bb", "ccc")
    hear(run, offer(run, "a", 2**20))
    hear(run, offer(run, "bb", 7))
    run = again(store, stated)
    see(run, "a", "bb", "ccc")
    weights = {claim.device: (claim.n_examples, claim.weight) for claim in store.claims("toy-1")}
    assert weights == {"a": (2**20, 100), "bb": (7, 7)}
    hear(run, offer(run, "ccc", 5))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.fates["a"] == "counted; capped: it weighs 12, not 100", "where rows are stated half is the most"
    assert round_.reason.endswith("; capped at max_share = 0.5: a")


def test_rows_that_are_stated_while_a_job_is_at_work_hold_for_it(store: Store, tmp_path: Path) -> None:
    registry = tmp_path / "registry.json"
    registry.write_bytes(written(Registry("f", {"a": Enrolled(text_of(SigningKey.generate().public))})))
    clock = iter(range(1000))
    seal = ServerSeal("f", SigningKey.generate(), None, WatchedRegistry(registry, "f", lambda: next(clock)))
    run = start(store, job_spec(), seal.stated_rows)
    see(run, "a", "bb", "ccc")
    registry.write_bytes(written(Registry("f", {"a": Enrolled(text_of(SigningKey.generate().public), rows=100)})))
    assert seal.revoked() == ["a"]
    for device, n in (("a", 2**20), ("bb", 10), ("ccc", 20)):
        hear(run, offer(run, device, n))
    (round_,) = store.attempts("toy-1", Version(1, 0))
    assert round_.fates["a"] == "counted; capped: it weighs 30, not 100"


def test_where_nothing_is_stated_a_device_that_holds_most_of_the_weight_is_named_once_and_not_capped(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(store, job_spec())
    see(run, "a", "bb", "ccc")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for device, n in (("a", 2**20), ("bb", 10), ("ccc", 20)):
                hear(run, offer(run, device, n))
    lines = [record.getMessage() for record in caplog.records if "max_share" in record.getMessage()]
    assert len(lines) == 1
    assert "device=a has 1 of all weight, as it claims" in lines[0]
    assert store.attempts("toy-1", Version(1, 0))[0].fates["a"] == "counted"
    assert run.version == Version(1, 3)


# The gate.


def test_a_device_that_is_far_from_its_peers_counts_scaled_down_and_its_operator_is_told(store: Store) -> None:
    run = start(store, job_spec(target=4, quorum=4))
    see(run, "a", "bb", "ccc", "small")
    for _ in range(2):
        for device in ("a", "bb", "ccc"):
            hear(run, offer(run, device))
        assert verdicts(hear(run, offer(run, "small", 9, scale=5.0))) == []
    assert run.version == Version(1, 2)
    fate = store.attempts("toy-1", Version(1, 1))[0].fates["small"]
    assert fate.startswith("counted; scaled to 0.0")
    hear(run, offer(run, "small", 9, scale=5.0))
    assert run.fates()["small"].startswith("counted; scaled to 0.0"), "in the round that is open, too"
    assert again(store).fates()["small"] == run.fates()["small"]


def test_a_device_is_told_no_number_of_its_refusal_whenever_it_asks_and_the_operator_is(store: Store) -> None:
    run = start(store, job_spec(aggregate=AggregateSpec(gate="refuse"), target=4))
    see(run, "a", "bb", "ccc", "far")
    for device in ("a", "bb", "ccc"):
        hear(run, offer(run, device))
    hear(run, offer(run, "dddd"))
    far = offer(run, "far", scale=50.0)
    told = verdicts(hear(run, far))
    run = again(store)
    see(run, "a", "bb", "ccc", "far")
    told += verdicts(hear(run, far))
    assert [verdict.refused for verdict in told] == ["its norm is far from its peers'"] * 2
    assert " where " in run.fates()["far"]
    assert "is let in)" in run.fates()["far"]


def test_what_was_refused_is_a_peer_of_those_that_come_after_a_start_too(store: Store) -> None:
    run = start(store, job_spec(aggregate=AggregateSpec(gate="refuse"), target=6, quorum=6))
    fleet = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]
    see(run, *fleet)
    for device in fleet:
        hear(run, offer(run, device))
    assert run.version == Version(1, 1)
    said = []
    for device in fleet:
        run = again(store)
        see(run, *fleet)
        said += verdicts(hear(run, offer(run, device, scale=5.0)))
    assert [verdict.device for verdict in said] == ["a", "bb"], "from the third on half of the fleet is as far"


def test_a_device_that_is_refused_five_times_in_a_row_is_named_until_it_is_counted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(store, job_spec(aggregate=AggregateSpec(max_examples=100), target=None))
    for n in range(1, MANY + 2):
        see(run, "a", "bb", "ccc", "bad")
        hear(run, offer(run, "bad", 101))
        assert run.streaks == {"bad": n}
        run = again(store)
        see(run, "a", "bb", "ccc", "bad")
        assert run.streaks == {"bad": n}
        named = [f"refused 5 times in a row or more: bad ({n} times): see fedge round explain"]
        assert notes.of(run) == (named if n >= MANY else [])
        assert ("was refused 5 times in a row" in caplog.text) == (n >= MANY)
        for device in ("a", "bb", "ccc"):
            hear(run, offer(run, device))
    hear(run, offer(run, "bad"))
    assert run.streaks == {}
    assert notes.of(run) == []


# What devices report.


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_the_loss_of_one_device_ends_no_job_whatever_it_weighs(store: Store, quorum: int) -> None:
    stop = StopSpec("loss", target=0.5)
    run = start(store, job_spec(target=max(2, quorum), quorum=quorum, min_devices=3, stop=stop))
    see(run, "a", "bb", "ccc")
    for _ in range(3):
        hear(run, offer(run, "a", 2**20, loss=0.0))
        hear(run, offer(run, "bb", loss=2.0))
        if quorum == 3:
            hear(run, offer(run, "ccc", loss=1.5))
        assert run.coordinator.ended == ""
        assert run.metrics["loss"] == (1.5 if quorum == 3 else 2.0)


def test_a_device_by_itself_does_not_end_a_job_and_the_operator_hears_why(store: Store) -> None:
    run = start(store, job_spec(target=1, quorum=1, stop=StopSpec("loss", target=0.5)))
    see(run, "a")
    hear(run, offer(run, "a", 2**20, loss=0.0))
    assert run.version == Version(1, 1)
    assert run.coordinator.ended == ""
    assert "one device's own word is not enough" in notes.of(run)[0]


def test_a_job_without_a_test_split_ends_where_more_than_half_of_its_devices_say_so(store: Store) -> None:
    run = start(store, job_spec(stop=StopSpec("loss", target=0.5)))
    see(run, "a", "bb", "ccc")
    hear(run, offer(run, "a", loss=0.4))
    hear(run, offer(run, "bb", loss=0.3))
    hear(run, offer(run, "ccc", 2**20, loss=1e99))
    assert run.coordinator.ended == "finished"
    assert run.reason == "loss 0.4000 has reached the target 0.5, by what more than half of 3 devices report"


# A fleet with a liar.


def have_one_lie(monkeypatch: pytest.MonkeyPatch, push: float) -> None:
    """Have a device push one bias instead of training, claim 2^20 rows for it, and a loss of 0."""
    finish, offered = Work._finish, workspace.Offer

    def lie(self: Work, training: Any, now: float) -> list[Any]:
        if self._device == LIAR:
            start = training.held.model.params(self.net.spec)
            for name, values in training.state.params.items():
                values[...] = start[name]
            *_, bias = (values for values in training.state.params.values() if values.ndim == 1)
            bias[0] += push
            training.loss = 0.0
        return finish(self, training, now)

    def claim(job: str, device: str, base: Version, n: int, *rest: Any) -> Offer:
        return offered(job, device, base, 2**20 if device == LIAR else n, *rest)

    monkeypatch.setattr(Work, "_finish", lie)
    monkeypatch.setattr(workspace, "Offer", claim)


def digits(compression: str, aggregate: AggregateSpec, **rounds: Any) -> Result:
    problem = read_problem(Path("digits"), "digits", n_devices=15, rounds=8)
    rules = structs.replace(problem.spec.rounds, stop=StopSpec(), **rounds)
    spec = structs.replace(problem.spec, compression=compression, deploy="never", rounds=rules, aggregate=aggregate)
    return simulate(spec, problem.shares, problem.test)


FEDAVGM = AggregateSpec(server_momentum=0.5, server_learning_rate=0.5)
FEDADAM = AggregateSpec(strategy="fedadam", server_learning_rate=0.02)


@pytest.mark.parametrize(
    ("compression", "aggregate"),
    [
        pytest.param("off", AggregateSpec(), marks=pytest.mark.long),
        pytest.param("strong", AggregateSpec(), marks=pytest.mark.long),
        pytest.param("extreme", AggregateSpec(), marks=pytest.mark.long),
        pytest.param("light", FEDAVGM, marks=pytest.mark.long),
        ("off", FEDADAM),
    ],
    ids=["off", "strong", "extreme", "light, FedAvgM", "off, FedAdam"],
)
def test_a_device_of_a_hundred_rows_that_claims_a_million_and_pushes_one_bias_does_little_where_shares_are_capped(
    compression: str, aggregate: AggregateSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = digits(compression, aggregate).accuracy
    have_one_lie(monkeypatch, 5.0)
    attacked = digits(compression, aggregate).accuracy
    capped = digits(compression, aggregate, max_share=0.1).accuracy
    assert honest is not None
    assert attacked is not None
    assert capped is not None
    assert attacked < 0.2, "else it is no attack, and this test shows nothing"
    assert capped > honest - 0.04
