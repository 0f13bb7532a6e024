"""Somebody who listens: what is said, what nobody understands, and a connection that comes and goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import Beacon, Head, Reply, Stop, Version
from broker.transport import Denied, Offline, Online, Packet
from broker.wire import Wire
from fleet.console.observer import Garbage, Heard, Observer, Said

WIRE = Wire("f")
LED = Beacon(1, "n", online=True)
HEAD = Head("j-1", 1, Version(1, 0), "ab" * 16)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def hand(broker: MemoryBroker) -> MemoryTransport:
    """Somebody else on the fleet."""
    hand = broker.transport("hand")
    hand.open()
    return hand


@pytest.fixture
def observer(broker: MemoryBroker) -> Iterator[Observer]:
    with Observer(broker.transport("eye"), WIRE, "eye") as observer:
        yield observer


def heard(observer: Observer) -> list[Heard]:
    return list(iter(observer.take, None))


def test_what_is_said_is_heard_and_what_lay_there_is_told_apart(observer: Observer, hand: MemoryTransport) -> None:
    hand.publish(WIRE.pack(LED))
    observer.listen("aggregator", "head")
    hand.publish(WIRE.pack(HEAD))
    assert [event for event in heard(observer) if isinstance(event, Said)] == [Said(LED, True), Said(HEAD, False)]


def test_nothing_is_heard_but_what_is_listened_for(observer: Observer, hand: MemoryTransport) -> None:
    observer.listen("head")
    observer.listen_for_replies()
    for message in (LED, Reply("other", "r", ok=True), Reply("eye", "r", ok=True)):
        hand.publish(WIRE.pack(message))
    assert [event.message for event in heard(observer) if isinstance(event, Said)] == [Reply("eye", "r", ok=True)]


def test_garbage_is_told_of_and_what_comes_after_it_is_heard(observer: Observer, hand: MemoryTransport) -> None:
    observer.listen("aggregator")
    hand.publish(Packet("fedge/1/f/aggregator", b"{"))
    hand.publish(WIRE.pack(LED))
    _, garbage, said = heard(observer)
    assert isinstance(garbage, Garbage)
    assert (garbage.topic, garbage.retained) == ("fedge/1/f/aggregator", False)
    assert garbage.why.startswith("aggregator: ")
    assert said == Said(LED, False)


def test_it_connects_again_and_still_listens(broker: MemoryBroker, observer: Observer) -> None:
    observer.listen("aggregator")
    assert [type(event) for event in heard(observer)] == [Online]
    broker.stop()
    assert [type(event) for event in heard(observer)] == [Offline]
    broker.start()
    hand = broker.transport("hand")
    hand.open()
    hand.publish(WIRE.pack(LED))
    online, said = heard(observer)
    assert isinstance(online, Online)
    assert said == Said(LED, False)


def test_it_tells_why_it_cannot_connect(broker: MemoryBroker) -> None:
    transport = broker.transport("eye")
    with Observer(transport, WIRE, "eye") as observer:
        assert observer.connect(1.0) == ""
    broker.stop()
    with Observer(broker.transport("eye"), WIRE, "eye") as observer:
        assert observer.connect(0.05) != ""


def test_what_it_says_arrives_and_what_the_broker_refuses_is_told(hand: MemoryTransport, broker: MemoryBroker) -> None:
    hand.subscribe(WIRE.filter_for("command"))
    with Observer(broker.transport("eye"), WIRE, "eye") as observer:
        assert observer.say(Stop("eye", "r", "j"))
        packets = [event for event in iter(hand.take, None) if isinstance(event, Packet)]
        assert [WIRE.unpack(packet) for packet in packets] == [Stop("eye", "r", "j")]
        broker.max_packet_bytes = 10
        assert observer.say(Stop("eye", "r", "j"))
        (*_, denied) = heard(observer)
        assert isinstance(denied, Denied)
        assert denied.topic == "fedge/1/f/command/eye"
    assert not observer.say(Stop("eye", "r", "j")), "it is closed"
