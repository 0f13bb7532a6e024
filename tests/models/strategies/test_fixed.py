from __future__ import annotations

import numpy as np
import pytest

from models.codec import CodecError, Decoded
from models.codec.steps import step_near
from models.strategies import fixed
from models.strategies.fixed import EXPONENT, MOST_BITS


def test_a_sum_is_rounded_onto_the_lattice_halves_to_even() -> None:
    half = Decoded(np.array([1, 2, 3, -1, -3]), EXPONENT - 1)
    assert fixed.from_sum(half).tolist() == [0, 1, 2, 0, -2]
    assert fixed.from_sum(Decoded(np.array([5]), EXPONENT + 3)).tolist() == [40]


@pytest.mark.parametrize("exponent", [-10_000, 10_000])
def test_zeros_have_room_whatever_their_exponent(exponent: int) -> None:
    assert fixed.from_sum(Decoded(np.zeros(2, np.int64), exponent)).tolist() == [0, 0]


def test_what_is_too_large_is_refused_not_wrapped() -> None:
    fixed.from_sum(Decoded(np.array([2**MOST_BITS - 1]), EXPONENT))
    for integer, exponent in ((2**MOST_BITS, EXPONENT), (1, EXPONENT + MOST_BITS), (1, 10_000)):
        with pytest.raises(CodecError, match="a step is too large"):
            fixed.from_sum(Decoded(np.array([integer]), exponent))
    fixed.bounded([np.array([1 - 2**MOST_BITS])])
    with pytest.raises(CodecError, match="grown beyond its lattice"):
        fixed.bounded([np.array([0]), np.array([-(2**MOST_BITS)])])


def test_counts_lead_back_to_the_lattice_or_are_refused() -> None:
    word, integers = step_near(2.0**-20), np.array([0, 2**17, -(2**17), 2**40])
    assert fixed.measured(fixed.counted(integers, word), word).tolist() == integers.tolist()
    for counts, grid in ((2**39, step_near(2.0**-20)), (1, step_near(2.0**20))):
        with pytest.raises(CodecError, match="beyond its lattice"):
            fixed.measured(np.array([counts]), grid)
