"""The exact mean of the last versions of a job, which may be what is deployed: it loses the noise of a single one.

Versions wander about where they have converged to: by which devices happened to be drawn, and by the noise of the
coding, which is new in every version. In a mean most of that cancels (Polyak and Juditsky 1992). Nobody trains on it.

It lies on the lattice as versions do. Whoever holds the same versions makes the same integers, in whatever order, and
so it goes by a SHA-256. Which versions it is of is a rule of the job (`JobSpec.averaged_from`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from models.integers import Int64
from models.job import MOST_AVERAGED
from models.lattice import LatticeError, Model

MOST_APART = 28
"""Bits that the exponents of one tensor may lie apart: MOST_AVERAGED * LIMIT * 2**28 is 2**62."""


def mean(models: Iterable[Model]) -> Model:
    """Return the mean of 1 to MOST_AVERAGED models, each tensor rounded half to even onto the coarsest lattice that it
    has in them.

    Holds one of the models at a time, beside their sum. Raises LatticeError for none or too many, or where their
    lattices have nothing to do with each other.
    """
    sums: list[Int64] = []
    low: list[int] = []
    high: list[int] = []
    n = 0
    for model in models:
        if n == MOST_AVERAGED:
            raise LatticeError(f"a mean of more than {MOST_AVERAGED} models")
        n += 1
        if n == 1:
            sums = [ints.astype(np.int64) for ints in model.ints]
            low, high = list(model.exponents), list(model.exponents)
            continue
        for at, (ints, exponent) in enumerate(zip(model.ints, model.exponents, strict=True)):
            below, low[at], high[at] = low[at], min(low[at], exponent), max(high[at], exponent)
            if high[at] - low[at] > MOST_APART:
                raise LatticeError(f"exponents {low[at]} and {high[at]} of one tensor are too far apart for a mean")
            sums[at] <<= below - low[at]
            sums[at] += ints.astype(np.int64) << exponent - low[at]
    if not n:
        raise LatticeError("a mean of no models")
    means = (_divided(total, n << top - bottom) for total, bottom, top in zip(sums, low, high, strict=True))
    return Model(tuple(np.asarray(ints, np.int32) for ints in means), tuple(high))


def _divided(total: Int64, by: int) -> Int64:
    """Return total / by, rounded half to even. by: below 2**40."""
    quotient = total // by
    twice = 2 * (total - quotient * by)
    quotient += (twice > by) | ((twice == by) & (quotient & 1 == 1))
    return quotient
