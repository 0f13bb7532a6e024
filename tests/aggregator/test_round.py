from __future__ import annotations

import pytest

from aggregator.effects import Attempt
from aggregator.round import OpenRound
from broker.messages import Version
from models import draw

V0 = Version(1, 0)


def opened(*cohort: str, threshold: int = draw.MAX_TICKET) -> OpenRound:
    """A round that began at 100 s, lasts for 60 s and is announced again after 10 s."""
    attempt = Attempt(V0, 1, draw.salt(7, 0), threshold, None, cohort)
    return OpenRound(attempt, 100.0, 160.0, 110.0, 10.0, set(cohort), set(cohort), set(cohort))


def test_who_joins_is_in_the_cohort_from_then_on_and_is_waited_for_once_it_is_noted() -> None:
    round_ = opened("a")
    assert round_.has_drawn("b")
    round_.join("b")
    assert not round_.has_drawn("b"), "it is a member already"
    assert round_.attempt.cohort == ("a", "b")
    assert round_.pending == {"a", "b"}
    round_.note("b", settled=False, given_up=False)
    assert round_.awaited == {"a", "b"}
    round_.check()


def test_whom_the_lottery_did_not_draw_does_not_join() -> None:
    assert not opened("a", threshold=0).has_drawn("b")


def test_who_is_given_up_is_not_waited_for_and_counts_all_the_same_when_it_comes_back() -> None:
    round_ = opened("a", "b")
    round_.note("a", settled=False, given_up=True)
    assert (round_.pending, round_.awaited) == ({"a", "b"}, {"b"})
    round_.note("a", settled=False, given_up=False)
    assert round_.awaited == {"a", "b"}


def test_who_is_settled_is_not_waited_for_any_more() -> None:
    round_ = opened("a", "b")
    round_.note("a", settled=True, given_up=False)
    assert round_.pending == round_.awaited == {"b"}


def test_it_is_announced_ever_less_often_and_by_the_time_that_is_left() -> None:
    round_ = opened("a")
    assert round_.announce(100.0, first=True).seconds_left == 60.0
    assert (round_.beats_at, round_.beat_s) == (110.0, 10.0)
    assert round_.announce(105.0).seconds_left == 55.0, "out of turn, as over a new connection"
    assert (round_.beats_at, round_.beat_s) == (115.0, 10.0)
    round_.announce(115.0)
    assert (round_.beats_at, round_.beat_s) == (135.0, 20.0)
    assert round_.announce(1000.0).seconds_left == 0.0


@pytest.mark.parametrize(("away_s", "until", "ends_at"), [(30.0, 140.0, 190.0), (5.0, 400.0, 400.0)])
def test_an_outage_puts_the_deadline_off_by_itself_or_until_devices_can_be_heard(
    away_s: float, until: float, ends_at: float
) -> None:
    round_ = opened("a")
    round_.make_up_for(away_s, until)
    assert round_.ends_at == ends_at


@pytest.mark.parametrize("name", ["awaited", "pending", "members"])
def test_a_stranger_in_its_books_is_found(name: str) -> None:
    round_ = opened("a")
    getattr(round_, name).add("stranger")
    with pytest.raises(AssertionError):
        round_.check()
