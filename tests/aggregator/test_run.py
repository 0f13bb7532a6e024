"""Runs by themselves: a store, a job and updates that are made by hand; no wire and no agents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from aggregator import run as runs
from aggregator.config import AggregatorConfig, Limits
from aggregator.effects import Seen, Stop
from aggregator.inbox import Inbox
from aggregator.projection import Clear, Out
from aggregator.run import Run
from aggregator.store import DamageError, Store, StoreError
from broker import chunks
from broker.faults import Marks
from broker.messages import Body, Head, Job, Offer, Round, Status, Verdict, Version, body_name
from models import codec, downlink
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets import ModelError, build

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
    row = runs.create("toy-1", spec or job_spec(), store, CONFIG)
    return Run(row, store, CONFIG, Inbox(10**6), 1, 0.0, marks=MARKS)


def again(store: Store) -> Run:
    (row,) = store.jobs()
    return Run(row, store, CONFIG, Inbox(10**6), 2, 0.0, marks=MARKS)


def see(run: Run, *devices: str) -> list[Out]:
    return [out for device in devices for out in run.handle(Seen(device, online=True, ready=True), 0.0)]


def offer(device: str, base: Version = V0, scale: float = 0.01, n: int = 10, loss: float | None = None) -> Offer:
    rng = np.random.default_rng(len(device) + base.number)
    delta = {tensor.name: (scale * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET}
    coding = CompressionSpec(codec="float32")
    body = codec.encode(delta, NET, coding, rng=rng).body
    return Offer("toy-1", device, base, n, chunks.digest(body), len(body), loss=loss, body=body)


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
    assert run.handle(offer("a"), 1.0) == []
    assert run.handle(offer("a"), 1.0) == [Verdict("a", "toy-1", V0, offer("a").digest[:8])], "it asks again"
    outs = run.handle(offer("bb"), 2.0)
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
    outs = run.handle(offer("a"), 1.0)
    at = next(n for n, out in enumerate(outs) if isinstance(out, Head))
    head = outs[at]
    assert isinstance(head, Head)
    assert [way.start for way in head.ways] == [0]
    assert_readable(head, [out for out in outs[:at] if isinstance(out, Body)])


def assert_readable(head: Head, bodies: list[Body]) -> None:
    """Every way of a head lies among these, cut as the head says, and each of version 0 leads to its model."""
    for way in head.ways:
        pieces = {body.index: body.data for body in bodies if body.name == body_name(head.version, way.start)}
        whole = chunks.Assembly(None, way.n_bytes, head.chunk_bytes)
        for index, data in pieces.items():
            whole.add(index, data)
        body = whole.body()
        assert body is not None
        if not way.start:
            assert downlink.install(NET, 0, body)[0].sha256().startswith(head.sha256)


def retained(run: Run) -> tuple[Head, list[Body]]:
    outs = run.retained()
    (head,) = [out for out in outs if isinstance(out, Head)]
    return head, [out for out in outs if isinstance(out, Body)]


def versions(run: Run, n: int) -> None:
    for number in range(n):
        see(run, "a")
        run.handle(offer("a", Version(1, number), scale=0.1), 1.0)
    assert run.version.number == n


def test_every_version_has_its_ways_at_the_broker(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9))
    for number in range(5):
        see(run, "a")
        run.handle(offer("a", Version(1, number)), 1.0)
        assert_readable(*retained(run))
    head = retained(run)[0]
    assert [way.start for way in head.ways] == [4, 3, 2, 1, 0]


def rounds_in(out: Sequence[Out]) -> list[Round]:
    return [message for message in out if isinstance(message, Round)]


def test_a_round_that_draws_everybody_carries_the_way_once(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9))
    version_0 = bytes.fromhex(run.sha256[:16])
    assert [round_.along for round_ in rounds_in(see(run, "a"))] == [version_0]
    assert [round_.along for round_ in rounds_in(run.announce(0.5))] == [version_0]
    (first,) = rounds_in(run.handle(offer("a", V0), 1.0))
    (way,) = [body.data for body in retained(run)[1] if body.name == "1-1-0"]
    assert first.base == V1
    assert first.way == way
    assert first.sha256 == run.sha256[:16]
    (again,) = rounds_in(run.announce(2.0))
    assert again.along == b""


@pytest.mark.parametrize(("n_devices", "along"), [(1, True), (10, False)])
def test_a_round_that_draws_few_leaves_the_way_to_those_who_need_it(store: Store, n_devices: int, along: bool) -> None:
    rules = RoundsSpec(quorum=1, target=1, min_devices=n_devices)
    run = start(store, JobSpec("toy", MODEL, compression="light", rounds=rules))
    see(run, *(f"d{number}" for number in range(n_devices)))
    attempt = run.coordinator.attempt
    assert attempt is not None
    (first,) = rounds_in(run.handle(offer(attempt.cohort[0], V0), 1.0))
    assert bool(first.way) == along


def test_the_topic_of_a_round_is_cleared_only_when_no_other_follows(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=2))
    see(run, "a")
    clears = [[m for m in run.handle(offer("a", Version(1, n)), 1.0) if isinstance(m, Clear)] for n in (0, 1)]
    assert [len(found) for found in clears] == [0, 1]


def test_bodies_are_read_as_they_were_cut_whatever_the_settings_have_become(store: Store) -> None:
    run = start(store, job_spec(quorum=1, compression=CompressionSpec(codec="float32", downlink_step=0.0)))
    versions(run, 1)
    (row,) = store.jobs()
    finer = AggregatorConfig(fleet="f", limits=Limits(chunk_bytes=1024))
    reloaded = Run(row, store, finer, Inbox(10**6), 2, 0.0, marks=MARKS)
    assert_readable(*retained(reloaded))
    see(reloaded, "a")
    reloaded.handle(offer("a", V1), 1.0)
    head, bodies = retained(reloaded)
    assert head.chunk_bytes == 1024
    assert len([body for body in bodies if body.name == "1-2-0"]) > 1
    assert_readable(head, bodies)


def test_a_version_of_a_new_generation_has_its_ways_too(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9))
    versions(run, 2)
    renamed = store.raise_generation("toy-1", 4)
    reloaded = again(store)
    assert (reloaded.version, reloaded.aliases) == (renamed, (Version(1, 2),))
    assert (renamed.generation > 4, renamed.number) == (True, 2)
    assert_readable(*retained(reloaded))
    (announced,) = rounds_in(reloaded.announce(0.0))
    assert announced.aliases == (Version(1, 2),)
    reloaded.handle(offer("a", renamed), 1.0)
    assert reloaded.version == renamed.following()
    assert_readable(*retained(reloaded))


def test_outdated_bodies_are_cleared_after_their_grace_and_the_rest_stays(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=9))
    versions(run, 4)
    assert {body.number for body in store.bodies("toy-1")} == {1, 2, 3, 4}
    run.tick(1.0 + CONFIG.limits.body_grace_s - 0.1)
    assert store.litter() == []
    run.tick(1.0 + CONFIG.limits.body_grace_s)
    assert {row.name for row in store.litter()} == {"1-1-0", "1-2-0", "1-2-1"}
    assert {body.number for body in store.bodies("toy-1")} == {3, 4}
    assert_readable(*retained(run))


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
            run.handle(offer(device), 1.0)
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
    run.handle(offer("a"), 1.0)
    run.handle(offer("bb"), 1.0)
    assert (run.version, run.metrics["participants"], run.metrics["examples"]) == (V1, 2, 20)


def test_an_update_in_the_sum_is_there_under_a_new_name_of_its_base_and_once(store: Store) -> None:
    run = start(store, job_spec(quorum=3))
    see(run, "a", "bb", "ccc")
    run.handle(offer("a"), 1.0)
    store.raise_generation(run.job, 1)
    reloaded = again(store)
    assert reloaded.version != V0
    see(reloaded, "a", "bb", "ccc")
    assert reloaded.coordinator.counted == ["a"]
    for device in ("a", "bb", "ccc"):
        reloaded.handle(offer(device, reloaded.version), 1.0)
    assert reloaded.version.number == 1
    assert reloaded.metrics["participants"] == 3


@pytest.mark.parametrize("staleness", [1, 0])
def test_what_may_still_be_folded_late_is_known_after_a_start(store: Store, staleness: int) -> None:
    rounds = RoundsSpec(quorum=1, target=1, over_selection=2.0, min_devices=2, late="fold", max_staleness=staleness)
    run = start(store, structs.replace(job_spec(), rounds=rounds))
    see(run, "a", "bb")
    run.handle(offer("a"), 1.0)
    assert run.version == V1
    (verdict,) = of(Verdict, again(store).handle(offer("bb"), 2.0))
    assert isinstance(verdict, Verdict)
    assert verdict.counted is (staleness > 0)


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
            run.handle(offer(device), 1.0)
        found.add(run.sha256)
        store.close()
    assert len(found) == 1


def test_a_norm_far_from_its_peers_is_refused_and_the_others_count(store: Store) -> None:
    run = start(store, job_spec(quorum=2))
    see(run, "a", "bb", "ccc")
    (said,) = of(Verdict, run.handle(offer("ccc", scale=1e3), 1.0))
    assert isinstance(said, Verdict)
    assert "far from its peers'" in said.refused
    run.handle(offer("a"), 1.0)
    run.handle(offer("bb"), 1.0)
    assert run.version == V1
    assert run.metrics["participants"] == 2


def test_more_examples_than_there_may_be_are_refused(store: Store) -> None:
    run = start(store, job_spec(aggregate=AggregateSpec(max_examples=100)))
    see(run, "a", "bb")
    (said,) = of(Verdict, run.handle(offer("a", n=101), 1.0))
    assert isinstance(said, Verdict)
    assert "max_examples = 100" in said.refused
    assert again(store).coordinator.counted == []


def test_a_loss_beyond_all_numbers_is_no_metric(store: Store) -> None:
    run = start(store, job_spec(quorum=1))
    see(run, "a")
    run.handle(offer("a", n=2**20, loss=1.7e308), 1.0)
    assert "loss" not in run.metrics
    assert again(store).metrics == run.metrics


def test_a_step_that_the_model_cannot_take_ends_the_job(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downlink, "LARGEST_STEP", 2.0**-100)
    run = start(store, job_spec(quorum=1))
    see(run, "a")
    outs = run.handle(offer("a"), 1.0)
    assert run.coordinator.ended == "stopped"
    assert "cannot be made" in run.reason
    assert [out.state for out in outs if isinstance(out, Head)] == ["stopped"]
    assert [row.outcome for row in store.attempts("toy-1", V0)] == ["stopped"]
    assert again(store).coordinator.ended == "stopped"


def test_a_job_that_died_between_its_last_version_and_its_end_ends(store: Store) -> None:
    run = start(store, job_spec(quorum=1, max_rounds=1))
    see(run, "a")
    run.handle(offer("a"), 1.0)
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
        run.handle(offer("a"), 1.0)
    store._db.execute("PRAGMA query_only = OFF")
    reloaded = again(store)
    assert reloaded.coordinator.counted == []
    reloaded.handle(offer("a"), 2.0)
    assert reloaded.version == V1


def test_a_state_that_has_rotted_asks_for_a_backup(store: Store) -> None:
    start(store)
    store._db.execute("UPDATE versions SET state = x'00'")
    with pytest.raises(StoreError, match="restore a backup"):
        again(store)


def test_an_update_that_has_rotted_asks_for_a_backup(store: Store) -> None:
    run = start(store)
    see(run, "a", "bb")
    run.handle(offer("a"), 1.0)
    store._db.execute("UPDATE updates SET body = x'00'")
    with pytest.raises(StoreError, match="restore a backup"):
        again(store)


def test_a_stop_by_an_operator_is_durable(store: Store) -> None:
    run = start(store)
    see(run, "a", "bb")
    run.handle(Stop("enough"), 1.0)
    assert (again(store).coordinator.ended, again(store).reason) == ("stopped", "enough")
