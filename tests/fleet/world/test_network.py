from __future__ import annotations

from broker.transport import Offline, Online, Packet, SessionTakenOver, TransportEvent
from fleet.world.agenda import Agenda
from fleet.world.network import WorldBroker, WorldTransport

WILL = Packet("will", b"gone", retain=True)


class Net:
    """A broker, somebody who listens to everything, and one more client."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.heard: list[Packet] = []
        self.broker = WorldBroker(self.agenda, self.heard.append)
        self.ear = self.client("ear", None, "#")
        self.one = self.client("one", WILL, "a")
        self.ear_hears()

    def client(self, name: str, will: Packet | None, *filters: str) -> WorldTransport:
        transport = self.broker.transport(name, will)
        transport.subscribe(*filters)
        transport.open()
        return transport

    def ear_hears(self) -> list[bytes]:
        return [event.payload for event in taken(self.ear) if isinstance(event, Packet)]


def taken(transport: WorldTransport) -> list[TransportEvent]:
    return list(iter(transport.take, None))


def test_a_link_that_parts_says_its_will_at_once_or_never() -> None:
    for mode, said in (("now", [b"gone"]), ("never", [])):
        net = Net()
        net.one.part(mode, "cut")  # type: ignore[arg-type]  # one of its words
        assert net.ear_hears() == said
        assert taken(net.one)[-1] == Offline("cut")
        assert not net.broker.connected(net.one)


def test_a_half_open_connection_takes_everything_and_passes_nothing() -> None:
    net = Net()
    net.one.part("late", "cut", client_knows=False)
    assert net.one.publish(Packet("x", b"lost"))
    net.ear.publish(Packet("a", b"lost"))
    assert net.one.online
    assert not net.broker.connected(net.one)
    assert net.ear_hears() == [b"lost"], "its own"
    assert [type(event) for event in taken(net.one)] == [Online]


def test_a_session_that_lapses_says_its_will_late() -> None:
    net = Net()
    net.one.part("late", "cut")
    assert net.ear_hears() == []
    net.broker.lapse("one")
    net.broker.lapse("one")
    assert net.ear_hears() == [b"gone"]


def test_over_a_dead_link_no_goodbye_arrives_and_the_session_lapses_with_its_will() -> None:
    net = Net()
    net.one.part("late", "cut")
    net.one.close()
    assert net.ear_hears() == []
    net.one.restore()
    assert not net.broker.connected(net.one), "it has closed"
    net.broker.lapse("one")
    assert net.ear_hears() == [b"gone"]
    other = Net()
    other.one.close()
    other.broker.lapse("one")
    assert other.ear_hears() == [], "it has said goodbye"


def test_a_session_that_lives_does_not_lapse() -> None:
    net = Net()
    net.broker.lapse("one")
    assert net.broker.connected(net.one)


def test_who_comes_back_before_his_session_lapsed_hears_his_own_will_out() -> None:
    net = Net()
    net.one.part("late", "cut")
    net.one.restore()
    assert net.ear_hears() == [b"gone"]
    assert net.broker.connected(net.one)
    assert not any(isinstance(event, SessionTakenOver) for event in taken(net.one))
    net.broker.lapse("one")
    assert net.broker.connected(net.one)


def test_a_client_finds_out_that_its_connection_is_dead() -> None:
    net = Net()
    net.one.notice("silence")
    assert net.one.online, "it is alive"
    net.one.part("late", "cut", client_knows=False)
    net.one.notice("silence")
    assert taken(net.one)[-1] == Offline("silence")


def test_a_broker_that_stops_keeps_or_loses_what_it_has() -> None:
    for keep in (True, False):
        net = Net()
        net.one.publish(Packet("r", b"kept", retain=True))
        net.broker.halt(keep=keep, wills=False)
        assert not net.broker.running
        net.broker.start()
        assert (net.broker.retained("r") is not None) == keep
        assert not net.broker.connected(net.one), "nobody reconnects by himself"
        net.one.restore()
        assert net.broker.connected(net.one)


def test_a_broker_that_is_asked_to_stop_says_the_wills() -> None:
    for wills in (True, False):
        net = Net()
        net.broker.halt(keep=True, wills=wills)
        assert (net.broker.retained("will") is not None) == wills


def test_deliveries_are_lost_doubled_and_late_but_not_what_was_retained() -> None:
    net = Net()
    net.one.publish(Packet("r", b"kept", retain=True))
    net.ear_hears()
    net.broker.delays = lambda _client, packet: {"x": (), "y": (0.0, 5.0), "r": ()}[packet.topic]
    net.one.publish(Packet("x", b"lost"))
    net.one.publish(Packet("y", b"twice"))
    assert net.ear_hears() == [b"twice"]
    net.agenda.run(6.0)
    assert net.ear_hears() == [b"twice"]
    net.ear.subscribe("r")
    assert net.ear_hears() == [b"kept"]


def test_a_late_copy_does_not_outlive_its_connection() -> None:
    net = Net()
    net.broker.delays = lambda _client, _packet: (5.0,)
    net.one.publish(Packet("y", b"late"))
    net.ear.part("now", "cut")
    net.ear.restore()
    net.agenda.run(6.0)
    assert b"late" not in net.ear_hears()


def test_a_dead_process_has_no_effect_any_more() -> None:
    net = Net()
    net.one.muted = True
    assert not net.one.publish(Packet("x", b"ghost"))
    net.one.subscribe("b")
    net.one.unsubscribe("a")
    net.one.close()
    net.one.restore()
    assert net.ear_hears() == []
    assert net.one.filters == ["a"]


def test_everything_that_is_published_is_heard_wills_too() -> None:
    net = Net()
    net.one.publish(Packet("x", b"1"))
    net.one.part("now", "cut")
    assert [packet.payload for packet in net.heard] == [b"1", b"gone"]
