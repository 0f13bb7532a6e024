from __future__ import annotations

import logging
import math
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from aggregator import evaluation, notes
from aggregator.config import ENVELOPE_BYTES
from aggregator.effects import Committed
from aggregator.jobs import RELOAD_S, RENAME_S
from aggregator.learner import Learner
from aggregator.projection import Question
from aggregator.service import BURY_S, COMPANY_S, LEADS_WITH, LISTENS_TO, READ_AGAIN_S, SAID_ONCE, SessionTakenOverError
from aggregator.store import Store, StoreError
from broker import chunks
from broker.memory import MemoryTransport
from broker.messages import (
    Beacon,
    Body,
    Candidate,
    Chunk,
    Failure,
    Head,
    Job,
    Jobs,
    Offer,
    Presence,
    Reply,
    Round,
    Status,
    Stop,
    Submit,
    Verdict,
    Version,
)
from broker.transport import Packet
from broker.wire import Wire
from models import steering
from models.codec import FLOAT32, INT8, Coding, Terms
from models.data.source import DataSource
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.params import n_parameters, spec_of
from runtime import failpoints
from runtime.faults import Marks

Fleet = Any
INT8_BOTH = CompressionSpec(codec="int8")
"""The class of the fixture; it stands in conftest.py, which is no module to import."""
SpecMaker = Callable[..., JobSpec]
V0, V2 = Version(1, 0), Version(1, 2)


WIRE = Wire("f")


def listener(fleet: Fleet, word: str, **levels: str) -> Callable[[], list[Any]]:
    """Listen to a word of the table; gives what came since it was asked last."""
    transport = fleet.broker.transport(f"listener-{word}-{levels}")
    transport.subscribe(WIRE.filter_for(word, **levels))
    transport.open()

    def heard() -> list[Any]:
        events = iter(transport.take, None)
        return [WIRE.unpack(event) for event in events if isinstance(event, Packet)]

    return heard


# A whole job.


def test_an_update_waits_a_little_for_those_that_share_its_sync_but_the_last_of_its_round_does_not(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, settle, waits, settled = MemoryTransport.take, fleet.store.add_verdicts, [], []

    def waited(link: MemoryTransport, timeout_s: float | None = 0.0) -> object:
        if link is fleet.link and timeout_s and fleet.aggregator.jobs.expects_more:
            assert timeout_s <= COMPANY_S
            waits.append(len(fleet.job()._unwritten))
            for agent in fleet.agents.values():  # meanwhile
                agent.step(0.0)
        return take(link, timeout_s)

    def noted(job: str, judged: Sequence[object]) -> None:
        settled.append(len(judged))
        settle(job, judged)

    monkeypatch.setattr(MemoryTransport, "take", waited)
    monkeypatch.setattr(fleet.store, "add_verdicts", noted)
    fleet.submit(spec())
    while not settled:
        for agent in fleet.agents.values():
            agent.step(0.0)
            fleet.aggregator.step(0.0)
        fleet.now += 0.1
    assert (waits, settled) == ([1], [3])
    fleet.finish()
    assert sum(settled) == 9


def test_a_fleet_trains_a_job_to_its_end(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec())
    run = fleet.finish()
    assert run.version == Version(1, 3)
    assert run.reason == "max_rounds = 3 are done"
    assert run.metrics["participants"] == 3
    assert run.metrics["device_loss"] < 0.7
    assert fleet.aggregator.tally.counts == {}


def test_whoever_comes_to_lead_says_so_without_a_warning(
    fleet: Fleet, spec: SpecMaker, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.submit(spec())
    with caplog.at_level(logging.INFO, "aggregator.service"):
        fleet.kill_aggregator()
        fleet.start_aggregator()
        fleet.finish()
    said = [record for record in caplog.records if "another last will" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.INFO]


def test_the_same_fleet_comes_to_the_same_model(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    fleet.submit(spec())
    assert fleet.finish().sha256 == final_sha256


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8, 13, 21])
def test_killing_the_aggregator_anywhere_comes_to_the_same_model(
    fleet: Fleet, spec: SpecMaker, final_sha256: str, after: int
) -> None:
    fleet.submit(spec())
    for _ in range(after):
        fleet.aggregator.step(0.0)
        for agent in fleet.agents.values():
            agent.step(0.0)
    fleet.kill_aggregator()
    fleet.start_aggregator()
    assert fleet.finish().sha256 == final_sha256


@pytest.mark.parametrize(
    ("strategy", "compression"), [("fedadam", "strong"), ("fedadam", "off"), ("median", "off"), ("median", INT8_BOTH)]
)
def test_every_strategy_comes_to_the_same_model_whoever_is_killed_in_every_round(
    fleet: Fleet, spec: SpecMaker, undisturbed: Callable[[JobSpec], str], strategy: Any, compression: object
) -> None:
    """The aggregator and a device, in the middle of it: of what they hold nothing is left but the disk."""
    rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=6, wait="all", deadline_s=30.0)
    rules = AggregateSpec(strategy=strategy, server_learning_rate=0.02)
    job = spec(aggregate=rules, rounds=rounds, compression=compression)
    wanted = undisturbed(job)
    fleet.submit(job)
    killed: dict[int, int] = {}
    while not (fleet.aggregator.runs and fleet.job().coordinator.ended):
        for name in list(fleet.agents):
            fleet.agents[name].step(0.0)
            fleet.aggregator.step(0.0)
            run = fleet.job() if fleet.aggregator.runs else None
            if run is None or run.version.number in killed or not 0 < len(run._learner.intake.counted) < 3:
                continue
            killed[run.version.number] = len(run._learner.intake.counted)
            fleet.kill_aggregator()
            fleet.kill_agent(name)
            fleet.agents[name] = fleet.start_agent(name)
            fleet.start_aggregator()
        fleet.now += 0.1
        assert fleet.now < 5000.0
    assert fleet.job().sha256 == wanted
    assert set(killed) == set(range(6)), "in every round, with one update or two in its sum"


@pytest.mark.parametrize("compression", ["light", "extreme", INT8_BOTH])
def test_a_device_that_was_away_for_many_versions_has_the_state_of_fedadam_again(
    fleet: Fleet, spec: SpecMaker, compression: object
) -> None:
    """It has to: the last rounds do not end without it."""
    rounds = RoundsSpec(quorum=2, target=2, min_devices=2, max_rounds=34, deadline_s=30.0)
    rules = AggregateSpec(strategy="fedadam", server_learning_rate=0.02)
    fleet.submit(spec(aggregate=rules, rounds=rounds, compression=compression))

    def go_on(until: int) -> None:
        for _ in range(5000):
            for part in (fleet.aggregator, *fleet.agents.values()):
                part.step(0.0)
            fleet.now += 0.02
            if fleet.aggregator.runs and fleet.job().version.number >= until:
                return

    go_on(3)
    fleet.kill_agent("d2")
    del fleet.agents["d2"]
    go_on(28)
    fleet.kill_agent("d1")
    del fleet.agents["d1"]
    assert fleet.job().version.number == 28
    fleet.agents["d2"] = fleet.start_agent("d2")
    assert fleet.finish().version == Version(1, 34)


def test_killing_agents_comes_to_the_same_model(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    fleet.submit(spec())
    for n in range(3):
        fleet.step(0.1)
        name = f"d{n}"
        fleet.kill_agent(name)
        fleet.agents[name] = fleet.start_agent(name)
    assert fleet.finish().sha256 == final_sha256


def test_a_broker_that_forgets_everything_is_told_again(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    fleet.submit(spec())
    for _ in range(3):
        fleet.step(0.1)
        fleet.broker.stop()
        fleet.step(1.0)
        fleet.broker.start()
    assert fleet.finish().sha256 == final_sha256


def test_a_job_survives_its_end(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec())
    done = fleet.finish()
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    again = fleet.job()
    assert (again.version, again.sha256, again.reason) == (done.version, done.sha256, done.reason)


def test_bodies_in_chunks_come_to_the_same_model_as_in_one(fleet: Fleet, spec: SpecMaker) -> None:
    changes: dict[str, Any] = {"compression": "off"}
    job = fleet.submit(spec(**changes))
    heads = listener(fleet, "head", job=job)
    run = fleet.finish()
    (last,) = [head for head in heads() if head.version == run.version][-1:]
    assert last.state == "finished"
    assert last.sha256 == run.sha256[:32]


# Commands.


def test_an_operator_submits_and_stops_a_job(fleet: Fleet) -> None:
    replies = listener(fleet, "reply", client="cli")
    fleet.run(lambda: len(fleet.aggregator.roster.devices) == 3)
    fleet.say(Submit("cli", "r1", {"name": "toy", "model": {"inputs": 4, "outputs": 2}}))
    fleet.step()
    fleet.say(Submit("cli", "r2", {"name": "toy", "model": {"inputs": 4, "outputs": 2}}))
    fleet.say(Submit("cli", "r3", {"name": "toy2", "model": {"imputs": 4}}))
    fleet.say(Stop("cli", "r4", "toy"), Stop("cli", "r5", "toy"))
    fleet.step()
    said = {reply.request: reply for reply in replies() if isinstance(reply, Reply)}
    assert [said[f"r{n}"].ok for n in (1, 2, 3, 4, 5)] == [True, False, False, True, True]
    assert "before" in said["r5"].text
    assert "is running" in said["r2"].text
    assert 'did you mean "inputs"' in said["r3"].text
    assert fleet.job().coordinator.ended == "stopped"


def test_an_ended_job_makes_way_for_one_of_its_name(fleet: Fleet, spec: SpecMaker) -> None:
    first = fleet.submit(spec())
    fleet.finish()
    jobs = listener(fleet, "job")
    second = fleet.aggregator.submit(spec())
    assert set(fleet.aggregator.runs) == {second}
    fleet.step()
    assert Job(first, fleet.aggregator.term) in jobs()
    assert fleet.finish().job == second
    assert all(set(agent.works) == {second} for agent in fleet.agents.values())


def test_a_job_is_not_submitted_over_one_that_is_being_loaded_again(
    fleet: Fleet, spec: SpecMaker, final_sha256: str
) -> None:
    first = fleet.submit(spec())
    fleet.store._db.execute("PRAGMA query_only = ON")
    fleet.run(lambda: not fleet.aggregator.runs)
    fleet.store._db.execute("PRAGMA query_only = OFF")
    with pytest.raises(ValueError, match="is at rest and has not ended"):
        fleet.aggregator.submit(spec())
    fleet.aggregator.submit(JobSpec("other", spec().model))
    assert [row.job for row in fleet.store.jobs() if row.name == "toy"] == [first]
    fleet.run(lambda: first in fleet.aggregator.runs)
    fleet.run(lambda: bool(fleet.aggregator.runs[first].coordinator.ended))
    assert fleet.aggregator.runs[first].sha256 == final_sha256


# A state directory from a backup.


def test_a_late_will_of_a_lost_life_is_spoken_over(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec())
    beacons = listener(fleet, "aggregator")
    for term in (0, 41):
        fleet.say(Beacon(term, "lost", online=False))
        fleet.step(1.0)
        fleet.step(1.0)
        said = [beacon for beacon in beacons() if isinstance(beacon, Beacon)]
        assert (said[-1].nonce, said[-1].online) == (fleet.aggregator.nonce, True)
        assert said[-1].spread_s == fleet.limits.spread_s
    assert fleet.aggregator.term == 42
    assert fleet.finish().version == Version(1, 3)


def step_until(fleet: Fleet, number: int) -> None:
    """Let everybody do one thing after another until there is a version of this number."""
    for _ in range(10_000):
        if fleet.aggregator.runs and fleet.job().version.number == number:
            return
        fleet.aggregator.step(0.0)
        for agent in fleet.agents.values():
            agent.step(0.0)
        fleet.now += 0.01
    raise AssertionError(fleet.aggregator.doing)


def test_a_state_from_a_backup_goes_on_with_devices_that_hold_what_was_lost(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=6, wait="all", deadline_s=30.0)))
    step_until(fleet, 2)
    fleet.kill_aggregator()
    copy = fleet.folder / "backup"
    shutil.copytree(fleet.folder / "aggregator", copy)
    fleet.start_aggregator()
    step_until(fleet, 4)
    fleet.kill_aggregator()
    shutil.rmtree(fleet.folder / "aggregator")
    copy.rename(fleet.folder / "aggregator")
    fleet.start_aggregator()
    run = fleet.finish()
    assert run.job == job
    assert (run.version.generation > 1, run.version.number) == (True, 6)


