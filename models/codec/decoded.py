"""What a body decodes to: exact numbers, integers times a power of two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BUDGET = 52
"""Every decoded integer is below 2**52 in magnitude, so float64 sums and products that make it are exact in
any order."""


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
    largest = float(np.abs(values).max()) if values.size else 0.0
    exponent = max(int(np.frexp(largest)[1]) - (BUDGET - 1), -149)
    return Decoded(np.asarray(np.rint(np.ldexp(values, -exponent)), np.int64), exponent)
