"""Looking on at a fleet that was started for it: what is counted, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import Beacon, Chunk, Message, Offer, Presence, Reply, Status, Submit, Verdict, Version
from broker.transport import Packet
from broker.wire import Wire
from fleet.console import watch
from fleet.console.observer import Observer
from fleet.console.watch import HEARD, Sights, Watch, WatchError
from models.job import JobSpec, ModelSpec

WIRE = Wire("f")
V1 = Version(1, 1)
SPEC = JobSpec("j", ModelSpec(inputs=3, outputs=2))
OFFER = Offer("j-1", "d1", V1, 20, "ab" * 8, 3, body=b"abc")


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def hand(broker: MemoryBroker) -> MemoryTransport:
    hand = broker.transport("hand")
    hand.open()
    hand.subscribe(WIRE.filter_for("command"))
    return hand


@pytest.fixture
def eyes(broker: MemoryBroker) -> Iterator[Watch]:
    with Watch(Observer(broker.transport("eye"), WIRE, "eye")) as eyes:
        yield eyes


def heard(eyes: Watch) -> list[Message]:
    said = []
    for message in eyes.hear(0.0):
        if message is None:
            return said
        said.append(message)
    raise AssertionError("it never ends by itself")


def test_it_hears_the_fleet_and_replies_to_itself(eyes: Watch, hand: MemoryTransport) -> None:
    said: list[Message] = [
        Beacon(1, "n", online=True),
        Presence("d1", 1, online=True),
        Status("j-1", V1, "running"),
        Reply("eye", "submit", ok=True),
    ]
    for message in said:
        hand.publish(WIRE.pack(message))
    assert heard(eyes) == said
    assert heard(eyes) == []
    assert set(HEARD) == {"aggregator", "device", "head", "round", "status", "offer", "chunk", "verdict"}


def test_it_submits_a_job_under_its_own_name(eyes: Watch, hand: MemoryTransport) -> None:
    assert heard(eyes) == []
    eyes.submit(SPEC)
    (command,) = [WIRE.unpack(packet) for packet in iter(hand.take, None) if isinstance(packet, Packet)]
    assert isinstance(command, Submit)
    assert (command.client, command.request, command.spec["name"]) == ("eye", "submit", "j")


def test_nonsense_ends_it(eyes: Watch, hand: MemoryTransport) -> None:
    hand.publish(Packet("fedge/1/f/aggregator", b"{"))
    with pytest.raises(WatchError, match="the fleet speaks nonsense: aggregator: "):
        heard(eyes)


def test_a_broker_that_is_gone_ends_it(eyes: Watch, broker: MemoryBroker) -> None:
    assert heard(eyes) == []
    broker.stop()
    with pytest.raises(WatchError, match="the broker is gone: "):
        heard(eyes)


def test_silence_ends_it(eyes: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard(eyes) == []
    monkeypatch.setattr(watch, "SILENCE_S", -1.0)
    with pytest.raises(WatchError, match="nothing has been heard of the fleet"):
        heard(eyes)


def test_bytes_of_updates_are_counted_as_they_travel() -> None:
    sights = Sights()
    assert not sights.see(OFFER)
    assert not sights.see(Chunk("j-1", "d2", "ab" * 8, 0, b"defgh"))
    assert sights.body_bytes_up == 3 + 5
    assert sights.offered == {1: {"d1"}}
    sights.see(Verdict("d1", "j-1", V1, "ab" * 4, refused="stale"))
    assert sights.offered == {1: set()}


def test_the_first_status_of_a_version_is_new_and_the_last_one_ends_the_job() -> None:
    sights = Sights()
    assert sights.see(Status("j-1", V1, "running"))
    assert not sights.see(Status("j-1", V1, "finished"))
    assert sights.ended == Status("j-1", V1, "finished")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Presence("d1", 1, online=True, unready={"j-1": "no data"}), "d1 cannot take part: no data"),
        (Reply("eye", "submit", ok=False, text="no such net"), "refuses the job: no such net"),
        (Status("j-1", V1, "resting", "it fails"), "the job is at rest: it fails"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stops_a_fleet_is_an_error_that_says_so(message: Message, why: str) -> None:
    with pytest.raises(WatchError, match=why):
        Sights().see(message)
