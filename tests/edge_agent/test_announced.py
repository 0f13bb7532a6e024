from __future__ import annotations

from typing import Any

import pytest

from broker.messages import Head, Round, Version
from edge_agent.announced import INSISTS_S, Announced
from edge_agent.effects import JobEnded
from models import draw
from models.job import JobSpec, ModelSpec, RoundsSpec

V0, V1, V2 = Version(1, 0), Version(1, 1), Version(1, 2)
NEW1 = Version(9, 1)
"""Another name of version 1.1, from after a backup was restored."""


def announced(*events: Head | Round | JobEnded, names: tuple[Version, ...] = (), **rules: Any) -> Announced:
    spec = JobSpec("j", ModelSpec(), rounds=RoundsSpec(**rules))
    one = Announced("d", spec, names)
    for event in events:
        one.hear(event, 100.0)
    return one


def head(version: Version, term: int = 1, state: Any = "running") -> Head:
    return Head("j-1", term, version, "0" * 32, state=state)


def round_(base: Version, term: int = 1, drawn: bool = True, **more: Any) -> Round:
    return Round("j-1", term, base, 60.0, threshold=draw.MAX_TICKET if drawn else 0, **more)


def test_the_newest_version_is_the_highest_that_was_named() -> None:
    assert announced().latest() is None
    assert announced(head(V1), round_(V0)).latest() == V1
    assert announced(head(V0), round_(V1)).latest() == V1
    assert announced(head(V0), JobEnded(V2, 1)).latest() == V2


@pytest.mark.parametrize("late", [head(V2), round_(V2), JobEnded(V2, 1)], ids=["head", "round", "end"])
def test_an_aggregator_that_was_replaced_is_not_heard(late: Head | Round | JobEnded) -> None:
    one = announced(head(V0, term=2))
    assert not one.hear(late, 100.0)
    assert (one.latest(), one.over, one.ahead) == (V0, None, None)


@pytest.mark.parametrize(
    ("known", "overtaken"), [(head(V1), head(V0)), (round_(V1), round_(V0))], ids=["head", "round"]
)
def test_what_was_overtaken_is_no_news_but_shows_that_somebody_has_lost_something(
    known: Head | Round, overtaken: Head | Round
) -> None:
    one = announced(known)
    assert not one.hear(overtaken, 100.0)
    assert (one.latest(), one.ahead) == (V1, V1)
    assert one.hear(round_(V1, term=2), 100.0)
    assert one.ahead is None


@pytest.mark.parametrize("end", [JobEnded(V1, 1), head(V1, state="finished"), head(V1, state="stopped")])
def test_a_job_is_over_until_a_later_version_or_term_brings_it_back(end: Head | JobEnded) -> None:
    assert announced(end).over == V1
    assert announced(end, round_(V1)).over == V1
    assert announced(end, round_(V2)).over is None
    assert announced(end, round_(V1, term=2)).over is None


def test_a_live_round_that_drew_this_device_calls_for_training() -> None:
    one = announced(round_(V1))
    assert one.has_drawn()
    assert (one.left_s(100.0), one.left_s(1000.0)) == (60.0, 0.0)
    assert one.calls_for(V1, 159.9)
    assert not one.calls_for(V1, 160.0)
    assert not one.calls_for(V0, 100.0)
    for other in (
        announced(),
        announced(round_(V1, drawn=False)),
        announced(round_(V1, settled=("d",))),
        announced(round_(V1), JobEnded(V1, 1)),
    ):
        assert not other.calls_for(V1, 100.0)


def test_a_further_attempt_on_the_base_follows_up_the_one_before_under_any_of_its_names() -> None:
    before = round_(V1)
    assert announced(before, round_(V1, attempt=2)).follows_up(before, V1)
    assert not announced(before, round_(V1)).follows_up(before, V1), "a heartbeat"
    assert not announced(before, round_(V1, attempt=2, drawn=False)).follows_up(before, V1)
    assert not announced(before, round_(V2, attempt=2)).follows_up(before, V1)
    assert not announced(round_(V1, attempt=2)).follows_up(None, V1)
    renamed = announced(before, round_(NEW1, attempt=2, aliases=(V1,)))
    assert renamed.follows_up(before, V1)


def test_a_base_goes_on_under_another_name_if_its_round_says_so() -> None:
    told = announced(round_(NEW1, aliases=(V1,)))
    assert told.is_renamed(V1)
    assert told.aliases(NEW1) == (V1,)
    assert told.aliases(V1) == ()
    assert not told.is_renamed(NEW1)
    assert not told.is_renamed(V0)
    assert not told.is_left(V1)
    assert told.is_left(V0)
    assert announced(round_(NEW1, aliases=(Version(5, 1),)), names=(Version(5, 1),)).is_renamed(V1)
    assert announced(round_(NEW1)).is_left(V1), "its round knows of no other name"


def test_until_its_round_says_it_a_base_of_that_number_may_be_the_same() -> None:
    one = announced(head(NEW1))
    assert one.may_be(V1, NEW1)
    assert not one.is_left(V1)
    assert not one.may_be(V2, NEW1)
    one.hear(round_(NEW1), 100.0)
    assert not one.may_be(V1, NEW1)


