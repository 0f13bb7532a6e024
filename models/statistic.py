"""What one device says of its rows, so that the fleet can agree on how to normalise them: sums, and no row.

    "standard"   of each column an exponent e, with |x| <= 2**e for every x; and over q = round(x * 2**(24 - e)), half
                 to even, the sum of q and the sum of q * q, exactly
    "minmax"     of each column an exponent k, and the lowest and the highest value in multiples of 2**k, rounded down
                 and up: 2**k is at least a sixteenth of what lies between them, so that no lowest value is a row's own
    class_weight = "balanced"    of each class how many examples have it

A device with fewer than FEWEST examples says that it has none: a mean of a few rows is about those rows. It still
answers, so that nobody waits for it. The columns are the features; masks and time features are as they are already.

As bytes (little-endian): the number of this format (1); how many examples (8); of "standard" all exponents (2 each),
all sums (8 each), all sums of squares, their upper part (8 each) and their lower 32 bits (4 each); of "minmax" all
exponents (2 each), all lowest (4 each), all highest (4 each); then the counts of the classes (8 each). Of no examples
there is nothing behind their number. So the length follows from the job.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.integers import Int64
from models.job import JobSpec
from models.nets.losses import Labels
from models.params import Float32

Float64 = npt.NDArray[np.float64]

FORMAT = 1
FEWEST = 20
"""Examples of which a device says anything."""
BITS = 24
"""Of a value on the grid of its column: as many as a float32 has."""
NOTHING = -150
"""The exponent of a column of zeros: no float32 beside 0 is that small."""
LARGEST = 128
"""No finite float32 reaches 2**128."""
FINEST = NOTHING - BITS
"""The grid of "minmax" is no finer."""
FINER = 4
"""Bits by which the grid of "minmax" lies below the power of two next to what it spans."""
ROWS_AT_ONCE = 2**14
"""Rows that are added up in int64: 2**14 squares of 2**48."""
NUMBERS_AT_ONCE = 2**17
"""Numbers that are looked at together: a megabyte in float64."""
MOST_EXAMPLES = 2**36
MOST_ROWS = 2**38
"""Rows of all windows together: their sums stay in an int64."""
MOMENTS = ("<i2", "<i8", "<i8", "<u4")
BOUNDS = ("<i2", "<i4", "<i4")
"""What is written of every column."""
_HEAD = struct.Struct("<BQ")
_LOW = 32


class StatisticError(ValueError):
    """Bytes that are not what a device may say of its rows."""


class Moments(NamedTuple):
    """Sums over each column's grid; the sum of squares is high * 2**32 + low. All (n_columns,)."""

    exponents: npt.NDArray[np.int16]
    sums: Int64
    high: Int64
    low: npt.NDArray[np.uint32]


class Bounds(NamedTuple):
    """The lowest and the highest of each column, in multiples of 2**exponent. All (n_columns,)."""

    exponents: npt.NDArray[np.int16]
    lowest: npt.NDArray[np.int32]
    highest: npt.NDArray[np.int32]


class Statistic(NamedTuple):
    """What a device says. n: its examples, 0 where there are too few to say anything of them."""

    n: int
    columns: Moments | Bounds | None = None
    """None where the job wants nothing of columns, or where there is nothing to say."""
    counts: Int64 | None = None
    """Of each class, (n_classes,)."""
    rows: int = 0
    """Those of all examples together: more than one each where they are windows."""


def n_columns(job: JobSpec) -> int:
    """Return how many inputs one row has."""
    return job.model.inputs // job.contract.n_rows


def n_scaled(job: JobSpec) -> int:
    """Return how many of the inputs of a row, from the first on, are normalised: all features."""
    return len(job.contract.features) or n_columns(job)


def _dtypes(job: JobSpec) -> tuple[str, ...]:
    """Return what is said of every column, in its order."""
    if not job.contract.agrees:
        return ()
    return {"standard": MOMENTS, "minmax": BOUNDS}.get(wanted(job), ())


