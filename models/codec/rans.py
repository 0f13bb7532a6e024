"""The entropy coder: range asymmetric numeral systems (Duda 2013) with interleaved lanes, in pure NumPy.

A symbol is a slice [cumulative, cumulative + frequency) of TOTAL = 2**14. A lane is a state x in [2**16,
2**32):

    push:  if x >= frequency << 18: emit x & 0xffff, x >>= 16       x = (x // frequency << 14) + x % frequency
    + cumulative pull:  slot = x & 0x3fff, the symbol that owns it               x = frequency * (x >> 14) +
    slot - cumulative
           if x < 2**16: x = x << 16 | next word

Symbols come in batches; symbol i of a batch belongs to lane i mod L. All lanes share one sequence of 16-bit
words, taken in the order of the lanes within a step. A stream is the L final states of the encoder, 4 bytes
each, and then the words. The encoder starts every lane at 2**16, so a decoder that does not end there, or has
words left over, has read damage.

One lane is coded by a plain loop, which beats vector steps up to some ten thousand symbols and spends 2 bytes
beyond the entropy; longer streams have 128 or 1,024 lanes, a step of which is a few array operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError

Int64 = npt.NDArray[np.int64]

PRECISION = 14
TOTAL = 1 << PRECISION
_MASK = TOTAL - 1
_LOW = 1 << 16
_SHIFT = 32 - PRECISION

LANES = (1, 128, 1024)


class Tables(NamedTuple):
    """Symbol statistics: row c holds the frequencies and cumulative frequencies of class c, and who owns each
    slot.
    """

    frequency: Int64
    """(classes, symbols)"""
    cumulative: Int64
    """(classes, symbols)"""
    owner: npt.NDArray[np.uint8]
    """(classes, TOTAL)"""
    rows: list[tuple[list[int], list[int], bytes]]
    """The same, class by class, for the plain loop."""


def tables_of(frequency: Int64) -> Tables:
    """Build the tables of frequencies (classes, symbols), each row of which sums to TOTAL."""
    cumulative = np.cumsum(frequency, axis=1) - frequency
    symbols = np.arange(frequency.shape[1], dtype=np.uint8)
    owner = np.stack([np.repeat(symbols, row) for row in frequency])
    rows = [(f.tolist(), c.tolist(), o.tobytes()) for f, c, o in zip(frequency, cumulative, owner, strict=True)]
    return Tables(frequency, cumulative, owner, rows)


class Slices(NamedTuple):
    """A batch of symbols as the encoder takes them, one entry each."""

    frequency: Int64
    cumulative: Int64


def lanes_for(n: int) -> int:
    """Choose the lanes for a stream of n symbols."""
    return LANES[0] if n < 1 << 16 else LANES[1] if n < 1 << 20 else LANES[2]


def push(batches: Sequence[Slices], lanes: int) -> bytes:
    """Code batches, first to last, into a stream that `Puller` reads in that order."""
    if not batches:
        return np.full(lanes, _LOW, "<u4").tobytes()
    return _push_one(batches) if lanes == 1 else _push_many(batches, lanes)


def _push_one(batches: Sequence[Slices]) -> bytes:
    x, words = _LOW, []
    frequencies = np.concatenate([batch.frequency for batch in batches])[::-1]
    cumulatives = np.concatenate([batch.cumulative for batch in batches])[::-1]
    limits = (frequencies << _SHIFT).tolist()
    for f, c, limit in zip(frequencies.tolist(), cumulatives.tolist(), limits, strict=True):
        if x >= limit:
            words.append(x & 0xFFFF)
            x >>= 16
        x = (x // f << PRECISION) + x % f + c
    return x.to_bytes(4, "little") + np.array(words[::-1], "<u2").tobytes()


def _push_many(batches: Sequence[Slices], lanes: int) -> bytes:
    states, chunks = np.full(lanes, _LOW, np.int64), []
    for frequencies, cumulatives in reversed(batches):
        for start in reversed(range(0, len(frequencies), lanes)):
            frequency = frequencies[start : start + lanes]
            x = states[: len(frequency)]
            over = x >= frequency << _SHIFT
            chunks.append(x[over] & 0xFFFF)
            quotient, rest = np.divmod(np.where(over, x >> 16, x), frequency)
            states[: len(frequency)] = (quotient << PRECISION) + rest + cumulatives[start : start + lanes]
    words = np.concatenate([states[:0], *chunks[::-1]])
    return states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


class Puller:
    """Reads a stream batch by batch. Raises CodecError as soon as the stream cannot be what an encoder
    wrote.
    """

    def __init__(self, stream: bytes | memoryview, lanes: int) -> None:
        """Open a stream of `lanes` lanes."""
        if len(stream) < 4 * lanes or len(stream) % 2:
            raise CodecError(f"stream of {len(stream)} bytes for {lanes} lanes")
        self._states = np.frombuffer(stream[: 4 * lanes], "<u4").astype(np.int64)
        if (self._states < _LOW).any():
            raise CodecError("a lane starts below its range")
        self._words = np.frombuffer(stream[4 * lanes :], "<u2").astype(np.int64)
        self._at = 0
        self._list: list[int] = self._words.tolist() if lanes == 1 else []

    def symbols(self, classes: Int64, tables: Tables) -> Int64:
        """Pull one symbol for each class index, (n,) int64."""
        if len(self._states) == 1:
            return self._symbols_one(classes, tables)
        symbols = np.empty(len(classes), np.int64)
        for start in range(0, len(classes), len(self._states)):
            step = classes[start : start + len(self._states)]
            slot = self._states[: len(step)] & _MASK
            found = tables.owner[step, slot].astype(np.int64)
            self._refill(slot - tables.cumulative[step, found], tables.frequency[step, found])
            symbols[start : start + len(step)] = found
        return symbols

    def uniform(self, n: int, n_bits: int) -> Int64:
        """Pull n numbers of n_bits <= 14 bits each."""
        if len(self._states) == 1:
            return self._uniform_one(n, PRECISION - n_bits)
        numbers = np.empty(n, np.int64)
        frequency = 1 << PRECISION - n_bits
        for start in range(0, n, len(self._states)):
            slot = self._states[: n - start] & _MASK
            numbers[start : start + len(slot)] = slot >> PRECISION - n_bits
            self._refill(slot & frequency - 1, np.int64(frequency))
        return numbers

    def close(self) -> None:
        """Raise CodecError unless every word has been read and every lane is back where the encoder began."""
        if self._at != len(self._words) or (self._states != _LOW).any():
            raise CodecError("stream does not end where it should")

    def _refill(self, offset: Int64, frequency: Int64 | np.int64) -> None:
        n = len(offset)
        x = frequency * (self._states[:n] >> PRECISION) + offset
        empty = np.flatnonzero(x < _LOW)
        if self._at + len(empty) > len(self._words):
            raise CodecError("stream ends early")
        x[empty] = x[empty] << 16 | self._words[self._at : self._at + len(empty)]
        self._at += len(empty)
        self._states[:n] = x

    def _symbols_one(self, classes: Int64, tables: Tables) -> Int64:
        rows = tables.rows
        x, at, words, symbols = int(self._states[0]), self._at, self._list, []
        try:
            for c in classes.tolist():
                frequency, cumulative, owner = rows[c]
                slot = x & _MASK
                symbol = owner[slot]
                symbols.append(symbol)
                x = frequency[symbol] * (x >> PRECISION) + slot - cumulative[symbol]
                if x < _LOW:
                    x = x << 16 | words[at]
                    at += 1
        except IndexError:
            raise CodecError("stream ends early") from None
        self._states[0], self._at = x, at
        return np.array(symbols, np.int64)

    def _uniform_one(self, n: int, shift: int) -> Int64:
        x, at, words, numbers = int(self._states[0]), self._at, self._list, []
        try:
            for _ in range(n):
                slot = x & _MASK
                numbers.append(slot >> shift)
                x = (x >> PRECISION << shift) + (slot & (1 << shift) - 1)
                if x < _LOW:
                    x = x << 16 | words[at]
                    at += 1
        except IndexError:
            raise CodecError("stream ends early") from None
        self._states[0], self._at = x, at
        return np.array(numbers, np.int64)
