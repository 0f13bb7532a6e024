from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator import scale
from models.fold import MAX_WEIGHT

many = st.lists(st.integers(0, 2**32), max_size=20)


def test_a_sum_takes_what_an_update_may_weigh() -> None:
    assert scale.MOST == MAX_WEIGHT


@given(rows=many)
def test_no_update_weighs_more_than_a_sum_takes_nor_nothing(rows: list[int]) -> None:
    shift = scale.shift_for(rows)
    assert all(1 <= scale.weight(n, shift) <= scale.MOST for n in (*rows, 2**32, 0))


@given(rows=st.lists(st.integers(0, 2**20), max_size=20), n=st.integers(1, 2**20))
def test_where_nobody_has_more_than_a_sum_takes_weights_are_rows(rows: list[int], n: int) -> None:
    assert scale.shift_for(rows) == 0
    assert scale.weight(n, 0) == n


@given(rows=many)
def test_the_shift_is_the_least_by_which_all_fit_unless_the_middle_one_would_weigh_too_little(rows: list[int]) -> None:
    shift = scale.shift_for(rows)
    known = sorted(n for n in rows if n)
    if shift:
        assert known[-1] >> (shift - 1) > scale.MOST
        assert known[len(known) // 2] >> shift >= scale.FINEST
    elif known:
        assert known[-1] <= scale.MOST or known[len(known) // 2] >> 1 < scale.FINEST
    if any(scale.is_clamped(n, shift) for n in known):
        assert known[len(known) // 2] >> (shift + 1) < scale.FINEST


def test_devices_of_a_year_at_one_row_a_second_weigh_in_proportion() -> None:
    rows = [31_536_000, 15_768_000, 2_628_000]
    shift = scale.shift_for(rows)
    weights = [scale.weight(n, shift) for n in rows]
    assert weights[0] / weights[2] == pytest.approx(12, rel=1e-4)
    assert weights[0] / weights[1] == pytest.approx(2, rel=1e-4)


def test_one_that_claims_absurdly_much_leaves_the_others_what_they_weigh() -> None:
    rows = [400, 500, 600, 700]
    shift = scale.shift_for([*rows, 2**32])
    weights = [scale.weight(n, shift) for n in rows]
    for n, weight in zip(rows, weights, strict=True):
        assert weight / weights[0] == pytest.approx(n / rows[0], rel=0.02)
    assert scale.weight(2**32, shift) == scale.MOST


def test_who_counts_as_fewer_rows_than_it_has_is_found_with_both_numbers() -> None:
    claims = [("a", 2**22), ("b", 2**21), ("c", 2**30)]
    assert scale.clamped(claims, 1) == {"a": (2**22, 2**21), "c": (2**30, 2**21)}
    assert scale.clamped(claims, 12) == {}
