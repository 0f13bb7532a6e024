from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.shares import cap_for, heaviest, lightened

WEIGHTS = st.lists(st.integers(1, 2**20), min_size=1, max_size=40)
SHARES = st.floats(0.001, 1.0)


@given(weights=WEIGHTS, share=SHARES)
def test_nobody_weighs_more_than_its_share_and_nobody_is_cut_further_than_needed(
    weights: list[int], share: float
) -> None:
    cap, part = cap_for(weights, share), Fraction(share)

    def within(most: int) -> bool:
        return min(most, max(weights)) <= part * sum(min(weight, most) for weight in weights)

    if part * len(weights) < 1:
        assert cap == min(weights), "nothing holds them to it: all weigh the same"
    else:
        assert within(cap)
        assert cap == max(weights) or not within(cap + 1)


@given(weights=WEIGHTS, share=SHARES)
def test_fewer_devices_are_capped_than_there_are_shares_in_a_whole(weights: list[int], share: float) -> None:
    cap = cap_for(weights, share)
    assert sum(weight > cap for weight in weights) < max(2, 1 / share)


@given(weights=WEIGHTS, share=SHARES)
def test_who_is_capped_already_is_not_capped_again(weights: list[int], share: float) -> None:
    cap = cap_for(weights, share)
    assert cap_for([min(weight, cap) for weight in weights], share) >= min(cap, max(weights))


def test_what_a_device_weighs_is_that_of_all_its_updates_and_each_keeps_something() -> None:
    weights = {"a": [10], "b": [10], "c": [10], "liar": [2**20, 1]}
    assert lightened(weights, 0.25) == {"liar": [9, 1]}
    assert lightened(weights, 1.0) == {}
    assert lightened({"a": [5]}, 0.1) == {}


def test_who_holds_most_is_named_and_the_first_by_name_where_several_do() -> None:
    assert heaviest({"b": [2, 2], "a": [1], "c": [3]}) == ("b", 0.5)
    assert heaviest({"b": [1], "a": [1]}) == ("a", 0.5)
    assert heaviest({}) == ("", 0.0)


def test_of_no_weights_there_is_no_share() -> None:
    with pytest.raises(ValueError, match="nobody"):
        cap_for([], 0.5)
