from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data import holdout
from models.data.holdout import Limit


def mixed(z: int) -> int:
    """splitmix64's output of a state, in Python's integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_a_hash_is_the_same_on_every_machine() -> None:
    golden = 0x9E3779B97F4A7C15
    one_and_two = mixed((mixed((golden + 0x3F800000) % 2**64) + golden + 0x40000000) % 2**64)
    nothing_and_zero = mixed((mixed((golden + 0x7FC00000) % 2**64) + golden) % 2**64)
    rows = np.array([[1, 2], [np.nan, 0]], np.float32)
    assert holdout.of_rows(rows).tolist() == [one_and_two, nothing_and_zero]
    assert holdout.of_numbers(np.array([-1, 0, 1])).tolist() == [0, mixed(golden), mixed(2 * golden % 2**64)]
    assert hex(holdout.of_text("trial 7")) == "0xf6189cb3a4ecaaef"


def test_a_row_has_the_hash_of_its_content() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    whole = holdout.of_rows(rows)
    assert len(set(whole)) == 50
    assert (holdout.of_rows(rows[:, :2], rows[:, 2]) == whole).all(), "however its columns are given"
    assert (holdout.of_rows(rows[::-1])[::-1] == whole).all()
    assert holdout.of_rows(np.array([[-0.0]], np.float32)) == holdout.of_rows(np.array([[0.0]], np.float32))
    other = np.array([0x7FC00001], np.uint32).view(np.float32)
    assert holdout.of_rows(other) == holdout.of_rows(np.array([np.nan], np.float32))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_share_is_about_what_is_asked_for(share: float) -> None:
    hashes = holdout.of_numbers(np.arange(20_000))
    limit = Limit(share)
    limit.note(hashes)
    assert limit.held(hashes).mean() == pytest.approx(share, abs=0.01)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30, unique=True), st.sampled_from([0.01, 0.1, 0.5]))
def test_neither_side_is_empty_where_there_are_two(values: list[int], share: float) -> None:
    hashes = np.array(values, np.uint64)
    limit = Limit(share)
    for value in hashes:
        limit.note(np.array([value]))
    assert not limit.is_one
    assert 0 < limit.held(hashes).sum() < len(hashes)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30), st.sampled_from([0.25, 0.5]))
def test_what_else_there_is_does_not_matter_where_both_sides_have_something(values: list[int], share: float) -> None:
    hashes = np.array([0, *values, 2**64 - 1], np.uint64)
    limit = Limit(share)
    limit.note(hashes)
    assert limit.held(hashes).tolist() == [int(value) < share * 2**64 for value in hashes]


@pytest.mark.parametrize("values", [[], [5], [5, 5]])
def test_where_all_are_alike_nothing_is_held_back(values: list[int]) -> None:
    limit = Limit(0.5)
    limit.note(np.array(values, np.uint64))
    assert limit.is_one
    assert not limit.held(np.array(values, np.uint64)).any()


def test_a_block_of_which_no_row_can_be_used_has_no_hashes() -> None:
    assert len(holdout.of_rows(np.zeros((0, 3), np.float32), np.zeros(0, np.float32))) == 0
