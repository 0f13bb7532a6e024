from __future__ import annotations

import math

from broker.messages import Int8, Presence, Version
from edge_agent.presence import FIRST_FEW, Announcer


def presence(**changes: object) -> Presence:
    return Presence("d", 1, online=True, **changes)  # type: ignore[arg-type]  # the tests know the fields


def said(announcer: Announcer, until: float, *changing: Presence) -> int:
    """Count what is announced up to then, looked at every tenth of a second."""
    count = 0
    for tick in range(int(until * 10)):
        one = changing[tick % len(changing)]
        count += announcer.allows(one, tick / 10)
    return count


def test_what_has_not_changed_is_never_said_again() -> None:
    announcer = Announcer(30.0)
    assert announcer.allows(presence(), 0.0)
    assert not announcer.allows(presence(), 90_000.0)
    assert announcer.due_at(presence()) == math.inf


def test_a_change_is_said_at_once() -> None:
    announcer = Announcer(30.0)
    announcer.allows(presence(), 0.0)
    assert announcer.allows(presence(ready={"j": 1}), 0.1)


def test_changes_are_no_flood() -> None:
    one, other = presence(), presence(ready={"j": 1})
    assert said(Announcer(30.0), 300.0, one, other) <= FIRST_FEW + 300 / 30 + 1


def test_the_first_word_on_a_job_is_said_at_once() -> None:
    announcer = Announcer(30.0)
    for n in range(20):
        jobs = {f"j{i}": 1 for i in range(n + 1)}
        assert announcer.allows(presence(ready=jobs), n / 10)
    for n in range(20):
        assert announcer.allows(presence(ready=jobs, unready={f"k{n}": "its file is damaged"}), 2.0 + n / 10)
    assert not announcer.allows(presence(ready=jobs), 4.0), "not the second one"


def test_what_only_goes_along_is_no_change() -> None:
    announcer = Announcer(30.0)
    announcer.allows(presence(), 0.0)
    assert not announcer.allows(presence(done={"j": Version(1, 4)}, term=9), 60.0)


def test_what_has_come_of_int8_is_said_once_and_again_when_it_is_another_way() -> None:
    announcer = Announcer(30.0)
    announcer.allows(presence(), 0.0)
    assert announcer.allows(presence(int8={"j": Int8(Version(1, 3), 0.002, 2.0, "")}), 1.0)
    assert not announcer.allows(presence(int8={"j": Int8(Version(1, 4), 0.004, 1.9, "")}), 60.0), "it goes along"
    assert announcer.allows(presence(int8={"j": Int8(Version(1, 5), 0.0, 0.0, "too few rows")}), 120.0)


def test_what_may_be_lost_is_said_again_after_the_wait() -> None:
    announcer = Announcer(30.0)
    announcer.allows(presence(), 0.0)
    announcer.forget(10.0, 2.0)
    assert announcer.due_at(presence()) == 12.0
    assert not announcer.allows(presence(), 11.9)
    assert announcer.allows(presence(), 12.0)


def test_the_very_presence_that_was_told_is_said_again_when_it_is_asked_for() -> None:
    announcer, one = Announcer(30.0), presence()
    assert announcer.allows(one, 0.0)
    assert announcer.due_at(one) == math.inf
    announcer.forget(10.0, 2.0)
    assert announcer.due_at(one) == 12.0
    assert announcer.allows(one, 12.0)
    same = presence(done={"j": Version(1, 4)})
    assert [announcer.due_at(each) for each in (same, one, same)] == [math.inf] * 3
    assert announcer.due_at(presence(unready={"j": "its data are gone"})) < math.inf
