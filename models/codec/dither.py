"""Rounding with a dither that both sides know: the same symbols at half the error, and no bias.

Rounded up or down at random, a value x becomes a symbol q whose mean is x and whose error has a variance of about 1/6.
If what decides is a number j that the decoder can draw too, it takes the decision back (Roberts 1962; Zamir and Feder
1992, "On universal quantization by randomized uniform/lattice quantizers"):

    q = floor((X + j) / 16),   decoded = (32 q - 2 j + 15) / 32,   j uniform on 0 ... 15

where X is 16 x rounded up or down at random. The mean of what is decoded is x, as before, and the variance of its error
1/12. That is worse for entries that are nearly always 0, which cost less and lose less undithered: those whose class
(symbols.py) is below FIRST_DITHERED are left alone. Numbers come from splitmix64, so the decoder is exact.
"""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from models import splitmix
from models.codec.tables import FIRST_DITHERED

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

UNIT = 5
"""Dithered values are integers times 2**-UNIT."""
SALT_BITS = 8
STEPS = 16
"""Values that a number of the dither has."""
_TENSOR_BITS = 40


class Dither:
    """The numbers j of one tensor, in order.

    seed: the step word of the body and its salt, word << SALT_BITS | salt: devices must not share their dither, lest
    their errors add up. tensor: its number in the net.
    """

    def __init__(self, seed: int, tensor: int) -> None:
        self._seed = seed
        self._next = self._first = tensor << _TENSOR_BITS

    def again(self) -> Dither:
        """Return the same numbers from their beginning."""
        fresh = copy(self)
        fresh._next = self._first
        return fresh

    def take(self, n: int) -> Int64:
        """Return the next n numbers, 0 ... 15."""
        words = splitmix.outputs(self._seed, self._next, n)
        self._next += n
        return (words >> np.uint64(60)).astype(np.int64)


def to_symbols(values: Float64, classes: Int64, numbers: Int64, rng: np.random.Generator) -> Int64:
    """Round values to integers, without bias once they are decoded."""
    dithered = classes >= FIRST_DITHERED
    fine = np.floor(values * np.where(dithered, STEPS, 1) + rng.random(values.shape)).astype(np.int64)
    return np.where(dithered, (fine + numbers) // STEPS, fine)


def to_levels(symbols: Int64, classes: Int64, numbers: Int64) -> Int64:
    """Return what symbols stand for, in units of 2**-UNIT."""
    return (symbols << UNIT) + np.where(classes >= FIRST_DITHERED, STEPS - 1 - 2 * numbers, 0)
