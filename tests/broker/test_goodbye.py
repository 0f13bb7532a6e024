from __future__ import annotations

from broker.goodbye import RENEW_S, Departure, Goodbye
from broker.transport import Packet

OLD, NEW = Packet("will", b"old"), Packet("will", b"new")


def test_a_connection_stays_until_its_will_is_not_the_present_one() -> None:
    goodbye = Goodbye(OLD)
    departure = Departure(goodbye, bare=False)
    assert (departure.will, departure.by(welcome=True)) == (OLD, None)
    goodbye.renew(NEW, 100.0)
    assert departure.by(welcome=True) == 100.0 + RENEW_S
    assert departure.renews
    later = Departure(goodbye, bare=False)
    assert (later.will, later.by(welcome=True)) == (NEW, None)


def test_a_connection_that_was_not_let_in_yet_is_only_left_for_good() -> None:
    goodbye = Goodbye(OLD)
    departure = Departure(goodbye, bare=False)
    goodbye.renew(None, 100.0)
    assert departure.by(welcome=False) is None
    goodbye.close(200.0)
    assert departure.by(welcome=False) == 200.0
    assert not departure.renews


def test_a_connection_that_asks_for_the_version_carries_no_will_and_is_left_at_once() -> None:
    departure = Departure(Goodbye(OLD), bare=True)
    assert (departure.will, departure.by(welcome=False)) == (None, None)
    by = departure.by(welcome=True)
    assert by is not None
    assert departure.may_leave(100.0, by, waiting=False, half_written=False)
    assert not departure.renews


def test_what_was_taken_is_waited_for_until_the_time_is_over() -> None:
    goodbye = Goodbye(OLD)
    departure = Departure(goodbye, bare=False)
    for leave in (lambda: goodbye.renew(NEW, 0.0), lambda: goodbye.close(RENEW_S)):
        leave()
        assert not departure.may_leave(0.0, RENEW_S, waiting=True, half_written=False)
        assert departure.may_leave(0.0, RENEW_S, waiting=False, half_written=False)
        assert departure.may_leave(RENEW_S, RENEW_S, waiting=True, half_written=False)


def test_only_who_closes_leaves_amid_a_packet() -> None:
    goodbye = Goodbye(OLD)
    departure = Departure(goodbye, bare=False)
    goodbye.renew(NEW, 0.0)
    assert not departure.may_leave(100.0, RENEW_S, waiting=False, half_written=True)
    goodbye.close(10.0)
    assert not departure.may_leave(9.0, 10.0, waiting=False, half_written=True)
    assert departure.may_leave(10.0, 10.0, waiting=False, half_written=True)


def test_the_first_close_counts() -> None:
    goodbye = Goodbye(None)
    goodbye.close(1.0)
    goodbye.close(100.0)
    assert Departure(goodbye, bare=False).by(welcome=True) == 1.0
