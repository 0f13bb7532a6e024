"""Small tools for arrays of int64 that mean something together with an exponent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def rescale(integers: Int64, shift: int) -> Int64:
    """Multiply by 2**shift, rounding half to even. The caller sees to it that a left shift has room."""
    if shift >= 0:
        return integers << shift
    if shift <= -62:
        return np.zeros_like(integers)  # |integers| < 2**61, so every one of them is below a half
    right = -shift
    odd = (integers >> right) & 1
    return (integers + ((1 << (right - 1)) - 1) + odd) >> right


def largest(integers: npt.NDArray[np.integer[Any]]) -> int:
    """Return the largest magnitude; 0 for an empty array."""
    return max(int(integers.max()), -int(integers.min())) if integers.size else 0


def bits(integers: npt.NDArray[np.integer[Any]]) -> int:
    """Count the bits of the largest magnitude; 0 for an empty or all-zero array."""
    return largest(integers).bit_length()


_TO_INTEGERS = 1.5 * 2.0**52
_BITS = int(np.float64(_TO_INTEGERS).view(np.int64))


def nearest(values: npt.NDArray[np.float64]) -> Int64:
    """Return values below 2**51 in magnitude, each rounded half to even, in their own memory, which is used up.

    A float64 has 52 bits behind the first. Next to 1.5 * 2**52 the last of them is worth 1, so that adding this rounds
    as IEEE 754 does, and the bits of the sum are an integer: rint and a cast, at half the price.
    """
    values += _TO_INTEGERS
    found = values.view(np.int64)
    found -= _BITS
    return found


def sum_of_nearest(values: npt.NDArray[np.float64]) -> int:
    """Return the sum of what `nearest` makes of values that are not negative, below 2**63; they are used up.

    What all of them have too much is taken off the sum, which goes round at 2**64 as int64 does.
    """
    values += _TO_INTEGERS
    return (int(values.view(np.int64).sum()) - _BITS * values.size) % 2**64
