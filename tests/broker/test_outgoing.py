from __future__ import annotations

import logging
from collections import OrderedDict, deque
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import outgoing
from broker.memory import MemoryBroker, MemoryTransport
from broker.outgoing import MOST, SHORT_BYTES, Outgoing
from broker.transport import Packet
from tests.counting import Name, Work, work_of


class Choosy(MemoryTransport):
    """A transport that takes so many packets more."""

    takes = 0

    def publish(self, packet: Packet) -> bool:
        if self.takes == 0:
            return False
        self.takes -= 1
        return super().publish(packet)


class Bench:
    def __init__(self) -> None:
        broker = MemoryBroker()
        self.link = Choosy(broker, "me", None)
        self.link.open()
        self.reader = broker.transport("reader")
        self.reader.subscribe("#")
        self.reader.open()
        self.reader.take()
        self.outgoing = Outgoing(self.link, "test.published")
        self.outgoing.online = True

    def sent(self, takes: int = 10**9) -> list[Packet]:
        """Let the transport take so many; give what arrived."""
        self.link.takes = takes
        self.outgoing.pump()
        arrived = []
        while isinstance(packet := self.reader.take(), Packet):
            arrived.append(packet)
        return arrived


def live(index: int) -> Packet:
    return Packet("n", str(index).encode())


def test_packets_leave_in_order_as_the_transport_takes_them() -> None:
    bench = Bench()
    for index in range(5):
        bench.outgoing.put(live(index))
    assert bench.sent(2) == [live(0), live(1)]
    assert len(bench.outgoing) == 3
    assert bench.sent() == [live(2), live(3), live(4)]
    assert len(bench.outgoing) == 0


def test_a_device_that_is_offline_for_a_day_does_not_send_its_offer_718_times_at_the_reconnect() -> None:
    bench = Bench()
    bench.outgoing.online = False
    for _ in range(718):
        bench.outgoing.put(Packet("offer", b"the same"))
        bench.outgoing.pump()
    assert len(bench.outgoing) == 0
    bench.outgoing.online = True
    bench.outgoing.put(Packet("offer", b"the same"))
    assert bench.sent() == [Packet("offer", b"the same")]


def test_of_long_packets_too_one_that_is_equal_to_one_that_waits_adds_nothing() -> None:
    bench = Bench()
    first, second = (Packet("n", bytes((index,)) * (SHORT_BYTES + 1)) for index in range(2))
    for packet in (first, second, first, second, first):
        bench.outgoing.put(packet)
    assert bench.sent() == [first, second]


def test_a_long_packet_that_waits_is_not_queued_twice_though_the_one_before_it_has_left() -> None:
    bench = Bench()
    first, second = (Packet("n", bytes((index,)) * (SHORT_BYTES + 1)) for index in range(2))
    for packet in (first, second):
        bench.outgoing.put(packet)
    assert bench.sent(1) == [first]
    bench.outgoing.put(second)
    assert bench.sent() == [second]
    for packet in (second, first, second, first):
        bench.outgoing.put(packet)
    assert bench.sent() == [second, first]


def test_what_waits_when_the_connection_ends_is_forgotten() -> None:
    bench = Bench()
    bench.outgoing.put(live(0))
    bench.outgoing.online = False
    bench.outgoing.online = True
    assert bench.sent() == []


def test_an_equal_packet_that_waits_already_is_not_queued_twice() -> None:
    bench = Bench()
    for packet in (live(0), live(1), live(0), Packet("n", b"0", expiry_s=5), Packet("m", b"0"), live(0)):
        bench.outgoing.put(packet)
    assert bench.sent() == [live(0), live(1), Packet("n", b"0", expiry_s=5), Packet("m", b"0")]
    bench.outgoing.put(live(0))
    assert bench.sent() == [live(0)]


def test_a_retained_packet_takes_the_place_of_one_that_waits_for_its_topic_in_its_own_turn() -> None:
    bench = Bench()
    for packet in (
        Packet("a", b"1", retain=True),
        live(0),
        Packet("a", b"", retain=True),
        Packet("b", b"", retain=True),
    ):
        bench.outgoing.put(packet)
    assert bench.sent() == [live(0), Packet("a", b""), Packet("b", b"")]


