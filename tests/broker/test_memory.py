"""What the twin alone has: its clock, its determinism and its costs. The rest is in test_transport_contract.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.memory import MemoryBroker, MemoryTransport
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, TransportEvent, wire_bytes

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


def drain(client: MemoryTransport) -> list[TransportEvent]:
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
    assert drain(first) == [SessionTakenOver()]


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


def test_a_broker_with_persistence_keeps_what_is_retained_and_nobody_twice() -> None:
    broker = MemoryBroker()
    client = connect(broker, "client", "#", will=Packet("will", b"gone", retain=True))
    client.publish(Packet("a", b"kept", retain=True))
    drain(client)
    broker.stop(keep=True)
    broker.start()
    assert drain(client) == [
        Offline("the broker is gone"),
        Online(None),
        Packet("a", b"kept", retain=True),
    ]
    client.publish(Packet("b", b"live"))
    assert drain(client) == [Packet("b", b"live")]


@pytest.mark.parametrize("keep", [True, False])
def test_a_broker_that_is_asked_to_end_publishes_every_will_first(keep: bool) -> None:
    broker = MemoryBroker()
    clients = [connect(broker, name, "will/+", will=Packet(f"will/{name}", b"", retain=False)) for name in ("a", "b")]
    ghost = connect(broker, "ghost", will=Packet("will/ghost", b"gone", retain=True))
    ghost.drop(will=False)
    broker.stop(keep=keep, wills=True)
    wills = [Packet("will/a", b""), Packet("will/b", b""), Packet("will/ghost", b"gone")]
    for client in clients:
        assert drain(client) == [*wills, Offline("the broker is gone")]
    broker.start()
    kept = [Packet("will/ghost", b"gone", retain=True)] if keep else []
    assert drain(connect(broker, "late", "#")) == kept


def test_a_half_open_connection_swallows_what_is_sent_until_the_broker_notices() -> None:
    broker = MemoryBroker()
    watcher, client = connect(broker, "watcher", "will"), connect(broker, "client", "a", will=Packet("will", b"gone"))
    client.drop("the power is off", will=False)
    assert drain(client) == [Offline("the power is off")]
    watcher.publish(Packet("a", b"into the void"))
    assert drain(watcher) == drain(client) == []
    broker.lapse("client")
    assert drain(watcher) == [Packet("will", b"gone")]
    broker.lapse("client")
    broker.lapse("watcher")
    client.restore()
    assert drain(client) == [Online(None)]
    assert drain(watcher) == []


def test_who_comes_back_before_the_broker_noticed_takes_its_own_connection_over() -> None:
    broker = MemoryBroker()
    watcher = connect(broker, "watcher", "will")
    client = connect(broker, "client", "a", "will", will=Packet("will", b"first life", retain=True))
    client.drop(will=False)
    drain(client)
    client.unsubscribe("a")
    client.renew(Packet("will", b"second life", retain=True))
    client.restore()
    assert drain(watcher) == [Packet("will", b"first life")]
    assert drain(client) == [Online(None), Packet("will", b"first life", retain=True)]
    watcher.publish(Packet("a", b"unsubscribed"))
    assert drain(client) == []
    client.drop()
    assert drain(watcher) == [Packet("will", b"second life")]


def test_another_process_of_the_same_id_sets_the_will_of_a_half_open_connection_off() -> None:
    broker = MemoryBroker()
    watcher = connect(broker, "watcher", "will")
    dead = connect(broker, "client", will=Packet("will", b"gone"))
    dead.drop(will=False)
    connect(broker, "client")
    assert drain(watcher) == [Packet("will", b"gone")]
    broker.lapse("client")
    assert drain(watcher) == []


def test_a_process_that_died_is_not_brought_back_by_a_start_and_leaves_nothing_behind() -> None:
    broker = MemoryBroker()
    for index in range(10):
        dead = connect(broker, "client", "a/+")
        dead.drop(will=bool(index % 2))
        drain(dead)
        broker.stop(keep=True)
        broker.start()
        assert drain(dead) == []
    assert not broker._transports
    assert not broker._online
    assert broker._root.bare


def test_a_process_that_dies_while_the_broker_is_away_stays_dead() -> None:
    broker = MemoryBroker()
    client = connect(broker, "client")
    broker.stop()
    client.drop(will=False)
    broker.start()
    assert drain(client) == [Offline("the broker is gone")]


def test_a_process_that_starts_without_a_link_is_told_so_and_connects_when_there_is_one() -> None:
    broker = MemoryBroker()
    client = broker.transport("client")
    client.drop()
    client.open()
    broker.stop()
    broker.start()
    assert drain(client) == [Offline("the cable was pulled")]
    client.restore()
    assert drain(client) == [Online(None)]


def test_a_policy_says_how_many_copies_of_a_live_packet_reach_whom() -> None:
    broker = MemoryBroker()
    one, other = connect(broker, "one", "a", "#"), connect(broker, "other", "a")
    copies = {"one": 2, "other": 0}
    broker.policy = lambda client, packet: copies[client.client_id] if packet.topic == "a" else 1
    other.publish(Packet("a", b"1", retain=True))
    other.publish(Packet("b", b"2"))
    assert drain(one) == [Packet("a", b"1")] * 4 + [Packet("b", b"2")]
    assert drain(other) == []
    assert (one.counters.received_packets, other.counters.received_packets) == (5, 0)
    other.unsubscribe("a")
    other.subscribe("a")
    assert drain(other) == [Packet("a", b"1", retain=True)]
    broker.policy = None
    one.publish(Packet("a", b"3"))
    assert drain(other) == [Packet("a", b"3")]


class Twins:
    """What two processes of one client id should see, told of what happens to them; `session`: who has it, its will."""

    def __init__(self) -> None:
        self.running = True
        self.wills = [b"0", b"0"]
        self.open = [False, False]
        self.plugged = [True, True]
        self.order: list[int] = []
        self.session: tuple[int | None, bytes] | None = None
        self.published: list[bytes] = []

    def has_session(self, who: int) -> bool:
        return self.session is not None and self.session[0] == who

    def lose(self) -> None:
        if self.session is not None:
            self.published.append(self.session[1])
            self.session = None

    def join(self, who: int) -> None:
        if not (self.open[who] and self.plugged[who]):
            return
        if who not in self.order:
            self.order.append(who)
        if self.running and not self.has_session(who):
            if self.has_session(1 - who):  # taken_over
                self.open[1 - who] = False
                self.order.remove(1 - who)
            self.lose()
            self.session = (who, self.wills[who])

    def unplug(self, who: int) -> None:
        self.plugged[who] = False
        if who in self.order:
            self.order.remove(who)

    def close(self, who: int) -> None:
        self.open[who] = False
        if who in self.order:
            self.order.remove(who)
        if self.has_session(who):
            self.session = None


MISFORTUNES = ["open", "cut", "lose", "plug in", "lapse", "close", "renew", "stop", "end", "start"]


@given(st.lists(st.tuples(st.sampled_from(MISFORTUNES), st.integers(0, 1)), min_size=10, max_size=40))
@settings(max_examples=500)
def test_whatever_happens_a_will_is_published_once_for_each_connection_that_was_lost(
    steps: list[tuple[str, int]],
) -> None:
    broker, twins = MemoryBroker(), Twins()
    clients = [broker.transport("twin", Packet("will", b"0")) for _ in range(2)]
    connect(broker, "listener", "will")
    published: list[bytes] = []
    broker.policy = lambda _, packet: published.append(packet.payload) or 1
    for turn, (action, who) in enumerate(steps):
        match action:
            case "open":
                clients[who].open()
                twins.open[who] = True
                twins.join(who)
            case "cut" | "lose":
                clients[who].drop(will=action == "cut")
                twins.unplug(who)
                if twins.has_session(who):
                    twins.session = (None, twins.session[1]) if twins.session else None
                    if action == "cut":
                        twins.lose()
            case "plug in":
                clients[who].restore()
                twins.plugged[who] = True
                twins.join(who)
            case "lapse":
                broker.lapse("twin")
                if twins.session is not None and twins.session[0] is None:
                    twins.lose()
            case "close":
                clients[who].close()
                twins.close(who)
            case "renew":
                twins.wills[who] = str(turn).encode()
                clients[who].renew(Packet("will", twins.wills[who]))
                if twins.has_session(who):
                    twins.session = (who, twins.wills[who])
            case "stop" | "end":
                broker.stop(wills=action == "end")
                if action == "end":
                    twins.lose()
                twins.running, twins.session = False, None
            case _:
                broker.start()
                twins.running = True
                for index in list(twins.order):
                    twins.join(index)
        assert published == twins.published
        assert [bool(client.room) for client in clients] == [twins.has_session(index) for index in range(2)]


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


def test_who_drives_many_clients_is_told_of_each_that_comes_to_have_something() -> None:
    broker, told = MemoryBroker(), list[str]()
    one, two = connect(broker, "one", "a/+"), connect(broker, "two", "a/x", "b")
    broker.roused = lambda transport: told.append(transport.client_id)
    one.publish(Packet("a/x", b""))
    one.publish(Packet("a/x", b""))
    one.publish(Packet("b", b""))
    assert sorted(told) == ["one", "two"]
    assert [len(drain(one)), len(drain(two))] == [2, 3]
    two.publish(Packet("b", b""))
    two.drop()
    two.restore()
    assert sorted(told) == ["one", "two", "two"]
    assert [client.waiting for client in (one, two)] == [0, 3]


def test_clients_are_served_in_the_order_in_which_they_subscribed_also_when_some_have_left() -> None:
    broker = MemoryBroker()
    served: list[str] = []
    clients = {name: connect(broker, name, "a") for name in "pqrs"}
    broker.policy = lambda transport, _: served.append(transport.client_id) or 1
    for leaves, comes, left in (
        ("p", "", "qrs"),
        ("r", "p", "qsp"),
        ("q", "q", "spq"),
        ("s", "", "pq"),
        ("p", "", "q"),
    ):
        clients[leaves].unsubscribe("a")
        if comes:
            clients[comes].subscribe("a")
        served.clear()
        clients["p"].publish(Packet("a", b"x"))
        assert "".join(served) == left


def test_what_is_retained_is_one_packet_for_all_who_come_unless_its_time_runs() -> None:
    now = 0.0
    broker = MemoryBroker(lambda: now)
    sender = connect(broker, "sender")
    kept, short = Packet("a", b"x", retain=True), Packet("b", b"x", retain=True, expiry_s=10)
    sender.publish(kept)
    sender.publish(short)
    now = 4.0
    for name in ("one", "two"):
        first, second = drain(connect(broker, name, "a", "b"))
        assert first is kept
        assert second == Packet("b", b"x", retain=True, expiry_s=6)
    assert short.expiry_s == 10
