"""What the twin alone has: its clock, its determinism and its costs. The rest is in test_transport_contract.py."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.memory import MemoryBroker, MemoryTransport
from broker.transport import Denied, Event, Offline, Online, Packet, Usurped, wire_bytes

WORDS = ["a", "b", "", "$x"]
topics = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(st.sampled_from([*WORDS, "+"]), max_size=3), st.sampled_from(["a", "+", "#", "$x"]))
    .map(lambda parts: "/".join([*parts[0], parts[1]]))
    .filter(bool)
)


def matches(name: str, topic: str) -> bool:
    """MQTT 5, section 4.7, word by word: the oracle."""
    words, levels = name.split("/"), topic.split("/")
    if topic.startswith("$") and words[0] in ("+", "#"):
        return False
    for index, word in enumerate(words):
        if word == "#":
            return True
        if index >= len(levels) or word not in ("+", levels[index]):
            return False
    return len(words) == len(levels)


def drain(client: MemoryTransport) -> list[Event]:
    events = []
    while (event := client.take()) is not None:
        events.append(event)
    return events


def connect(broker: MemoryBroker, client_id: str, *names: str, will: Packet | None = None) -> MemoryTransport:
    client = broker.transport(client_id, will)
    client.subscribe(*names)
    client.open()
    assert isinstance(client.take(), Online)
    return client


@given(st.lists(filters, unique=True, max_size=8), st.lists(topics, max_size=8))
@settings(max_examples=300)
def test_a_packet_reaches_exactly_the_filters_that_match(names: list[str], sent: list[str]) -> None:
    broker = MemoryBroker()
    reader, publisher = connect(broker, "reader", *names), connect(broker, "publisher")
    for topic in sent:
        publisher.publish(Packet(topic, b"x"))
        expected = sum(matches(name, topic) for name in names)
        assert drain(reader) == [Packet(topic, b"x")] * expected


@given(filters, st.lists(topics, max_size=8), st.lists(topics, max_size=4))
@settings(max_examples=300)
def test_a_subscription_finds_exactly_the_retained_packets_that_match(
    name: str, kept: list[str], cleared: list[str]
) -> None:
    broker = MemoryBroker()
    publisher = connect(broker, "publisher")
    for topic in kept:
        publisher.publish(Packet(topic, b"x", retain=True))
    for topic in cleared:
        publisher.publish(Packet(topic, b"", retain=True))
    left = {topic for topic in kept if topic not in cleared and matches(name, topic)}
    found = drain(connect(broker, "reader", name))
    assert len(found) == len(left)
    assert set(found) == {Packet(topic, b"x", retain=True) for topic in left}


@given(st.lists(st.tuples(st.sampled_from(["sub", "unsub", "keep", "clear"]), filters, topics), max_size=20))
def test_an_emptied_tree_is_bare(steps: list[tuple[str, str, str]]) -> None:
    broker = MemoryBroker()
    client = connect(broker, "client")
    for action, name, topic in steps:
        match action:
            case "sub":
                client.subscribe(name)
            case "unsub":
                client.unsubscribe(name)
            case "keep":
                client.publish(Packet(topic, b"x", retain=True))
            case _:
                client.publish(Packet(topic, b"", retain=True))
    client.unsubscribe(*[name for _, name, _ in steps])
    for _, _, topic in steps:
        client.publish(Packet(topic, b"", retain=True))
    assert broker._root.bare


def test_retained_packets_expire_by_the_brokers_clock_to_the_second() -> None:
    now = 100.0
    broker = MemoryBroker(lambda: now)
    publisher = connect(broker, "publisher")
    publisher.publish(Packet("a", b"1", retain=True, expiry_s=10))
    now = 102.5
    assert drain(connect(broker, "early", "a")) == [Packet("a", b"1", retain=True, expiry_s=8)]
    now = 110.0
    assert drain(connect(broker, "late", "a")) == []


def test_a_dropped_transport_comes_back_when_its_cable_does() -> None:
    broker = MemoryBroker()
    client, publisher = connect(broker, "client", "a"), connect(broker, "publisher")
    client.drop("the tide came in")
    client.drop()
    publisher.publish(Packet("a", b"missed"))
    assert drain(client) == [Offline("the tide came in")]
    client.restore()
    publisher.publish(Packet("a", b"caught"))
    assert drain(client) == [Online(None), Packet("a", b"caught")]


def test_a_transport_without_its_cable_stays_offline_through_a_restart() -> None:
    broker = MemoryBroker()
    client = connect(broker, "client")
    client.drop()
    broker.stop()
    broker.start()
    assert drain(client) == [Offline("the cable was pulled")]
    client.restore()
    assert drain(client) == [Online(None)]


def test_the_usurped_do_not_come_back() -> None:
    broker = MemoryBroker()
    first = connect(broker, "twin")
    connect(broker, "twin")
    broker.stop()
    broker.start()
    first.restore()
    assert drain(first) == [Usurped()]


def test_opening_again_changes_nothing() -> None:
    broker = MemoryBroker()
    client = connect(broker, "client", will=Packet("will", b""))
    client.open()
    assert drain(client) == []


def test_a_stopped_broker_forgets_what_was_retained_and_publishes_no_will() -> None:
    broker = MemoryBroker()
    client = connect(broker, "client", "#", will=Packet("will", b"gone", retain=True))
    client.publish(Packet("a", b"kept", retain=True))
    drain(client)
    broker.stop()
    late = broker.transport("late")
    late.open()
    broker.start()
    assert drain(client) == [Offline("the broker is gone"), Online(None)]
    assert drain(late) == [Offline("the broker is gone"), Online(None)]


def test_a_packet_beyond_the_size_limit_is_denied() -> None:
    limit = wire_bytes(Packet("a", bytes(100)))
    broker = MemoryBroker(max_packet_bytes=limit)
    client = broker.transport("client")
    client.subscribe("a")
    client.open()
    assert client.take() == Online(limit)
    assert client.publish(Packet("a", bytes(101)))
    assert client.publish(Packet("a", bytes(100)))
    denied, arrived = drain(client)
    assert isinstance(denied, Denied)
    assert arrived == Packet("a", bytes(100))


def test_a_full_queue_drops_and_counts() -> None:
    broker = MemoryBroker(max_queued=2)
    client = connect(broker, "client", "a")
    for index in range(5):
        client.publish(Packet("a", bytes([index])))
    assert drain(client) == [Packet("a", b"\0"), Packet("a", b"\1")]
    assert (client.counters.dropped_packets, client.counters.received_packets) == (3, 2)


def test_a_publish_touches_only_those_who_listen() -> None:
    broker = MemoryBroker()
    crowd = [connect(broker, f"device-{index}", f"verdict/device-{index}/+") for index in range(1000)]
    publisher = connect(broker, "publisher")
    publisher.publish(Packet("verdict/device-7/job", b"counted"))
    assert [bool(drain(client)) for client in crowd].index(True) == 7
    assert broker._root.below["verdict"].below["device-7"].below.keys() == {"+"}
