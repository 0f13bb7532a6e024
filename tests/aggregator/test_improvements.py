from __future__ import annotations

from aggregator.improvements import Improvements, Scored


def of(*values: float | None, rows: float | None = None) -> list[Scored]:
    return [Scored(number, value, rows, is_scored=True) for number, value in enumerate(values)]


def filled(scored: list[Scored], min_delta: float = 0.0) -> Improvements:
    improvements = Improvements(min_delta)
    for one in scored:
        improvements.add(one)
    return improvements


def test_the_last_improvement_is_better_by_more_than_min_delta_than_the_one_before() -> None:
    found = filled(of(None, 0.5, 0.55, 0.65, 0.7), 0.1)
    assert (found.last, found.scored_since) == (3, 1)
    assert found.is_one(0.8)
    assert not found.is_one(0.75)
    assert not found.is_one(None)


def test_patience_counts_only_versions_that_are_scored() -> None:
    found = filled([*of(0.5), Scored(1, None, None, is_scored=False), Scored(2, 0.4, None, is_scored=True)])
    assert (found.last, found.scored_since) == (0, 1)


def test_what_comes_after_an_improvement_that_falls_out_takes_its_place_as_far_as_it_was_none() -> None:
    scored = [*of(0.2), Scored(1, 0.6, 10.0, is_scored=True), *of(*[None] * 2, 0.4, 0.5, 0.7, 0.6)[2:]]
    found, unread = filled(scored), iter(scored[2:])
    assert not found.is_any_thin(20.0)
    assert found.take_thin(21.0) == 1
    found.mend(1, unread)
    assert [one.number for one in unread] == [5], "from the next one that stays, nothing changes"
    assert (found.last, found.scored_since, found.take_thin(21.0)) == (4, 1, None)


def test_an_improvement_that_is_none_any_more_falls_out_with_the_one_before_it() -> None:
    found = filled([Scored(0, 0.25, 10.0, is_scored=True), *of(None, 0.5, 0.75, 0.5)[1:]], 0.25)
    assert (found.last, found.take_thin(21.0)) == (2, 0)
    found.mend(0, of(None, 0.5, 0.75, 0.5)[1:])
    assert (found.last, found.scored_since) == (1, 2), "0.75 is better than 0.5 by no more than min_delta"


def test_what_begins_anew_knows_no_improvement() -> None:
    found = filled(of(0.9))
    found.begin()
    assert found.last is None
    assert found.is_one(0.1)
