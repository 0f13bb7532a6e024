from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterator

from broker.mailbox import ACKS_AT_ONCE, COMPANY_S, Change, ClientLimits, Mailbox, Receipt, Waker
from broker.transport import Denied, Offline, Online, Packet


def make_online(
    clock: Callable[[], float] = time.monotonic, limits: ClientLimits | None = None, max_packet_bytes: int | None = None
) -> Mailbox:
    box = Mailbox(limits or ClientLimits(), clock=clock)
    box.link_up(max_packet_bytes)
    box.go_online()
    assert box.take(0.0) == Online(max_packet_bytes)
    return box


def close(box: Mailbox) -> None:
    box.waker.close()


def test_filters_are_remembered_offline_and_asked_for_at_the_link() -> None:
    box = Mailbox(ClientLimits())
    box.subscribe(("a", "b", "a"))
    box.unsubscribe(("a", "unknown"))
    assert not box.changes
    box.link_up(None)
    assert box.next_changes() == (True, ["b"])
    assert box.next_changes() == (True, [])
    close(box)


def test_changes_on_a_link_keep_their_order() -> None:
    box = make_online()
    box.subscribe(("a",))
    box.unsubscribe(("a",))
    box.subscribe(("a", "b"))
    assert list(box.changes) == [Change(True, "a"), Change(False, "a"), Change(True, "a"), Change(True, "b")]
    assert [box.next_changes() for _ in range(4)] == [(True, ["a"]), (False, ["a"]), (True, ["a", "b"]), (True, [])]
    close(box)


def test_filters_to_unsubscribe_from_wait_for_company_and_not_for_long() -> None:
    now = [10.0]
    box = make_online(lambda: now[0])
    names = [f"chunk/{n}" for n in range(12)]
    box.subscribe(tuple(names))
    while box.next_changes()[1]:
        pass
    for name in names[:7]:
        box.unsubscribe((name,))
        assert box.next_changes() == (True, [])
    assert box.changes_at == 10.0 + COMPANY_S
    box.unsubscribe((names[7],))
    assert box.next_changes() == (False, names[:8])
    assert (box.next_changes(), box.changes_at) == ((True, []), None)
    now[0] = 20.0
    box.unsubscribe((names[8],))
    assert box.next_changes() == (True, [])
    now[0] = 20.0 + COMPANY_S
    assert box.next_changes() == (False, [names[8]])
    close(box)


def test_the_owner_adds_no_change_while_the_network_thread_walks_through_them() -> None:
    """A walk through a deque that grows is an error, and would end that thread."""
    box = make_online()
    held: list[bool] = []

    class Watched(deque[Change]):
        def __iter__(self) -> Iterator[Change]:
            held.append(box._lock.locked())
            return super().__iter__()

    box.subscribe(("a", "b"))
    box.changes = Watched(box.changes)
    while box.next_changes()[1]:
        pass
    box.unsubscribe(("a",))
    assert box.next_changes() == (True, [])
    assert held
    assert all(held)
    close(box)


def test_what_is_said_next_finds_the_filters_unsubscribed_from() -> None:
    box = make_online(lambda: 10.0)
    box.subscribe(("a", "b", "c"))
    assert box.next_changes() == (True, ["a", "b", "c"])
    box.unsubscribe(("a",))
    assert box.next_changes() == (True, [])
    box.post(Packet("t", b"said"))
    assert box.next_changes() == (False, ["a"])
    box.outbound.clear()
    box.unsubscribe(("b",))
    box.subscribe(("d",))
    assert [box.next_changes() for _ in range(2)] == [(False, ["b"]), (True, ["d"])]
    box.unsubscribe(("c",))
    box.go_offline()
    box.link_up(None)
    assert box.changes_at is None
    assert box.next_changes() == (True, ["d"])
    close(box)


def test_what_waits_for_company_wakes_nobody_once_its_link_is_lost() -> None:
    """The next connection would look for it without a pause until its broker lets it in."""
    box = make_online(lambda: 10.0)
    box.subscribe(("a", "b"))
    assert box.next_changes() == (True, ["a", "b"])
    box.unsubscribe(("a",))
    box.go_offline()
    assert (box.changes_at, list(box.changes)) == (None, [])
    box.unsubscribe(("b",))
    assert box.changes_at is None
    close(box)


def test_changes_of_a_lost_link_are_not_made_twice_on_the_next() -> None:
    box = make_online()
    box.subscribe(("a",))
    box.go_offline()
    box.link_up(None)
    assert list(box.changes) == [Change(True, "a")]
    close(box)


def test_room_counts_packets_until_their_release_and_not_only_the_queue() -> None:
    box = make_online(limits=ClientLimits(outbound_packets=2))
    packet = Packet("a", b"1")
    assert [box.post(packet) for _ in range(3)] == [True, True, False]
    box.outbound.clear()
    assert box.room == 0
    box.release(packet)
    assert box.room == 1
    close(box)


