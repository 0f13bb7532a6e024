from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from models.integers import bits, largest, nearest, rescale, sum_of_nearest

wide = st.integers(-(2**61) + 1, 2**61 - 1) | st.integers(-40, 40)


@given(st.lists(wide, max_size=20), st.integers(1, 200))
@example([2**61 - 1, 2**60 + 1, 2**60, -(2**60) - 1], 61)
@example([2**61 - 1, 2**59 + 1, 2**59, 3 * 2**59], 60)
@example([2**61 - 1, 1 - 2**61], 62)
def test_a_shift_to_the_right_rounds_half_to_even(values: list[int], shift: int) -> None:
    found = rescale(np.array(values, np.int64), -shift)
    assert found.tolist() == [round(Fraction(value, 2**shift)) for value in values]


@given(st.lists(st.integers(-1000, 1000), max_size=20), st.integers(0, 50))
def test_a_shift_to_the_left_is_exact(values: list[int], shift: int) -> None:
    assert rescale(np.array(values, np.int64), shift).tolist() == [value << shift for value in values]


def test_what_is_rescaled_is_a_new_array() -> None:
    values = np.arange(4)
    for shift in (0, -1, -70, 3):
        rescale(values, shift)[:] = 9
    assert values.tolist() == [0, 1, 2, 3]


@given(st.lists(st.integers(-(2**62), 2**62), max_size=20))
def test_the_largest_magnitude_and_its_bits(values: list[int]) -> None:
    row = np.array(values, np.int64)
    assert largest(row) == max(map(abs, values), default=0)
    assert bits(row) == largest(row).bit_length()


@given(
    st.lists(
        st.floats(-(2.0**51) + 1, 2.0**51 - 1) | st.integers(-(2**50), 2**50).map(lambda n: n + 0.5) | st.floats(-4, 4),
        max_size=20,
    )
)
@example([2.0**51 - 1, 1 - 2.0**51, 2.0**51 - 0.5, 0.5, -0.5, 1.5, 2.5, -0.0, 5e-324])
def test_the_nearest_integer_of_two_as_near_is_the_even_one(values: list[float]) -> None:
    found = nearest(np.array(values, np.float64))
    assert found.tolist() == [round(Fraction(value)) for value in values]
    assert found.dtype == np.int64


@given(st.lists(st.floats(0, 2.0**44) | st.integers(0, 2**44).map(lambda n: n + 0.5), max_size=40))
@example([2.0**44] * 2000)
def test_the_sum_of_the_nearest_integers_does_not_go_round(values: list[float]) -> None:
    assert sum_of_nearest(np.array(values, np.float64)) == sum(round(Fraction(value)) for value in values)
