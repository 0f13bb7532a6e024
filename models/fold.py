"""Adding up the updates of a round exactly, so that any order and any grouping give the same bytes.

A fold has one exponent per tensor, set by the aggregator when the round opens and the same for everyone who
folds for it: `exponents_for(model)` lies FINER bits below the model's own lattice. Each decoded update is
rounded half-even onto it once, multiplied by its integer weight and added:

    total = sum_i weight_i * round(decoded_i / 2**exponent),      weight = sum_i weight_i

Integers add associatively, so a tree of folds ends where a single one does. A coordinate on the fold lattice
stays within 2**42 and a weight within 2**20, so a product fits an int64; the running sums do too until their
bound says otherwise, and then the upper 32 bits of every coordinate spill into a second array. What could
overflow even that is refused with FoldError before anything is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models import energy
from models.codec.decoded import Decoded
from models.codec.plain import Floats
from models.integers import bits, largest, nearest, rescale, sum_of_nearest
from models.lattice import Model
from models.params import Spec

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SLAB = 2**15
"""Coordinates at a time: what is made on the way stays in the cache."""
FINER = 12
"""Bits between the model's lattice and the fold's: rounding 10 updates then loses 2**-38 of a unit each."""
COORDINATE_BITS = 42
MAX_WEIGHT = 2**20
MAX_TOTAL_WEIGHT = 2**40
"""So that |total| < 2**83: low 32 bits and a high part that stays far within an int64."""
SPILL_BITS = 32
_ROOM = 2**63 - 1


class FoldError(ValueError):
    """An update, a weight or another fold that this one cannot take, or stored bytes that are not a fold."""


class _Sum(NamedTuple):
    """One tensor's running total = high * 2**32 + low; `bound` is what |low| cannot exceed."""

    low: Int64
    high: Int64 | None
    bound: int