SIX = RoundsSpec(quorum=3, min_devices=3, max_rounds=6, wait="all", deadline_s=30.0)


def restore(fleet: Fleet, copy: Path) -> None:
    """Put a copy back in the place of the state directory, byte for byte and file for file: nothing shows it."""
    folder = fleet.folder / "aggregator"
    for file in (file for file in copy.iterdir() if file.is_file()):
        with (folder / file.name).open("r+b") as target:
            target.write(file.read_bytes())
            target.truncate()
    for file in folder.iterdir():
        if not (copy / file.name).exists() and file.is_file():
            file.unlink()


@pytest.mark.parametrize("forgets", [True, False])
def test_an_old_state_directory_and_a_broker_that_forgot_cost_time_and_no_device(
    fleet: Fleet, spec: SpecMaker, forgets: bool
) -> None:
    """The devices have trained on later numbers, and say so when they are called."""
    fleet.submit(spec(rounds=SIX))
    step_until(fleet, 1)
    fleet.kill_aggregator()
    copy = fleet.folder / "backup"
    shutil.copytree(fleet.folder / "aggregator", copy)
    fleet.start_aggregator()
    step_until(fleet, 4)
    fleet.kill_aggregator()
    restore(fleet, copy)
    if forgets:
        fleet.broker.stop()
    fleet.start_aggregator()
    assert not fleet.store.moved
    if forgets:
        fleet.broker.start()
    began = fleet.now
    run = fleet.finish()
    assert (run.version.generation > 1, run.version.number) == (True, 6)
    assert fleet.now - began < 30.0, "no round was waited for in vain"


def test_a_backup_with_an_update_in_the_sum_holds_it_once(fleet: Fleet, spec: SpecMaker) -> None:
    """Its device is told that it is done with the base, whatever that is called now."""
    job = fleet.submit(spec(rounds=structs.replace(SIX, max_rounds=1)))
    while fleet.job().coordinator.attempt is None:
        for agent in (*fleet.agents.values(), fleet.aggregator):
            agent.step(0.0)
        fleet.now += 0.01
    for _ in range(4000):
        fleet.aggregator.step(0.0)
        if fleet.store.claims(job):
            break
        fleet.agents["d0"].step(0.0)
        fleet.now += 0.01
    counted = [claim.device for claim in fleet.store.claims(job)]
    assert counted == ["d0"]
    fleet.say(Head(job, fleet.aggregator.term, Version(1, 5), "ab" * 16))
    fleet.aggregator.step(0.0)
    assert fleet.job().version.generation > 1
    trained = [listener(fleet, "offer", job=job, device=f"d{n}") for n in range(3)]
    run = fleet.finish()
    assert (run.version.number, run.metrics["participants"], run.metrics["examples"]) == (1, 3, 60)
    assert {said.base for said in trained[0]() if isinstance(said, Offer)} <= {V0}


def unreadable(*_: object) -> None:
    raise StoreError("disk I/O error")


def by_hand(fleet: Fleet, spec: SpecMaker, deadline_s: float = 1e5) -> tuple[str, Callable[[], list[Any]]]:
    """A job for two devices that are both played by hand."""
    job = fleet.submit(spec(data="elsewhere", rounds=RoundsSpec(quorum=2, min_devices=2, deadline_s=deadline_s)))
    heard = listener(fleet, "verdict", job=job, device="d9")
    say(fleet, *(Presence(name, 1, online=True, ready={job: 20}) for name in ("d8", "d9")))
    return job, heard


def say(fleet: Fleet, *messages: Any) -> None:
    """Say something as a device, and have it heard."""
    fleet.say(*messages)
    fleet.step(0.1)


def said_twice(fleet: Fleet, offer: Offer) -> None:
    """Have an update offered, and offered again: that it was counted is said to who asks."""
    say(fleet, offer)
    say(fleet, offer)


TELLS: dict[str, Callable[[str, Version], Any]] = {
    "what lies at the broker": lambda job, version: Head(job, 1, version, "ab" * 16),
    "an update": lambda job, version: offer_of(job, b"x", "d9", version),
    "what a device is done with": lambda job, version: Presence(
        "d9", 1, online=True, ready={job: 20}, done={job: version}
    ),
    "what a device has heard of": lambda job, version: Presence(
        "d9", 1, online=True, ready={job: 20}, ahead={job: version}
    ),
}


@pytest.mark.parametrize("tell", TELLS.values(), ids=TELLS)
@pytest.mark.parametrize("later", [Version(1, 7), Version(2, 0), Version(900, 3)], ids=str)
def test_a_later_version_than_ours_that_somebody_knows_makes_a_new_generation(
    fleet: Fleet, spec: SpecMaker, tell: Callable[[str, Version], Any], later: Version
) -> None:
    """Each of them is enough: a broker may have forgotten, and a device may be away."""
    job, _ = by_hand(fleet, spec)
    say(fleet, tell(job, later))
    version = fleet.job().version
    assert (version.generation > later.generation, version.number) == (True, 0)
    say(fleet, tell(job, Version(1, 0)), tell(job, version))
    assert fleet.job().version == version, "neither its former name nor its present one is later"


@pytest.mark.parametrize("tell", TELLS.values(), ids=TELLS)
@pytest.mark.parametrize("nonsense", [Version(1, 2**21), Version(2**50, 0)], ids=str)
def test_nonsense_makes_no_new_generation(
    fleet: Fleet, spec: SpecMaker, tell: Callable[[str, Version], Any], nonsense: Version
) -> None:
    job, _ = by_hand(fleet, spec)
    say(fleet, tell(job, nonsense))
    assert fleet.job().version == V0


def done(job: str, version: Version, **more: Any) -> Presence:
    return Presence("d9", 1, online=True, ready={job: 20}, done={job: version}, **more)


def test_a_device_that_is_done_with_a_base_of_which_nothing_is_known_here_trains_on_it_again(
    fleet: Fleet, spec: SpecMaker
) -> None:
    """Its verdict was written to a later state directory than this one."""
    job, heard = by_hand(fleet, spec)
    say(fleet, done(job, V0))
    renamed = fleet.job().version
    assert (renamed.generation > 1, renamed.number) == (True, 0)
    (said,) = [said for said in listener(fleet, "round", job=job)() if isinstance(said, Round)]
    assert (said.base, said.aliases, "d9" in said.settled) == (renamed, (V0,), False)
    said_twice(fleet, offer_of(job, codec_body(honest(fleet)), "d9", renamed))
    assert [verdict.counted for verdict in heard()] == [True]


def test_a_device_that_is_done_with_a_base_and_is_known_to_be_makes_no_new_generation(
    fleet: Fleet, spec: SpecMaker
) -> None:
    job, heard = by_hand(fleet, spec)
    say(fleet, done(job, V0, failed={job: Failure(V0, "it diverged")}))
    assert fleet.job().version == V0
    said_twice(fleet, offer_of(job, codec_body(honest(fleet)), "d9"))
    assert [verdict.counted for verdict in heard()] == [True]
    say(fleet, done(job, V0))
    assert fleet.job().version == V0


