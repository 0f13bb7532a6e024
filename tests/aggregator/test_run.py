"""Runs by themselves: a store, a job and updates that are made by hand; no wire and no agents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from aggregator import creation
from aggregator import intake as intakes
from aggregator import learner as learners
from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.effects import CoordinatorEvent, DeviceStatus, EndJob
from aggregator.inbox import Inbox
from aggregator.projection import Clear, Out, _lies_whole
from aggregator.run import Run
from aggregator.store import DamageError, Store, StoreError
from broker import chunks
from broker.messages import Body, DeltaAt, Head, Job, Offer, Round, Status, Verdict, Version, body_name
from models import chain
from models import deltas as ways
from models.chain import SPAN, Chain
from models.codec import FLOAT32, Terms
from models.fold import FoldError
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets.net import ModelError
from models.nets.table import build
from runtime.faults import Marks

MODEL = ModelSpec(inputs=4, hidden=(64,), outputs=2)
NET = build(MODEL).spec
CONFIG = AggregatorConfig(fleet="f")
MARKS = Marks(Path("/dev/null/none"))
V0, V1 = Version(1, 0), Version(1, 1)


def job_spec(max_rounds: int = 3, quorum: int = 2, **changes: object) -> JobSpec:
    rounds = RoundsSpec(quorum=quorum, target=quorum, max_rounds=max_rounds)
    return JobSpec("toy", MODEL, **({"compression": "light"} | changes), rounds=rounds)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_room = Store(tmp_path)
    yield with_room
    with_room.close()


def start(store: Store, spec: JobSpec | None = None) -> Run:
    row = creation.create("toy-1", spec or job_spec(), store, CONFIG)
    return Run(row, store, CONFIG, Inbox(10**6), 1, 0.0, marks=MARKS)


def again(store: Store) -> Run:
    (row,) = store.jobs()
    return Run(row, store, CONFIG, Inbox(10**6), 2, 0.0, marks=MARKS)


def hear(run: Run, event: CoordinatorEvent, now: float) -> list[Out]:
    """What a run says to an event, with what was judged in consequence made durable."""
    return [*run.handle(event, now), *run.settle(now)]


def see(run: Run, *devices: str) -> list[Out]:
    return [out for device in devices for out in hear(run, DeviceStatus(device, online=True, ready=True), 0.0)]


def offer(
    run: Run,
    device: str,
    base: Version | None = None,
    scale: float = 0.01,
    n: int = 10,
    loss: float | None = None,
    report: tuple[float, ...] = (),
) -> Offer:
    """An update to the current version, or to one before it, coded as its round has said."""
    base = run.version if base is None else base
    rng = np.random.default_rng(len(device) + base.number)
    delta = {tensor.name: (scale * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET}
    terms = run._learner.terms_of(base.number)
    assert terms is not None
    body = Chain(NET, run.spec).coding(base.number, terms).encode(delta, rng)
    return Offer("toy-1", device, base, n, chunks.digest(body), len(body), loss=loss, report=report, body=body)


def of(kind: type, outs: list[Out]) -> list[Out]:
    return [out for out in outs if isinstance(out, kind)]


def test_a_job_begins_with_version_0(store: Store) -> None:
    run = start(store)
    assert run.version == V0
    kinds = [type(out) for out in run.retained()]
    assert kinds == [Job, Head, Status]


def test_a_job_that_cannot_be_built_is_not_stored(store: Store) -> None:
    with pytest.raises(ModelError):
        start(store, JobSpec("toy", ModelSpec(kind="somewhere:net")))
    assert store.jobs() == []


def test_a_round_makes_a_version_and_says_so_in_order(store: Store) -> None:
    run = start(store)
    assert [type(out) for out in see(run, "a", "bb")] == [
        Status,
        Status,
        Round,
    ]  # it waits for a second device; it waits no longer
    first = offer(run, "a")
    assert hear(run, first, 1.0) == []
    assert hear(run, first, 1.0) == [Verdict("a", "toy-1", V0, first.digest[:8])], "it asks again"
    outs = hear(run, offer(run, "bb"), 2.0)
    kinds = [out.message if isinstance(out, Clear) else out for out in outs]
    assert [type(kind).__name__ for kind in kinds if not isinstance(kind, Body)] == [
        "Head",
        "Status",
        "Round",
    ]
    assert run.version == V1
    heads = [out for out in outs if isinstance(out, Head)]
    assert heads[0].version == V1
    (status,) = of(Status, outs)
    assert isinstance(status, Status)
    assert status.metrics["participants"] == 2


def test_what_a_head_names_is_given_before_it(store: Store) -> None:
    run = start(store, job_spec(quorum=1))
    see(run, "a")
    outs = hear(run, offer(run, "a"), 1.0)
    at = next(n for n, out in enumerate(outs) if isinstance(out, Head))
    head = outs[at]
    assert isinstance(head, Head)
    assert [(way.start, way.number) for way in head.ways] == [(0, 1)]
    assert_readable(run, head, [out for out in outs[:at] if isinstance(out, Body)])


def assert_readable(run: Run, head: Head, bodies: list[Body]) -> None:
    """Every way of a head lies among these, cut as the head says, and they lead anybody to its version."""
    whole = {(way.start, way.number): assembled(head, way, bodies) for way in head.ways}
    assert len(whole) == len(head.ways)
    chain_ = Chain(NET, run.spec)
    reached = {0: chain_.first()}
    for number in range(head.version.number + 1):
        for (start, end), body in whole.items():
            if end == number and start in reached:
                found = chain_.take(reached[start], number, body)
                assert found.sha256() == reached.setdefault(number, found).sha256()
    assert reached[head.version.number].sha256().startswith(head.sha256)
    assert not head.version.number or shortest(head, 0)


def assembled(head: Head, way: DeltaAt, bodies: list[Body]) -> bytes:
    name = body_name(Version(head.version.generation, way.number), way.start)
    assembly = chunks.Assembly(None, way.n_bytes, head.chunk_bytes)
    for body in bodies:
        if body.name == name:
            assembly.add(body.index, body.data)
    whole = assembly.body()
    assert whole is not None
    return whole


def shortest(head: Head, held: int) -> list[ways.Delta] | None:
    """The path of a device that holds a version, or None."""
    named = (ways.Delta(way.start, way.number, way.n_bytes) for way in head.ways)
    return ways.path(named, held, head.version.number) or None


def retained(run: Run) -> tuple[Head, list[Body]]:
    outs = run.retained()
    (head,) = [out for out in outs if isinstance(out, Head)]
    return head, [out for out in outs if isinstance(out, Body)]


def versions(run: Run, n: int) -> None:
    for number in range(run.version.number, n):
        see(run, "a")
        hear(run, offer(run, "a", Version(run.version.generation, number), scale=0.1), 1.0)
    assert run.version.number == n


@pytest.mark.parametrize(
    "rules",
    [
        AggregateSpec(),
        AggregateSpec(server_momentum=0.5),
        AggregateSpec(strategy="fedadam", server_learning_rate=0.02),
    ],
    ids=["plain", "momentum", "fedadam"],
)
def test_every_version_has_its_ways_at_the_broker(store: Store, rules: AggregateSpec) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=99, aggregate=rules))
    for number in range(1, 20):
        versions(run, number)
        assert_readable(run, *retained(run))
    assert again(store).sha256 == run.sha256


def test_a_version_without_compression_is_one_body_for_everybody(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=99, compression="off"))
    versions(run, 1)
    assert run.step == again(store).step == b""
    versions(run, 5)
    head, bodies = retained(run)
    assert [(way.start, way.number) for way in head.ways] == [(0, 4), (0, 5)]
    assert_readable(run, head, bodies)
    assert run.step == b""


LIGHT = CompressionSpec(buckets=64)
"""So light that snapshots are rare."""


def test_after_many_versions_what_lies_there_is_what_still_leads_somebody_here(store: Store) -> None:
    """From nothing, and from every version since the snapshot before the last one."""
    run = start(store, job_spec(quorum=1, max_rounds=999, compression=LIGHT))
    kinds: dict[str, int] = {}
    held = {0: run.sha256}
    for number in range(1, 80):
        versions(run, number)
        held[number] = run.sha256
        run.tick(1.0 + CONFIG.limits.body_grace_s)
        head, _ = retained(run)
        lying = {row.name: row for row in store.bodies("toy-1")}
        assert {(way.start, way.number) for way in head.ways} == {(row.start, row.number) for row in lying.values()}
        kinds |= {name: row.data[0] for name, row in lying.items()}
        snapshots = sorted(row.number for row in lying.values() if row.data[0] == chain.SNAPSHOT)
        known = sorted(int(name.split("-")[1]) for name, kind in kinds.items() if kind == chain.SNAPSHOT)
        assert snapshots == [n for n in known if n == known[-1] or n >= number - 1]
        before = known[-2] if len(known) > 1 else 0
        for since in range(before, number):
            assert shortest(head, since)
        for row in lying.values():
            if row.data[0] != chain.SNAPSHOT:
                assert row.number > before
            if row.data[0] == chain.STEP and row.number <= number - ways.SINGLES:
                end = -(-row.number // SPAN) * SPAN
                assert body_name(Version(1, end), end - SPAN) not in lying or end - SPAN < known[-1] <= row.start
    assert {chain.STEP, chain.GROUP, chain.SNAPSHOT} == set(kinds.values())
    assert_readable(run, *retained(run))
    assert len(retained(run)[0].ways) < 40


def test_who_was_away_for_long_takes_groups_and_who_is_new_a_snapshot(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=999, compression=LIGHT))
    versions(run, 60)
    head, bodies = retained(run)
    kinds = {(way.start, way.number): assembled(head, way, bodies)[0] for way in head.ways}
    new = shortest(head, 0)
    assert new
    assert kinds[new[0].start, new[0].number] == chain.SNAPSHOT
    behind = [shortest(head, since) for since in range(60 - 2 * SPAN, 60 - SPAN)]
    assert any(path and chain.GROUP in [kinds[way.start, way.number] for way in path] for path in behind)


def test_a_restart_finds_the_same_at_the_broker(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=999, compression=LIGHT))
    for number in range(1, 40):
        versions(run, number)
        reloaded = again(store)
        assert sorted(reloaded.ways) == sorted(run.ways)
        assert (reloaded.step, reloaded.terms, reloaded.octave) == (run.step, run.terms, run.octave)
        assert (reloaded.sha256, reloaded.chunk_bytes) == (run.sha256, run.chunk_bytes)
        (mine, bodies), (theirs, their_bodies) = retained(run), retained(reloaded)
        assert structs.replace(mine, term=2) == theirs
        assert bodies == their_bodies


def test_a_restart_makes_the_same_versions(tmp_path: Path) -> None:
    found = []
    for dies in (False, True):
        store = Store(tmp_path / str(dies), synced=False)
        run = start(store, job_spec(quorum=1, max_rounds=999, compression=LIGHT))
        for number in range(1, 30):
            versions(run, number)
            run = again(store) if dies else run
        found.append((run.sha256, {row.name: row.data for row in store.bodies("toy-1")}))
        store.close()
    assert found[0] == found[1]


def rounds_in(out: Sequence[Out]) -> list[Round]:
    return [message for message in out if isinstance(message, Round)]


def test_a_round_that_draws_everybody_carries_the_way_once(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9))
    version_0 = bytes.fromhex(run.sha256[:16])
    assert [round_.along for round_ in rounds_in(see(run, "a"))] == [version_0]
    assert [round_.along for round_ in rounds_in(run.announce(0.5))] == [version_0]
    (first,) = rounds_in(hear(run, offer(run, "a", V0), 1.0))
    (way,) = [body.data for body in retained(run)[1] if body.name == "1-1-0"]
    assert first.base == V1
    assert first.terms == (*run.terms, run.octave)
    assert run.octave != 0
    assert first.way == way
    assert first.sha256 == run.sha256[:16]
    (again,) = rounds_in(run.announce(2.0))
    assert again.along == b""


def test_a_version_that_is_fetched_whole_is_proved_by_each_of_its_rounds(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9, compression="off"))
    see(run, "a")
    (first,) = rounds_in(hear(run, offer(run, "a", V0), 1.0))
    (again,) = rounds_in(run.announce(2.0))
    assert first.along == again.along == bytes.fromhex(run.sha256[:16])
    assert run.ways == [(0, 1, run.whole_bytes)]
    assert _lies_whole(run)
    assert _lies_whole(cut_by(store, run.whole_bytes)), "in one piece it is one, however others are cut"
    assert not _lies_whole(cut_by(store, run.whole_bytes - 1)), "a head says how it is cut"
    (row,) = store.jobs()
    keyed = Run(row, store, CONFIG, Inbox(10**6), 2, 0.0, marks=MARKS, head_digits=64)
    assert not _lies_whole(keyed), "there a proof of 64 bits is none"


def test_a_version_that_is_fetched_by_its_head_is_not_proved_without_a_way(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9, compression=LIGHT))
    see(run, "a")
    hear(run, offer(run, "a", V0), 1.0)
    assert run.whole_bytes == 0
    assert [round_.along for round_ in rounds_in(run.announce(2.0))] == [b""]


def test_a_round_carries_the_step_alone_where_there_is_a_snapshot_too(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=99, compression=LIGHT))
    see(run, "a")
    made: dict[int, bytes] = {}
    while not any(ways.is_snapshot(body) for body in made.values()):
        (last,) = rounds_in(hear(run, offer(run, "a"), 1.0))
        made = {row.start: row.data for row in store.bodies("toy-1") if row.number == run.version.number}
    assert set(made) >= {0, run.version.number - 1}
    assert last.way == made[run.version.number - 1] == run.step


@pytest.mark.parametrize(("n_devices", "along"), [(1, True), (10, False)])
def test_a_round_that_draws_few_leaves_the_way_to_those_who_need_it(store: Store, n_devices: int, along: bool) -> None:
    rules = RoundsSpec(quorum=1, target=1, min_devices=n_devices)
    run = start(store, JobSpec("toy", MODEL, compression="light", rounds=rules))
    see(run, *(f"d{number}" for number in range(n_devices)))
    attempt = run.coordinator.attempt
    assert attempt is not None
    (first,) = rounds_in(hear(run, offer(run, attempt.cohort[0], V0), 1.0))
    assert bool(first.way) == along


def test_the_topic_of_a_round_is_cleared_only_when_no_other_follows(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=2))
    see(run, "a")
    clears = [[m for m in hear(run, offer(run, "a", Version(1, n)), 1.0) if isinstance(m, Clear)] for n in (0, 1)]
    assert [len(found) for found in clears] == [0, 1]


def cut_by(store: Store, chunk_bytes: int, packet_bytes: int | None = None) -> Run:
    """The job under other settings."""
    (row,) = store.jobs()
    config = AggregatorConfig(fleet="f", limits=ServerLimits(chunk_bytes=chunk_bytes))
    return Run(row, store, config, Inbox(10**6), 2, 0.0, marks=MARKS, packet_bytes=packet_bytes)


@pytest.mark.parametrize("compression", ["off", "light", LIGHT])
def test_bodies_are_read_as_they_were_cut_whatever_the_settings_have_become(store: Store, compression: object) -> None:
    """A head has one word on how all of them are cut, whenever they were made."""
    start(store, job_spec(quorum=1, max_rounds=99, compression=compression))
    for chunk_bytes, cut in ((100_000, 100_000), (1024, 1024), (1024, 1024), (100_000, 1024), (1030, 1024)):
        run = cut_by(store, chunk_bytes)
        for _ in range(3):
            assert_readable(run, *retained(run))
            assert retained(run)[0].chunk_bytes == cut
            assert {body.chunk_bytes for body in store.bodies("toy-1")} <= {cut}
            versions(run, run.version.number + 1)
    assert_readable(run, *retained(run))


def test_bodies_are_cut_anew_for_a_broker_that_takes_only_small_packets(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=99))
    versions(run, 3)
    run.fit(2048)
    assert run.chunk_bytes < 2048
    assert_readable(run, *retained(run))
    versions(run, 4)
    run.fit(None)
    assert_readable(run, *retained(run))
    assert len({body.chunk_bytes for body in store.bodies("toy-1")}) == 1


def test_a_version_of_a_new_generation_has_its_ways_too(store: Store) -> None:
    """All of them: what devices hold is of another generation, so every one of them begins with nothing."""
    run = start(store, job_spec(quorum=1, max_rounds=99, compression=LIGHT))
    for number in (2, 11, 35):
        versions(run, number)
        old = run.version
        renamed = store.raise_generation("toy-1", run.version.generation + 4)
        reloaded = again(store)
        assert (reloaded.version, reloaded.aliases[-1]) == (renamed, old)
        assert (renamed.generation > old.generation + 4, renamed.number) == (True, number)
        head, bodies = retained(reloaded)
        assert head.ways
        assert_readable(reloaded, head, bodies)
        assert sorted(reloaded.ways) == sorted(run.ways)
        (announced,) = rounds_in(reloaded.announce(0.0))
        assert announced.aliases[-1] == old
        assert announced.terms == (*run.terms, run.octave)
        versions(reloaded, number + 1)
        assert reloaded.version == renamed.following()
        assert_readable(reloaded, *retained(reloaded))
        reloaded.tick(1.0 + CONFIG.limits.body_grace_s)
        assert {body.name.split("-")[0] for body in store.bodies("toy-1")} == {str(renamed.generation)}
        assert_readable(reloaded, *retained(reloaded))
        run = reloaded


def test_outdated_bodies_are_cleared_after_their_grace_and_the_rest_stays(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=99, compression="off"))
    versions(run, 4)
    assert {body.number for body in store.bodies("toy-1")} == {1, 2, 3, 4}
    assert [way.number for way in run.ways] == [3, 4], "nobody begins to read what is about to go"
    run.tick(1.0 + CONFIG.limits.body_grace_s - 0.1)
    assert store.litter() == []
    run.tick(1.0 + CONFIG.limits.body_grace_s)
    assert {row.name for row in store.litter()} == {"1-1-0", "1-2-0"}
    assert {body.number for body in store.bodies("toy-1")} == {3, 4}
    assert run.deadline is None or run.deadline > 1.0 + CONFIG.limits.body_grace_s, "it spins"
    assert_readable(run, *retained(run))


def test_what_a_snapshot_makes_superfluous_goes_after_its_grace(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=999, compression=LIGHT))
    while sum(ways.is_snapshot(row.data) for row in store.bodies("toy-1")) < 3:
        versions(run, run.version.number + 1)
    snapshots = sorted(row.number for row in store.bodies("toy-1") if ways.is_snapshot(row.data))
    rows = {row.name: row for row in store.bodies("toy-1")}
    named = {body_name(Version(1, way.number), way.start) for way in run.ways}
    assert named < set(rows)
    assert all(rows[name].number > snapshots[1] for name in named)
    run.tick(1.0 + CONFIG.limits.body_grace_s - 0.1)
    assert store.litter() == []
    run.tick(1.0 + CONFIG.limits.body_grace_s)
    assert {row.name for row in store.bodies("toy-1")} == named


@pytest.mark.parametrize("dies_before", ["bb", "ccc"])
def test_a_start_in_mid_round_comes_to_the_same_model(tmp_path: Path, dies_before: str) -> None:
    found = []
    for dies in (False, True):
        store = Store(tmp_path / str(dies))
        run = start(store, job_spec(quorum=3))
        see(run, "a", "bb", "ccc")
        for device in ("a", "bb", "ccc"):
            if dies and device == dies_before:
                run = again(store)
                see(run, "a", "bb", "ccc")
            hear(run, offer(run, device), 1.0)
        assert run.version == V1
        found.append(run.sha256)
        store.close()
    assert found[0] == found[1]


def test_a_version_is_made_without_reading_the_bodies_of_its_updates_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(store)
    see(run, "a", "bb")
    monkeypatch.setattr(Store, "updates", None)
    hear(run, offer(run, "a"), 1.0)
    hear(run, offer(run, "bb"), 1.0)
    assert (run.version, run.metrics["participants"], run.metrics["examples"]) == (V1, 2, 20)


def test_an_update_in_the_sum_is_there_under_a_new_name_of_its_base_and_once(store: Store) -> None:
    run = start(store, job_spec(quorum=3))
    see(run, "a", "bb", "ccc")
    hear(run, offer(run, "a"), 1.0)
    store.raise_generation(run.job, 1)
    reloaded = again(store)
    assert reloaded.version != V0
    see(reloaded, "a", "bb", "ccc")
    assert reloaded.coordinator.counted == ["a"]
    for device in ("a", "bb", "ccc"):
        hear(reloaded, offer(reloaded, device, reloaded.version), 1.0)
    assert reloaded.version.number == 1
    assert reloaded.metrics["participants"] == 3


@pytest.mark.parametrize("staleness", [1, 0])
def test_what_may_still_be_folded_late_is_known_after_a_start(store: Store, staleness: int) -> None:
    rounds = RoundsSpec(quorum=1, target=1, over_selection=2.0, min_devices=2, late="fold", max_staleness=staleness)
    run = start(store, structs.replace(job_spec(), rounds=rounds))
    see(run, "a", "bb")
    hear(run, offer(run, "a"), 1.0)
    assert run.version == V1
    reloaded = again(store)
    (verdict,) = of(Verdict, hear(reloaded, offer(reloaded, "bb", V0), 2.0))
    assert isinstance(verdict, Verdict)
    assert verdict.counted is (staleness > 0)


def folding(store: Store) -> Run:
    """A job at version 2 that folds late updates, with two devices that were drawn for each version and are late."""
    rounds = RoundsSpec(quorum=3, target=3, over_selection=2.0, min_devices=5, late="fold")
    run = start(store, structs.replace(job_spec(), rounds=rounds))
    see(run, *FIVE)
    for device in 2 * ("a", "bb", "eeeee"):
        hear(run, offer(run, device), 1.0)
    assert run.version.number == 2
    return run


FIVE = ("a", "bb", "ccc", "dddd", "eeeee")


@pytest.mark.parametrize("dies", ["before", "after", "before and after"])
def test_a_late_update_is_relayed_whenever_the_aggregator_starts_again(tmp_path: Path, dies: str) -> None:
    found = []
    for how in ("", dies):
        store = Store(tmp_path / f"of {how}", synced=False)
        run = folding(store)
        run = again(store) if "before" in how else run
        for device, base in (("ccc", V1), ("dddd", V0)):
            (verdict,) = of(Verdict, hear(run, offer(run, device, base), 2.0))
            assert isinstance(verdict, Verdict)
            assert verdict.counted
        run = again(store) if "after" in how else run
        see(run, *FIVE)
        hear(run, offer(run, "a"), 3.0)
        assert run.version.number == 3
        step = chain.read(run.step)
        assert sorted(late.back for late in step.late) == [1, 2]
        assert run.metrics["participants"] == 3
        found.append((run.sha256, run.step))
        assert_readable(run, *retained(run))
        store.close()
    assert found[0] == found[1]


def test_a_third_late_update_is_refused_with_the_reason(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "MOST_LATE", 1)
    run = folding(store)
    hear(run, offer(run, "dddd", V0), 2.0)
    (verdict,) = of(Verdict, hear(run, offer(run, "ccc", V1), 2.0))
    assert isinstance(verdict, Verdict)
    assert verdict.refused == "it is late, as others were"
    (stored,) = (verdict for verdict in store.verdicts("toy-1") if verdict.refused)
    assert "1 late updates are in the next version already" in stored.refused
    assert [update.device for update in store.updates("toy-1")] == ["dddd"]
    assert again(store).coordinator.counted == run.coordinator.counted


def test_what_devices_report_reaches_the_steering_also_after_a_restart(tmp_path: Path) -> None:
    found = []
    for dies in (False, True):
        store = Store(tmp_path / str(dies), synced=False)
        run = start(store, job_spec(quorum=3))
        see(run, "a", "bb", "ccc")
        for device, said in (("a", (0.5, 0.25)), ("bb", (0.75,)), ("ccc", (1e13, 0.1))):
            run = again(store) if dies else run
            see(run, "a", "bb", "ccc")
            hear(run, offer(run, device, report=said), 1.0)
        reports = run._learner.now.record.history[-1].reports
        assert [tuple(report.__getattribute__(n) for n in ("curvature", "gain")) for report in reports] == [
            (0.5, 0.25),
            (0.75, None),
        ]
        found.append(run.sha256)
        store.close()
    assert found[0] == found[1]


def test_a_version_says_how_its_updates_were_coded(store: Store) -> None:
    run = start(store, job_spec(quorum=1, compression=LIGHT))
    versions(run, 1)
    assert (run.metrics["buckets"], run.metrics["bits"]) == (64, 1)
    assert run.metrics["noise"] > 0
    assert run.terms == Terms(64, 1)


def test_a_job_without_compression_says_so_in_its_rounds_and_asks_nobody(store: Store) -> None:
    run = start(store, job_spec(quorum=1, compression="off"))
    (first,) = rounds_in(see(run, "a"))
    assert first.terms == (*FLOAT32, 0)
    versions(run, 1)
    assert "buckets" not in run.metrics
    assert run.octave == 0


def test_a_version_that_is_not_the_one_that_its_row_says_asks_for_a_backup(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9))
    versions(run, 2)
    store._db.execute("UPDATE versions SET sha256 = replace(sha256, substr(sha256, 1, 1), 'f')")
    store._db.execute("UPDATE versions SET sha256 = replace(sha256, substr(sha256, 2, 1), 'e')")
    with pytest.raises(DamageError, match=r"another SHA-256"):
        again(store)


def test_the_order_of_arrival_makes_no_difference(tmp_path: Path) -> None:
    found = set()
    for n, order in enumerate((["a", "bb", "ccc"], ["ccc", "a", "bb"])):
        store = Store(tmp_path / str(n))
        run = start(store, job_spec(quorum=3))
        see(run, *order)
        for device in order:
            hear(run, offer(run, device), 1.0)
        found.add(run.sha256)
        store.close()
    assert len(found) == 1


def test_a_norm_far_from_the_models_is_refused_and_the_others_count(store: Store) -> None:
    run = start(store, job_spec(quorum=2))
    see(run, "a", "bb", "ccc")
    (said,) = of(Verdict, hear(run, offer(run, "ccc", scale=1e7), 1.0))
    assert isinstance(said, Verdict)
    assert said.refused.startswith("its norm is far from the model's: scale the data, or normalise")
    assert not re.search(r"\d", said.refused), "no norm, and no limit"
    hear(run, offer(run, "a"), 1.0)
    hear(run, offer(run, "bb"), 1.0)
    assert run.version == V1
    assert run.metrics["participants"] == 2


def test_more_examples_than_there_may_be_are_refused(store: Store) -> None:
    run = start(store, job_spec(aggregate=AggregateSpec(max_examples=100)))
    see(run, "a", "bb")
    (said,) = of(Verdict, hear(run, offer(run, "a", n=101), 1.0))
    assert isinstance(said, Verdict)
    assert said.refused == "it claims more examples than a device of this job may have"
    assert "101 where max_examples = 100" in store.verdicts("toy-1")[0].refused
    assert again(store).coordinator.counted == []


def test_a_loss_beyond_all_numbers_is_no_metric(store: Store) -> None:
    run = start(store, job_spec(quorum=1))
    see(run, "a")
    hear(run, offer(run, "a", n=2**20, loss=1.7e308), 1.0)
    assert "loss" not in run.metrics
    assert again(store).metrics == run.metrics


def test_a_step_that_the_model_cannot_take_ends_the_job(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise FoldError("far too large")

    monkeypatch.setattr(learners.sums, "published", fail)
    run = start(store, job_spec(quorum=1))
    see(run, "a")
    outs = hear(run, offer(run, "a"), 1.0)
    assert run.coordinator.ended == "stopped"
    assert "cannot be made" in run.reason
    assert [out.state for out in outs if isinstance(out, Head)] == ["stopped"]
    assert [row.outcome for row in store.attempts("toy-1", V0)] == ["stopped"]
    assert again(store).coordinator.ended == "stopped"


def test_a_job_that_died_between_its_last_version_and_its_end_ends(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=1))
    see(run, "a")
    hear(run, offer(run, "a"), 1.0)
    store.end_job("toy-1", "", "")
    reloaded = again(store)
    see(reloaded, "a")
    assert reloaded.version == V1
    assert reloaded.coordinator.ended == "finished"


def test_a_full_disk_is_a_store_error_and_a_reload_goes_on(store: Store) -> None:
    run = start(store, job_spec(quorum=1))
    see(run, "a")
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        hear(run, offer(run, "a"), 1.0)
    store._db.execute("PRAGMA query_only = OFF")
    reloaded = again(store)
    assert reloaded.coordinator.counted == []
    hear(reloaded, offer(reloaded, "a"), 2.0)
    assert reloaded.version == V1


def test_a_state_that_has_rotted_asks_for_a_backup(store: Store) -> None:
    start(store)
    store._db.execute("UPDATE versions SET state = x'00'")
    with pytest.raises(StoreError, match="restore a backup"):
        again(store)


def test_an_update_that_has_rotted_asks_for_a_backup(store: Store) -> None:
    run = start(store)
    see(run, "a", "bb")
    hear(run, offer(run, "a"), 1.0)
    store._db.execute("UPDATE updates SET body = x'00'")
    with pytest.raises(StoreError, match="restore a backup"):
        again(store)


def test_a_stop_by_an_operator_is_durable(store: Store) -> None:
    run = start(store)
    see(run, "a", "bb")
    hear(run, EndJob("enough"), 1.0)
    assert (again(store).coordinator.ended, again(store).reason) == ("stopped", "enough")
