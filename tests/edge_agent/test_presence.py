from __future__ import annotations

from broker.messages import Presence
from edge_agent.presence import FIRST_FEW, REPEAT_S, Announcer


def presence(doing: str = "") -> Presence:
    return Presence("d", 1, online=True, doing=doing)


def announced(announcer: Announcer, times: list[float]) -> list[float]:
    return [at for n, at in enumerate(times) if announcer.allows(presence(str(n)), at)]


def test_the_first_word_is_said_at_once() -> None:
    announcer = Announcer(30.0)
    assert announcer.allows(presence(), 0.0)


def test_what_was_said_is_said_again_only_after_a_long_while() -> None:
    announcer = Announcer(30.0)
    announcer.allows(presence(), 5.0)
    assert announcer.due_at(presence()) == 5.0 + REPEAT_S
    assert not announcer.allows(presence(), 4.9 + REPEAT_S)
    assert announcer.allows(presence(), 5.0 + REPEAT_S)
    assert not announcer.allows(presence(), 5.1 + REPEAT_S)


def test_a_first_few_changes_need_no_pause_and_then_one_an_interval() -> None:
    announcer = Announcer(30.0)
    said = announced(announcer, [float(second) for second in range(100)])
    assert said[:FIRST_FEW] == [0.0, 1.0, 2.0, 3.0]
    assert len(said) == FIRST_FEW + 3
    assert all(
        late - early >= 30.0 - FIRST_FEW for early, late in zip(said[FIRST_FEW:], said[FIRST_FEW + 1 :], strict=False)
    )


def test_a_quiet_hour_saves_up_no_more_than_a_first_few() -> None:
    announcer = Announcer(30.0)
    announced(announcer, [0.0, 0.1, 0.2, 0.3, 0.4])
    assert len(announced(announcer, [3600.0 + n / 10 for n in range(10)])) == FIRST_FEW


def test_a_change_that_must_wait_says_until_when() -> None:
    announcer = Announcer(30.0)
    announced(announcer, [0.0, 0.0, 0.0, 0.0])
    due_at = announcer.due_at(presence("new"))
    assert not announcer.allows(presence("new"), due_at - 0.1)
    assert announcer.allows(presence("new"), due_at)


def test_after_a_reconnect_it_is_said_again_within_the_window() -> None:
    announcer = Announcer(30.0)
    announcer.allows(presence(), 0.0)
    announcer.forget(100.0, 1.5)
    assert announcer.due_at(presence()) == 101.5
    assert not announcer.allows(presence(), 101.4)
    assert announcer.allows(presence(), 101.5)


def test_flapping_is_no_way_around_the_pause() -> None:
    announcer = Announcer(30.0)
    said = 0
    for n in range(100):
        announcer.forget(float(n), 0.0)
        said += announcer.allows(presence(), float(n))
    assert said <= FIRST_FEW + 4