def test_an_update_goes_by_the_leaders_name_only_where_the_leader_does_not_know_the_one_it_has() -> None:
    shared = Version(5, 1)
    assert announced(round_(NEW1, aliases=(shared,)), names=(shared,)).leaders_name(V1) == NEW1
    assert announced(round_(NEW1, aliases=(V1,))).leaders_name(V1) is None, "known by its own name"
    assert announced(round_(V1, aliases=(shared,)), names=(shared,)).leaders_name(NEW1) is None, "the lower one"
    assert announced().leaders_name(V1) is None


@pytest.mark.parametrize(
    ("base", "latest", "late", "is_too_late", "may_be_folded"),
    [
        (V1, V1, "refuse", False, False),
        (V0, V1, "refuse", True, False),
        (V0, V1, "fold", False, True),
        (V0, Version(1, 9), "fold", True, True),
        (V0, NEW1, "fold", True, True),
        (V1, Version(9, 0), "fold", True, False),
    ],
)
def test_an_update_to_an_earlier_base_may_count_where_late_ones_are_folded(
    base: Version, latest: Version, late: str, is_too_late: bool, may_be_folded: bool
) -> None:
    one = announced(head(latest), late=late, max_staleness=4)
    assert (one.is_too_late(base), one.may_be_folded(base)) == (is_too_late, may_be_folded)


def test_after_the_end_of_the_job_every_update_is_too_late_and_what_it_had_is_left() -> None:
    one = announced(JobEnded(V1, 1), late="fold")
    assert one.is_too_late(V1)
    assert one.is_left(V1)
    assert not one.is_left(V2)


# What may be forged.

FAR_ON = Version(2**31, 2**32)


def led(*events: Head | Round | JobEnded, term: int = 5) -> Announced:
    one = announced()
    one.led = term
    for event in events:
        one.hear(event, 100.0)
    return one


@pytest.mark.parametrize("forged", [round_(V2, term=2**40), head(V2, term=6), JobEnded(V2, 2**40)])
def test_what_is_said_under_another_term_than_the_leaders_is_forgotten_at_its_next_word(forged: Any) -> None:
    one = led(round_(V0, term=5), forged)
    assert one.latest() == V2
    assert one.hear(round_(V0, term=5), 101.0)
    assert (one.latest(), one.over, one.ahead, one.term) == (V0, None, None, 5)
    assert one.calls_for(V0, 101.0)


def test_a_new_leader_is_followed_before_its_beacon_is_heard_and_the_old_one_no_more_after_it() -> None:
    one = led(round_(V0, term=5), round_(V1, term=6))
    assert one.latest() == V1
    one.led = 6
    assert not one.hear(round_(V2, term=5), 101.0)
    assert one.latest() == V1


@pytest.mark.parametrize("forged", [round_(FAR_ON), head(FAR_ON), head(FAR_ON, state="finished"), JobEnded(FAR_ON, 1)])
def test_a_version_that_is_absurdly_far_ends_nothing_and_is_forgotten_at_the_next_word(forged: Any) -> None:
    one = announced(round_(V1), forged)
    assert not one.is_left(V1)
    assert not one.is_too_late(V1)
    assert one.hear(round_(V1), 100.1)
    assert (one.latest(), one.over) == (V1, None)
    assert one.calls_for(V1, 100.1)


@pytest.mark.parametrize("said", [head, round_])
def test_a_leader_that_repeats_an_earlier_version_is_believed_after_a_while(said: Any) -> None:
    one = announced(said(V2))
    assert not one.hear(said(V1), 100.0)
    assert not one.hear(said(V1), 100.0 + INSISTS_S - 0.1)
    assert one.ahead == V2
    assert one.hear(said(V1), 100.0 + INSISTS_S)
    assert (one.latest(), one.ahead) == (V1, None)


def test_what_comes_late_is_forgotten_where_the_leader_has_gone_on() -> None:
    one = announced(round_(V1))
    assert not one.hear(round_(V0), 100.0)
    assert one.hear(round_(V2), 110.0)
    assert not one.hear(round_(V1), 100.0 + INSISTS_S)


@pytest.mark.parametrize("end", [JobEnded(V1, 1), head(V1, state="finished")])
def test_a_job_whose_rounds_go_on_has_not_ended(end: Any) -> None:
    one = announced(round_(V1), end)
    one.hear(round_(V1), 105.0)
    assert one.over == V1, "that round may have been on its way"
    one.hear(round_(V1), 105.0 + INSISTS_S)
    assert one.over is None
    assert one.calls_for(V1, 126.0)


def test_a_head_of_a_later_version_is_nobodys_where_the_rounds_of_this_one_go_on() -> None:
    one = announced(round_(V1), head(V2))
    one.hear(round_(V1), 105.0)
    assert one.latest() == V2
    one.hear(round_(V1), 105.0 + INSISTS_S)
    assert one.latest() == V1
