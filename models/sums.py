"""Adding up the updates of a round, and coding the sum: the next version's body *is* the sum.

Updates of one base are coded alike, so they add up as they are: bucket by bucket, or coordinate by coordinate, on one
exponent that follows from the base (`models/fold.py`). Coordinates beside the buckets add up by index, in integers of
any length. Nothing here depends on order or grouping.

    mean = sum of weight * update / sum of weights,      body = quantised(rate * mean)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models import energy
from models.codec import plain, sketch
from models.codec.coding import Coding, Update
from models.codec.hadamard import hadamard
from models.codec.plain import Floats
from models.codec.plan import Float64
from models.codec.sketch import BESIDE, MOST_BESIDE, Beside, Sketch, share_of
from models.codec.terms import FLOAT32
from models.fold import COORDINATE_BITS, FINER, Fold, FoldError, exponents_for, norm_of_floats
from models.fold import norm as fold_norm
from models.lattice import Model
from models.params import Spec, TensorSpec
from models.rows import carved, row_of

BUCKETS_FINER = 16
"""Bits between the model's lattice and that of transformed buckets, which are smaller by the root of a block."""
MOST = 2.0**100
"""No published coordinate, and no bucket, is as large."""
_FINEST = 200
"""Coordinates beside are whole multiples of 2**-200."""


class Mean(NamedTuple):
    """The mean of a round: transformed buckets, float64, shape (m,), and what is beside; or tensors, in a row."""

    values: Float64
    beside: dict[int, float]


class Sum:
    """A weighted sum of the updates to one base. Mutable: `add` changes it, or raises and does not."""

    def __init__(self, coding: Coding, model: Model) -> None:
        """Start an empty sum. model: the base."""
        self.coding = coding
        if coding.terms.is_sketch:
            spec: Spec = (TensorSpec("buckets", (coding.plan.m,)),)
            self._fold = Fold(spec, (max(model.exponents) - BUCKETS_FINER,))
        elif coding.terms == FLOAT32 and len(set(model.exponents)) == 1:
            self._fold = Fold((TensorSpec("row", (coding.d,)),), exponents_for(model)[:1])
        else:
            self._fold = Fold(coding.spec, exponents_for(model))
        self._beside: dict[int, int] = {}
        self._most = math.ldexp(1.0, max(model.exponents) + COORDINATE_BITS - FINER)

    @property
    def weight(self) -> int:
        """The sum of the weights."""
        return self._fold.weight

    def add(self, update: Update, weight: int) -> None:
        """Add a decoded update. Raises FoldError for a weight or a coordinate that does not fit."""
        self._add(update, weight, 1)

    def take_out(self, update: Update, weight: int) -> None:
        """Take so much of an update's weight out again, exactly: as if it had been added with as much less.

        Raises FoldError for a weight that would leave it with less than 1.
        """
        self._add(update, weight, -1)

    def _add(self, update: Update, weight: int, sign: int) -> None:
        if isinstance(update, Floats) and len(self._fold.exponents) == 1:
            self._fold.add_floats(update, weight, sign)
            return
        if not isinstance(update, Sketch):
            self._fold.add(self.coding.tensors(update), weight, sign)
            return
        if update.beside.size and not (np.abs(update.beside["value"]) < self._most).all():
            raise FoldError("a coordinate beside the buckets is too large for the sum")
        if update.bits == 1:
            self._fold.add_signs(update.symbols, update.scales.tolist(), update.exponent, weight, sign)
        else:
            self._fold.add((update.z(),), weight, sign)
        for index, value in update.beside.tolist():
            self._beside[index] = self._beside.get(index, 0) + sign * weight * _whole(value)

    def mean(self) -> Mean:
        """Return the mean; the same bits for the same total. Raises FoldError for an empty sum."""
        values = row_of(self._fold.mean())
        beside = {i: energy.quotient(total, -_FINEST, self.weight) for i, total in sorted(self._beside.items())}
        return Mean(np.asarray(values, np.float64), beside)

    def zero(self) -> Mean:
        """Return the mean of updates that are all zero."""
        n = self.coding.plan.m if self.coding.terms.is_sketch else self.coding.d
        return Mean(np.zeros(n), {})

    def mean_energy(self) -> float:
        """Return |mean|^2 over all coordinates, as the buckets tell it."""
        inside = self._fold.mean_energy()
        if self.coding.terms.is_sketch:
            inside *= self.coding.plan.block
        return inside + math.fsum(b * b for b in self.mean().beside.values()) if self._beside else inside


def norm(update: Update, coding: Coding) -> float:
    """Return the norm of a decoded update, the same on every machine; of a sketch, about that of what was coded."""
    if isinstance(update, Sketch):
        return sketch.norm(update, coding.terms.bits)
    return norm_of_floats(update) if isinstance(update, Floats) else fold_norm(update)


def published(mean: Mean, coding: Coding, bits: int, rate: float, rng: np.random.Generator | None) -> bytes:
    """Return the body of a sum: `rate` times the mean, in `bits` bits a bucket, or in int8 rounded at random by rng.

    rng: None will do for buckets.

    Raises FoldError where the mean is beyond what a body can say.
    """
    values = mean.values * rate
    if not (np.abs(values) < MOST).all() or not all(abs(rate * value) < MOST for value in mean.beside.values()):
        raise FoldError("the mean of the updates is not finite or far too large")
    if not coding.terms.is_sketch:
        assert rng is not None, "int8 is rounded at random"  # noqa: S101 -- a fault of the caller
        return plain.write_int8(carved(values, coding.spec), rng)
    beside, rest = _divided(
        mean.beside, float(np.square(mean.values).sum()) * coding.plan.block, rate, share_of(coding.d)
    )
    if rest is not None:
        small = np.zeros(coding.d)
        small[rest["index"]] = rest["value"]
        values = values + hadamard(coding.hash.fold(small), coding.plan.block) / coding.plan.block
    return sketch.write(values, coding.plan, bits, beside)


def _divided(beside: dict[int, float], inside: float, rate: float, share: float) -> tuple[Beside, Beside | None]:
    """Return what of the coordinates beside still dominates, at most 16, and the others, which go into the buckets."""
    cells = np.array([(i, rate * value) for i, value in beside.items()], BESIDE)
    squares = np.square(cells["value"].astype(np.float64))
    enough = squares > share * (rate * rate * inside + squares.sum())
    first = np.argsort(np.where(enough, -squares, 0.0), kind="stable")[:MOST_BESIDE]
    stays = np.zeros(len(cells), bool)
    stays[first] = enough[first]
    return cells[stays], (cells[~stays] if not stays.all() else None)


def _whole(value: float) -> int:
    """Return a float32 as a whole multiple of 2**-_FINEST, exactly."""
    numerator, denominator = value.as_integer_ratio()
    return (numerator << _FINEST) // denominator
