"""What the fleet has agreed on before anybody trains: how each column is normalised, and how many examples a class has.

    devices ──statistics (models/statistic.py)──▶ server: `agreed_of` ──a body of its own──▶ Held.agreed, for good

    x' = (x - offset) * scale, in float32, column by column
    "standard"   offset: the mean over the fleet; scale: 1 over the standard deviation
    "minmax"     offset: the lowest value; scale: 1 over what lies between it and the highest. Both are rounded outward
                 by the devices, so that all values lie within 0 to 1
    "pixels"     offset 0, scale 1/255; and "minmax" by `ranges` of all features: no round is needed for these
    a column of one value has scale 1 ("minmax": within 0 to 1 as others); masks and time features stay as they are

The sums are whole numbers and added exactly, so the result has the same bits in whatever order devices came. What is
no whole number goes by single operations of IEEE arithmetic on one number a column, and a square root.

What a device claims is held against the others'. It weighs what its update would (`max_share` holds). And of each
column, once FEWEST_VOICES devices speak of it, those are left out that lie FAR times further from the middle than the
third quarter of all of them does (of three: than the second). So where fewer than a quarter lie, or one of three, they
can shift a mean by no more than their share of FAR times what is usual, and widen a scale by FAR times the square root
of that share ("minmax": by FAR). (A column in which three quarters have one and the same value has no usual size: there
liars can make it a constant for all.) Of two nobody can say which one is right: where they lie so far apart that is
told, and both count.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from models.contract import ContractSpec
from models.job import JobSpec, ModelSpec
from models.params import Float32
from models.statistic import (
    BITS,
    LARGEST,
    NOTHING,
    Bounds,
    Float64,
    Moments,
    Statistic,
    counts_classes,
    n_columns,
    squares,
    wanted,
)

FORMAT = 1
FAR = 16.0
"""Times the third quarter of the devices: who lies further from the middle has other units, or is hostile."""
QUARTERS = 3, 4
FEWEST_VOICES = 3
"""Devices of which two can be held against one."""
MOST_VOICES = 1024
"""Devices whose statistics are used: those whose names have the lowest hashes."""
SHIFT = 32
"""Bits that a sum is refined by where it is multiplied by a weight that is not its examples'."""
COLUMNS_AT_ONCE = 256
MOST_COUNT = 2**53
_HEAD = struct.Struct("<BII")


class AgreementError(ValueError):
    """Bytes that are not what the fleet of a job can have agreed on."""


class Agreed(Struct, frozen=True, eq=False):
    """What a fleet has agreed on. Nobody changes it."""

    offset: Float32
    """(n_columns,); empty where columns need no agreement."""
    scale: Float32
    class_counts: tuple[int, ...] = ()
    """How many examples of the fleet each class has; empty where nobody asks."""

    def to_bytes(self) -> bytes:
        """Serialise: format, the numbers of columns and classes, offsets, scales (float32), counts (8 each)."""
        counts = np.array(self.class_counts, "<i8")
        head = _HEAD.pack(FORMAT, len(self.offset), len(counts))
        return head + self.offset.astype("<f4").tobytes() + self.scale.astype("<f4").tobytes() + counts.tobytes()

    @property
    def digest(self) -> str:
        """The SHA-256 of its bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, Agreed) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self.to_bytes())


class Voice(NamedTuple):
    """What one device says, and what it weighs."""

    device: str
    weight: int
    statistic: Statistic


class Outcome(NamedTuple):
    """What a fleet has come to. far: of each column where some were left out, its number and their devices. apart: the
    columns of which two devices alone speak, and very differently.
    """

    agreed: Agreed
    n_voices: int
    """Devices that had something to say."""
    far: tuple[tuple[int, tuple[str, ...]], ...] = ()
    apart: tuple[int, ...] = ()


def max_bytes(job: JobSpec) -> int:
    """Return how long what this job's fleet agrees on may be as bytes; 0 where it agrees on nothing."""
    if not job.contract.agrees:
        return 0
    columns = n_columns(job) if wanted(job) else 0
    return _HEAD.size + 8 * columns + (8 * job.model.n_classes if counts_classes(job) else 0)


