"""How integers become symbols: a class for each, chosen from its expected magnitude, and a literal table for
each class.

Class c stands for an expected magnitude of 2**(c / 2 - 8), c = 0..TOP, in steps of half an octave. Its
alphabet is 0, +1, -1, ..., +LARGEST, -LARGEST and an escape. Where larger magnitudes are expected, the low
bits of the integer, which hardly compress, are sent as they are and only the rest is a symbol of class TOP or
TOP - 1.

    q = high << shift + low - half,   shift = max(0, (c - TOP + 1) // 2),   half = 2**shift // 2

Escapes follow their batch: a sign, the bit length of the excess, its bits. `Writer` and `Reader` mirror each
other.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError
from models.codec.dither import STEPS as DITHER_STEPS
from models.codec.rans import PRECISION, Puller, Slices, lanes_for, push
from models.codec.tables import ESCAPE, FIRST_DITHERED, LARGEST, QUARTERS, TABLES, TOP

Int64 = npt.NDArray[np.int64]

POINT = 12
"""Expected magnitudes are fixed-point numbers with so many binary places."""
LARGEST_INTEGER = 2**24
"""No coded integer reaches this magnitude."""
_THRESHOLDS = np.array([isqrt(isqrt(1 << 15 + 2 * c)) for c in range(1, 65)], np.int64)
"""Class c begins at 2**(c / 2 - 8 - 1 / 4)."""
_COST = PRECISION - np.log2(TABLES.frequency)
_LENGTH_BITS = 5


def classes_of(expected: Int64) -> Int64:
    """Return the class of each expected magnitude (fixed point)."""
    return np.searchsorted(_THRESHOLDS, expected, side="right")


class Writer:
    """Collects what goes into a stream, and knows what it will cost."""

    def __init__(self) -> None:
        """Start empty."""
        self.bits = 0.0
        """What has been written so far costs this."""
        self._batches: list[Slices] = []

    def uniform(self, numbers: Int64 | list[int], n_bits: int) -> None:
        """Write numbers of n_bits <= 14 bits each."""
        values = np.asarray(numbers, np.int64)
        width = 1 << PRECISION - n_bits
        self._batches.append(Slices(np.full(len(values), width, np.int64), values * width))
        self.bits += n_bits * len(values)

    def integers(self, values: Int64, classes: Int64, numbers: Int64 | None = None) -> None:
        """Write integers below LARGEST_INTEGER, each by its class; `numbers` have dithered them."""
        rows, shifts = _split(classes)
        if numbers is not None:
            rows, signs = _by_dither(rows, shifts, numbers)
            values = values * signs
        high = values + (1 << shifts >> 1) >> shifts
        size = np.abs(high)
        symbols = np.where(size > LARGEST, ESCAPE, 2 * size - (high > 0))
        self.raw_symbols(symbols, rows)
        for k in np.flatnonzero(size > LARGEST):
            self._escape(int(high[k]))
        self._low(values + (1 << shifts >> 1) - (high << shifts), shifts)

    def raw_symbols(self, symbols: Int64, rows: Int64) -> None:
        """Write symbols by the tables of their rows."""
        self._batches.append(Slices(TABLES.frequency[rows, symbols], TABLES.cumulative[rows, symbols]))
        self.bits += float(_COST[rows, symbols].sum())

    def extend(self, other: Writer) -> None:
        """Append everything that another writer holds."""
        self._batches += other._batches
        self.bits += other.bits

    def stream(self) -> tuple[int, bytes]:
        """Return the number of lanes and the stream."""
        lanes = lanes_for(sum(len(batch.frequency) for batch in self._batches))
        return lanes, push(self._batches, lanes)

    def _escape(self, high: int) -> None:
        excess = abs(high) - LARGEST
        length = excess.bit_length()
        self.uniform([int(high < 0)], 1)
        self.uniform([length], _LENGTH_BITS)
        for at in range(0, length - 1, PRECISION):
            width = min(PRECISION, length - 1 - at)
            self.uniform([excess >> at & (1 << width) - 1], width)

    def _low(self, low: Int64, shifts: Int64) -> None:
        for at in range(int(shifts.max(initial=0))):
            self.uniform(low[shifts > at] >> at & 1, 1)


class Reader:
    """Reads what a Writer wrote, given the same classes. Raises CodecError for what no Writer writes."""

    def __init__(self, lanes: int, stream: memoryview) -> None:
        """Open a stream."""
        self._puller = Puller(stream, lanes)
        self.close = self._puller.close

    def uniform(self, n: int, n_bits: int) -> Int64:
        """Read n numbers of n_bits each."""
        return self._puller.uniform(n, n_bits)

    def number(self, n_bits: int) -> int:
        """Read one number."""
        return int(self._puller.uniform(1, n_bits)[0])

    def integers(self, classes: Int64, numbers: Int64 | None = None) -> Int64:
        """Read one integer for each class; `numbers` have dithered them."""
        rows, shifts = _split(classes)
        signs = None
        if numbers is not None:
            rows, signs = _by_dither(rows, shifts, numbers)
        symbols = self.raw_symbols(rows)
        high = np.where(symbols & 1, symbols + 1, -symbols) >> 1
        for k in np.flatnonzero(symbols == ESCAPE):
            high[k] = self._escape()
        values = (high << shifts) - (1 << shifts >> 1) + self._low(shifts)
        if (np.abs(values) > LARGEST_INTEGER).any():
            raise CodecError("an integer is too large")
        return values if signs is None else values * signs

    def raw_symbols(self, rows: Int64) -> Int64:
        """Read one symbol for each row of the tables."""
        return self._puller.symbols(rows, TABLES)

    def _escape(self) -> int:
        negative, length = self.number(1), self.number(_LENGTH_BITS)
        if not 1 <= length <= 25:
            raise CodecError("an escape is too long")
        excess = 1 << length - 1
        for at in range(0, length - 1, PRECISION):
            excess |= self.number(min(PRECISION, length - 1 - at)) << at
        return -(excess + LARGEST) if negative else excess + LARGEST

    def _low(self, shifts: Int64) -> Int64:
        low = np.zeros(len(shifts), np.int64)
        for at in range(int(shifts.max(initial=0))):
            which = shifts > at
            low[which] |= self.uniform(int(which.sum()), 1) << at
        return low


def _split(classes: Int64) -> tuple[Int64, Int64]:
    shifts = np.maximum(classes - TOP + 1, 0) >> 1
    return classes - 2 * shifts, shifts


def _by_dither(rows: Int64, shifts: Int64, numbers: Int64) -> tuple[Int64, Int64]:
    """Return the rows of dithered entries, and signs: a number in the upper half mirrors symbols of the lower one."""
    dithered = (rows >= FIRST_DITHERED) & (shifts == 0)
    upper = numbers >= DITHER_STEPS // 2
    near = np.where(upper, DITHER_STEPS - 1 - numbers, numbers)
    quarter = near * 2 * QUARTERS // DITHER_STEPS
    found = np.where(dithered, TOP + 1 + QUARTERS * (rows - FIRST_DITHERED) + quarter, rows)
    return found, np.where(dithered & upper, -1, 1)