def test_devices_words_give_new_generations_no_more_often_than_once_a_minute(fleet: Fleet, spec: SpecMaker) -> None:
    job, _ = by_hand(fleet, spec)
    say(fleet, done(job, Version(5, 0)))
    first, began = fleet.job().version, fleet.now
    high, low = Version(first.generation + 900_000, 0), Version(first.generation + 1, 0)
    for device, later in (("d7", high), ("d8", low)):
        say(fleet, structs.replace(done(job, later), device=device))
    while fleet.now < began + RENAME_S - 1.0:
        fleet.step(0.5)
    assert fleet.job().version == first
    fleet.step(1.0)
    fleet.step(1.0)
    second = fleet.job().version
    assert second > high, "above all that was heard in the meantime"
    say(fleet, structs.replace(done(job, Version(second.generation + 1, 0)), device="d6"))
    for _ in range(int(2 * RENAME_S) - 3):
        fleet.step(1.0)
    assert fleet.job().version == second, "and each waits for twice as long as the one before"
    for _ in range(4):
        fleet.step(1.0)
    assert fleet.job().version > second


def test_a_device_is_believed_once(fleet: Fleet, spec: SpecMaker) -> None:
    job, _ = by_hand(fleet, spec)
    say(fleet, done(job, Version(5, 0)))
    first = fleet.job().version
    assert first > Version(5, 0)
    for _ in range(5):
        say(fleet, done(job, Version(first.generation + 10, 0)))
        for _ in range(int(RENAME_S)):
            fleet.step(1.0)
    assert fleet.job().version == first


