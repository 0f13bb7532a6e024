"""Listening to an aggregator whose broker is killed now and then."""

from __future__ import annotations

from broker.memory import MemoryBroker
from broker.messages import Beacon, Head, Message, Round, Version
from broker.transport import Packet
from broker.wire import Wire
from fleet.chaos.lookout import Lookout
from fleet.console.observer import Observer

WIRE = Wire("f")


def head(number: int, job: str = "steady-1f") -> Head:
    return Head(job, 1, Version(1, number), "ab" * 16)


def say(broker: MemoryBroker, *packets: Packet | Message) -> None:
    hand = broker.transport("hand")
    hand.open()
    for packet in packets:
        hand.publish(packet if isinstance(packet, Packet) else WIRE.pack(packet))
    hand.close()


def test_it_keeps_what_was_said_last_through_garbage_and_the_death_of_its_broker() -> None:
    broker = MemoryBroker()
    with Lookout(Observer(broker.transport("eye"), WIRE, "eye")) as lookout:
        lookout.listen()
        assert (lookout.led, lookout.head("steady"), lookout.round("steady")) == (False, None, None)
        round_ = Round("steady-1f", 1, Version(1, 1), 60.0)
        say(broker, Beacon(1, "n", online=True), head(1), round_, head(7, "other-2f"))
        say(broker, Packet("fedge/1/f/head/steady-1f", b"{"))
        lookout.listen()
        assert (lookout.led, lookout.head("steady"), lookout.round("steady")) == (True, head(1), round_)
        broker.stop()
        lookout.listen()
        broker.start()
        say(broker, head(2), WIRE.clear(round_))
        lookout.listen()
        assert (lookout.head("steady"), lookout.round("steady")) == (head(2), round_)
        say(broker, Beacon(1, "n", online=False))
        lookout.listen()
        assert not lookout.led
