import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec import CodecError
from models.codec.steps import step_near, step_value
from models.grid import COARSEST, MOST_BITS, counted, measured


@given(st.lists(st.integers(-(2**39), 2**39), min_size=1, max_size=9), st.floats(2.0**-24, 2.0**10))
def test_what_is_rounded_to_a_grid_is_off_by_half_a_step_at_most_and_stays_there(cells: list[int], size: float) -> None:
    grid, integers = step_near(size), np.array(cells)
    counts = counted(integers, -24, grid)
    back = measured(counts, grid)
    assert np.abs(back.values() - integers * 2.0**-24).max() <= step_value(grid) / 2
    if back.exponent >= -24:
        assert counted(back.integers << back.exponent + 24, -24, grid).tolist() == counts.tolist()


def test_halves_go_up() -> None:
    assert counted(np.array([64, -64, 191, 192]), -24, step_near(2.0**-17)).tolist() == [1, 0, 1, 2]


def test_a_grid_that_is_far_from_the_lattice_is_refused() -> None:
    for exponent, grid in ((-24, step_near(2.0 ** (-24 + COARSEST + 8))), (60, step_near(2.0**-10))):
        with pytest.raises(CodecError, match="too far from the lattice"):
            counted(np.array([1]), exponent, grid)
    for word in (0, 2**16 - 1):
        with pytest.raises(CodecError, match="out of range"):
            counted(np.array([1]), 0, word)


def test_counts_that_are_far_from_everything_are_refused() -> None:
    with pytest.raises(CodecError, match="too far from what it counts from"):
        measured(np.array([2**MOST_BITS]), step_near(1.0))