class Fold:
    """A weighted sum of decoded updates. Mutable: `add` and `merge` change it in place, or raise and do
    not.
    """

    def __init__(self, spec: Spec, exponents: Sequence[int]) -> None:
        """Start an empty fold; `exponents` has one entry per tensor."""
        if len(exponents) != len(spec):
            raise FoldError(f"{len(exponents)} exponents for {len(spec)} tensors")
        self.spec = spec
        self.exponents = tuple(exponents)
        self.weight = 0
        self.count = 0
        self._sums = [_Sum(np.zeros(t.shape, np.int64), None, 0) for t in spec]

    def add(self, update: Sequence[Decoded], weight: int, sign: int = 1) -> None:
        """Add one decoded update. sign: -1 takes as much of the weight of one that is in the sum out again, exactly.

        Raises FoldError for a weight outside 1..2**20, shapes that are not the spec's, or a coordinate too
        large for the lattice; with sign = -1 also for a weight that would leave some update less than 1.
        """
        self._check_weight(weight, sign)
        terms = self._on_lattice(update)
        self._sums = [
            _plus(s, t * (sign * weight), weight * largest(t)) for s, t in zip(self._sums, terms, strict=True)
        ]
        self._note(weight, sign)

    def add_floats(self, update: Floats, weight: int, sign: int = 1) -> None:
        """Add an update of finite float32, shape (d,), to a fold of one tensor. Raises FoldError as `add` does."""
        ((total,), (exponent,)) = self._sums, self.exponents
        self._check_weight(weight, sign)
        row, size = update.row, update.magnitude
        if row.shape != total.low.shape:
            raise FoldError("an update has other shapes than the spec")
        if not size <= 2.0 ** (exponent + COORDINATE_BITS):
            raise FoldError("an update is too large for the fold lattice")
        total = self._with_room(total, weight * math.ceil(size * 2.0**-exponent))
        for at in range(0, row.size, SLAB):
            slab = slice(at, at + SLAB)
            terms = nearest(np.multiply(row[slab], 2.0**-exponent, dtype=np.float64))  # COORDINATE_BITS are few enough
            terms *= sign * weight
            total.low[slab] += terms
        self._sums = [total]
        self._note(weight, sign)

    def add_signs(
        self, negative: npt.NDArray[np.uint8], steps: Sequence[int], exponent: int, weight: int, sign: int = 1
    ) -> None:
        """Add an update of one step a block of coordinates, with a sign each, to a fold of one tensor.

        negative: 1 where the sign is, shape (d,), in as many blocks of one length as there are steps, which are
        multiples of 2**exponent. Raises FoldError as `add` does.
        """
        ((total,), (ours,)) = self._sums, self.exponents
        self._check_weight(weight, sign)
        if negative.shape != total.low.shape:
            raise FoldError("an update has other shapes than the spec")
        if any(steps) and max(steps).bit_length() + exponent - ours > COORDINATE_BITS:
            raise FoldError("an update is too large for the fold lattice")
        on_lattice = _rounded(Decoded(np.array(steps, np.int64), exponent), ours) * weight
        total = self._with_room(total, largest(on_lattice))
        signs = 1 - 2 * negative.view(np.int8).reshape(len(steps), -1)
        low = total.low.reshape(len(steps), -1)
        low += signs * (sign * on_lattice)[:, None]
        self._sums = [total]
        self._note(weight, sign)

    def _check_weight(self, weight: int, sign: int) -> None:
        if not 1 <= weight <= MAX_WEIGHT:
            raise FoldError(f"weight {weight} is outside 1..{MAX_WEIGHT}")
        if sign > 0:
            self._take(weight, 1)
        elif self.weight - weight < self.count:
            raise FoldError(f"weight {weight} is more than can be taken out of {self.weight}, of {self.count} updates")

    def _note(self, weight: int, sign: int) -> None:
        self.weight, self.count = self.weight + sign * weight, self.count + (sign > 0)

    @staticmethod
    def _with_room(total: _Sum, bound: int) -> _Sum:
        """Return the same total, with room for terms up to this bound."""
        if total.bound + bound > _ROOM:
            total = _spilt(total)
        return total._replace(bound=total.bound + bound)

    def merge(self, other: Fold) -> None:
        """Add another fold of the same round. Raises FoldError unless spec and exponents are the same."""
        if (other.spec, other.exponents) != (self.spec, self.exponents):
            raise FoldError("folds of different rounds do not merge")
        self._take(other.weight, other.count)
        self._sums = [_merged(mine, theirs) for mine, theirs in zip(self._sums, other._sums, strict=True)]
        self.weight, self.count = self.weight + other.weight, self.count + other.count

    def mean(self) -> list[Float64]:
        """Return total / weight, float64 in the shapes of the spec; the same bits for the same total.

        Elementwise IEEE arithmetic only. Raises FoldError for an empty fold.
        """
        if not self.weight:
            raise FoldError("an empty fold has no mean")
        return [_mean(s, e, self.weight) for s, e in zip(self._sums, self.exponents, strict=True)]

    def mean_energy(self) -> float:
        """Return |total / weight|^2 from the integers, rounded once: the same for the same total on every machine.

        0 for an empty fold; inf beyond the floats.
        """
        if not self.weight:
            return 0.0
        pairs = zip(self._sums, self.exponents, strict=True)
        square, exponent = _added([(_square(s), e) for s, e in pairs])
        return energy.quotient(square, 2 * exponent, self.weight**2)

    def to_bytes(self) -> bytes:
        """Serialise in one canonical form: equal totals give equal bytes, whatever the order they came in."""
        parts = [_canonical(s) for s in self._sums]
        raws = [
            (low.astype("<i8").tobytes(), b"" if high is None else high.astype("<i8").tobytes())
            for low, high, _ in parts
        ]
        return msgspec.msgpack.encode((self.exponents, self.weight, self.count, raws))

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> Fold:
        """Read what `to_bytes` wrote. Raises FoldError when it is not a fold of this spec."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except msgspec.MsgspecError as error:
            raise FoldError(f"stored fold is damaged: {error}") from error
        fold = Fold(spec, stored.exponents)
        if len(stored.sums) != len(spec):
            raise FoldError("stored fold has other tensors than the spec")
        fold._take(stored.weight, stored.count)
        fold.weight, fold.count = stored.weight, stored.count
        fold._sums = [
            _read(low, high, t.shape, stored.weight) for (low, high), t in zip(stored.sums, spec, strict=True)
        ]
        return fold

    def _take(self, weight: int, count: int) -> None:
        if weight < count or count < 0:
            raise FoldError(f"weight {weight} of {count} updates")
        if self.weight + weight > MAX_TOTAL_WEIGHT:
            raise FoldError(f"total weight {self.weight + weight} is more than {MAX_TOTAL_WEIGHT}")

    def _on_lattice(self, update: Sequence[Decoded]) -> list[Int64]:
        if [d.integers.shape for d in update] != [t.shape for t in self.spec]:
            raise FoldError("an update has other shapes than the spec")
        for decoded, exponent, tensor in zip(update, self.exponents, self.spec, strict=True):
            if bits(decoded.integers) + decoded.exponent - exponent > COORDINATE_BITS and decoded.integers.any():
                raise FoldError(f"tensor {tensor.name} is too large for the fold lattice")
        return [_rounded(d, e) for d, e in zip(update, self.exponents, strict=True)]


def exponents_for(model: Model) -> tuple[int, ...]:
    """Return the fold exponents of a round that leaves `model`: FINER bits below its lattice."""
    return tuple(exponent - FINER for exponent in model.exponents)


def norm(update: Sequence[Decoded]) -> float:
    """Return the Euclidean norm of a decoded update, rounded once: what the aggregator's gate compares.

    From the integers, so it has the same bits on every machine; inf when it is beyond the floats.
    """
    square, exponent = _added([(energy.dot(d.integers, d.integers), d.exponent) for d in update])
    return energy.root(square, exponent)


def _added(squares: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Add squares on several exponents: sum_i s_i * 4**e_i = sum * 4**exponent. Those of nothing do not count."""
    lowest = min((exponent for square, exponent in squares if square), default=0)
    return sum(square << 2 * (exponent - lowest) for square, exponent in squares if square), lowest