def wanted(job: JobSpec) -> str:
    """Return what the fleet has to agree on of columns: "standard", "minmax", or "" for nothing."""
    contract = job.contract
    if contract.normalise == "minmax" and bool(contract.features) and set(contract.features) <= contract.ranges.keys():
        return ""
    return contract.normalise if contract.normalise in ("standard", "minmax") else ""


def counts_classes(job: JobSpec) -> bool:
    """Return whether the fleet has to know how many examples each class has."""
    return job.contract.class_weight == "balanced"


def max_bytes(job: JobSpec) -> int:
    """Return how long a statistic of this job may be; 0 where it wants none."""
    if not job.contract.agrees:
        return 0
    each = sum(np.dtype(dtype).itemsize for dtype in _dtypes(job))
    return _HEAD.size + each * n_scaled(job) + (8 * job.model.n_classes if counts_classes(job) else 0)


# Of rows.


def of_rows(job: JobSpec, X: Float32, y: Labels) -> Statistic:
    """Return what a device says of its examples.

    X: (n, ...) float32, finite, of job.model.inputs numbers an example; it may be a memory map, of which a megabyte is
    looked at at a time. y: as the job's loss takes labels.
    """
    n = len(X)
    if n < FEWEST:
        return Statistic(0)
    rows = X.reshape(-1, n_columns(job))
    if len(rows) > MOST_ROWS:
        raise StatisticError(f"{len(rows):,} rows are more than {MOST_ROWS:,}")
    columns: Moments | Bounds | None = None
    if wanted(job) == "standard":
        columns = _moments(rows[:, : n_scaled(job)])
    elif wanted(job) == "minmax":
        columns = _bounds(rows[:, : n_scaled(job)])
    counts = np.bincount(y.reshape(-1), minlength=job.model.n_classes).astype(np.int64) if counts_classes(job) else None
    return Statistic(n, columns, counts, len(rows))


def _blocks(rows: Float32) -> list[slice]:
    at_once = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // max(1, rows.shape[1])))
    return [slice(at, at + at_once) for at in range(0, len(rows), at_once)]


def _extremes(rows: Float32) -> tuple[Float64, Float64]:
    low, high = np.full(rows.shape[1], np.inf), np.full(rows.shape[1], -np.inf)
    for block in _blocks(rows):
        np.minimum(low, rows[block].min(axis=0), out=low)
        np.maximum(high, rows[block].max(axis=0), out=high)
    return low, high


def _moments(rows: Float32) -> Moments:
    low, high = _extremes(rows)
    largest = np.maximum(-low, high)
    # frexp: largest = m * 2**e with m in [1/2, 1)
    exponents = np.where(largest > 0, np.frexp(largest)[1], NOTHING).astype(np.int64)
    factor = np.ldexp(1.0, BITS - exponents)
    sums = np.zeros(rows.shape[1], np.int64)
    upper, lower = np.zeros_like(sums), np.zeros_like(sums)
    for block in _blocks(rows):
        scaled = rows[block] * factor  # float64, and exact: a power of two
        q = np.rint(scaled, out=scaled).astype(np.int64)
        sums += q.sum(axis=0)
        q *= q
        squares = q.sum(axis=0)
        lower += squares & (2**_LOW - 1)
        upper += (squares >> _LOW) + (lower >> _LOW)
        lower &= 2**_LOW - 1
    return Moments(exponents.astype(np.int16), sums, upper, lower.astype(np.uint32))


def _bounds(rows: Float32) -> Bounds:
    low, high = _extremes(rows)
    spans = high - low
    alone = np.where(spans > 0, spans, np.maximum(-low, high))  # of a column with one value: its own size
    exponents = np.where(alone > 0, np.frexp(alone)[1] - FINER, FINEST)
    # so that multiples stay within 2**30, also where what is spanned is small beside what it lies at
    far = np.frexp(np.maximum(np.maximum(-low, high), 2.0**-200))[1] - 29
    exponents = np.clip(np.maximum(exponents, far), FINEST, LARGEST).astype(np.int64)
    lowest = np.floor(np.ldexp(low, -exponents)).astype(np.int32)
    highest = np.ceil(np.ldexp(high, -exponents)).astype(np.int32)
    return Bounds(exponents.astype(np.int16), lowest, highest)


