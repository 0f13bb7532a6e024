"""Sums of squares to the last bit: the same on every machine, in any order, under any BLAS.

Whether an update is let in and how coarse the next ones may be hang on norms. NumPy's products of floats go by BLAS,
whose kernels add in orders of their own: the same numbers, another last bit, and on the edge another verdict. Integers
have no order. What is summed here are integers, cut into limbs so short that an int64 holds the sum of a whole block of
their products (NumPy multiplies integers itself); the rest is Python's, and what comes out is rounded once.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.integers import bits

Int64 = npt.NDArray[np.int64]

LIMB_BITS = 22
BLOCK = 2**14
"""Coordinates at a time: 2 * 22 + 14 bits fit an int64, and all limbs of a block the cache."""
_LIMB = 2**LIMB_BITS - 1
HALF_BITS = 15
SLAB = 2**15
"""Coordinates at a time: 2 * 15 + 15 bits fit a float64's mantissa, with room for a sum, and all of it the cache."""
_SQUARE_BITS = 24
"""Of a magnitude so long a slab's squares add up below 2**63."""


def dot(left: Int64, right: Int64) -> int:
    """Return the sum of products of two arrays of one shape, exactly, whatever int64 they hold."""
    a, b = left.reshape(-1), right.reshape(-1)
    total = 0
    for start in range(0, a.size, BLOCK):
        ours = _limbs(a[start : start + BLOCK])
        if right is left:  # each pair of limbs once
            total += sum(
                int(np.dot(x, ours[j])) << LIMB_BITS * (i + j) + (i < j)
                for i, x in enumerate(ours)
                for j in range(i, len(ours))
            )
            continue
        theirs = _limbs(b[start : start + BLOCK])
        total += sum(int(np.dot(x, y)) << LIMB_BITS * (i + j) for i, x in enumerate(ours) for j, y in enumerate(theirs))
    return total


def square_of_row(row: npt.NDArray[np.int32]) -> int:
    """Return the sum of squares of an int32 row, exactly, for magnitudes up to 2**30.

    As int64 where that holds the sum of a slab, as it does for nearly every model; else in two limbs of 15 bits, as
    floats: products and sums stay below 2**53, so BLAS may add them in any order.
    """
    total = 0
    if bits(row) <= _SQUARE_BITS:
        for start in range(0, row.size, SLAB):
            squares = row[start : start + SLAB].astype(np.int64)
            squares *= squares
            total += int(squares.sum())
        return total
    for start in range(0, row.size, SLAB):
        slab = row[start : start + SLAB]
        high, low = (slab >> HALF_BITS).astype(np.float64), (slab & (1 << HALF_BITS) - 1).astype(np.float64)
        total += (int(high @ high) << 2 * HALF_BITS) + (int(high @ low) << HALF_BITS + 1) + int(low @ low)
    return total


def root(square: int, exponent: int) -> float:
    """Return sqrt(square) * 2**exponent, rounded once, half to even; inf beyond the floats. Not for square < 0.

    The root is taken of an integer (math.isqrt) with more bits than a float has, and one more says whether there is a
    rest. Below the normal floats (2**-1022) it is rounded once more.
    """
    more = 64 - square.bit_length() // 2
    scaled = square << 2 * more if more >= 0 else square >> -2 * more
    whole = math.isqrt(scaled)
    rest = whole * whole != scaled or (more < 0 and scaled << -2 * more != square)
    try:
        return math.ldexp(float(whole << 1 | rest), exponent - more - 1)
    except OverflowError:
        return math.inf


def quotient(numerator: int, exponent: int, denominator: int) -> float:
    """Return numerator * 2**exponent / denominator, rounded once, half to even; inf beyond the floats."""
    try:
        return (numerator << max(0, exponent)) / (denominator << max(0, -exponent))
    except OverflowError:
        return math.inf


def _limbs(integers: Int64) -> list[Int64]:
    """Cut integers into limbs, the lowest first: all below 2**LIMB_BITS in magnitude, all but the last not negative."""
    limbs = []
    while bits(integers) > LIMB_BITS:
        limbs.append(integers & _LIMB)
        integers = integers >> LIMB_BITS
    return [*limbs, integers]
