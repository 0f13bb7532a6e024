"""What one message with an absurd number does to a fleet that is at work: nothing that lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import structs

from broker.ceilings import FAR, MOST_GENERATION, MOST_NUMBER, MOST_TERM
from broker.messages import Beacon, Head, Job, Message, Presence, Round, Version
from broker.transport import Packet
from tests.formats.fleet import JOBS, WIRE, Fleet
from tests.formats.make import unpack

PLAIN, SKETCHED = JOBS["plain"], JOBS["sketched"]


class Scene(NamedTuple):
    """A fleet in the middle of a round, and somebody who speaks as its aggregator."""

    fleet: Fleet
    say: Callable[[Message], None]
    say_as_it_is: Callable[[Packet], None]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)
    unpack("numbered", tmp_path / "fleet")
    fleet = Fleet(tmp_path / "fleet")
    somebody = fleet.broker.transport("somebody")
    somebody.open()
    fleet.go_on(lambda: all(agent.works.keys() >= {PLAIN, SKETCHED} for agent in fleet.agents.values()))
    yield Scene(
        fleet, lambda message: (somebody.publish(WIRE.pack(message)), None)[1], lambda p: (somebody.publish(p), None)[1]
    )
    fleet.close()


def goes_on(fleet: Fleet, job: str = PLAIN) -> None:
    number = fleet.aggregator.runs[job].version.number
    fleet.go_on(lambda: fleet.aggregator.leads and fleet.aggregator.runs[job].version.number > number)


@pytest.mark.parametrize("term", [MOST_TERM, 2**53], ids=["the highest", "beyond"])
def test_a_beacon_of_an_absurd_term(scene: Scene, term: int) -> None:
    fleet, before = scene.fleet, scene.fleet.aggregator.term
    for n in range(20):
        scene.say(Beacon(term, f"z{n}", online=True, since=0, claim=n))
        fleet.go_on(lambda: fleet.broker._clock() >= 0)
    goes_on(fleet)
    assert fleet.aggregator.term <= before + 1
    assert fleet.store.term == fleet.aggregator.term
    assert all(agent.jobs._led == fleet.aggregator.term for agent in fleet.agents.values())


@pytest.mark.parametrize("version", [Version(2**40, 2**53), Version(MOST_GENERATION, MOST_NUMBER), Version(2**31, 0)])
def test_a_head_of_an_absurd_version_renames_nothing_and_the_aggregator_starts_again(
    scene: Scene, version: Version, tmp_path: Path
) -> None:
    fleet, now = scene.fleet, scene.fleet.aggregator.runs[PLAIN].version
    scene.say(Head(PLAIN, 1, version, "0" * 32))
    goes_on(fleet)
    assert fleet.aggregator.runs[PLAIN].version.generation == now.generation
    head = WIRE.unpack(_retained(fleet, "head", PLAIN))
    assert isinstance(head, Head)
    assert head.version.generation == now.generation, "it was written over"
    fleet.close()
    again = Fleet(tmp_path / "fleet")
    goes_on_from = lambda: again.aggregator.runs.keys() >= {PLAIN, SKETCHED}
    again.go_on(goes_on_from)
    again.close()


def test_a_round_of_a_huge_term(scene: Scene) -> None:
    version = scene.fleet.aggregator.runs[PLAIN].version
    scene.say(Round(PLAIN, MOST_TERM, version, 60.0))
    scene.say(Round(SKETCHED, 2**53, version, 60.0))
    scene.say(Job(SKETCHED, MOST_TERM, {}, Version(MOST_GENERATION, MOST_NUMBER)))
    goes_on(scene.fleet)
    goes_on(scene.fleet, SKETCHED)


def test_a_device_that_has_come_absurdly_far_renames_nothing(scene: Scene) -> None:
    fleet, now = scene.fleet, scene.fleet.aggregator.runs[PLAIN].version
    far = Version(now.generation + FAR + 1, 0)
    liar = Presence("x", 1, online=True, done={PLAIN: far}, ahead={PLAIN: structs.replace(far, number=MOST_NUMBER)})
    scene.say(liar)
    goes_on(fleet)
    assert fleet.aggregator.runs[PLAIN].version.generation == now.generation


def test_a_head_that_nobody_understands_is_written_over(scene: Scene) -> None:
    fleet = scene.fleet
    topic = WIRE.filter_for("head", job=PLAIN)
    scene.say_as_it_is(Packet(topic, b'{"term":1,"version":[1,-1],"sha256":"00"}', retain=True))
    fleet.go_on(lambda: isinstance(_head_or_none(fleet), Head))


def _head_or_none(fleet: Fleet) -> Message | None:
    packet = _retained(fleet, "head", PLAIN)
    return WIRE.unpack(packet) if b"-1" not in packet.payload else None


def _retained(fleet: Fleet, word: str, job: str) -> Packet:
    ear = fleet.broker.transport("ear")
    ear.subscribe(WIRE.filter_for(word, job=job))
    ear.open()
    found = [event for event in iter(ear.take, None) if isinstance(event, Packet)]
    ear.close()
    return found[-1]
