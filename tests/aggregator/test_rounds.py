from __future__ import annotations

import math
from typing import Any

import pytest

from aggregator.absences import ABSENT
from aggregator.attendance import Attendance
from aggregator.effects import Attempt, DeviceStatus, Setup
from aggregator.ledger import Ledger
from aggregator.members import Members
from aggregator.rounds import Ending, Rounds
from broker.messages import Verdict, Version
from models import draw
from models.job import RoundsSpec

V0, V1 = Version(1, 0), Version(1, 1)


class Field:
    """The attempts of one job, and the devices that they draw."""

    def __init__(self, rules: RoundsSpec, *devices: str, **stored: Any) -> None:
        setup = Setup(rules=rules, seed=7, **{"base": V0} | stored)
        self.members = Members(7.0, rules.grace_s, patient=rules.wait == "all")
        self.ledger = Ledger(setup)
        self.attendance = Attendance(self.members, self.ledger)
        self.rounds = Rounds(setup, self.members, self.ledger, self.attendance)
        for device in devices:
            self.see(device)

    def see(self, device: str, now: float = 0.0, **how: Any) -> None:
        seen = DeviceStatus(device, **{"online": True, "ready": True} | how)
        self.members.see(seen, now)
        self.rounds.welcome(seen, now)
        self.rounds.refresh(device, now)

    def count(self, *devices: str) -> None:
        for device in devices:
            self.ledger.note(Verdict(device, "j", self.ledger.base, "ab" * 4))
            self.rounds.refresh(device, 1.0)

    def begin(self, now: float = 0.0) -> Attempt:
        attempt = self.rounds.draw(now)
        self.rounds.begin(attempt, now)
        return attempt


def test_a_round_may_open_where_a_quorum_is_there() -> None:
    field = Field(RoundsSpec(quorum=2), "a")
    assert not field.rounds.may_open()
    field.see("b")
    assert field.rounds.may_open()


def test_those_that_come_to_nothing_are_present_but_make_no_quorum() -> None:
    field = Field(RoundsSpec(quorum=1, min_devices=2), "a")
    field.see("b", failed=V0)
    assert field.rounds.needed == 2
    assert field.rounds.may_open()
    field.see("a", failed=V0)
    assert not field.rounds.may_open()


def test_an_attempt_lasts_for_its_time_and_waits_for_whom_it_drew() -> None:
    field = Field(RoundsSpec(quorum=2, deadline_s=60.0), "a", "b")
    assert field.rounds.next_at() == math.inf
    attempt = field.begin(100.0)
    assert (attempt.number, attempt.cohort, attempt.seconds) == (1, ("a", "b"), 60.0)
    assert (field.rounds.last, field.rounds.opened.ends_at, field.rounds.next_at()) == (attempt, 160.0, 100.0)
    assert field.rounds.awaited == {"a", "b"}
    field.rounds.check()


def test_an_attempt_on_another_base_does_not_begin() -> None:
    field = Field(RoundsSpec())
    with pytest.raises(AssertionError, match="another base"):
        field.rounds.begin(Attempt(V1, 1, "salt", 0, None, ("a",)), 0.0)


def test_after_a_start_its_members_have_a_grace_to_come_back() -> None:
    attempt = Attempt(V0, 3, draw.salt(7, 0), draw.MAX_TICKET, None, ("a", "b"), 60.0)
    field = Field(RoundsSpec(grace_s=5.0))
    field.rounds.resume(attempt, 100.0)
    assert field.rounds.awaited == {"a", "b"}
    changed, _ = field.members.pass_time(105.0)
    for device in changed:
        field.rounds.refresh(device, 105.0)
    assert field.rounds.awaited == set()
    assert field.rounds.opened.pending == {"a", "b"}


def test_who_comes_while_everybody_is_drawn_joins_and_where_all_are_waited_for_nobody_does() -> None:
    field = Field(RoundsSpec(quorum=1), "a")
    field.begin()
    field.see("b")
    field.see("remembered", live=False)
    field.see("unready", ready=False)
    assert field.rounds.opened.attempt.cohort == ("a", "b")
    fixed = Field(RoundsSpec(quorum=1, wait="all"), "a")
    fixed.begin()
    fixed.see("b")
    assert fixed.rounds.opened.attempt.cohort == ("a",)


def test_a_round_ends_with_its_target_with_nobody_left_or_at_its_deadline() -> None:
    field = Field(RoundsSpec(quorum=1, target=2, over_selection=2.0, deadline_s=60.0), "a", "b", "c")
    field.begin()
    assert field.rounds.ending(59.9, stands_still=False) is None
    field.count("a")
    assert field.rounds.ending(60.0, stands_still=True) is None
    at_the_deadline = field.rounds.ending(60.0, stands_still=False)
    assert at_the_deadline == Ending("committed", "a quorum at the deadline", ["b", "c"])
    field.count("b")
    assert field.rounds.ending(1.0, stands_still=False) == Ending("committed", "its target of 2 updates is reached")


def test_a_round_without_a_quorum_is_abandoned_and_says_how_many_it_had() -> None:
    field = Field(RoundsSpec(quorum=2, deadline_s=60.0), "a", "b")
    field.begin()
    field.count("a")
    ending = field.rounds.ending(60.0, stands_still=False)
    assert ending == Ending("abandoned", "1 updates at the deadline where a quorum of 2 is needed", ["b"])
    assert ending is not None
    field.rounds.miss(ending.missed, 60.0)
    member = field.members.get("b")
    assert member is not None
    assert member.missed == 1
    assert field.rounds.count_absences() == [], "nobody is dropped where others may come"
    assert field.rounds.close().cohort == ("a", "b")
    assert field.rounds.now is None


def test_where_all_are_waited_for_who_is_absent_for_long_is_dropped() -> None:
    rules = RoundsSpec(quorum=1, wait="all", deadline_s=60.0)
    field = Field(rules, "a", "b")
    field.begin()
    field.see("b", online=False)
    for _ in range(ABSENT):
        before = field.rounds.absences.dropped()
        dropped = field.rounds.count_absences()
    assert (before, dropped) == (set(), ["b"])
    field.rounds.close()
    again = field.rounds.draw(100.0)
    assert (again.number, again.cohort) == (2, ("a",))


def test_more_are_expected_while_the_target_is_out_of_reach_of_those_that_are_judged() -> None:
    field = Field(RoundsSpec(quorum=1, target=2, over_selection=2.0), "a", "b", "c")
    assert not field.rounds.expects_more(0)
    field.begin()
    assert [field.rounds.expects_more(n) for n in (0, 1, 2)] == [True, True, False]
    field.count("a")
    assert [field.rounds.expects_more(n) for n in (0, 1)] == [True, False]


def test_a_base_that_is_left_takes_its_attempts_with_it() -> None:
    field = Field(RoundsSpec(quorum=1), "a")
    field.begin()
    field.rounds.close()
    field.ledger.leave(V1, field.rounds.last)
    field.rounds.leave_base()
    assert field.rounds.last is None
    assert field.rounds.draw(1.0).number == 1
    assert Field(RoundsSpec(), base=V1, last=Attempt(V0, 4, "salt", 0, None, ())).rounds.last is None
