"""What a body decodes to: exact numbers, integers times a power of two."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BUDGET = 52
"""Every decoded integer is below 2**52 in magnitude, so float64 sums and products that make it are exact in
any order."""
SLAB = 2**14
"""Coordinates at a time: what is made on the way stays in the cache."""


class CodecError(ValueError):
    """A body that does not decode, or an update that cannot be encoded."""


class Decoded(NamedTuple):
    """One tensor of an update: value = integers * 2**exponent, exactly; |integers| <= 2**52."""

    integers: npt.NDArray[np.int64]
    exponent: int

    def values(self) -> npt.NDArray[np.float64]:
        """Return the exact values, float64 in the tensor's shape."""
        return np.asarray(np.ldexp(self.integers.astype(np.float64), self.exponent))


def exact(values: npt.NDArray[np.float64]) -> Decoded:
    """Put floats on the finest lattice that the budget allows: exact to 2**-51 of the largest magnitude."""
    exponent = _finest(_magnitude(values))
    return Decoded(np.asarray(np.rint(np.ldexp(values, -exponent)), np.int64), exponent)


def rounded(row: npt.NDArray[np.float64], exponent: int) -> npt.NDArray[np.int32] | None:
    """Return what `exact` makes of finite floats, rounded half to even to multiples of 2**exponent: int32, shape (d,).

    None where one is 2**30 such multiples or more.
    """
    largest = _magnitude(row)
    if not largest < 2.0 ** (exponent + 30) - 2.0**exponent:
        return None
    finest = _finest(largest)
    found = np.empty(row.shape, np.int32)
    for at in range(0, row.size, SLAB):
        slab = slice(at, at + SLAB)
        steps = row[slab] * 2.0**-finest
        np.rint(steps, out=steps)
        steps *= 2.0 ** (finest - exponent)
        found[slab] = np.rint(steps, out=steps)
    return found


def _magnitude(values: npt.NDArray[np.float64]) -> float:
    return max(float(values.max()), -float(values.min())) if values.size else 0.0


def _finest(largest: float) -> int:
    return max(math.frexp(largest)[1] - (BUDGET - 1), -149)