# As bytes.


def to_bytes(statistic: Statistic) -> bytes:
    """Return the section of an update that says it."""
    columns = statistic.columns
    arrays: tuple[npt.NDArray[Any], ...] = () if columns is None else columns
    dtypes = () if columns is None else MOMENTS if isinstance(columns, Moments) else BOUNDS
    parts = [_HEAD.pack(FORMAT, statistic.n)]
    parts += [array.astype(dtype).tobytes() for array, dtype in zip(arrays, dtypes, strict=True)]
    if statistic.counts is not None:
        parts.append(statistic.counts.astype("<i8").tobytes())
    return b"".join(parts)


def from_bytes(data: bytes, job: JobSpec) -> Statistic:
    """Read what a device of this job says. Raises StatisticError, and nothing else, whatever the bytes are.

    What is read could be said of some rows: no sum is larger than its examples allow, and no square of a sum than the
    squares do.
    """
    if len(data) < _HEAD.size:
        raise StatisticError(f"a statistic of {len(data)} bytes")
    found, n = _HEAD.unpack_from(data)
    if found != FORMAT:
        raise StatisticError(f"a statistic of format {found}, where this fedge reads {FORMAT}")
    most = _HEAD.size if n == 0 else max_bytes(job)
    if len(data) != most:
        raise StatisticError(f"a statistic of {len(data)} bytes, where {most} say {n} examples of this job")
    if n == 0:
        return Statistic(0)
    if not FEWEST <= n <= MOST_EXAMPLES or n * job.contract.n_rows > MOST_ROWS:
        raise StatisticError(f"a statistic of {n} examples, where it is of {FEWEST} to {MOST_EXAMPLES}")
    arrays, at = [], _HEAD.size
    for dtype in _dtypes(job):
        arrays.append(np.frombuffer(data, dtype, n_scaled(job), at))
        at += arrays[-1].nbytes
    columns: Moments | Bounds | None = None
    if wanted(job) == "standard":
        columns = Moments(*arrays)
        _check_moments(columns, n * job.contract.n_rows)
    elif wanted(job) == "minmax":
        columns = Bounds(*arrays)
        _check_bounds(columns)
    counts = np.frombuffer(data, "<i8", job.model.n_classes, at) if counts_classes(job) else None
    if counts is not None and ((counts < 0).any() or (counts > n).any() or sum(map(int, counts)) != n):
        raise StatisticError(f"its classes do not add up to {n} examples")
    return Statistic(n, columns, counts, n * job.contract.n_rows)


def _check_moments(moments: Moments, rows: int) -> None:
    exponents, sums, high, _ = moments
    if (exponents < NOTHING).any() or (exponents > LARGEST).any():
        raise StatisticError("a column has an exponent that no float32 has")
    if (high < 0).any() or (high > rows << 2 * BITS - _LOW).any() or (sums == np.iinfo(np.int64).min).any():
        raise StatisticError("a column has a sum of squares that its rows cannot have")
    for exponent, total, square in zip(exponents.tolist(), sums.tolist(), squares(moments), strict=True):
        is_nothing = exponent == NOTHING and (total or square)
        if is_nothing or square > rows << 2 * BITS or total * total > rows * square:
            raise StatisticError("a column has sums that its rows cannot have")


def _check_bounds(bounds: Bounds) -> None:
    exponents, lowest, highest = bounds
    if (exponents < FINEST).any() or (exponents > LARGEST).any():
        raise StatisticError("a column has an exponent that no float32 has")
    sizes = np.ldexp(np.maximum(-lowest.astype(np.int64), highest).astype(np.float64), exponents.astype(np.int64))
    if (lowest > highest).any() or (sizes >= 2.0 ** (LARGEST + 1)).any():
        raise StatisticError("a column has a lowest value above its highest, or one that no float32 has")


def squares(moments: Moments) -> list[int]:
    """Return the sum of squares of each column, in multiples of 4**(exponent - BITS)."""
    return [(high << _LOW) + low for high, low in zip(moments.high.tolist(), moments.low.tolist(), strict=True)]
