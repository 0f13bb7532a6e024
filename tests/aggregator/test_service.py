from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aggregator.service import HEARD, ReplacedError, will
from aggregator.store import Store, StoreError
from broker import chunks, topics
from broker.messages import (
    Beacon,
    Chunk,
    Head,
    Job,
    Offer,
    Presence,
    Reply,
    Round,
    Stop,
    Submit,
    Verdict,
    Version,
)
from broker.transport import Packet
from models import codec
from models.job import CompressionSpec, JobSpec, RoundsSpec
from models.params import spec_of

Fleet = Any
"""The class of the fixture; it stands in conftest.py, which is no module to import."""
SpecMaker = Callable[..., JobSpec]
V0, V2 = Version(1, 0), Version(1, 2)


def listener(fleet: Fleet, word: str, **levels: str) -> Callable[[], list[Any]]:
    """Listen to a word of the table; gives what came since it was asked last."""
    transport = fleet.broker.transport(f"listener-{word}-{levels}")
    transport.subscribe(topics.filter_for("f", word, **levels))
    transport.open()

    def heard() -> list[Any]:
        events = iter(transport.take, None)
        return [topics.unpack(event, "f") for event in events if isinstance(event, Packet)]

    return heard


# A whole job.


def test_a_fleet_trains_a_job_to_its_end(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec())
    run = fleet.finish()
    assert run.version == Version(1, 3)
    assert run.reason == "max_rounds = 3 are done"
    assert run.metrics["participants"] == 3
    assert run.metrics["device_loss"] < 0.7
    assert fleet.aggregator.tally.counts == {}


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


def test_killing_agents_comes_to_the_same_model(fleet: Fleet, spec: SpecMaker, final_sha256: str) -> None:
    fleet.submit(spec())
    for n in range(3):
        fleet.step(0.1)
        name = f"d{n}"
        fleet.agents[name]._transport.drop()
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
    fleet.step()
    again = fleet.job()
    assert (again.version, again.sha256, again.reason) == (done.version, done.sha256, done.reason)


def test_bodies_in_chunks_come_to_the_same_model_as_in_one(fleet: Fleet, spec: SpecMaker) -> None:
    changes = {"compression": CompressionSpec(codec="float32", downlink_step=0.0)}
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
    assert [said[f"r{n}"].ok for n in (1, 2, 3, 4, 5)] == [True, False, False, True, False]
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
    fleet.step(0.1)
    assert fleet.aggregator.runs == {}
    fleet.store._db.execute("PRAGMA query_only = OFF")
    with pytest.raises(ValueError, match="has not ended and is at rest"):
        fleet.aggregator.submit(spec())
    fleet.aggregator.submit(JobSpec("other", spec().model))
    assert [row.job for row in fleet.store.jobs() if row.spec.name == "toy"] == [first]
    fleet.run(lambda: first in fleet.aggregator.runs)
    fleet.run(lambda: bool(fleet.aggregator.runs[first].coordinator.ended))
    assert fleet.aggregator.runs[first].sha256 == final_sha256


# Two aggregators.


def test_who_sees_a_higher_term_stops(fleet: Fleet) -> None:
    fleet.step(1.0)
    fleet.say(Beacon(fleet.aggregator.term + 1, "other", online=True))
    with pytest.raises(ReplacedError, match="another aggregator is at work"):
        fleet.step()


def test_a_lower_term_is_none_of_its_business(fleet: Fleet) -> None:
    fleet.step(1.0)
    fleet.say(Beacon(fleet.aggregator.term - 1, "other", online=True))
    fleet.step()


def test_a_state_from_a_backup_goes_beyond_the_term_that_was_lost(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec())
    fleet.step(1.0)
    fleet.say(Beacon(41, "lost", online=False))
    fleet.step()
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
    assert (run.job, run.version) == (job, Version(2, 6))


def test_a_will_says_that_this_aggregator_is_gone() -> None:
    assert topics.unpack(will("f", 3, "n"), "f") == Beacon(3, "n", online=False)


# A full disk.


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


def test_a_disk_that_cannot_be_read_costs_time_too(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch, final_sha256: str
) -> None:
    fleet.submit(spec())
    fleet.step(0.1)

    def broken(*_: object) -> None:
        raise StoreError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "jobs", broken)
        patch.setattr(Store, "add_verdict", broken)
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
        "aggregator": ("fedge/1/f/aggregator",),
        "head": ("fedge/1/f/head/JOB",),
    }
    assert set(where) >= set(HEARD)
    payloads = [b"{", b"null", b"[]", b"{}", b'{"base":[1,0]}', b"\xff" * 100, b"{" * 5000, bytes(rng.bytes(1000))]
    return [Packet(topic, payload) for names in where.values() for topic in names for payload in payloads]


def codec_body(delta: dict[str, Any]) -> bytes:
    spec = spec_of(delta)
    coding = CompressionSpec(codec="float32")
    return codec.encode(delta, spec, coding, state=codec.drop(), rng=np.random.default_rng(0)).body


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