def test_offline_forgets_what_was_to_be_sent_and_acknowledged() -> None:
    box = make_online()
    box.post(Packet("a", b"1"))
    assert box.arrive(Packet("b", b"2"), Receipt(object(), 1))
    assert box.take(0.0) == Packet("b", b"2")
    box.go_offline()
    assert (len(box.outbound), len(box.acks), box.n_held, box.room) == (0, 0, 0, 0)
    close(box)


def test_what_arrives_before_the_owner_is_told_comes_after_and_is_acknowledged_at_once() -> None:
    box = Mailbox(ClientLimits())
    box.link_up(None)
    assert box.arrive(Packet("a", b"early"), Receipt(object(), 1)) is False
    assert box.take(0.0) is None
    box.go_online()
    assert box.arrive(Packet("a", b"late"), Receipt(object(), 2)) is True
    assert [box.take(0.0) for _ in range(3)] == [Online(None), Packet("a", b"early"), Packet("a", b"late")]
    assert [receipt.mid for receipt in box.acks] == [2]
    close(box)


def test_what_arrived_on_a_connection_that_the_owner_never_heard_of_is_forgotten() -> None:
    box = Mailbox(ClientLimits(inbox_packets=1))
    for _ in range(3):
        box.link_up(None)
        box.arrive(Packet("a", b"early"), None)
        box.go_offline()
    box.link_up(None)
    box.go_online()
    assert [box.take(0.0) for _ in range(2)] == [Online(None), None]
    assert box.arrive(Packet("a", b"there is room"), None)
    close(box)


def test_whoever_is_held_up_reads_on_once_half_of_it_is_taken() -> None:
    box = Mailbox(ClientLimits(unread_bytes=100))
    box.link_up(None)
    box.go_online()
    box.take(0.0)
    for _ in range(4):
        box.arrive(Packet("a", bytes(30)), None)
    box.waker.clear()
    assert not box.wants_more()
    for heard in (False, False, True):  # 90, 60, 30 bytes are left
        box.take(0.0)
        assert bool(select.select([box.waker], [], [], 0)[0]) is heard
    assert box.wants_more()
    close(box)


def test_nobody_is_held_up_whose_owner_takes_nothing() -> None:
    box = Mailbox(ClientLimits(unread_bytes=10))
    box.link_up(None)
    box.arrive(Packet("a", bytes(50)), None)
    assert box.wants_more()
    box.go_online()
    assert not box.wants_more()
    box.shut()
    assert box.wants_more()
    close(box)


def test_the_same_complaint_is_made_once_until_things_get_better() -> None:
    box = Mailbox(ClientLimits())
    for reason in ("rain", "rain", "snow", "snow"):
        box.complain(reason)
    box.go_online()
    box.complain("snow")
    assert [box.take(0.0) for _ in range(5)] == [Offline("rain"), Offline("snow"), Online(None), Offline("snow"), None]
    close(box)


def test_an_oversize_packet_is_answered_and_takes_no_room() -> None:
    box = make_online(max_packet_bytes=100)
    assert box.post(Packet("a", bytes(200)))
    assert isinstance(box.take(0.0), Denied)
    assert not box.outbound
    close(box)


def test_a_wake_is_kept_until_the_next_take() -> None:
    box = make_online()
    box.wake()
    box.tell(Online(None))
    assert box.take(None) is None
    assert box.take(None) == Online(None)
    close(box)


def test_a_waker_woken_often_is_readable_once() -> None:
    waker = Waker()
    for _ in range(100_000):
        waker.wake()
    assert select.select([waker], [], [], 0)[0]
    waker.clear()
    assert not select.select([waker], [], [], 0)[0]
    waker.wake()
    waker.wait(120.0)
    waker.close()
    waker.wake()
    waker.clear()


def is_woken(box: Mailbox) -> bool:
    """Return whether the network thread is woken, and let it go on."""
    woken = bool(select.select([box.waker], [], [], 0.0)[0])
    box.waker.clear()
    return woken


def take_acknowledged(box: Mailbox, n: int, link: object) -> list[bool]:
    """Take so many packets that came over a link; return for each whether that woke the network thread."""
    for mid in range(1, n + 1):
        assert box.arrive(Packet("t", b""), Receipt(link, mid))
    box.waker.clear()
    woken = []
    for _ in range(n):
        assert box.take(0.0) == Packet("t", b"")
        woken.append(is_woken(box))
    return woken


def test_an_acknowledgement_that_nobody_looks_for_wakes_and_of_those_that_wait_the_eighth_does() -> None:
    box, link = make_online(), object()
    assert take_acknowledged(box, 3, link) == [True] * 3
    box.acks.clear()
    box.acks_wait = True
    assert take_acknowledged(box, ACKS_AT_ONCE + 1, link) == [False] * (ACKS_AT_ONCE - 1) + [True] * 2
    assert [receipt.mid for receipt in box.acks] == list(range(1, ACKS_AT_ONCE + 2))
    close(box)


def test_of_an_old_connection_no_acknowledgement_is_left_nor_waited_for() -> None:
    box, old = make_online(), object()
    box.acks_wait = True
    assert take_acknowledged(box, 1, old) == [False]
    box.go_offline()
    assert (list(box.acks), box.acks_wait) == ([], False)
    close(box)
