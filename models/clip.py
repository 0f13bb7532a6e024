"""Scaling a decoded update down, so that the same bits come of it wherever and in whatever order it is added.

    u' = f * u,    f = the largest of  mantissa * 2**exponent  with BITS bits that is at most  most / |u|

which is the clip of McMahan, Ramage, Talwar, Zhang (2018), "Learning Differentially Private Recurrent Language Models":
u * min(1, S / |u|) with S = most, but for the length of the factor. A factor of float64 would have to be rounded into
every integer; one so short times an integer is an integer. So what is added is a function of the update and of its
factor alone, and a sum of such terms is the same in any order. It loses less than 1 % of the norm (2**(1 - BITS)).

Integers (int8, buckets of a sketch) are multiplied exactly. float32 (a float32 body, coordinates beside a sketch) is
multiplied in float64, which holds the product, and rounded once to float32, element by element.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.codec.coding import Update
from models.codec.decoded import Decoded
from models.codec.plain import Floats
from models.codec.sketch import Sketch

BITS = 8
"""Of a factor: an int8 coordinate has 15, one of a sketch 40, so that products stay within the codec's 52."""


class Factor(NamedTuple):
    """mantissa * 2**exponent, of a mantissa from 2**(BITS - 1) on and below 2**BITS."""

    mantissa: int
    exponent: int

    @property
    def value(self) -> float:
        """Return it as a float, exactly."""
        return math.ldexp(self.mantissa, self.exponent)


def factor_for(norm: float, most: float) -> Factor:
    """Return the factor that brings a norm to `most` or a little below. Raises ValueError where there is none.

    >>> factor_for(4.0, 1.0).value
    0.25
    >>> factor_for(3.0, 1.0)
    Factor(mantissa=170, exponent=-9)
    """
    if not 2.0**-100 * norm < most < norm < math.inf:
        raise ValueError(f"a norm of {norm:g} is not brought to {most:g} by any factor")
    whole, exponent = math.frexp(most / norm)
    return Factor(int(math.ldexp(whole, BITS)), exponent - BITS)


def clipped(update: Update, factor: Factor) -> Update:
    """Return `factor` times a decoded update, coded as that is."""
    mantissa, exponent = factor
    if isinstance(update, Floats):
        return Floats(np.multiply(update.row, factor.value, dtype=np.float64).astype(np.float32))
    if isinstance(update, Sketch):
        beside = update.beside.copy()
        beside["value"] = np.multiply(beside["value"], factor.value, dtype=np.float64)
        return update._replace(scales=update.scales * mantissa, exponent=update.exponent + exponent, beside=beside)
    return tuple(Decoded(tensor.integers * mantissa, tensor.exponent + exponent) for tensor in update)
