"""Sessions: how they end, how many there are, and how often a password may be tried."""

from __future__ import annotations

from fleet.web.sessions import IDLE_S, LONGEST_S, MOST, MOST_OF_ONE, Sessions
from fleet.web.tries import FREE, PLACES, Tries
from fleet.web.tries import LONGEST_S as LONGEST_WAIT_S
from tests.clocks import Clock


def test_a_session_is_found_by_its_token_alone_and_the_token_is_not_kept() -> None:
    sessions = Sessions()
    token, session = sessions.open("anna", "hash")
    assert len(token) == 43  # 256 bits in base64
    assert sessions.find(token) is session
    assert sessions.find(token[:-1] + "x") is None
    assert sessions.find("") is None
    assert token not in repr(vars(sessions))


def test_a_session_ends_when_nobody_asks() -> None:
    clock = Clock(1000.0)
    sessions = Sessions(clock)
    token, session = sessions.open("anna", "hash")
    clock.now += IDLE_S - 1
    assert sessions.find(token) is session
    clock.now += IDLE_S
    assert not sessions.is_open(session)
    assert sessions.find(token) is None


def test_a_session_ends_however_often_somebody_asks() -> None:
    clock = Clock(1000.0)
    sessions = Sessions(clock)
    token, _ = sessions.open("anna", "hash")
    n = 0
    while sessions.find(token) is not None:
        clock.now += IDLE_S / 2
        n += 1
    assert n == LONGEST_S / (IDLE_S / 2)


def test_a_session_that_was_closed_is_over() -> None:
    sessions = Sessions()
    token, session = sessions.open("anna", "hash")
    sessions.close(session)
    assert sessions.find(token) is None
    assert not sessions.is_open(session)


def test_sessions_are_bounded_of_one_and_of_all() -> None:
    sessions = Sessions()
    mine = [sessions.open("anna", "hash")[0] for _ in range(MOST_OF_ONE + 2)]
    assert [sessions.find(token) is not None for token in mine] == [False] * 2 + [True] * MOST_OF_ONE
    for n in range(2 * MOST):
        sessions.open(f"user{n}", "hash")
    assert len(sessions) == MOST


def test_an_address_waits_longer_and_longer_whatever_name_it_tries() -> None:
    clock, waits = Clock(1000.0), []
    tries = Tries(clock)
    for n in range(FREE + 12):
        waits.append(tries.wait_s("192.0.2.1", f"name{n}"))
        clock.now += waits[-1]
        tries.begin("192.0.2.1", f"name{n}")
    assert waits[:FREE] == [0] * FREE
    assert waits[FREE : FREE + 3] == [1, 2, 4]
    assert waits[-1] == LONGEST_WAIT_S["address"]
    assert tries.wait_s("192.0.2.2", "bo") == 0


def test_a_name_is_not_tried_from_many_addresses_at_once() -> None:
    tries = Tries(Clock(1000.0))
    for n in range(FREE + 1):
        tries.begin(f"192.0.2.{n}", "anna")
    assert 0 < tries.wait_s("192.0.2.200", "anna") <= LONGEST_WAIT_S["name"]


def test_an_owner_of_a_whole_network_of_ipv6_is_one_address() -> None:
    tries = Tries(Clock(1000.0))
    for n in range(FREE + 1):
        tries.begin(f"2001:db8::{n:x}", f"name{n}")
    assert tries.wait_s("2001:db8::ffff", "other") > 0
    assert tries.wait_s("2001:db8:0:1::1", "other") == 0


def test_who_tries_a_name_from_elsewhere_does_not_lock_its_owner_out() -> None:
    tries = Tries(Clock(1000.0))
    tries.begin("192.0.2.1", "anna")
    tries.succeed("192.0.2.1", "anna")
    for n in range(50):
        tries.begin(f"198.51.100.{n}", "anna")
    assert tries.wait_s("192.0.2.1", "anna") == 0
    assert tries.wait_s("192.0.2.9", "anna") > 0


def test_a_scraper_with_an_old_password_does_not_lock_out_who_has_come_in_from_its_address() -> None:
    tries = Tries(Clock(1000.0))
    for name in ("prom", "anna"):
        tries.begin("192.0.2.1", name)
        tries.succeed("192.0.2.1", name)
    for _ in range(FREE + 3):
        tries.begin("192.0.2.1", "prom")
    assert tries.wait_s("192.0.2.1", "prom") > 0
    assert tries.wait_s("192.0.2.1", "anna") == 0
    for n in range(FREE):
        tries.begin("192.0.2.1", f"name{n}")
    assert tries.wait_s("192.0.2.1", "bo") > 0
    assert tries.wait_s("192.0.2.1", "anna") == 0, "who guesses names there does not either"
    for _ in range(FREE):
        tries.begin("192.0.2.1", "anna")
    assert tries.wait_s("192.0.2.1", "anna") > 0


def test_a_right_password_between_wrong_ones_does_not_free_an_address() -> None:
    tries = Tries(Clock(1000.0))
    for n in range(FREE + 1):
        tries.begin("192.0.2.1", f"victim{n}")
    tries.begin("192.0.2.1", "mallory")
    tries.succeed("192.0.2.1", "mallory")
    assert tries.wait_s("192.0.2.1", "victim9") > 0


def test_a_million_addresses_take_no_memory() -> None:
    tries = Tries(Clock(1000.0))
    for n in range(20_000):
        tries.begin(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", f"name{n}")
    assert len(tries._wrong) <= 2 * PLACES
