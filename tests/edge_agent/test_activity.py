from __future__ import annotations

from edge_agent.activity import FOR_A_LEADER, FOR_A_ROUND, IDLE, MOST_WHY, Activity, first_of, put_off


def test_who_has_no_job_is_idle() -> None:
    assert first_of([]) is IDLE


def test_that_is_told_of_which_there_is_most_to_say() -> None:
    all_ = [
        Activity("training", "e", 0.5),
        Activity("reading", "f"),
        Activity("sending", "c"),
        Activity("fetching", "d"),
        put_off("b", "its file is damaged"),
        Activity("waiting", "a", why=FOR_A_ROUND),
        IDLE,
    ]
    while all_:
        assert first_of(reversed(all_)) == all_.pop(0)


def test_of_several_that_wait_for_others_the_first_is_told() -> None:
    both = [Activity("waiting", "b", why=FOR_A_LEADER), Activity("waiting", "a", why=FOR_A_ROUND)]
    assert first_of(both).job == "a"


def test_a_long_reason_is_cut() -> None:
    assert put_off("j", "x" * MOST_WHY).why == "x" * MOST_WHY
    assert put_off("j", "x" * 500).why == "x" * (MOST_WHY - 1) + "…"