def from_bytes(data: bytes, job: JobSpec) -> Agreed:
    """Read what `Agreed.to_bytes` wrote for this job. Raises AgreementError, and nothing else, whatever the bytes."""
    most = max_bytes(job)
    if not most or len(data) != most:
        raise AgreementError(f"{len(data)} bytes, where this job's fleet agrees in {most}")
    number, columns, classes = _HEAD.unpack_from(data)
    if number != FORMAT:
        raise AgreementError(f"an agreement of format {number}, where this fedge reads {FORMAT}")
    if _HEAD.size + 8 * columns + 8 * classes != len(data) or columns != (n_columns(job) if wanted(job) else 0):
        raise AgreementError(f"an agreement on {columns} columns and {classes} classes, which are not this job's")
    numbers = np.frombuffer(data, "<f4", 2 * columns, _HEAD.size).astype(np.float32)
    counts = np.frombuffer(data, "<i8", classes, _HEAD.size + 8 * columns)
    if not np.isfinite(numbers).all() or not (numbers[columns:] > 0).all():
        raise AgreementError("an agreement with numbers that nothing can be normalised by")
    if (counts < 0).any() or (counts > MOST_COUNT).any():
        raise AgreementError("an agreement with counts that no fleet has")
    return _frozen(numbers[:columns], numbers[columns:], tuple(map(int, counts)))


def fits(agreed: Agreed | None, job: JobSpec) -> bool:
    """Return whether what another job's fleet has agreed on is what this job's has to agree on."""
    if agreed is None:
        return False
    try:
        from_bytes(agreed.to_bytes(), job)
    except AgreementError:
        return False
    return True


def of_model(data: bytes, model: ModelSpec, contract: ContractSpec) -> Agreed | None:
    """Read what lies beside a model, of which no more is known; None for no bytes. Raises AgreementError."""
    if not data:
        return None
    try:
        job = JobSpec(name="model", model=model, contract=contract)
    except ValueError as error:
        raise AgreementError(f"its contract is another model's: {error}") from error
    return from_bytes(data, job)


def by_contract(contract: ContractSpec, inputs: int) -> Agreed | None:
    """Return how columns are normalised where the job's file alone says it; None where the fleet does, or nobody.

    inputs: of the model.
    """
    columns = inputs // contract.n_rows
    if contract.normalise == "pixels":
        scaled = len(contract.features) or columns
        scale = np.ones(columns, np.float32)
        scale[:scaled] = 1 / 255
        return _frozen(np.zeros(columns, np.float32), scale)
    if contract.normalise == "minmax" and contract.features and set(contract.features) <= contract.ranges.keys():
        ranges = [contract.ranges[name] for name in contract.features]
        pairs = [_by_range(Fraction(low), Fraction(high)) for low, high in ranges]
        return _padded(pairs, columns)
    return None


def identity(job: JobSpec) -> Agreed:
    """Return what changes nothing: where nobody has said anything of its rows."""
    columns = n_columns(job) if wanted(job) else 0
    counts = (0,) * job.model.n_classes if counts_classes(job) else ()
    return _frozen(np.zeros(columns, np.float32), np.ones(columns, np.float32), counts)


def precedence(device: str) -> bytes:
    """Return what orders devices where not all are heard: by no choice of theirs, and not by who came first."""
    return hashlib.sha256(device.encode()).digest()


def agreed_of(job: JobSpec, voices: Sequence[Voice]) -> Outcome:
    """Return what the fleet of a job agrees on, by what its devices say: the same in whatever order.

    Of a device that has nothing to say nothing counts; where none has anything it is the identity.
    """
    speaking = [voice for voice in voices if voice.statistic.n]
    speaking = sorted(speaking, key=lambda voice: (precedence(voice.device), voice.device))[:MOST_VOICES]
    if not speaking:
        return Outcome(identity(job), 0)
    counts = _counts(job, speaking) if counts_classes(job) else ()
    if not wanted(job):
        return Outcome(_frozen(np.zeros(0, np.float32), np.ones(0, np.float32), counts), len(speaking))
    centres, sizes = _places(speaking)
    kept = _kept(centres, sizes)
    find = _standard if wanted(job) == "standard" else _minmax
    agreed = _padded(find(speaking, kept), n_columns(job), counts)
    far = tuple(
        (column, tuple(sorted(speaking[at].device for at in np.flatnonzero(~kept[:, column]))))
        for column in np.flatnonzero(~kept.all(axis=0)).tolist()
    )
    return Outcome(agreed, len(speaking), far, _apart(centres, sizes))


