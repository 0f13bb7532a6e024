from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.chain import GROUP, SNAPSHOT, SPAN, STEP, WHOLE
from models.deltas import ENVELOPE_BYTES, SINGLES, Delta, Needs, is_snapshot, path

numbers = st.integers(0, 9)
ways = st.builds(Delta, numbers, numbers, st.integers(0, 300))


def routes(among: list[Delta], at: int, wanted: int) -> Iterator[list[Delta]]:
    """Return every way there is."""
    if at == wanted:
        yield []
    for way in among:
        if way.start == at and at < way.number <= wanted:
            for rest in routes(among, way.number, wanted):
                yield [way, *rest]


def cost(found: list[Delta]) -> int:
    return sum(way.n_bytes + ENVELOPE_BYTES for way in found)


@settings(max_examples=300)
@given(st.lists(ways, max_size=14), numbers, numbers)
def test_the_path_is_the_cheapest_of_all(among: list[Delta], held: int, wanted: int) -> None:
    found = path(among, held, wanted)
    every = [route for start in (held, 0) for route in routes(among, start, wanted)]
    if not every:
        assert found == []
        return
    assert cost(found) == min(map(cost, every))
    assert found in every


def passes(route: list[Delta], start: int, since: int) -> bool:
    """Whether a route is at every version from this one on; nobody can tell the first group from a snapshot."""
    jumps = [way for way in route if way.start == 0 and way.number > 1]
    return start <= since and all(way.number <= since for way in jumps)


@settings(max_examples=300)
@given(st.lists(ways, max_size=14), numbers, numbers, numbers)
def test_a_path_that_passes_every_version_is_the_cheapest_of_these(
    among: list[Delta], held: int, wanted: int, back: int
) -> None:
    since = max(0, wanted - back)
    start = held if held <= since else 0
    found = path(among, start, wanted, since)
    every = [route for at in (start, 0) for route in routes(among, at, wanted) if passes(route, at, since)]
    if not every:
        assert found == []
        return
    assert cost(found) == min(map(cost, every))
    assert found in every


def test_who_has_come_by_every_version_goes_on_from_where_it_is() -> None:
    among = [Delta(0, 18, 5), Delta(18, 19, 10), Delta(19, 20, 10)]
    assert path(among, 19, 20, 16) == [Delta(19, 20, 10)]
    assert path(among, 0, 20, 16) == []
    assert path(among, 0, 20, 18) == among


def test_an_envelope_counts_as_bytes() -> None:
    steps = [Delta(0, 1, 10), Delta(1, 2, 10)]
    assert path([*steps, Delta(0, 2, 20 + ENVELOPE_BYTES - 1)], 0, 2) == [Delta(0, 2, 20 + ENVELOPE_BYTES - 1)]
    assert path([*steps, Delta(0, 2, 20 + ENVELOPE_BYTES + 1)], 0, 2) == steps


def test_who_holds_it_needs_nothing_and_who_is_ahead_begins_anew() -> None:
    assert path([Delta(0, 5, 10)], 5, 5) == []
    assert path([Delta(0, 5, 10), Delta(5, 6, 1)], 6, 5) == [Delta(0, 5, 10)]


@pytest.mark.parametrize("kind", [WHOLE, STEP, GROUP, SNAPSHOT])
def test_a_snapshot_is_told_by_its_first_byte(kind: int) -> None:
    assert is_snapshot(bytes((kind, 9, 9))) == (kind in (WHOLE, SNAPSHOT))
    assert not is_snapshot(b"")


