"""Whole numbers in few bits: Elias' gamma and delta codes ("Universal codeword sets", 1975), one form for each number.

gamma(v), v >= 1: as many zeros as v has bits behind its first, then v: 1 is "1", 5 is "00101". delta(v): the gamma code
of how many bits v has, then those behind the first. A series of counts, most of them 0, is how many zeros come (plus 1,
gamma), the count behind them (gamma), and so on to its end. What is read is held against limits of the reader before
anything is made of it; every fault is a BitsError.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class BitsError(ValueError):
    """Bytes that no writer has written."""


class Writer:
    """Puts numbers behind each other."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def gamma(self, value: int) -> None:
        """Add a number of 1 or more."""
        bits = format(value, "b")
        self._parts.append("0" * (len(bits) - 1) + bits)

    def delta(self, value: int) -> None:
        """Add a number of 1 or more, in fewer bits than gamma where it is large."""
        bits = format(value, "b")
        self.gamma(len(bits))
        self._parts.append(bits[1:])

    def integer(self, value: int) -> None:
        """Add any number: 1 bit for 0; else its sign, the zeros at its end, and what is before them."""
        if value == 0:
            self._parts.append("0")
            return
        size = abs(value)
        zeros = (size & -size).bit_length() - 1
        self._parts.append("11" if value < 0 else "10")
        self.delta(zeros + 1)
        self.delta(size >> zeros)

    def counts(self, counts: npt.NDArray[np.int64]) -> None:
        """Add a series of (m,) numbers, none below 0, whose length the reader knows."""
        at = 0
        for index in np.flatnonzero(counts).tolist():
            self.gamma(index - at + 1)
            self.gamma(int(counts[index]))
            at = index + 1
        if at < len(counts):
            self.gamma(len(counts) - at + 1)

    def to_bytes(self) -> bytes:
        """Return all that was added; the last byte is filled up with zeros."""
        bits = "".join(self._parts)
        n_bytes = -(-len(bits) // 8)
        return int(bits.ljust(8 * n_bytes, "0") or "0", 2).to_bytes(n_bytes, "big")


class Reader:
    """Takes numbers from bytes, in the order in which they were put there. Everything raises BitsError."""

    def __init__(self, data: bytes) -> None:
        self._bits = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if data else ""
        self._at = 0

    def gamma(self, most: int) -> int:
        """Return a number of 1..most."""
        first = self._bits.find("1", self._at, self._at + most.bit_length())
        if first < 0:
            raise BitsError("a number is larger than it can be, or cut off")
        end = 2 * first - self._at + 1
        value = int(self._take(first, end), 2)
        if value > most:
            raise BitsError(f"a number is {value:,} where it can be {most:,} at most")
        return value

    def delta(self, most: int) -> int:
        """Return a number of 1..most."""
        n_bits = self.gamma(most.bit_length())
        value = int("1" + self._take(self._at, self._at + n_bits - 1), 2)
        if value > most:
            raise BitsError("a number is larger than it can be")
        return value

    def integer(self, most: int) -> int:
        """Return a number of -most..most."""
        if self._take(self._at, self._at + 1) == "0":
            return 0
        sign = -1 if self._take(self._at, self._at + 1) == "1" else 1
        zeros = self.delta(most.bit_length()) - 1
        odd = self.delta(most)
        if odd % 2 == 0 or odd << zeros > most:
            raise BitsError("a sum is larger than it can be, or in another form than a writer's")
        return sign * (odd << zeros)

    def counts(self, length: int, most: int) -> npt.NDArray[np.int64]:
        """Return a series of so many numbers of 0..most."""
        found = np.zeros(length, np.int64)
        at = 0
        while at < length:
            at += self.gamma(length - at + 1) - 1
            if at < length:
                found[at] = self.gamma(most)
                at += 1
        return found

    def end(self) -> None:
        """Raise BitsError unless all is read but the zeros that fill up the last byte."""
        rest = self._bits[self._at :]
        if len(rest) >= 8 or "1" in rest:
            raise BitsError("there is something behind the end")

    def _take(self, start: int, end: int) -> str:
        if end > len(self._bits):
            raise BitsError("it is cut off")
        self._at = end
        return self._bits[start:end]


def most_bits_of_counts(length: int, total: int) -> int:
    """Return the most bits that a series of so many counts takes which add up to `total`, at most.

    With m of them above 0, the logarithm being concave: m (2 log2(length / m) + 2 log2(total / m) + 2), and one more
    number for the zeros at the end.
    """
    if not length or not total:
        return 2 * (length + 1).bit_length()

    def bits(m: int) -> float:
        return m * (2 * math.log2((length + m) / m) + 2 * math.log2(max(1.0, total / m)) + 2)

    most = min(length, total)
    turn = min(most, max(1, math.isqrt(length * total)))
    return (
        math.ceil(max(bits(m) for m in {most, turn, (turn + 1) // 2, min(most, 2 * turn)}))
        + 2 * (length + 1).bit_length()
    )


def most_bits_of_integer(most: int) -> int:
    """Return the most bits that a number of -most..most takes."""
    size = most.bit_length()
    return 2 + 2 * (2 * size.bit_length() + 1) + 2 * size