# Who is held to be one of them.


def _places(voices: Sequence[Voice]) -> tuple[Float64, Float64]:
    """Return where the values of each device lie, and how far they spread: float64 (devices, columns)."""
    centres, spreads = [], []
    for voice in voices:
        centre, spread = _place(voice.statistic)
        centres.append(centre)
        spreads.append(spread)
    return np.array(centres), np.array(spreads)


def _place(statistic: Statistic) -> tuple[Float64, Float64]:
    match statistic.columns:
        case Moments(exponents, sums, _, _) as moments:
            grid = np.ldexp(1.0, exponents.astype(np.int64) - BITS)
            pairs = zip(sums.tolist(), squares(moments), strict=True)
            spreads = [_spread(total, square, statistic.rows) for total, square in pairs]
            return sums.astype(np.float64) / statistic.rows * grid, np.array(spreads) * grid
        case Bounds(exponents, lowest, highest):
            low = np.ldexp(lowest.astype(np.float64), exponents.astype(np.int64))
            high = np.ldexp(highest.astype(np.float64), exponents.astype(np.int64))
            return low / 2 + high / 2, high / 2 - low / 2
    raise AssertionError("a statistic without columns where they are wanted")


def _spread(total: int, square: int, n: int) -> float:
    """Return the standard deviation of n numbers of which these are the sum and the sum of squares."""
    return math.sqrt(max(0, n * square - total * total)) / n


