from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import energy

int64s = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**22, -(2**22), 2**44 - 1, -(2**63), 2**63 - 1])


@given(st.lists(st.tuples(int64s, int64s), max_size=30))
def test_a_sum_of_products_is_exact_whatever_an_int64_holds(pairs: list[tuple[int, int]]) -> None:
    left = np.array([a for a, _ in pairs], np.int64)
    right = np.array([b for _, b in pairs], np.int64)
    assert energy.dot(left, right) == sum(a * b for a, b in pairs)
    assert energy.dot(left, left) == sum(a * a for a, _ in pairs)


@pytest.mark.parametrize("size", [energy.BLOCK - 1, energy.BLOCK, 3 * energy.BLOCK + 7])
def test_a_block_of_the_largest_overflows_nothing(size: int) -> None:
    lowest, most = np.full(size, -(2**63), np.int64), np.full(size, 2**63 - 1, np.int64)
    assert energy.dot(lowest, lowest) == size * 2**126
    assert energy.dot(lowest, most) == -size * 2**63 * (2**63 - 1)
    assert energy.dot(most.reshape(-1, 1), most.reshape(1, -1)) == size * (2**63 - 1) ** 2


@settings(max_examples=300)
@given(st.integers(0, 2**30) | st.integers(0, 2**300), st.integers(-300, 300))
def test_a_root_is_the_nearest_float(square: int, exponent: int) -> None:
    found = energy.root(square, exponent)
    true = Fraction(square) * Fraction(4) ** exponent
    if not square:
        assert found == 0.0
        return
    middle_below = (Fraction(found) + Fraction(math.nextafter(found, 0.0))) / 2
    middle_above = (Fraction(found) + Fraction(math.nextafter(found, math.inf))) / 2
    assert middle_below**2 <= true <= middle_above**2


def test_a_root_beyond_the_floats_is_inf_and_one_just_within_is_not() -> None:
    assert energy.root(1, 1024) == math.inf
    assert energy.root(1 << 4000, 0) == math.inf
    assert energy.root(1, 1023) == 2.0**1023
    assert energy.root(1 << 4000, -1000) == 2.0**1000


def test_a_quotient_is_rounded_once() -> None:
    assert energy.quotient(1, 0, 3) == 1 / 3
    assert energy.quotient(7, -3, 2) == 7 / 16
    assert energy.quotient(1, 2000, 1) == math.inf
    assert energy.quotient(0, -2000, 9) == 0.0
    assert energy.quotient(2**53 + 1, 0, 1) == 2.0**53


@pytest.mark.parametrize("size", [0, 1, 7, 2**20 + 3])
def test_the_square_of_a_row_is_that_of_python(size: int) -> None:
    rng = np.random.default_rng(size)
    row = rng.integers(-(2**30), 2**30, size, endpoint=True).astype(np.int32)
    row[:2] = (-(2**30), 2**30)[: min(2, size)]
    assert energy.square_of_row(row) == sum(int(value) ** 2 for value in row.tolist())


@pytest.mark.parametrize("most", [2**24 - 1, 2**24])
def test_the_squares_of_a_slab_overflow_nothing(most: int) -> None:
    row = np.full(2**16 + 1, -most, np.int32)
    assert energy.square_of_row(row) == row.size * most * most
