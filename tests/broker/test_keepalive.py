from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.keepalive import Keepalive


def test_a_broker_may_take_as_long_to_answer_as_the_operator_says() -> None:
    alive = Keepalive(60.0, 10.0, 100.0)
    assert alive.due_at == 110.0
    assert alive.due(106.0) is None  # busy, not dead and not old
    assert alive.due(110.0) == "unanswered"


def test_bytes_that_are_no_answer_do_not_prolong_the_wait_for_one() -> None:
    alive = Keepalive(60.0, 10.0, 0.0)
    alive.heard(9.9)
    assert alive.due(10.0) == "unanswered"


def test_a_quiet_connection_is_pinged_once_an_interval() -> None:
    alive = Keepalive(60.0, 10.0, 0.0)
    alive.answered(None, 1.0)
    assert (alive.due_at, alive.due(60.9), alive.due(61.0), alive.due(61.0)) == (61.0, None, "ping", None)
    alive.heard(61.1)
    assert alive.due_at == 121.0


def test_silence_of_one_and_a_half_intervals_is_the_end() -> None:
    alive = Keepalive(60.0, 10.0, 0.0)
    alive.answered(None, 0.0)
    assert alive.due(60.0) == "ping"
    assert alive.due(89.9) is None
    assert alive.due(90.0) == "silent"
    assert alive.silence_s(90.0) == 90.0


def test_the_brokers_own_interval_holds_unless_it_never_looks() -> None:
    for stated, holds in ((5, 5), (0, 60), (None, 60)):
        alive = Keepalive(60.0, 10.0, 0.0)
        alive.answered(stated, 0.0)
        assert alive.interval_s == holds


@given(
    st.floats(1.0, 100.0),
    st.floats(0.1, 100.0),
    st.lists(st.tuples(st.sampled_from(["heard", "answered", "due"]), st.floats(0.0, 10.0)), max_size=30),
)
def test_nothing_is_due_before_it_says(interval_s: float, answer_s: float, steps: list[tuple[str, float]]) -> None:
    now = 1000.0
    alive = Keepalive(interval_s, answer_s, now)
    for action, wait_s in steps:
        if now + wait_s < alive.due_at:
            assert alive.due(now + wait_s) is None
        now += wait_s
        match action:
            case "heard":
                alive.heard(now)
            case "answered":
                alive.answered(None, now)
            case _:
                alive.due(now)