def _kept(centres: Float64, spreads: Float64) -> npt.NDArray[np.bool_]:
    """Return whether each device counts for each column, (devices, columns)."""
    n = len(centres)
    if n < FEWEST_VOICES:
        return np.ones(centres.shape, np.bool_)
    middle = np.sort(centres, axis=0)[(n - 1) // 2]
    reach = np.abs(centres - middle) + spreads
    share, parts = QUARTERS
    usual = np.sort(reach, axis=0)[min(-(-n * share // parts) - 1, n - 2)]
    # where three quarters of all have one and the same value, whoever has another one is no stranger for that
    found: npt.NDArray[np.bool_] = (reach <= FAR * usual) | (usual == 0)
    return found


def _apart(centres: Float64, spreads: Float64) -> tuple[int, ...]:
    """Return the columns in which two devices lie so far apart that in a larger fleet one of them would be left out.

    A column that has one value on each of them, or on one in the midst of the other's, is not among them.
    """
    if len(centres) != 2:
        return ()
    narrow, wide = np.sort(spreads, axis=0)
    strange = (np.abs(centres[0] - centres[1]) > FAR * wide) | ((narrow > 0) & (wide > FAR * narrow))
    return tuple(np.flatnonzero(strange & (wide > 0)).tolist())


# What comes of it.


def _standard(voices: Sequence[Voice], kept: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return mean and 1 over the standard deviation of each column, of exact sums: some columns at a time, since whole
    numbers take ten times the bytes in which they were said.
    """
    found: list[tuple[float, float]] = []
    for first in range(0, kept.shape[1], COLUMNS_AT_ONCE):
        some = slice(first, first + COLUMNS_AT_ONCE)
        found += _standard_of([_terms(voice, some) for voice in voices], voices, kept[:, some])
    return found


def _standard_of(
    terms: Sequence[_Terms], voices: Sequence[Voice], kept: npt.NDArray[np.bool_]
) -> Iterator[tuple[float, float]]:
    for column in range(kept.shape[1]):
        ours = np.flatnonzero(kept[:, column]).tolist()
        exponents = [terms[at].exponents[column] for at in ours]
        finest = min((exponent for exponent in exponents if exponent != NOTHING), default=NOTHING)
        total = square = 0
        for at, exponent in zip(ours, exponents, strict=True):
            if exponent != NOTHING:
                total += terms[at].sums[column] << exponent - finest
                square += terms[at].squares[column] << 2 * (exponent - finest)
        weight = sum(voices[at].weight for at in ours)
        yield _mean_and_scale(total, square, weight << SHIFT, finest - BITS)


class _Terms(NamedTuple):
    """A device's columns as if it had `weight` rows, sums in 2**-SHIFT."""

    exponents: list[int]
    sums: list[int]
    squares: list[int]


def _terms(voice: Voice, some: slice) -> _Terms:
    whole, rows, weight = voice.statistic.columns, voice.statistic.rows, voice.weight
    assert isinstance(whole, Moments)  # noqa: S101 -- as its job has it, or it was refused
    moments = Moments(whole.exponents[some], whole.sums[some], whole.high[some], whole.low[some])
    sums = [(total * weight << SHIFT) // rows for total in moments.sums.tolist()]
    return _Terms(moments.exponents.tolist(), sums, [(square * weight << SHIFT) // rows for square in squares(moments)])


def _mean_and_scale(total: int, square: int, weight: int, exponent: int) -> tuple[float, float]:
    """Return offset and scale of a column: of sums over `weight` values, in multiples of 2**exponent and its square."""
    unit, spread = Fraction(2) ** exponent, square * weight - total * total
    mean = _float(Fraction(total, weight) * unit)
    if spread <= 0:
        return mean, 1.0
    return mean, 1 / math.sqrt(_float(Fraction(spread, weight * weight) * unit * unit))


def _minmax(voices: Sequence[Voice], kept: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return the lowest value of each column, and 1 over what lies between it and the highest."""
    lows, highs = [], []
    for voice in voices:
        bounds = voice.statistic.columns
        assert isinstance(bounds, Bounds)  # noqa: S101 -- as its job has it, or it was refused
        lows.append(np.ldexp(bounds.lowest.astype(np.float64), bounds.exponents.astype(np.int64)))
        highs.append(np.ldexp(bounds.highest.astype(np.float64), bounds.exponents.astype(np.int64)))
    low = np.where(kept, np.array(lows), np.inf).min(axis=0)
    high = np.where(kept, np.array(highs), -np.inf).max(axis=0)
    return [_by_range(Fraction(a), Fraction(b)) for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def _by_range(low: Fraction, high: Fraction) -> tuple[float, float]:
    return _float(low), _float(1 / (high - low)) if high > low else 1.0


def _float(value: Fraction) -> float:
    """Return the nearest float64."""
    return value.numerator / value.denominator


def _counts(job: JobSpec, voices: Sequence[Voice]) -> tuple[int, ...]:
    """Return how many examples each class has, each device's scaled to what it weighs and rounded half up."""
    found = [0] * job.model.n_classes
    for voice in voices:
        n, weight = voice.statistic.n, voice.weight
        assert voice.statistic.counts is not None  # noqa: S101 -- as its job has it, or it was refused
        for label, count in enumerate(voice.statistic.counts.tolist()):
            found[label] += (2 * count * weight + n) // (2 * n)
    return tuple(found)


def _padded(pairs: Sequence[tuple[float, float]], columns: int, counts: tuple[int, ...] = ()) -> Agreed:
    """Return the agreement of these offsets and scales; columns beyond them stay as they are."""
    offset, scale = np.zeros(columns, np.float32), np.ones(columns, np.float32)
    most = 2.0**LARGEST
    with np.errstate(over="ignore", under="ignore"):
        for at, (low, by) in enumerate(pairs):
            narrow = np.float32(by)
            offset[at] = low if abs(low) < most else 0.0
            scale[at] = narrow if 0 < narrow < np.inf else 1.0
    offset[~np.isfinite(offset)] = 0.0
    return _frozen(offset, scale, counts)


def _frozen(offset: Float32, scale: Float32, counts: tuple[int, ...] = ()) -> Agreed:
    arrays: tuple[npt.NDArray[Any], ...] = (offset, scale)
    for array in arrays:
        array.flags.writeable = False
    return Agreed(offset, scale, counts)
