"""The devices of a job as `Members` keeps them: who is asked for a sign of life, and who is passed over."""

from __future__ import annotations

import itertools
import math

from aggregator.effects import DeviceStatus
from aggregator.members import FIRST_ASK_S, FIRST_PAUSE_S, LAST_ASK_S, LAST_PAUSE_S, SILENT, Members

HINT_S, GRACE_S = 7.0, 5.0


def seen(device: str, *, online: bool = True, live: bool = True) -> DeviceStatus:
    return DeviceStatus(device, online=online, ready=True, live=live)


def of(device: str, *, live: bool = True, patient: bool = False) -> Members:
    """Return members that have seen one device, at 0."""
    members = Members(HINT_S, GRACE_S, patient=patient)
    members.see(seen(device, live=live), 0.0)
    return members


def questions(members: Members, until: float) -> list[float]:
    """Let time pass, and return when somebody was asked for a sign of life."""
    asked = []
    while (at := members.next_at()) <= until:
        asked += [at] * len(members.pass_time(at)[1])
    return asked


def miss(members: Members, device: str, times: int, now: float) -> None:
    """Have so many rounds wait for it in vain, though it says something in each."""
    for _ in range(times):
        members.see(seen(device), now)
        members.miss(device, now, since=now - 1.0)


def is_present(members: Members, device: str) -> bool:
    member = members.get(device)
    return member is not None and member.present


# Asked for a sign of life.


def test_whose_hint_has_passed_is_asked_with_pauses_that_double_and_in_the_end_no_more() -> None:
    asked = questions(of("ghost", live=False), 1e7)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert asked[0] == HINT_S
    assert pauses[0] == FIRST_ASK_S
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] <= LAST_ASK_S < 2 * pauses[-1]


def test_who_was_asked_and_speaks_is_asked_no_more() -> None:
    members = of("quiet", live=False)
    assert questions(members, HINT_S) == [HINT_S]
    members.see(seen("quiet"), HINT_S + 1.0)
    assert questions(members, 1e7) == []


def test_who_was_asked_and_offers_an_update_is_asked_no_more() -> None:
    members = of("quiet", live=False)
    assert questions(members, HINT_S) == [HINT_S]
    members.hear("quiet", HINT_S + 1.0)
    assert questions(members, 1e7) == []


def test_a_hint_of_one_that_offers_an_update_is_a_hint_no_more() -> None:
    members = of("a", live=False)
    members.hear("a", 1.0)
    assert questions(members, 1e7) == []
    assert is_present(members, "a")


def test_who_is_silent_through_rounds_is_asked_once_they_are_two_and_its_pauses_do_not_begin_anew() -> None:
    members = of("ghost")
    asked = []
    for n in range(1, 6):
        members.miss("ghost", 100.0 * n, since=100.0 * n - 60.0)
        asked += questions(members, 100.0 * n)
    assert asked == [200.0, 260.0, 380.0]
    assert SILENT == 2


# Passed over.


def test_who_speaks_and_offers_nothing_through_two_rounds_is_passed_over_for_a_while() -> None:
    members = of("mute")
    miss(members, "mute", SILENT - 1, 100.0)
    assert is_present(members, "mute")
    miss(members, "mute", 1, 200.0)
    assert not is_present(members, "mute")
    assert members.is_given_up("mute", 200.0)
    members.see(seen("mute"), 201.0)
    assert not is_present(members, "mute"), "to speak is not to deliver"
    assert members.next_at() == 200.0 + FIRST_PAUSE_S
    assert members.pass_time(200.0 + FIRST_PAUSE_S) == (["mute"], {})
    assert is_present(members, "mute")
    assert not members.is_given_up("mute", 200.0 + FIRST_PAUSE_S)


def test_who_is_lost_and_comes_back_while_it_is_passed_over_is_passed_over_to_the_end() -> None:
    members = of("mute")
    miss(members, "mute", SILENT, 200.0)
    members.doubt(201.0)
    members.pass_time(201.0 + HINT_S)
    members.see(seen("mute"), 202.0 + HINT_S)
    assert not is_present(members, "mute")
    members.pass_time(200.0 + FIRST_PAUSE_S)
    assert is_present(members, "mute")


def test_who_is_passed_over_again_waits_for_twice_as_long_and_never_for_longer_than_the_last_pause() -> None:
    members, now, pauses = of("mute"), 0.0, []
    miss(members, "mute", SILENT - 1, now)
    for _ in range(10):
        miss(members, "mute", 1, now)
        pauses.append(members.next_at() - now)
        now = members.next_at()
        members.pass_time(now)
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-2:] == [LAST_PAUSE_S, LAST_PAUSE_S]


def test_an_offer_ends_being_passed_over_and_all_that_was_counted() -> None:
    members = of("mute")
    miss(members, "mute", SILENT + 1, 100.0)
    members.hear("mute", 101.0)
    assert is_present(members, "mute")
    miss(members, "mute", SILENT - 1, 200.0)
    assert is_present(members, "mute")
    miss(members, "mute", 1, 300.0)
    assert members.next_at() == 300.0 + FIRST_PAUSE_S


def test_who_is_silent_is_asked_first_and_passed_over_only_after_as_many_rounds_again() -> None:
    members = of("ghost")
    for n in range(1, 2 * SILENT):
        members.miss("ghost", 100.0 * n, since=100.0 * n - 60.0)
        assert members.is_given_up("ghost", 100.0 * n) is (n >= SILENT)
    member = members.get("ghost")
    assert member is not None
    assert (member.silent, member.passed_over) == (2 * SILENT - 1, False)
    members.miss("ghost", 1000.0, since=940.0)
    assert member.passed_over


def test_where_all_are_waited_for_nobody_is_passed_over() -> None:
    members = of("slow", patient=True)
    miss(members, "slow", 10, 100.0)
    assert is_present(members, "slow")
    assert members.next_at() == math.inf


# Hints.


def test_a_new_connection_makes_a_hint_of_who_was_there() -> None:
    members = of("a")
    members.doubt(100.0)
    assert questions(members, 100.0 + HINT_S) == [100.0 + HINT_S]
    assert not is_present(members, "a")


def test_a_new_connection_does_not_prolong_a_hint() -> None:
    members = of("ghost", live=False)
    members.doubt(HINT_S - 1.0)
    members.pass_time(HINT_S)
    assert not is_present(members, "ghost")


def test_what_the_broker_remembers_again_does_not_prolong_a_hint_and_makes_none_of_who_has_spoken() -> None:
    members = of("ghost", live=False)
    members.see(seen("a"), 0.0)
    for device in ("ghost", "a"):
        members.see(seen(device, live=False), HINT_S - 1.0)
    questions(members, HINT_S)
    assert (is_present(members, "ghost"), is_present(members, "a")) == (False, True)
    questions(members, 1e3)
    assert is_present(members, "a")


def test_a_last_will_that_is_heard_again_does_not_begin_the_grace_anew() -> None:
    members = of("a")
    members.see(seen("a", online=False), 10.0)
    members.see(seen("a", online=False), 10.0 + GRACE_S - 1.0)
    assert not members.is_given_up("a", 10.0 + GRACE_S - 1.0)
    assert members.is_given_up("a", 10.0 + GRACE_S)