class Retained:
    """What lies at the broker after every version, as the server clears what is not needed."""

    def __init__(self, averaged: int | None = None, grace: int = 0) -> None:
        """grace: what is not needed goes when it has not been for more than so many versions."""
        self.number = 0
        self.averaged = averaged
        self.grace = grace
        self.bodies: dict[tuple[int, int], bool] = {}
        self.unneeded: dict[tuple[int, int], int] = {}

    def publish(self, *, snapshot: bool, step: bool = True) -> None:
        self.number += 1
        if step:
            self.bodies[self.number - 1, self.number] = False
        if snapshot:
            self.bodies[0, self.number] = True
        if step and self.number % SPAN == 0:
            self.bodies[self.number - SPAN, self.number] = False
        snapshots = [number for (_, number), whole in self.bodies.items() if whole]
        groups = {n for (start, n), whole in self.bodies.items() if not whole and start + SPAN == n}
        needed = {
            way
            for way, whole in self.bodies.items()
            if Needs(self.number, snapshots, groups, self.since).include(way, whole=whole)
        }
        self.unneeded = {way: self.unneeded.get(way, -1) + 1 for way in self.bodies if way not in needed}
        self.bodies = {way: whole for way, whole in self.bodies.items() if self.unneeded.get(way, -1) < self.grace}

    @property
    def since(self) -> int | None:
        return None if self.averaged is None else self.number + 1 - max(1, min(self.averaged, self.number // 8))

    def path(self, held: int, *, whole: bool = True) -> list[Delta]:
        among = [Delta(*way, 900 if is_whole else 30) for way, is_whole in self.bodies.items() if whole or not is_whole]
        return path(among, held, self.number)


schedules = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None)
@given(schedules)
@example([21, 40])
@example([5, 4, 31])
@example([16, 32])
def test_everybody_finds_a_way_at_every_version(gaps: list[int]) -> None:
    retained, snapshots = Retained(), [sum(gaps[: k + 1]) for k in range(len(gaps))]
    for number in range(1, min(110, snapshots[-1] + 40)):
        retained.publish(snapshot=number in snapshots and number > 1)
        made = [0, 0, *(s for s in snapshots if 1 < s <= number)]
        for held in {0, *range(number % 5, number, 5), *range(max(0, number - SINGLES), number)}:
            assert retained.path(held)
            if held >= made[-2] and held >= number - SINGLES:
                assert path([Delta(*way, 30) for way, whole in retained.bodies.items() if not whole], held, number)
        assert len(retained.bodies) <= SINGLES + 2 * SPAN + 3 + (number - made[-2]) // SPAN


def test_what_leads_to_the_snapshot_before_the_last_is_cleared() -> None:
    retained = Retained()
    for number in range(1, 61):
        retained.publish(snapshot=number in (20, 40))
    assert min(number for (_, number), whole in retained.bodies.items() if not whole) > 20
    assert [number for (_, number), whole in retained.bodies.items() if whole] == [40]


def test_steps_that_lie_back_and_are_in_a_group_are_cleared() -> None:
    retained = Retained()
    for _ in range(60):
        retained.publish(snapshot=False)
    singles = {number for start, number in retained.bodies if number - start == 1}
    assert singles == set(range(61 - SINGLES, 61))
    assert {number for start, number in retained.bodies if number - start == SPAN} == set(range(8, 57, 8))


def test_a_device_that_missed_forty_versions_and_two_snapshots_finds_a_short_way() -> None:
    retained = Retained()
    for number in range(1, 61):
        retained.publish(snapshot=number in (25, 45))
    found = retained.path(18)
    assert found[0] == Delta(0, 45, 900)
    assert len(found) == 1 + 3 + 1 + 4  # to the end of a group, the group, and on


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([2, 4, 16]), st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 12))
@example(16, [1] * 100, 0)
@example(16, [1] * 100, 7)
@example(16, [3] * 40, 0)
@example(16, [9, 1, 1, 30, 15, 1, 40], 2)
def test_who_has_nothing_finds_a_way_that_passes_all_that_is_averaged(
    averaged: int, gaps: list[int], grace: int
) -> None:
    retained, snapshots = Retained(averaged, grace), {sum(gaps[: k + 1]) for k in range(len(gaps))}
    for number in range(1, min(120, max(snapshots) + 40)):
        retained.publish(snapshot=number in snapshots and number > 1)
        among = [
            Delta(*way, 900 if whole else 30) for way, whole in retained.bodies.items() if way not in retained.unneeded
        ]
        assert retained.since is not None
        assert path(among, 0, number, retained.since)
        assert path(among, 0, number)
        begins = [n for (start, n), whole in retained.bodies.items() if whole and n <= retained.since]
        span = number - max(begins, default=0)
        wholes = sum(whole for way, whole in retained.bodies.items() if way not in retained.unneeded)
        assert wholes <= 5 + span // SPAN
        if gaps == [1] * 100 and number > 40:
            assert span <= averaged + SPAN, "where every version is a snapshot one is near"


@settings(max_examples=12, deadline=None)
@given(schedules)
def test_where_nothing_is_averaged_no_more_lies_there(gaps: list[int]) -> None:
    plain, one, snapshots = Retained(), Retained(1), {sum(gaps[: k + 1]) for k in range(len(gaps))}
    for number in range(1, min(110, max(snapshots) + 40)):
        for retained in (plain, one):
            retained.publish(snapshot=number in snapshots and number > 1)
        assert plain.bodies == one.bodies


def test_of_versions_that_are_published_whole_the_last_two_stay() -> None:
    retained = Retained()
    for _ in range(9):
        retained.publish(snapshot=True, step=False)
    assert set(retained.bodies) == {(0, 8), (0, 9)}
