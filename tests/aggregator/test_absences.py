from __future__ import annotations

import pytest

from aggregator.absences import ABSENT, STUCK, Absences
from aggregator.effects import Attempt, DeviceStatus
from aggregator.members import SILENT, Member, Members
from aggregator.round import OpenRound
from broker.messages import Version


def opened(*cohort: str, pending: str = "") -> OpenRound:
    attempt = Attempt(Version(1, 0), 1, "salt", 0, None, cohort)
    names = set(cohort)
    return OpenRound(attempt, 100.0, 160.0, 110.0, 10.0, set(pending) & names, set(), names)


def known(device: str = "a") -> tuple[Members, Member]:
    members = Members(7.0, 5.0)
    members.see(DeviceStatus(device, online=True, ready=True), 100.0)
    member = members.get(device)
    assert member is not None
    return members, member


def test_who_is_there_is_not_absent_and_who_is_not_known_is() -> None:
    members, _ = known("a")
    absences = Absences({"a": 2})
    absences.count(opened("a", "b", pending="ab"), members)
    assert absences.counts == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("name", "value"), [("ready", False), ("silent", SILENT), ("missed", STUCK), ("gone_at", 100.0)]
)
def test_who_cannot_take_part_or_is_silent_or_gone_throughout_is_absent(name: str, value: object) -> None:
    members, member = known()
    setattr(member, name, value)
    absences = Absences({})
    absences.count(opened("a", pending="a"), members)
    assert absences.counts == {"a": 1}


def test_who_left_while_the_round_was_open_or_has_its_verdict_was_there() -> None:
    members, member = known()
    member.gone_at = 100.1
    absences = Absences({})
    absences.count(opened("a", pending="a"), members)
    member.gone_at = 50.0
    absences.count(opened("a"), members)
    assert absences.counts == {"a": 0}


def test_nobody_waits_for_who_was_absent_so_many_times_running() -> None:
    absences = Absences({"a": ABSENT, "b": ABSENT - 1})
    assert absences.dropped() == {"a"}
    assert [absences.has_dropped(name) for name in "abc"] == [True, False, False]


def test_the_counts_of_an_attempt_are_not_written_to() -> None:
    stored = {"a": 1}
    Absences(stored).count(opened("a", pending="a"), Members(7.0, 5.0))
    assert stored == {"a": 1}