def stranger(fleet: Fleet, spec: SpecMaker) -> tuple[str, Callable[[], list[Any]]]:
    """A job for one more device than answers: the fourth is played by hand."""
    rounds = RoundsSpec(quorum=3, target=4, min_devices=4, max_rounds=1, deadline_s=30.0)
    heard = listener(fleet, "verdict", device="d9")
    fleet.run(lambda: len(fleet.aggregator.roster.devices) == 3)
    job = fleet.aggregator.submit(spec(rounds=rounds))
    fleet.say(Presence("d9", 1, online=True, ready={job: 20}))
    return job, heard


def honest(fleet: Fleet) -> dict[str, Any]:
    run = fleet.job()
    return {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in run._net.spec}


HOSTILE: dict[str, Callable[[dict[str, Any]], tuple[bytes, int]]] = {
    "of too many examples": lambda zeros: (codec_body(zeros), 2**20 + 1),
    "of an absurd norm": lambda zeros: (codec_body({k: v + 1e6 for k, v in zeros.items()}), 20),
    "of another shape": lambda zeros: (
        codec_body({k: np.append(v, 0).astype(np.float32) for k, v in zeros.items()}),
        20,
    ),
    "of another number of tensors": lambda zeros: (codec_body(dict(list(zeros.items())[:1])), 20),
    "that is cut": lambda zeros: (codec_body(zeros)[:-1], 20),
    "with a tail": lambda zeros: (codec_body(zeros) + b"x", 20),
    "of an unknown codec": lambda zeros: (b"\xff" + codec_body(zeros)[1:], 20),
    "that is empty": lambda _: (b"\0", 20),
    "that is huge": lambda _: (bytes(2**20), 20),
    "with values that are not numbers": lambda zeros: (codec_body(zeros).replace(bytes(8), b"\0\0\xc0\x7f" * 2), 20),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_update_never_reaches_the_sum(
    fleet: Fleet, spec: SpecMaker, make: Callable[[dict[str, Any]], tuple[bytes, int]]
) -> None:
    job, heard = stranger(fleet, spec)
    fleet.step()
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
def test_an_update_to_a_version_that_is_not_there_is_refused(fleet: Fleet, spec: SpecMaker, base: Version) -> None:
    job, heard = stranger(fleet, spec)
    fleet.step()
    fleet.say(offer_of(job, b"x", "d9", base))
    fleet.step()
    assert ["stale" in said.refused for said in heard()] == [True]


def test_an_update_to_a_job_that_is_not_there_is_refused(fleet: Fleet) -> None:
    heard = listener(fleet, "verdict", device="d9")
    fleet.step()
    fleet.say(offer_of("none-1", b"x", "d9"))
    fleet.step()
    assert [said.refused for said in heard()] == ["there is no such job"]
    assert fleet.aggregator.tally.counts == {"unknown job": 1}


def test_chunks_that_nobody_wants_are_dropped(fleet: Fleet, spec: SpecMaker) -> None:
    job, _ = stranger(fleet, spec)
    fleet.step()
    fleet.say(*(Chunk(job, "d9", "f" * 32, index, bytes(100)) for index in range(100)))
    fleet.step()
    assert fleet.aggregator._inbox.reserved_bytes == 0


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
    assert fleet.aggregator._inbox.reserved_bytes == 0
    assert heard() == []


def test_a_loss_beyond_all_numbers_spoils_nothing(fleet: Fleet, spec: SpecMaker) -> None:
    job, heard = stranger(fleet, spec)
    fleet.step()
    body = codec_body(honest(fleet))
    fleet.say(Offer(job, "d9", V0, 2**20, chunks.digest(body), len(body), loss=1.7e308, body=body))
    run = fleet.finish()
    assert [said.counted for said in heard()] == [True]
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.step()
    assert fleet.job().metrics == run.metrics


def test_two_devices_of_one_name_are_told_of(fleet: Fleet) -> None:
    fleet.step()
    for _ in range(5):
        fleet.say(Presence("d9", 2, online=True), Presence("d9", 1, online=True))
    fleet.step()
    assert fleet.aggregator.tally.counts["clone"] > 0


def test_the_round_is_cleared_when_it_is_over(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.finish()
    fleet.step()
    rounds, heads = listener(fleet, "round", job=job), listener(fleet, "head", job=job)
    assert [said for said in rounds() if isinstance(said, Round)] == []
    assert [said.state for said in heads() if isinstance(said, Head)] == ["finished"]


def test_outdated_bodies_are_cleared_after_their_grace(fleet: Fleet, spec: SpecMaker) -> None:
    changes = {"compression": CompressionSpec(codec="float32", downlink_step=0.0)}
    fleet.submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=4), **changes))
    run = fleet.finish()
    assert len({body.number for body in fleet.store.bodies(run.job)}) > 2
    for _ in range(20):
        fleet.step(10.0)
    assert {body.number for body in fleet.store.bodies(run.job)} == {3, 4}
