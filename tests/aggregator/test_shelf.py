from __future__ import annotations

from aggregator.shelf import Shelf, lying, needed
from aggregator.store import BodyRow
from broker.messages import Version
from models.chain import AGREED, AGREEMENT, GROUP, SNAPSHOT, SPAN, STEP, WHOLE
from models.deltas import SINGLES, Delta


def body(start: int, number: int, kind: int = STEP, generation: int = 1) -> BodyRow:
    return BodyRow(f"{generation}-{number}-{start}", number, 100, bytes((kind,)) + b"body")


def steps(n: int) -> list[BodyRow]:
    return [body(number - 1, number) for number in range(1, n + 1)]


def names(rows: list[BodyRow], number: int) -> set[str]:
    return needed([lying(row) for row in rows], Version(1, number))


def test_steps_that_nothing_replaces_are_needed_back_to_the_first() -> None:
    rows = steps(50)
    assert names(rows, 50) == {row.name for row in rows}


def test_what_is_of_another_generation_or_of_a_later_version_leads_nobody_here() -> None:
    rows = [body(0, 1, generation=2), body(1, 2, SNAPSHOT, generation=2), body(2, 3), body(0, 3, SNAPSHOT)]
    assert names([*steps(2), *rows], 2) == {"1-1-0", "1-2-1"}


def test_a_name_that_is_not_that_of_its_version_leads_nobody_here() -> None:
    odd = [BodyRow("1-7-1", 2, 100, b" way"), BodyRow("1-2-x", 2, 100, b" way"), BodyRow("1-2-1-1", 2, 100, b" way")]
    assert names([*steps(2), *odd], 2) == {"1-1-0", "1-2-1"}


def test_a_group_takes_the_place_of_its_steps_once_they_are_far_behind() -> None:
    """Also the first one, which begins where snapshots do."""
    rows = [*steps(40), *(body(end - SPAN, end, GROUP) for end in range(SPAN, 41, SPAN))]
    singles = {row.name for row in steps(40) if row.number > 40 - SINGLES}
    assert names(rows, 40) == singles | {row.name for row in rows[40:]}


def test_a_snapshot_lets_go_of_what_lies_before_the_one_before_it() -> None:
    rows = [*steps(30), body(0, 10, SNAPSHOT), body(0, 20, SNAPSHOT)]
    assert names(rows[:-1], 19) == {row.name for row in rows[:19]} | {"1-10-0"}
    assert names(rows, 20) == {row.name for row in rows[10:20]} | {"1-20-0"}
    assert names([*rows, body(0, 30, SNAPSHOT)], 30) == {row.name for row in rows[20:30]} | {"1-30-0"}


def test_a_snapshot_at_the_end_of_the_first_eight_is_no_group_of_them() -> None:
    """Who holds one of them has no other way than along the steps."""
    rows = [*steps(30), body(0, SPAN, SNAPSHOT)]
    assert names(rows, 30) == {row.name for row in rows}


def test_a_snapshot_is_left_lying_for_one_more_version() -> None:
    rows = [*steps(21), body(0, 20, SNAPSHOT), body(0, 21, SNAPSHOT)]
    assert {"1-20-0", "1-21-0"} <= names(rows, 21)
    assert "1-20-0" not in names([*rows, body(21, 22)], 22)


def test_of_versions_that_are_published_whole_the_last_two_are_needed() -> None:
    rows = [body(0, number, WHOLE) for number in range(1, 7)]
    assert names(rows, 6) == {"1-5-0", "1-6-0"}


# What goes, and when.


def shelf(*rows: BodyRow, number: int, now: float = 0.0) -> Shelf:
    return Shelf(rows, Version(1, number), now, averaged_from=lambda number: number, grace_s=60.0)


def test_what_a_snapshot_replaces_goes_after_its_grace() -> None:
    shelved = shelf(*steps(2), number=2)
    assert (shelved.retires_at, shelved.take_due(10**6)) == (float("inf"), [])
    shelved.add([body(2, 3), body(0, 3, SNAPSHOT)], Version(1, 3), 5.0)
    shelved.add([body(3, 4), body(0, 4, SNAPSHOT)], Version(1, 4), 7.0)
    gone = {"1-1-0", "1-2-1", "1-3-2"}
    assert shelved.retires_at == 67.0
    assert shelved.take_due(66.9) == []
    assert set(shelved.take_due(67.0)) == gone
    assert shelved.take_due(10**6) == []
    assert shelved.retires_at == float("inf")


def test_the_ways_are_those_that_lead_here_and_the_step_is_the_last_one() -> None:
    shelved = shelf(*steps(2), number=2)
    assert (shelved.ways, shelved.step) == ([Delta(0, 1, 5), Delta(1, 2, 5)], bytes((STEP,)) + b"body")
    shelved.add([body(0, 3, WHOLE)], Version(1, 3), 0.0)
    assert shelved.step == b""
    assert Delta(0, 3, 5) in shelved.ways


def test_an_agreement_is_a_step_that_a_round_may_carry() -> None:
    shelved = Shelf([], Version(1, 0), 0.0, averaged_from=lambda number: number, grace_s=1.0)
    agreed = body(0, 1, AGREEMENT)
    shelved.add([agreed], Version(1, 1), 0.0)
    assert shelved.step == agreed.data
    shelved.add([body(0, 2, AGREED)], Version(1, 2), 1.0)  # a version whole, behind what was agreed on
    assert shelved.step == b""