def test_new_generations_by_words_never_wait_for_longer_than_the_last_pause(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.jobs.LAST_RENAME_S", RENAME_S)
    job, _ = by_hand(fleet, spec)
    for n in range(4):
        before = fleet.job().version
        say(fleet, structs.replace(done(job, Version(before.generation + 1, 0)), device=f"d{n + 4}"))
        for _ in range(int(RENAME_S) + 1):
            fleet.step(1.0)
        assert fleet.job().version > before


def test_an_aggregator_wakes_up_for_a_new_generation(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec(data="elsewhere"))
    for n in range(2):
        later = Version(fleet.job().version.generation + 900_000, 0)
        say(fleet, structs.replace(done(job, later), device=f"d{n + 8}"))
    assert fleet.job().deadline is None
    assert fleet.aggregator.jobs.deadline == pytest.approx(fleet.now + RENAME_S, abs=1.0)


def test_a_new_generation_that_is_due_while_the_job_cannot_be_read_comes_when_it_can(
    fleet: Fleet, spec: SpecMaker
) -> None:
    job, _ = by_hand(fleet, spec)
    say(fleet, done(job, Version(5, 0)))
    high = Version(fleet.job().version.generation + 900_000, 0)
    say(fleet, structs.replace(done(job, high), device="d7"))
    at, _ = fleet.aggregator.jobs._rename_at[job]
    while fleet.now < at - 1.0:
        fleet.step(0.5)
    fleet.aggregator.jobs._put_off(job, StoreError("disk I/O error"))
    for _ in range(20):
        fleet.step(1.0)
    assert fleet.job().version > high


def test_a_disk_that_does_not_take_a_new_generation_puts_the_job_off_and_ends_nothing(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = by_hand(fleet, spec)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "raise_generation", unreadable)
        say(fleet, done(job, Version(5, 0)))
        for _ in range(30):
            fleet.step(1.0)
        assert fleet.aggregator.resting[job].again or fleet.job().version == V0
    for _ in range(int(2 * RELOAD_S) + 1):
        fleet.step(1.0)
    assert fleet.job().version > Version(5, 0), "nobody has to say it a second time"


def test_a_job_that_has_ended_gets_no_new_name_by_words(fleet: Fleet, spec: SpecMaker) -> None:
    job, _ = by_hand(fleet, spec)
    fleet.aggregator.jobs.stop(job)
    before = fleet.job().version
    say(fleet, done(job, Version(before.generation + 5, 0)))
    for _ in range(3):
        fleet.step(RENAME_S)
    assert fleet.job().version == before


def test_a_wrong_state_directory_ends_no_update(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    """Only who knows a job may refuse an update for good; when the right one is back, it goes on."""
    fleet.submit(spec())
    while not any(work.participant.offer for agent in fleet.agents.values() for work in agent.works.values()):
        for agent in fleet.agents.values():
            agent.step(0.0)
        fleet.aggregator.step(0.0)
        fleet.now += 0.01
    fleet.kill_aggregator()
    right = fleet.folder / "right"
    (fleet.folder / "aggregator").rename(right)
    verdicts = [listener(fleet, "verdict", device=f"d{n}") for n in range(3)]
    fleet.start_aggregator(take_over=True)
    for _ in range(60):
        fleet.step(1.0)
    assert fleet.aggregator.leads
    assert fleet.aggregator.tally.counts["unknown job"] > 0
    assert not any(heard() for heard in verdicts)
    fleet.kill_aggregator()
    shutil.rmtree(fleet.folder / "aggregator")
    right.rename(fleet.folder / "aggregator")
    fleet.start_aggregator(take_over=True)
    assert fleet.finish().sha256 == final_sha256


def test_an_update_to_a_job_that_was_deleted_here_is_refused(fleet: Fleet, spec: SpecMaker) -> None:
    first = fleet.submit(spec())
    fleet.finish()
    fleet.aggregator.submit(spec())
    heard = listener(fleet, "verdict", job=first)
    fleet.say(offer_of(first, b"x"))
    fleet.step()
    assert [said.refused for said in heard()] == ["the job was deleted"]


# What a deleted job leaves at the broker.


def tombstones(fleet: Fleet) -> set[str]:
    """Return the jobs of which the broker remembers that they are deleted."""
    return {said.job for said in listener(fleet, "job")() if isinstance(said, Job) and said.spec is None}


def submit_and_stop(fleet: Fleet, spec: SpecMaker) -> str:
    job: str = fleet.aggregator.submit(spec(data="elsewhere"))
    fleet.aggregator.jobs.stop(job)
    fleet.step(0.1)
    return job


def test_devices_that_were_away_hear_of_the_last_jobs_that_were_deleted(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.jobs.TOMBSTONES", 2)
    jobs = [submit_and_stop(fleet, spec) for _ in range(5)]
    assert tombstones(fleet) == set(jobs[2:4])
    fleet.broker.stop()
    fleet.broker.start()
    fleet.run(lambda: fleet.aggregator._out.online)
    fleet.step(1.0)
    fleet.step(1.0)
    assert tombstones(fleet) == set(jobs[2:4]), "also from a broker that has forgotten everything"


def test_a_device_that_still_has_a_job_of_long_ago_is_told_that_it_is_deleted(fleet: Fleet, spec: SpecMaker) -> None:
    first, last = submit_and_stop(fleet, spec), submit_and_stop(fleet, spec)
    heard = listener(fleet, "job")
    heard()
    why = "it is on disk here, and no aggregator has announced it"
    say(fleet, Presence("d9", 1, online=True, unready={first: why, last: why, "nobodys-1": why}))
    assert [(said.job, said.spec) for said in heard()] == [(first, None)]


def test_that_a_job_was_deleted_is_said_once_a_minute_once_a_connection_and_is_not_kept(
    fleet: Fleet, spec: SpecMaker
) -> None:
    first, _ = submit_and_stop(fleet, spec), submit_and_stop(fleet, spec)
    heard = listener(fleet, "job", job=first)
    fleet.say(Packet(f"fedge/1/f/job/{first}", b"", retain=True))
    heard()
    has_it = Presence("d9", 1, online=True, unready={first: "it is on disk here"}, nonce="n")

    def tells() -> int:
        say(fleet, has_it)
        return sum(isinstance(said, Job) for said in heard())

    assert [tells() for _ in range(3)] == [1, 0, 0]
    assert first not in tombstones(fleet)
    fleet.step(BURY_S)
    assert [tells() for _ in range(2)] == [1, 0]
    fleet.link.drop()
    fleet.step(0.1)
    fleet.link.restore()
    for _ in range(10):
        fleet.step(0.1)
    said = [message for message in heard() if isinstance(message, Job)]
    assert len(said) == 2, "once for whoever is away, and once more for this one: it may have been lost"


# A full disk.


def test_where_it_cannot_be_read_whether_a_job_was_deleted_no_update_is_ended_and_no_device_told(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, jobs = listener(fleet, "verdict", device="d9"), listener(fleet, "job")
    monkeypatch.setattr(Store, "is_deleted", unreadable)
    fleet.say(offer_of("toy-1", b"x", "d9"), Presence("d9", 1, online=True, unready={"toy-1": "it is on disk here"}))
    fleet.step()
    assert (heard(), jobs()) == ([], [])
    assert fleet.aggregator.tally.counts == {"unknown job": 1}


def test_where_it_cannot_be_read_which_jobs_were_deleted_the_others_go_on(
    fleet: Fleet, spec: SpecMaker, final_sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "deleted", unreadable)
    fleet.submit(spec())
    fleet.broker.stop()
    fleet.step(1.0)
    fleet.broker.start()
    assert fleet.finish().sha256 == final_sha256


def test_a_full_disk_costs_time_and_nothing_else(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    fleet.submit(spec())
    fleet.step(0.1)
    fleet.store._db.execute("PRAGMA query_only = ON")
    verdicts = [listener(fleet, "verdict", device=f"d{n}") for n in range(3)]
    for _ in range(40):
        fleet.step(0.5)
    assert not any(isinstance(said, Verdict) and not said.counted for heard in verdicts for said in heard())
    fleet.store._db.execute("PRAGMA query_only = OFF")
    assert fleet.finish().sha256 == final_sha256


def test_a_submit_for_which_the_disk_is_full_has_not_been(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fleet.submit(spec())
    fleet.finish()
    for at in range(40):
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "_points", FullAfter(at))
            try:
                second = fleet.aggregator.submit(spec())
                break
            except StoreError:
                assert set(fleet.aggregator.runs) == {first}
        fleet.kill_aggregator()
        fleet.start_aggregator()
        fleet.lead()
        assert set(fleet.aggregator.runs) == {first}
        assert fleet.aggregator.runs[first].coordinator.ended == "finished"
    assert at > 8
    assert set(fleet.aggregator.runs) == {second}


class FullAfter:
    """A disk that is full after so many statements."""

    def __init__(self, most: int) -> None:
        self.left = most

    def reach(self, point: str, _what: object) -> None:
        self.left -= point == "store.statement.before"
        if self.left < 0:
            raise OSError(28, "No space left on device")


def test_a_damaged_job_rests_and_the_others_run(fleet: Fleet, spec: SpecMaker) -> None:
    hurt = fleet.submit(spec())
    fleet.finish()
    fleet.store._db.execute("UPDATE versions SET state = x'00' WHERE state IS NOT NULL")
    well = fleet.aggregator.submit(JobSpec("other", spec().model))
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert set(fleet.aggregator.runs) == {well}
    assert "restore a backup" in fleet.aggregator.resting[hurt].why
    assert not fleet.aggregator.resting[hurt].again, "waiting does not mend it"
    assert [row.job for row in fleet.store.jobs()] == [well, hurt]


def test_a_job_whose_damage_is_found_while_it_is_at_work_rests_and_the_others_run(
    fleet: Fleet, spec: SpecMaker, final_sha256: str
) -> None:
    hurt = fleet.submit(structs.replace(spec(), name="hurt", data="toy"))
    step_until(fleet, 1)
    fleet.store._db.execute("UPDATE bodies SET data = x'00' WHERE job = ?", (hurt,))
    well = fleet.aggregator.submit(spec())
    fleet.aggregator.jobs.say_everything()  # as over a new connection, which reads what should lie at the broker
    fleet.run(lambda: hurt in fleet.aggregator.resting)
    assert f"job {hurt} is damaged" in fleet.aggregator.resting[hurt].why
    assert not fleet.aggregator.resting[hurt].again
    fleet.run(lambda: bool(fleet.aggregator.runs[well].coordinator.ended))
    assert fleet.aggregator.runs[well].sha256 == final_sha256


def test_a_disk_that_cannot_be_read_costs_time_too(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch, final_sha256: str
) -> None:
    fleet.submit(spec())
    fleet.step(0.1)

    def broken(*_: object) -> None:
        raise StoreError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "jobs", broken)
        patch.setattr(Store, "add_verdicts", broken)
        for _ in range(40):
            fleet.step(0.5)
    assert fleet.finish().sha256 == final_sha256


# Hostile input.


def noise() -> list[Packet]:
    """Garbage on every topic that an aggregator hears."""
    rng = np.random.default_rng(0)
    where = {
        "device": ("fedge/1/f/device/d0", "fedge/1/f/device/stranger"),
        "offer": ("fedge/1/f/offer/JOB/d0", "fedge/1/f/offer/none-1/d0"),
        "chunk": (f"fedge/1/f/chunk/JOB/d0/{'f' * 32}/0",),
        "command": ("fedge/1/f/command/cli",),
        "query": ("fedge/1/f/query/cli",),
        "aggregator": ("fedge/1/f/aggregator",),
        "candidate": ("fedge/1/f/candidate",),
        "head": ("fedge/1/f/head/JOB",),
    }
    assert set(where) >= {*LISTENS_TO, *LEADS_WITH, *SAID_ONCE}
    payloads = [b"{", b"null", b"[]", b"{}", b'{"base":[1,0]}', b"\xff" * 100, b"{" * 5000, bytes(rng.bytes(1000))]
    return [Packet(topic, payload) for names in where.values() for topic in names for payload in payloads]


def codec_body(delta: dict[str, Any], terms: Terms | None = None) -> bytes:
    """An update to version 0, coded as its round says it; or otherwise."""
    spec = spec_of(delta)
    terms = steering.first(n_parameters(spec)).terms if terms is None else terms
    return Coding(spec, terms, "0:0").encode(delta, np.random.default_rng(0))


def offer_of(job: str, body: bytes, device: str = "d0", base: Version = V0, n: int = 20) -> Offer:
    return Offer(job, device, base, n, chunks.digest(body), len(body), max(100_000, len(body)), body=body)


def test_noise_is_counted_and_changes_nothing(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    job = fleet.submit(spec())
    packets = [Packet(p.topic.replace("JOB", job), p.payload) for p in noise()]
    for _ in range(4):
        fleet.say(*packets)
        fleet.step()
    assert fleet.aggregator.tally.counts["garbage"] > 100
    assert fleet.finish().sha256 == final_sha256


def test_who_may_only_ask_is_answered_and_commands_nothing(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    heard = listener(fleet, "reply", client="eye")
    stop = Packet("fedge/1/f/query/eye", WIRE.pack(Stop("eye", "s", job)).payload)
    fleet.say(stop, WIRE.pack_query(Jobs("eye", "j")))
    fleet.step(0.1)
    replies = [message for message in heard() if isinstance(message, Reply)]
    assert [(reply.request, reply.ok) for reply in replies] == [("j", True)]
    assert replies[0].data["jobs"][0]["state"] == "waiting"


def test_what_the_broker_has_kept_of_words_that_are_said_once_is_refused(fleet: Fleet, spec: SpecMaker) -> None:
    """Else an update would be offered again, and a command obeyed again, at every connection."""
    job, heard = by_hand(fleet, spec)
    replies = listener(fleet, "reply", client="cli")
    kept = (offer_of(job, codec_body(honest(fleet)), "d9"), Stop("cli", "s", "toy"))
    fleet.link.drop()
    fleet.step(0.1)
    fleet.say(*(structs.replace(WIRE.pack(message), retain=True) for message in kept))
    fleet.link.restore()
    for _ in range(10):
        fleet.step(0.1)
    assert (heard(), replies()) == ([], [])
    assert fleet.aggregator.tally.counts == {"retained": 2}
    assert not fleet.job().coordinator.ended


def test_what_was_said_before_is_known(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    recorder = fleet.broker.transport("recorder")
    recorder.subscribe("fedge/1/f/offer/#", "fedge/1/f/chunk/#")
    recorder.open()
    fleet.submit(spec())
    told: dict[Packet, None] = {}
    while not fleet.job().coordinator.ended:
        fleet.step()
        told |= {Packet(e.topic, e.payload): None for e in iter(recorder.take, None) if isinstance(e, Packet)}
        fleet.say(*told)
    fleet.step()
    assert len(told) == 9
    assert fleet.job().sha256 == final_sha256
    assert {(verdict.base, verdict.counted) for verdict in fleet.store.verdicts(fleet.job().job)} == {(V2, True)}


def stranger(fleet: Fleet, spec: SpecMaker, compression: str = "light") -> tuple[str, Callable[[], list[Any]]]:
    """A job for one more device than answers: the fourth is played by hand."""
    rounds = RoundsSpec(quorum=3, target=4, min_devices=4, max_rounds=1, deadline_s=30.0)
    heard = listener(fleet, "verdict", device="d9")
    fleet.run(lambda: len(fleet.aggregator.roster.devices) == 3)
    limit = AggregateSpec(max_examples=2**20)
    job = fleet.aggregator.submit(spec(rounds=rounds, compression=compression, aggregate=limit))
    fleet.say(Presence("d9", 1, online=True, ready={job: 20}))
    return job, heard


def honest(fleet: Fleet) -> dict[str, Any]:
    run = fleet.job()
    return {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in run._net.spec}


def in_float32(delta: dict[str, Any]) -> bytes:
    return codec_body(delta, FLOAT32)


HOSTILE: dict[str, Callable[[dict[str, Any]], tuple[bytes, int]]] = {
    "of too many examples": lambda zeros: (in_float32(zeros), 2**20 + 1),
    "of an absurd norm": lambda zeros: (in_float32({k: v + 1e6 for k, v in zeros.items()}), 20),
    "of another shape": lambda zeros: (
        in_float32({k: np.append(v, 0).astype(np.float32) for k, v in zeros.items()}),
        20,
    ),
    "of another number of tensors": lambda zeros: (in_float32(dict(list(zeros.items())[:1])), 20),
    "that is cut": lambda zeros: (in_float32(zeros)[:-1], 20),
    "with a tail": lambda zeros: (in_float32(zeros) + b"x", 20),
    "of another codec": lambda zeros: (codec_body(zeros), 20),
    "that is empty": lambda _: (b"\0", 20),
    "that is huge": lambda _: (bytes(2**20), 20),
    "with values that are not numbers": lambda zeros: (in_float32(zeros).replace(bytes(8), b"\0\0\xc0\x7f" * 2), 20),
}
BESIDE = struct.Struct("<If")
SKETCHED: dict[str, Callable[[dict[str, Any]], tuple[bytes, int]]] = {
    "of too many examples": lambda zeros: (codec_body(zeros), 2**20 + 1),
    "of an absurd norm": lambda zeros: (codec_body({k: v + 1e6 for k, v in zeros.items()}), 20),
    "of more buckets": lambda zeros: (codec_body(zeros, Terms(128, 3)), 20),
    "of more bits": lambda zeros: (codec_body(zeros, Terms(128, 2)), 20),
    "in int8": lambda zeros: (codec_body(zeros, INT8), 20),
    "in float32": lambda zeros: (codec_body(zeros, FLOAT32), 20),
    "that is cut": lambda zeros: (codec_body(zeros)[:-1], 20),
    "with a tail": lambda zeros: (codec_body(zeros) + b"x", 20),
    "that is empty": lambda _: (b"\0", 20),
    "that is huge": lambda _: (bytes(2**20), 20),
    "with a scale that is none": lambda zeros: (b"\xff\xff" + codec_body(zeros)[2:], 20),
    "with a coordinate that there is not": lambda zeros: (codec_body(zeros) + BESIDE.pack(114, 0.5), 20),
    "with a coordinate twice": lambda zeros: (codec_body(zeros) + 2 * BESIDE.pack(7, 0.5), 20),
    "with a coordinate that is no number": lambda zeros: (codec_body(zeros) + BESIDE.pack(7, math.nan), 20),
    "with a coordinate beyond all": lambda zeros: (codec_body(zeros) + BESIDE.pack(7, 3e38), 20),
    "with too many coordinates": lambda zeros: (
        codec_body(zeros) + b"".join(BESIDE.pack(k, 0.5) for k in range(17)),
        20,
    ),
}


@pytest.mark.parametrize(
    ("compression", "make"),
    [*(("off", make) for make in HOSTILE.values()), *(("light", make) for make in SKETCHED.values())],
    ids=[*HOSTILE, *(f"{name}, sketched" for name in SKETCHED)],
)
def test_a_hostile_update_never_reaches_the_sum(
    fleet: Fleet, spec: SpecMaker, compression: str, make: Callable[[dict[str, Any]], tuple[bytes, int]]
) -> None:
    job, heard = stranger(fleet, spec, compression)
    fleet.step()
    assert fleet.job().terms == (FLOAT32 if compression == "off" else steering.first(114).terms)
    body, n = make(honest(fleet))
    update = offer_of(job, body, "d9", n=n)
    fleet.say(update)
    fleet.step()
    fleet.say(update)
    run = fleet.finish()
    verdicts = [said for said in heard() if isinstance(said, Verdict)]
    assert verdicts
    assert all(said.refused for said in verdicts)
    assert len({said.refused for said in verdicts}) == 1
    assert run.version == Version(1, 1)
    assert run.metrics["participants"] == 3


@pytest.mark.parametrize("base", [Version(1, 7), Version(2, 0)])
def test_an_update_to_a_version_that_was_never_here_has_no_verdict_here_and_a_higher_base_tells_its_device(
    fleet: Fleet, spec: SpecMaker, base: Version
) -> None:
    job, heard = stranger(fleet, spec)
    rounds = listener(fleet, "round", job=job)
    fleet.step()
    fleet.say(offer_of(job, b"x", "d9", base))
    fleet.step()
    assert heard() == []
    (*_, last) = [said for said in rounds() if isinstance(said, Round)]
    assert (last.base > base, last.aliases) == (True, (V0,))


def test_an_update_to_a_job_that_is_not_known_here_is_left_to_who_knows_it(fleet: Fleet) -> None:
    heard = listener(fleet, "verdict", device="d9")
    fleet.say(offer_of("none-1", b"x", "d9"))
    fleet.step()
    assert heard() == []
    assert fleet.aggregator.tally.counts == {"unknown job": 1}


def test_chunks_that_nobody_wants_are_dropped(fleet: Fleet, spec: SpecMaker) -> None:
    job, _ = stranger(fleet, spec)
    fleet.step()
    fleet.say(*(Chunk(job, "d9", "f" * 32, index, bytes(100)) for index in range(100)))
    fleet.step()
    assert fleet.aggregator.jobs.inbox.room.reserved == 0


def test_chunks_of_a_lie_are_counted_and_dropped(fleet: Fleet, spec: SpecMaker) -> None:
    job, heard = stranger(fleet, spec)
    fleet.step()
    lie = Offer(job, "d9", V0, 20, "f" * 32, 250, 100)
    fleet.say(lie)
    fleet.step()
    fleet.say(Chunk(job, "d9", "f" * 32, 0, bytes(99)))
    fleet.say(*(Chunk(job, "d9", "f" * 32, index, bytes(n)) for index, n in enumerate((100, 100, 50))))
    fleet.step()
    assert fleet.aggregator.tally.counts == {"bad chunk": 1}
    assert fleet.aggregator.jobs.inbox.room.reserved == 0
    assert heard() == []


def test_a_loss_beyond_all_numbers_spoils_nothing(fleet: Fleet, spec: SpecMaker) -> None:
    job, heard = stranger(fleet, spec)
    fleet.step()
    body = codec_body(honest(fleet))
    said_twice(fleet, Offer(job, "d9", V0, 2**20, chunks.digest(body), len(body), loss=1.7e308, body=body))
    run = fleet.finish()
    assert [said.counted for said in heard()] == [True]
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert fleet.job().metrics == run.metrics


def test_two_devices_of_one_name_are_told_of_with_both_their_nonces(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (Presence("d9", 2, online=True, incarnation="i", nonce=nonce) for nonce in ("aaaa", "bbbb"))
    fleet.say(one)
    fleet.step()
    assert not caplog.records
    fleet.say(two)
    fleet.step()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "boot 2 nonce aaaa and incarnation i boot 2 nonce bbbb" in record.getMessage()


def test_the_round_is_cleared_when_it_is_over(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.finish()
    fleet.step()
    rounds, heads = listener(fleet, "round", job=job), listener(fleet, "head", job=job)
    assert [said for said in rounds() if isinstance(said, Round)] == []
    assert [said.state for said in heads() if isinstance(said, Head)] == ["finished"]


def test_outdated_bodies_are_cleared_after_their_grace(fleet: Fleet, spec: SpecMaker) -> None:
    changes: dict[str, Any] = {"compression": "off"}
    fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=4), **changes))
    run = fleet.finish()
    assert len({body.number for body in fleet.store.bodies(run.job)}) > 2
    for _ in range(20):
        fleet.step(10.0)
    assert {body.number for body in fleet.store.bodies(run.job)} == {3, 4}


# A job's own faults.


@pytest.mark.parametrize(
    "where", ["evaluation.prepare", "learner.Learner.next", "learner.Learner.admit", "learner.Learner.prepare"]
)
def test_a_fault_of_one_job_does_not_reach_another(
    fleet: Fleet, spec: SpecMaker, final_sha256: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bad = fleet.submit(structs.replace(spec(), name="bad", data="toy", seed=99))
    statuses = listener(fleet, "status", job=bad)
    seeds: dict[int, int] = {}
    real_init = Learner.__init__

    def remember(self: Learner, net: Any, of: JobSpec, *rest: Any, **more: Any) -> None:
        real_init(self, net, of, *rest, **more)
        seeds[id(self)] = of.seed

    monkeypatch.setattr(Learner, "__init__", remember)
    module, _, name = where.rpartition(".")
    owner: Any = Learner if module.endswith("Learner") else evaluation
    real = getattr(owner, name)

    def fail(subject: Any, *args: Any, **more: Any) -> Any:
        seed = subject.seed if isinstance(subject, JobSpec) else seeds.get(id(subject))
        if seed == 99:
            raise TypeError("the job's own")
        return real(subject, *args, **more)

    fleet.kill_aggregator()
    monkeypatch.setattr(owner, name, fail)
    fleet.start_aggregator()
    fleet.lead()
    good = fleet.aggregator.submit(spec())
    fleet.run(lambda: bad in fleet.aggregator.resting)
    fleet.run(lambda: bool(fleet.aggregator.runs[good].coordinator.ended))
    assert fleet.aggregator.runs[good].sha256 == final_sha256
    assert "TypeError: the job's own (test_service.py, line" in fleet.aggregator.resting[bad].why
    if owner is Learner:  # then it had been at work, and says that it rests
        assert [said.state for said in statuses() if isinstance(said, Status)][-1] == "resting"


def test_an_event_that_is_illegal_puts_its_job_at_rest_with_the_reason_and_the_others_run(
    fleet: Fleet, spec: SpecMaker, final_sha256: str
) -> None:
    bad = fleet.submit(structs.replace(spec(), name="bad", data="toy"))
    good = fleet.aggregator.submit(spec())
    statuses = listener(fleet, "status", job=bad)
    fleet.aggregator.jobs.inside(bad, lambda run, now: run.handle(Committed(Version(7, 99), {}), now))
    rest = fleet.aggregator.resting[bad]
    assert rest.why.startswith("IllegalEventError: Committed came while ")
    assert (rest.version, rest.again) == (V0, False)
    fleet.run(lambda: bool(fleet.aggregator.runs[good].coordinator.ended))
    assert fleet.aggregator.runs[good].sha256 == final_sha256
    assert [said.state for said in statuses() if isinstance(said, Status)][-1] == "resting"
    fleet.aggregator.jobs.resume(bad)
    fleet.run(lambda: bool(fleet.aggregator.runs[bad].coordinator.ended))
    assert fleet.aggregator.runs[bad].sha256 == final_sha256, "nothing had changed"


def test_a_job_that_has_killed_three_processes_rests_and_the_others_run(fleet: Fleet, spec: SpecMaker) -> None:
    bad = fleet.submit(structs.replace(spec(), name="bad", data="toy"))
    good = fleet.aggregator.submit(spec())
    fleet.kill_aggregator()
    for _ in range(3):
        Marks(fleet.folder / "aggregator" / "entered").enter(bad, "commit", "version 1.1 was made")
    fleet.start_aggregator()
    fleet.lead()
    assert list(fleet.aggregator.runs) == [good]
    assert "3 processes running have died while version 1.1 was made" in fleet.aggregator.resting[bad].why
    fleet.aggregator.jobs.resume(bad)
    assert set(fleet.aggregator.runs) == {bad, good}


def test_a_job_that_is_loaded_again_later_can_be_stopped_and_then_stays_away(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.aggregator.jobs._put_off(job, StoreError("disk I/O error"))
    jobs = listener(fleet, "job", job=job)
    fleet.aggregator.jobs.stop_resting(job)
    for _ in range(10):
        fleet.step(1.0)
    assert not fleet.aggregator.runs
    rest = fleet.aggregator.resting[job]
    assert (rest.ended, rest.again) == ("stopped", False)
    assert [said.spec for said in jobs() if isinstance(said, Job)][-1:] == [None], "its devices forget it"


def test_a_job_that_was_stopped_at_rest_leaves_no_mark(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.kill_aggregator()
    marks = fleet.folder / "aggregator" / "entered"
    for _ in range(3):
        Marks(marks).enter(job, "commit", "version 1.1 was made")
    fleet.start_aggregator()
    fleet.lead()
    assert list(marks.iterdir())
    fleet.aggregator.jobs.stop_resting(job)
    assert list(marks.iterdir()) == []


class Slow(Executor):
    """Does what is submitted when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        future, act = self.waiting.pop(0)
        try:
            future.set_result(act())
        except Exception as error:  # noqa: BLE001 -- it is the future's
            future.set_exception(error)


@pytest.fixture
def slow(fleet: Fleet) -> Slow:
    """Versions are scored on a test split, and that takes as long as the test wants."""
    rng = np.random.default_rng(9)
    np.savez(fleet.folder / "test.npz", X=rng.standard_normal((20, 4)), y=np.arange(20) % 2)
    fleet.tests = {"toy": DataSource(str(fleet.folder / "test.npz"))}
    fleet.executor = Slow()
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    return fleet.executor


def test_nobody_is_told_that_a_job_is_stopped_before_it_is(fleet: Fleet, spec: SpecMaker, slow: Slow) -> None:
    replies = listener(fleet, "reply", client="cli")
    fleet.submit(spec())
    fleet.run(lambda: bool(slow.waiting))
    fleet.say(Stop("cli", "r1", "toy"), Stop("cli", "r2", "toy"))
    for _ in range(5):
        fleet.step()
    assert replies() == []
    slow.work()
    fleet.run(lambda: bool(fleet.job().coordinator.ended))
    fleet.step()
    said = {reply.request: reply for reply in replies() if isinstance(reply, Reply)}
    assert [said[name].ok for name in ("r1", "r2")] == [True, True]
    assert (fleet.job().version.number, fleet.job().coordinator.ended) == (1, "stopped")


def test_a_stop_that_a_death_has_lost_was_told_to_nobody_and_is_asked_for_again(
    fleet: Fleet, spec: SpecMaker, slow: Slow
) -> None:
    replies = listener(fleet, "reply", client="cli")
    fleet.submit(spec())
    fleet.run(lambda: bool(slow.waiting))
    fleet.say(Stop("cli", "r1", "toy"))
    fleet.step()
    fleet.kill_aggregator()
    slow.waiting.clear()
    fleet.start_aggregator()
    fleet.lead()
    fleet.run(lambda: bool(slow.waiting))
    assert replies() == []
    fleet.say(Stop("cli", "r1", "toy"))
    fleet.step()
    slow.work()
    fleet.run(lambda: bool(fleet.job().coordinator.ended))
    fleet.step()
    assert [reply.ok for reply in replies() if isinstance(reply, Reply)] == [True]
    assert (fleet.job().version.number, fleet.job().coordinator.ended) == (1, "stopped")


def test_a_job_goes_on_without_the_score_of_a_version_that_takes_too_long_and_says_so(
    fleet: Fleet, spec: SpecMaker, slow: Slow
) -> None:
    fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=1000, wait="all")))
    fleet.run(lambda: bool(slow.waiting))
    began = fleet.now
    assert slow.waiting[0][0].set_running_or_notify_cancel()  # as on a thread, which nobody can end
    fleet.run(lambda: fleet.job().version.number > 1, most_s=2 * fleet.limits.evaluation_s)  # the next ones do not wait
    assert fleet.now - began >= fleet.limits.evaluation_s
    assert "evaluation_s = 3600" in fleet.job().alarm
    assert ("loss" in fleet.job().metrics, fleet.job().metrics["participants"]) == (False, 3)
    assert len(slow.waiting) == 1
    slow.work()  # it has ended after all
    fleet.run(lambda: bool(slow.waiting))
    slow.work()
    fleet.aggregator.step(0.0)
    assert (fleet.job().alarm, "accuracy" in fleet.job().metrics) == ("", True)


def test_a_version_whose_evaluation_has_not_begun_in_time_is_made_without_it_and_the_next_do_not_wait_as_long(
    fleet: Fleet, spec: SpecMaker, slow: Slow
) -> None:
    fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=1000, wait="all")))
    fleet.run(lambda: bool(slow.waiting))
    fleet.run(lambda: fleet.job().version.number > 1, most_s=2 * fleet.limits.evaluation_s)
    assert slow.waiting.pop(0)[0].cancelled()
    assert "another job" in fleet.job().alarm
    assert len(slow.waiting) == 1  # what tells when the executor is free again
    slow.work()
    fleet.run(lambda: bool(slow.waiting))  # the next one is tried
    slow.work()
    fleet.aggregator.step(0.0)
    assert (fleet.job().alarm, "accuracy" in fleet.job().metrics) == ("", True)


def test_a_job_that_is_to_end_waits_a_minute_for_the_score_of_its_last_version(
    fleet: Fleet, spec: SpecMaker, slow: Slow
) -> None:
    fleet.submit(spec())
    fleet.run(lambda: bool(slow.waiting))
    began = fleet.now
    fleet.say(Stop("cli", "r1", "toy"))
    fleet.run(lambda: bool(fleet.job().coordinator.ended))
    assert 59.0 < fleet.now - began < 62.0
    assert (fleet.job().version.number, fleet.job().coordinator.ended) == (1, "stopped")


def test_a_mark_stays_while_the_evaluation_that_it_is_for_still_runs(fleet: Fleet, spec: SpecMaker, slow: Slow) -> None:
    fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=1000, wait="all")))
    fleet.run(lambda: bool(slow.waiting))
    assert slow.waiting[0][0].set_running_or_notify_cancel()
    fleet.run(lambda: fleet.job().version.number > 1, most_s=2 * fleet.limits.evaluation_s)
    assert list((fleet.folder / "aggregator" / "entered").glob("*commit*"))
    slow.work()
    fleet.run(lambda: bool(slow.waiting))
    slow.work()
    fleet.aggregator.step(0.0)
    assert not list((fleet.folder / "aggregator" / "entered").glob("*commit*"))


def test_the_loop_goes_on_while_a_version_is_evaluated(fleet: Fleet, spec: SpecMaker, slow: Slow) -> None:
    beacons = listener(fleet, "aggregator")
    job = fleet.submit(spec())
    fleet.run(lambda: bool(slow.waiting))
    for _ in range(50):
        fleet.step(1.0)
    assert (fleet.job().version.number, len(slow.waiting)) == (0, 1)
    fleet.say(Candidate("x", 0, 0, empty=True))
    fleet.step(0.1)
    assert [m for m in beacons() if isinstance(m, Beacon)], "it hears and answers"
    fleet.aggregator.jobs.stop(job)
    slow.work()
    fleet.step(0.1)
    assert (fleet.job().version.number, fleet.job().coordinator.ended) == (1, "stopped")
    assert "accuracy" in fleet.job().metrics


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_who_dies_while_a_version_is_evaluated_makes_the_same_one(
    fleet: Fleet, spec: SpecMaker, slow: Slow, final_sha256: str, dies_at: int
) -> None:
    fleet.submit(spec())
    for number in (1, 2, 3):
        fleet.run(lambda: bool(slow.waiting))
        if number == dies_at:
            fleet.kill_aggregator()
            slow.waiting.clear()
            fleet.start_aggregator()
            fleet.run(lambda: bool(slow.waiting))
        slow.work()
        fleet.step(0.1)
    assert fleet.finish().sha256 == final_sha256


def test_an_evaluation_that_fails_elsewhere_puts_that_job_at_rest(
    fleet: Fleet, spec: SpecMaker, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BrokenExecutor("a child has gone")

    job = fleet.submit(spec())
    fleet.run(lambda: bool(slow.waiting))
    monkeypatch.setattr(evaluation, "evaluate", fail)
    slow.work()
    fleet.step(0.1)
    assert "the process that evaluated version 1.1 has died" in fleet.aggregator.resting[job].why
    assert list((fleet.folder / "aggregator" / "entered").iterdir()) == []


def test_an_aggregator_that_is_stopped_while_a_version_is_evaluated_is_no_death(
    fleet: Fleet, spec: SpecMaker, slow: Slow, final_sha256: str
) -> None:
    job = fleet.submit(spec())
    for _ in range(4):
        fleet.run(lambda: bool(slow.waiting) or job in fleet.aggregator.resting)
        assert job not in fleet.aggregator.resting
        fleet.aggregator.stop()
        fleet.store.close()
        slow.waiting.clear()
        assert list((fleet.folder / "aggregator" / "entered").iterdir()) == []
        fleet.start_aggregator()
        fleet.lead()
    for _ in range(3):
        fleet.run(lambda: bool(slow.waiting))
        slow.work()
        fleet.step(0.1)
    assert fleet.finish().sha256 == final_sha256


def test_deaths_are_remembered_where_an_aggregator_is_stopped_in_between(
    fleet: Fleet, spec: SpecMaker, slow: Slow
) -> None:
    job = fleet.submit(spec())
    for stops in (False, True, False, True, False):
        fleet.run(lambda: bool(slow.waiting))
        if stops:
            fleet.aggregator.stop()
            fleet.store.close()
        else:
            fleet.kill_aggregator()
        slow.waiting.clear()
        fleet.start_aggregator()
        fleet.lead()
    assert "3 processes running have died while version 1.1 was made" in fleet.aggregator.resting[job].why


LET_GO: dict[str, Callable[[Fleet, str], None]] = {
    "another leads": lambda fleet, _job: fleet.aggregator.jobs.drop_all(),
    "put off": lambda fleet, job: fleet.aggregator.jobs._put_off(job, StoreError("disk I/O error")),
    "at rest": lambda fleet, job: fleet.aggregator.jobs._rest(job, "toy", "its rows are damaged"),
    "loaded again": lambda fleet, job: fleet.aggregator.jobs._reload(job),
}


@pytest.mark.parametrize("how", LET_GO)
def test_a_job_that_is_let_go_while_its_version_is_evaluated_leaves_no_mark(
    fleet: Fleet, spec: SpecMaker, slow: Slow, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    job = fleet.submit(spec())
    fleet.run(lambda: bool(slow.waiting))
    marks = fleet.folder / "aggregator" / "entered"
    assert [mark.name for mark in marks.iterdir()] == [f"{job}.commit"]
    monkeypatch.setattr(fleet.aggregator.jobs, "_load", lambda _row: None)
    LET_GO[how](fleet, job)
    assert list(marks.iterdir()) == []


def test_what_comes_in_one_go_is_durable_in_one(fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    real = Store.add_verdicts

    def count(self: Store, job: str, judgements: Sequence[Any]) -> None:
        batches.append(len(judgements))
        real(self, job, judgements)

    monkeypatch.setattr(Store, "add_verdicts", count)
    fleet.submit(spec())
    fleet.finish()
    assert batches == [3, 3, 3]


def test_a_mark_lies_wherever_the_code_of_a_job_is_entered(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = fleet.folder / "aggregator" / "entered"
    seen: dict[str, set[str]] = {}

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def look(*args: Any, **more: Any) -> Any:
            seen.setdefault(name, set()).update(mark.suffix for mark in marks.glob("*"))
            return real(*args, **more)

        monkeypatch.setattr(owner, name, look)

    watch(evaluation.Scorer, "__call__")
    watch(Learner, "next")
    watch(evaluation, "prepare")
    fleet.submit(spec())
    assert seen.pop("prepare") == {".submit", ".begin"}
    assert seen.pop("__call__") == {".submit"}
    fleet.finish()
    assert seen == {"__call__": {".commit"}, "next": {".commit"}}
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert seen["prepare"] == {".begin"}
    assert list(marks.iterdir()) == []


def test_a_stop_rule_on_a_loss_that_no_device_tells_is_named_once_there_is_a_version(
    fleet: Fleet, spec: SpecMaker
) -> None:
    rounds = RoundsSpec(quorum=1, min_devices=1, deadline_s=1e5, stop=StopSpec("loss", target=0.1))
    job = fleet.submit(spec(data="elsewhere", rounds=rounds))
    say(fleet, Presence("d9", 1, online=True, ready={job: 20}))
    assert notes.of(fleet.job()) == []
    say(fleet, offer_of(job, codec_body(honest(fleet)), "d9"))
    assert fleet.job().version.number == 1
    (said,) = notes.of(fleet.job())
    assert said == "nobody measures loss (one device's own word is not enough): its stop rule never holds"


def test_of_a_job_that_made_way_nothing_stays_in_memory(fleet: Fleet, spec: SpecMaker) -> None:
    first, _ = by_hand(fleet, spec)
    say(fleet, done(first, Version(5, 0)))
    jobs = fleet.aggregator.jobs
    assert first in jobs._believed
    jobs.stop(first)
    fleet.aggregator.submit(spec())
    known = (jobs.runs, jobs.resting, jobs.trouble, jobs._reload_at, jobs._rename_at, jobs._believed)
    assert not any(first in kept for kept in known)


def test_being_killed_while_rounds_go_on_puts_no_job_at_rest(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    fleet.submit(spec())
    for _ in range(12):
        for _ in range(7):
            fleet.aggregator.step(0.0)
            for agent in fleet.agents.values():
                agent.step(0.0)
        fleet.kill_aggregator()
        fleet.start_aggregator()
    assert fleet.finish().sha256 == final_sha256


# Offline, and devices that are not there.


def test_an_aggregator_that_is_offline_queues_nothing_and_sleeps(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=3, deadline_s=1e6)))
    while fleet.job().coordinator.attempt is None:
        fleet.aggregator.step(0.0)
        for agent in fleet.agents.values():
            agent.step(0.0)
        fleet.now += 0.01
    fleet.link.drop()
    while fleet.aggregator.step(0.0):
        pass
    for _ in range(1000):
        fleet.now += 60.0
        fleet.aggregator.step(0.0)
    assert len(fleet.aggregator._out) == 0
    assert fleet.aggregator._patience(1.0) == 1.0


def test_a_ghost_that_the_broker_remembers_costs_a_grace_and_no_deadline(fleet: Fleet, spec: SpecMaker) -> None:
    """Power went at broker and device together: what the broker kept says online, and nobody is there."""
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=2, min_devices=2, max_rounds=3, deadline_s=1e5, grace_s=2.0)))
    fleet.kill_aggregator()
    fleet.agents.pop("d2").home.close()
    fleet.broker.transport("d2").open()  # its session is another's now: no will, and its presence stays
    fleet.say(Presence("d2", 1, online=True, ready={job: 20}, nonce="gone"))
    fleet.start_aggregator()
    fleet.lead()
    began = fleet.now
    fleet.run(lambda: fleet.job().version.number >= 3)
    assert fleet.now - began < 60.0


def test_a_device_whose_password_was_taken_costs_two_deadlines_and_is_asked(fleet: Fleet, spec: SpecMaker) -> None:
    """It is cut without a will: nothing tells that it is gone but its silence."""
    rules = RoundsSpec(quorum=2, min_devices=2, max_rounds=12, deadline_s=30.0, grace_s=2.0)
    fleet.submit(spec(rounds=rules))
    step_until(fleet, 2)
    ghost = fleet.agents.pop("d2")
    ghost._transport.drop(will=False)
    ghost.home.close()
    presences = listener(fleet, "device", device="d2")
    began = fleet.now
    fleet.run(lambda: fleet.job().version.number == 12)
    assert 30.0 < fleet.now - began < 100.0
    assert [said.online for said in presences() if isinstance(said, Presence)][-1] is False
    remembered = listener(fleet, "device", device="d2")()
    assert [said.online for said in remembered] == [True], "a question is none of the broker's memories"


def test_a_device_that_is_only_quiet_answers_when_it_is_asked_and_takes_part(
    fleet: Fleet, spec: SpecMaker, caplog: pytest.LogCaptureFixture
) -> None:
    rules = RoundsSpec(quorum=2, min_devices=2, max_rounds=200, deadline_s=30.0)
    fleet.submit(spec(rounds=rules))
    step_until(fleet, 1)
    rounds = WIRE.filter_for("round", job=fleet.job().job)
    quiet = fleet.agents["d2"]._transport
    quiet.unsubscribe(rounds)
    caplog.set_level(logging.INFO)
    fleet.run(lambda: "1 silent device(s) for a sign of life: d2" in caplog.text)
    quiet.subscribe(rounds)
    since = fleet.job().version

    def counts() -> bool:
        verdict = fleet.job().coordinator.ledger.last_of("d2")
        return verdict is not None and verdict.counted and verdict.base >= since

    fleet.run(counts)


def test_whoever_leads_calls_the_roll_at_each_of_its_connections(fleet: Fleet) -> None:
    """The devices have not noticed that it was away; what they said meanwhile, or what ended them, it has not heard."""
    for _ in range(3):
        fleet.step(10.0)
        presences = [listener(fleet, "device", device=f"d{n}") for n in range(3)]
        for heard in presences:
            heard()
        fleet.link.drop(will=False)
        fleet.step(1.0)
        fleet.link.restore()
        for _ in range(15):
            fleet.step(0.1)
        assert [[said.online for said in heard()] for heard in presences] == [[True]] * 3
        assert all(known.live for known in fleet.aggregator.roster.devices.values())


@pytest.mark.parametrize("comes_later", [False, True], ids=["of a job that is there", "of a job that comes later"])
def test_whom_nobody_has_heard_since_the_connection_was_lost_is_offline_soon(
    fleet: Fleet, spec: SpecMaker, comes_later: bool
) -> None:
    """The broker has forgotten it, and no will was heard."""
    job, _ = by_hand(fleet, spec)
    ready = {job: 20, "other-1": 20}
    say(fleet, *(Presence(name, 1, online=True, ready=ready) for name in ("d8", "d9")))
    assert fleet.job().coordinator.attendance.able == {"d8", "d9"}
    fleet.broker.stop()
    fleet.step(1.0)
    fleet.broker.start()
    fleet.run(lambda: fleet.aggregator._out.online)
    if comes_later:
        fleet.aggregator.jobs.stop(job)
        fleet.aggregator.jobs._token = lambda: "1"
        job = fleet.aggregator.submit(structs.replace(spec(data="elsewhere"), name="other"))
    fleet.say(Presence("d9", 1, online=True, ready=ready))
    for _ in range(10):
        fleet.step(1.0)
    assert fleet.aggregator.runs[job].coordinator.attendance.able == {"d9"}


def questions(heard: Callable[[], list[Any]]) -> int:
    """Return how often a device was asked for a sign of life."""
    return sum(isinstance(said, Presence) and not said.online for said in heard())


def test_a_device_that_is_busy_with_another_job_is_not_asked_and_stays_wanted(fleet: Fleet, spec: SpecMaker) -> None:
    job, _ = by_hand(fleet, spec, deadline_s=30.0)
    asked = {name: listener(fleet, "device", device=name) for name in ("d8", "d9")}
    began = fleet.now
    while fleet.now < began + 65.0:
        say(fleet, offer_of("other-1", b"x", "d9"))
        fleet.step(5.0)
    assert (questions(asked["d8"]) > 0, questions(asked["d9"])) == (True, 0)
    assert fleet.job().coordinator.attendance.able == {"d9"}
    assert len(fleet.store.attempts(job, V0)) >= 2


def test_whoever_speaks_and_is_held_to_be_offline_is_asked(fleet: Fleet, spec: SpecMaker) -> None:
    """Its presence was lost on the way, or a late will of its own has come after it."""
    job, _ = by_hand(fleet, spec)
    say(fleet, Presence("d9", 1, online=False))
    asked = listener(fleet, "device", device="d9")
    asked()
    say(fleet, offer_of(job, b"x", "d9"), offer_of(job, b"y", "d9"))
    assert questions(asked) == 1
    say(fleet, Presence("d9", 1, online=True, ready={job: 20}))
    fleet.step(20.0)
    say(fleet, offer_of(job, b"x", "d9"))
    assert questions(asked) == 0


def test_whoever_offers_to_a_job_that_its_presence_does_not_mention_is_asked(fleet: Fleet, spec: SpecMaker) -> None:
    """It would count, and nobody would know that it takes part: rounds would be made for the others alone."""
    job, _ = by_hand(fleet, spec)
    say(fleet, Presence("d9", 1, online=True, ready={"other-1": 20}))
    asked = listener(fleet, "device", device="d9")
    asked()
    say(fleet, offer_of(job, b"x", "d9"), offer_of(job, b"y", "d9"))
    assert questions(asked) == 1
    say(fleet, Presence("d9", 1, online=True, ready={"other-1": 20, job: 20}))
    fleet.step(20.0)
    say(fleet, offer_of(job, b"x", "d9"), offer_of("unknown-1", b"x", "d9"))
    assert questions(asked) == 0


def test_a_presence_that_the_broker_has_dropped_is_found_again(fleet: Fleet, spec: SpecMaker) -> None:
    """Its retained copy is read again every so often."""
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=4, min_devices=4, max_rounds=1)))
    fleet.link.unsubscribe("fedge/1/f/device/+")
    fleet.say(Presence("d9", 1, online=True, ready={job: 20}, nonce="n"))
    fleet.step(1.0)
    assert "d9" not in fleet.aggregator.roster.devices
    for _ in range(70):
        fleet.step(10.0)
    assert "d9" in fleet.aggregator.roster.devices


def test_a_question_comes_after_all_that_is_said_with_it(fleet: Fleet, spec: SpecMaker) -> None:
    """What follows from the answer may be a round, which must not be cleared by what was said before."""
    job, _ = by_hand(fleet, spec)
    fleet.now += 120.0
    ear = fleet.broker.transport("ear")
    ear.subscribe(WIRE.filter_for("device", device="d9"), WIRE.filter_for("status", job=job))
    ear.open()
    while ear.take() is not None:
        pass
    fleet.aggregator._send([Question({"d9": fleet.now}), Status(job, V0, "waiting", "for the sake of it")])
    said = [event for event in iter(ear.take, None) if isinstance(event, Packet)]
    assert [type(WIRE.unpack(packet)) for packet in said] == [Status, Presence]


def test_presences_are_read_again_more_rarely_where_there_are_more_of_them(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.service.READ_AGAIN_EACH_S", READ_AGAIN_S)
    read = READ_AGAIN_S * len(fleet.agents)

    def found_after(seconds: float) -> bool:
        fleet.aggregator.roster.devices.pop("d2", None)
        fleet.now += seconds
        fleet.aggregator.step(0.0)
        while fleet.aggregator.step(0.0):
            pass
        return "d2" in fleet.aggregator.roster.devices

    assert fleet.aggregator.deadline <= fleet.now + READ_AGAIN_S
    assert found_after(READ_AGAIN_S)
    assert not found_after(READ_AGAIN_S + 1.0)
    assert found_after(read - READ_AGAIN_S)
    assert not found_after(READ_AGAIN_S + 1.0)


def test_an_aggregator_without_a_connection_or_without_the_lead_does_not_wake_up(fleet: Fleet, spec: SpecMaker) -> None:
    by_hand(fleet, spec)
    fleet.step(1.0)
    assert fleet.aggregator.deadline < math.inf
    fleet.link.drop()
    fleet.step(0.1)
    assert fleet.aggregator.deadline == math.inf
    fleet.link.restore()
    for _ in range(10):
        fleet.step(0.1)
    other = Beacon(9, "other", online=True, claim=9, store="s")
    fleet.say(other)
    fleet.step(0.1)
    fleet.say(structs.replace(other, answers=fleet.aggregator.leadership.asks))
    fleet.step(0.1)
    assert (fleet.aggregator.leads, fleet.aggregator.deadline) == (False, math.inf)


def test_whose_client_id_another_has_taken_ends(fleet: Fleet) -> None:
    """Both would come back in turn, and neither would be told why the other hangs up on it."""
    fleet.broker.transport(f"aggregator-{fleet.starts}").open()
    with pytest.raises(SessionTakenOverError, match="another client"):
        fleet.step()


# A broker that takes only small packets.


def test_bodies_are_cut_as_the_broker_takes_them(fleet: Fleet, spec: SpecMaker) -> None:
    model = ModelSpec(inputs=4, hidden=(300,), outputs=2)
    changes: dict[str, Any] = {"compression": "off"}
    wide = structs.replace(spec(**changes), model=model)
    fleet.limits = structs.replace(fleet.limits, chunk_bytes=100_000)
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    job = fleet.submit(wide)
    step_until(fleet, 1)
    assert fleet.job().chunk_bytes == 100_000
    fleet.broker.max_packet_bytes = 5000
    fleet.broker.stop()
    fleet.broker.start()
    heads, bodies = listener(fleet, "head", job=job), listener(fleet, "body", job=job)
    run = fleet.finish()
    assert (run.version.number, run.chunk_bytes) == (3, 5000 - ENVELOPE_BYTES)
    assert {head.chunk_bytes for head in heads() if isinstance(head, Head)} == {5000 - ENVELOPE_BYTES}
    assert max(len(body.data) for body in bodies() if isinstance(body, Body)) == 5000 - ENVELOPE_BYTES
    assert fleet.aggregator.jobs.trouble == {}


def test_a_job_that_the_broker_does_not_take_is_refused_at_submit(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.broker.max_packet_bytes = 2048
    fleet.broker.stop()
    fleet.broker.start()
    fleet.step(1.0)
    options = {"text": "x" * 3000}
    model = structs.replace(spec().model, kind="somewhere:net", options=options)
    with pytest.raises(ValueError, match="the broker takes 2048"):
        fleet.aggregator.submit(structs.replace(spec(), model=model))


def test_a_packet_that_the_broker_refuses_is_a_reason_for_the_operator(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.broker.max_packet_bytes = 100
    fleet.aggregator._reconcile()
    fleet.step(1.0)
    assert "the broker refuses" in fleet.aggregator.jobs.trouble[job]


@pytest.mark.parametrize("wait", ["all", "target"])
def test_a_device_that_freezes_just_after_it_was_heard_is_not_waited_for_for_long(
    fleet: Fleet, spec: SpecMaker, wait: str
) -> None:
    """It was heard a moment before: that is no answer to a question that comes later."""
    rules = RoundsSpec(quorum=2, min_devices=2, max_rounds=12, wait=wait, deadline_s=10.0)
    job = fleet.submit(spec(rounds=rules))
    step_until(fleet, 2)
    frozen = fleet.agents.pop("d2")
    base = fleet.job().version
    fleet.finish()
    attempts = [len(fleet.store.attempts(job, Version(1, number))) for number in range(base.number, 12)]
    assert max(attempts) <= 5, "silent through two, absent throughout three"
    assert sum(attempts) <= len(attempts) + 5
    assert frozen.works


def test_an_honest_update_that_is_far_from_its_peers_does_not_stop_a_job_that_needs_it(
    fleet: Fleet, spec: SpecMaker
) -> None:
    """The norms of a job that converges shrink; now and then one does not."""
    job, heard = by_hand(fleet, spec)
    learner = fleet.job()._learner
    learner._take(learner._now._replace(record=structs.replace(learner._now.record, peers=(1e-6,) * 10)))
    far = {name: values + np.float32(0.01) for name, values in honest(fleet).items()}
    said_twice(fleet, offer_of(job, codec_body(far), "d9"))
    assert [verdict.counted for verdict in heard()] == [True]
    (row,) = fleet.store.updates(job)
    assert row.weight == 1
    assert row.norm > 1e-5


def test_an_empty_store_that_leads_takes_no_job_while_those_of_another_lie_at_the_broker(
    fleet: Fleet, spec: SpecMaker
) -> None:
    """With a job of its own it would outrank the one that they belong to, which is only away."""
    job = fleet.submit(spec(data="elsewhere"))
    fleet.step(1.0)
    fleet.kill_aggregator()
    (fleet.folder / "aggregator").rename(fleet.folder / "away")
    fleet.start_aggregator()
    fleet.run(lambda: fleet.aggregator.leads)
    fleet.lead()
    assert list(fleet.aggregator.foreign) == [job]
    with pytest.raises(ValueError, match=f"lie those of another store \\({job}\\): is this the right state directory"):
        fleet.aggregator.submit(spec())
    listed = fleet.aggregator._commands.obey(Jobs("cli", "l")).data["jobs"]
    assert [(line["job"], line["state"]) for line in listed] == [(job, "foreign")]
    fleet.kill_aggregator()
    fleet.start_aggregator(take_over=True)
    fleet.run(lambda: fleet.aggregator.leads)
    fleet.lead()
    assert fleet.aggregator.submit(spec()) != job


def test_an_ordinary_round_costs_one_offer_a_device_and_no_verdict(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=4)))
    offers, verdicts = listener(fleet, "offer", job=job), listener(fleet, "verdict")
    fleet.finish()
    fleet.step(300.0)
    counts = Counter((said.device, said.base.number) for said in offers())
    assert counts == {(device, number): 1 for device in fleet.agents for number in range(4)}
    assert verdicts() == []
    assert [agent.doing for agent in fleet.agents.values()] == ["idle"] * 3


def test_where_late_updates_are_folded_every_offer_has_its_verdict(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=4, late="fold")))
    offers, verdicts = listener(fleet, "offer", job=job), listener(fleet, "verdict")
    fleet.finish()
    fleet.step(300.0)
    assert len(offers()) == len(verdicts()) == 3 * 4


def test_explain_tells_the_fate_of_an_update_of_which_nothing_was_said(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=1)))
    fleet.finish()
    (attempt,) = fleet.store.attempts(job, V0)
    assert attempt.fates == dict.fromkeys(fleet.agents, "counted")


@pytest.mark.parametrize("end", ["stopped", "another leads"])
def test_no_unfinished_update_is_kept_of_a_job_that_is_not_at_work_here(
    fleet: Fleet, spec: SpecMaker, end: str
) -> None:
    job = fleet.submit(spec())
    jobs = fleet.aggregator.jobs
    jobs.inbox.collect(Offer(job, "d9", V0, 1, "f" * 32, 50_000, 1000), fleet.now)
    assert jobs.inbox.room.reserved == 50_000
    if end == "stopped":
        jobs.stop(job)
        fleet.step()
    else:
        jobs.drop_all()
    assert jobs.inbox.room.reserved == 0
