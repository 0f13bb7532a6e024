"""Measures of models that learn values, of sums which are exact: RMSE, MAE, R2.

A float32 is a whole number times a power of two. Its sum over rows is a whole number of the smallest unit there is, of
any length, and so is the sum of its squares: sums of blocks, of devices, in any order, come to the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.params import Float32

UNIT = 172
"""Sums of numbers count 2**-172 each, sums of squares its square: no float32 has a finer part as it is taken apart."""
LARGEST_ERROR = 2.0**126
"""An error beyond counts as this."""
MOST_ROWS_AT_ONCE = 2**20
_MANTISSA = 24


class Sums(NamedTuple):
    """Of one output: whole numbers of 2**-UNIT, or of its square."""

    squared: int
    """Of the errors."""
    absolute: int
    y: int
    y_squared: int


def of_column(answers: Float32, y: Float32) -> Sums:
    """Return the sums of (n,) answers, of which only finite ones count, and (n,) finite labels.

    An error is rounded to a float32.
    """
    fine = np.isfinite(answers)
    errors = answers[fine].astype(np.float64) - y[fine]
    off = np.minimum(np.abs(errors), LARGEST_ERROR).astype(np.float32)
    return Sums(_squares(off), _sum(off), _sum(y), _squares(y))


def _sum(numbers: Float32) -> int:
    """Return the exact sum, in 2**-UNIT."""
    total = 0
    for start in range(0, len(numbers), MOST_ROWS_AT_ONCE):
        mantissas, exponents = _apart(numbers[start : start + MOST_ROWS_AT_ONCE])
        # below 2**44 by exponent, so that the float64 of bincount are whole numbers
        by_exponent = np.bincount(exponents, mantissas)
        total += sum(int(by_exponent[e]) << e for e in np.flatnonzero(by_exponent).tolist())
    return total


def _squares(numbers: Float32) -> int:
    """Return the exact sum of squares, in 2**(-2 UNIT)."""
    total = 0
    for start in range(0, len(numbers), MOST_ROWS_AT_ONCE):
        mantissas, exponents = _apart(numbers[start : start + MOST_ROWS_AT_ONCE])
        squares = np.square(mantissas.astype(np.int64))
        for shift, part in ((_MANTISSA, squares >> _MANTISSA), (0, squares & (2**_MANTISSA - 1))):
            by_exponent = np.bincount(exponents, part.astype(np.float64))
            total += sum(int(by_exponent[e]) << (2 * e + shift) for e in np.flatnonzero(by_exponent).tolist())
    return total


def _apart(
    numbers: Float32,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return (n,) whole numbers below 2**24 and (n,) exponents from 0 on: a number is m 2**(e - UNIT)."""
    mantissas, exponents = np.frexp(numbers)
    return np.ldexp(mantissas.astype(np.float64), _MANTISSA), exponents.astype(np.int64) + (UNIT - _MANTISSA)


def rmse(sums: Sums, n: int) -> float:
    """Return the root of the mean squared error."""
    return math.sqrt(sums.squared / (n << 2 * UNIT))


def mae(sums: Sums, n: int) -> float:
    """Return the mean absolute error."""
    return sums.absolute / (n << UNIT)


def r2(sums: Sums, n: int) -> float | None:
    """Return 1 minus the squared errors over those of the labels' mean; None where all labels are the same."""
    spread = n * sums.y_squared - sums.y**2
    return 1.0 - n * sums.squared / spread if spread > 0 else None


def mean(found: list[float]) -> float:
    """Return the mean over outputs, as scikit-learn's "uniform_average"."""
    return math.fsum(found) / len(found)