def _square(total: _Sum) -> int:
    """Sum the squares of high * 2**32 + low."""
    low, high, _ = total
    if high is None:
        return energy.dot(low, low)
    cross = energy.dot(low, high) << SPILL_BITS + 1
    return energy.dot(low, low) + cross + (energy.dot(high, high) << 2 * SPILL_BITS)


def norm_of_floats(update: Floats) -> float:
    """Return the Euclidean norm of finite float32, shape (d,): the same on every machine, and to 2**-20 of itself.

    Squares are rounded to multiples of 2**-44 of about the largest one, and those are added as integers.
    """
    row, size = update.row, update.magnitude
    if not size:
        return 0.0
    shift = 22 - math.frexp(size)[1]
    total = 0
    for at in range(0, row.size, SLAB):
        scaled = np.multiply(row[at : at + SLAB], 2.0**shift, dtype=np.float64)
        scaled *= scaled
        total += sum_of_nearest(scaled)
    return energy.root(total, -shift)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    exponents: tuple[int, ...]
    weight: int
    count: int
    sums: list[tuple[bytes, bytes]]


def _rounded(decoded: Decoded, exponent: int) -> Int64:
    if not decoded.integers.any():
        return np.zeros_like(decoded.integers)
    return rescale(decoded.integers, decoded.exponent - exponent)


def _plus(total: _Sum, term: Int64, bound: int) -> _Sum:
    if total.bound + bound > _ROOM:
        total = _spilt(total)
    return _Sum(total.low + term, total.high, total.bound + bound)


def _merged(mine: _Sum, theirs: _Sum) -> _Sum:
    if mine.bound + theirs.bound > _ROOM:
        mine, theirs = _spilt(mine), _spilt(theirs)
    highs = [s.high for s in (mine, theirs) if s.high is not None]
    high = highs[0] + highs[1] if len(highs) == 2 else (highs[0] if highs else None)
    return _Sum(mine.low + theirs.low, high, mine.bound + theirs.bound)


def _spilt(total: _Sum) -> _Sum:
    """Move all but the low 32 bits up; then |low| < 2**32 and a product below 2**62 has room again."""
    carry = total.low >> SPILL_BITS
    high = carry if total.high is None else total.high + carry
    return _Sum(total.low & (2**SPILL_BITS - 1), high, 2**SPILL_BITS - 1)


def _canonical(total: _Sum) -> _Sum:
    """The one form of a total: all in `low` where every coordinate fits it, else low in 0..2**32 - 1."""
    if total.high is None and bits(total.low) <= 61:
        return total
    low, high, bound = _spilt(total)
    if high is not None and bits(high ^ (high >> 63)) <= 30:  # -2**62 <= high * 2**32 + low < 2**62
        return _Sum((high << SPILL_BITS) + low, None, 2**62)
    return _Sum(low, high, bound)


def _mean(total: _Sum, exponent: int, weight: int) -> Float64:
    low, high, _ = _canonical(total)
    value = low.astype(np.float64)
    if high is not None:
        value += high.astype(np.float64) * 2.0**SPILL_BITS
    return np.ldexp(value / weight, exponent)


def _read(low: bytes, high: bytes, shape: tuple[int, ...], weight: int) -> _Sum:
    size = math.prod(shape)
    if len(low) != 8 * size or len(high) not in (0, 8 * size):
        raise FoldError("stored fold has other shapes than the spec")
    lows = np.frombuffer(low, "<i8").astype(np.int64).reshape(shape)
    if not high:
        total = _Sum(lows, None, largest(lows))
    else:
        total = _spilt(_Sum(lows, np.frombuffer(high, "<i8").astype(np.int64).reshape(shape), _ROOM))
    top = largest(lows) >> SPILL_BITS if total.high is None else largest(total.high)
    if top > (weight << COORDINATE_BITS - SPILL_BITS) + 1:
        raise FoldError("stored fold holds more than its weight can have added")
    return total
