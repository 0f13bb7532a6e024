from __future__ import annotations

import pytest

from aggregator import cohort
from aggregator.effects import Attempt
from broker.messages import Version
from models import draw
from models.job import RoundsSpec

BASE = Version(1, 3)
SALT = draw.salt(7, BASE.number)
NAMES = {f"d{n}" for n in range(20)}


def first(rules: RoundsSpec, able: set[str] = NAMES, counted: set[str] | None = None) -> Attempt:
    return cohort.widen(rules, 7, BASE, counted=counted or set(), able=able, again=None)


@pytest.mark.parametrize(
    ("rules", "n"),
    [
        (RoundsSpec(fraction=0.25), 5),
        (RoundsSpec(target=3), 3),
        (RoundsSpec(target=3, over_selection=1.5), 5),
        (RoundsSpec(fraction=0.01, quorum=4), 4),
        (RoundsSpec(fraction=1.0), 20),
        (RoundsSpec(target=100), 20),
    ],
)
def test_so_many_are_drawn(rules: RoundsSpec, n: int) -> None:
    attempt = first(rules)
    assert len(attempt.cohort) == n
    assert all(draw.ticket(SALT, name) <= attempt.threshold for name in attempt.cohort)
    assert attempt.number == 1


def test_where_everybody_is_wanted_so_is_whoever_comes_later() -> None:
    assert first(RoundsSpec(fraction=1.0)).threshold == draw.MAX_TICKET
    assert first(RoundsSpec(fraction=1.0, wait="all")).threshold < draw.MAX_TICKET


def test_who_counts_already_is_a_member_and_need_not_be_drawn_again() -> None:
    attempt = first(RoundsSpec(target=3), able=NAMES - {"d1", "d2"}, counted={"d1", "d2"})
    assert attempt.target == 3
    assert len(set(attempt.cohort) - {"d1", "d2"}) >= 1


def test_a_further_attempt_draws_more_and_drops_nobody() -> None:
    rules = RoundsSpec(target=3)
    before = first(rules)
    after = cohort.widen(rules, 7, BASE, counted=set(), able=NAMES, again=before)
    assert set(before.cohort) < set(after.cohort)
    assert (after.number, after.salt) == (2, before.salt)
    assert after.threshold > before.threshold


def test_of_the_able_as_many_are_drawn_as_are_missing() -> None:
    counted = {"d1", "d2"}
    attempt = first(RoundsSpec(target=5), able=NAMES - counted, counted=counted)
    assert len(set(attempt.cohort) - counted) == 3


def test_where_more_count_than_are_wanted_one_more_is_drawn_and_the_threshold_never_falls() -> None:
    rules = RoundsSpec(fraction=0.25)
    before = first(rules)
    counted = set(before.cohort[:3])
    assert len(set(first(rules, able={"d18", "d19"} - counted, counted=counted).cohort) - counted) == 1
    few = set(sorted(NAMES - set(before.cohort))[:3]) | set(before.cohort[3:])
    after = cohort.widen(rules, 7, BASE, counted=counted, able=few, again=before)
    assert after.threshold >= before.threshold
    assert set(before.cohort) <= set(after.cohort)


def test_a_round_that_waits_for_all_has_no_target_to_end_at() -> None:
    attempt = first(RoundsSpec(target=4, over_selection=1.5, wait="all"))
    assert (attempt.target, len(attempt.cohort)) == (None, 6)


FIXED = RoundsSpec(target=3, wait="all")


def again(
    before: Attempt,
    rules: RoundsSpec = FIXED,
    able: set[str] = NAMES,
    dropped: set[str] | None = None,
    needed: int = 1,
    absences: dict[str, int] | None = None,
) -> Attempt:
    return cohort.repeat(
        rules,
        counted=set(),
        able=able,
        again=before,
        dropped=dropped or set(),
        needed=needed,
        absences=absences or {},
    )


def test_a_fixed_membership_is_repeated_as_it_is() -> None:
    before = first(FIXED)
    after = again(before, needed=3, absences={before.cohort[0]: 1, "d0": 0})
    assert (after.cohort, after.threshold, after.number) == (before.cohort, before.threshold, 2)
    assert after.absences == {before.cohort[0]: 1}


def test_the_places_of_the_dropped_are_filled_with_as_many_others() -> None:
    before = first(FIXED)
    gone, *stay = before.cohort
    after = again(before, able=NAMES - {gone}, dropped={gone}, absences={gone: 3})
    assert set(stay) < set(after.cohort)
    assert len(after.cohort) == 3
    assert gone not in after.cohort
    assert all(draw.ticket(SALT, name) <= after.threshold for name in after.cohort)
    assert not any(draw.ticket(SALT, name) <= after.threshold for name in NAMES - {gone, *after.cohort})
    assert after.absences == {}


def test_a_membership_shrinks_where_nobody_can_take_a_place() -> None:
    before = first(FIXED)
    gone, *stay = before.cohort
    assert again(before, able=set(stay), dropped={gone}).cohort == tuple(stay)


def test_a_membership_that_cannot_reach_its_quorum_is_filled_up() -> None:
    rules = RoundsSpec(quorum=2, wait="all")
    before = first(rules, able={"d3"})
    assert len(before.cohort) == 1
    assert len(again(before, rules, able=NAMES, needed=2).cohort) == 2
    assert again(before, rules, able=NAMES, needed=1).cohort == before.cohort


def test_a_membership_is_not_filled_up_beyond_what_is_drawn_at_first() -> None:
    rules = RoundsSpec(fraction=0.1, min_devices=5, wait="all")
    before = first(rules)
    assert len(before.cohort) == 2
    assert again(before, rules, needed=5).cohort == before.cohort