def test_a_live_packet_never_takes_the_place_of_a_retained_one_of_its_topic() -> None:
    bench = Bench()
    for packet in (Packet("a", b"1", retain=True), Packet("a", b"1"), Packet("a", b"2")):
        bench.outgoing.put(packet)
    assert [packet.payload for packet in bench.sent()] == [b"1", b"1", b"2"]


def test_beyond_the_most_the_newest_live_packet_is_dropped_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING):
        for index in range(MOST + 100):
            bench.outgoing.put(live(index))
    bench.outgoing.put(live(0))  # waits already
    bench.outgoing.put(Packet("kept", b"", retain=True))
    assert (len(bench.outgoing), bench.outgoing.dropped) == (MOST + 1, 100)
    assert len(caplog.records) == 11  # the first ten and the hundredth
    assert bench.sent(1) == [live(0)]
    bench.outgoing.put(live(MOST))
    assert bench.sent() == [*(live(index) for index in range(1, MOST)), Packet("kept", b""), live(MOST)]


def test_a_cleared_queue_has_all_its_room_again() -> None:
    bench = Bench()
    for _ in range(2):
        for index in range(MOST):
            bench.outgoing.put(live(index))
        bench.outgoing.clear()
    assert (len(bench.outgoing), bench.outgoing.dropped) == (0, 0)


def test_each_packet_that_was_taken_passes_the_failpoint_with_its_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[tuple[str, object]] = []
    monkeypatch.setattr("runtime.failpoints.reach", lambda point, what: passed.append((point, what)))
    bench = Bench()
    bench.outgoing.put(Packet("a", b"", retain=True))
    bench.outgoing.put(Packet("b", b""))
    bench.sent(1)
    assert passed == [("test.published", "a")]


def test_a_packet_costs_the_same_in_a_long_queue_as_in_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MOST", 10**9)

    def work(n: int) -> Work:
        """Return what it takes to put 20 packets behind n others, and to send 20 of those."""
        bench = Bench()
        for index in range(n):
            bench.outgoing.put(Packet(Name("n"), str(index).encode(), retain=index % 2 == 0))

        def put_and_send(index: int) -> None:
            bench.outgoing.put(Packet(Name("n"), str(index).encode()))
            bench.sent(1)

        return work_of(partial(put_and_send, index) for index in range(n, n + 20))

    short, long = work(100), work(4000)
    assert long.is_about(short), f"{short} behind 100, {long} behind 4,000"


def test_the_first_packet_is_not_looked_for_among_those_that_have_left() -> None:
    # The first entry of a dict is found behind the places of all that have left it, and a list moves up all the others.
    # Both happen in C, where no step shows it.
    assert type(Bench().outgoing._waiting) is OrderedDict


class Model:
    """The same, slowly: a list that is searched."""

    def __init__(self) -> None:
        self.waiting: deque[Packet] = deque()

    def put(self, packet: Packet) -> None:
        for index, other in enumerate(self.waiting):
            if packet.retain and other.retain and other.topic == packet.topic:
                del self.waiting[index]
                break
            if other == packet:
                return
        if packet.retain or sum(not other.retain for other in self.waiting) < 3:
            self.waiting.append(packet)


packets = st.builds(Packet, st.sampled_from("ab"), st.sampled_from([b"", b"1", b"2"]), st.booleans())


@given(st.lists(st.one_of(packets, st.integers(1, 3)), max_size=40))
@settings(max_examples=200)
def test_it_does_what_a_list_that_is_searched_would_do(steps: list[Packet | int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outgoing, "MOST", 3)
        bench, model = Bench(), Model()
        for step in steps:
            if isinstance(step, Packet):
                bench.outgoing.put(step)
                model.put(step)
            else:
                left = [model.waiting.popleft() for _ in range(min(step, len(model.waiting)))]
                assert [(p.topic, p.payload) for p in bench.sent(step)] == [(p.topic, p.payload) for p in left]
            assert len(bench.outgoing) == len(model.waiting)


def test_two_queues_that_nothing_was_in_are_apart_from_each_other() -> None:
    one, other = Bench(), Bench()
    one.outgoing.put(live(0))
    assert (len(one.outgoing), len(other.outgoing)) == (1, 0)
    assert one.sent() == [live(0)]
    other.outgoing.put(live(1))
    other.outgoing.clear()
    one.outgoing.put(live(2))
    assert (one.sent(), other.sent()) == ([live(2)], [])
