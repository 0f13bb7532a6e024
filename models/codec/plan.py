"""What everybody in a round agrees on: how many buckets there are, and which coordinate falls into which.

A plan belongs to a base version. Its hash and signs come from the base's public seed by splitmix64 alone, so that any
machine, in any language, draws the same. Coordinate i = r * m + j of row r falls into bucket (a_r * j + b_r) mod m with
gcd(a_r, m) = 1: a row is a permutation of the buckets, so that every bucket holds as many coordinates as every other.
It is a count sketch (Charikar, Chen and Farach-Colton 2002) of one row whose hash is balanced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from models import splitmix

FEWEST = 64
"""Fewer coordinates than this are not worth a sketch, and there are never fewer buckets."""
LARGEST_BLOCK = 8192
MOST_BUCKETS = 2**26 - LARGEST_BLOCK
"""So that a number of buckets has 26 bits."""
SLAB = 2**17
"""Coordinates that are folded at a time: what is made on the way stays in the cache."""
WIDE = 2**13
"""Buckets from which on there is no slab, which would be kept."""
PIECE = 2**15
"""Indices that are gone by at a time."""
COORDINATES, BUCKETS = 0x5349474E53, 0x5455524E
"""Added to the seed: streams of their own for the signs of coordinates and of buckets."""

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Integer = TypeVar("Integer", np.int32, np.int64)


class Plan(NamedTuple):
    """d coordinates in m buckets, which are m / block equal blocks of a power of two each; `seed` draws the rest."""

    d: int
    m: int
    block: int
    seed: int

    @property
    def n_blocks(self) -> int:
        """How many blocks the buckets are."""
        return self.m // self.block


def plan(d: int, wanted: int, key: str) -> Plan:
    """Return the plan for d coordinates with at least `wanted` buckets, and not many more.

    key: what names the base, to everybody; the seed is the first 64 bits of SHA-256("key:d:m"), little-endian.
    """
    m, block = shape(min(wanted, d))
    digest = hashlib.sha256(f"{key}:{d}:{m}".encode()).digest()
    return Plan(d, m, block, int.from_bytes(digest[:8], "little"))


def shape(wanted: int) -> tuple[int, int]:
    """Return (m, block), m = a * block, for at least this many buckets; shape(m) of that m is the same.

    Up to 256 one block, a power of two; 384 = 3 * 128; above, blocks of 256 to 8,192, at most about an eighth of m.
    """
    wanted = min(max(wanted, FEWEST), MOST_BUCKETS)
    if wanted <= 256:
        m = 1 << (wanted - 1).bit_length()
        return m, m
    if wanted <= 384:
        return 384, 128
    block = min(max(256, 1 << wanted.bit_length() - 4), LARGEST_BLOCK)
    m = -(-wanted // block) * block
    return (m, block) if m.bit_length() == wanted.bit_length() else shape(m)


class Hash:
    """The hash and the signs of a plan, made once a base: 1 byte a coordinate, 1 a bucket.

    Folding gathers by the hash the other way round: for each row, and in the order of the buckets, which of its
    coordinates falls into each. A row is an affine permutation, so its inverse is one too. Spreading gathers too, by
    the hash itself: to read here and there costs a third of writing here and there. What is gathered by is made piece
    by piece as it goes; only of short rows, which are gone by a slab at a time, it is kept: 4 bytes a coordinate.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        n_rows = -(-plan.d // plan.m)
        words = splitmix.outputs(plan.seed, 0, 2 * n_rows)
        self._factors = coprimes(words[::2], plan.m)
        self._shifts = (words[1::2] % np.uint64(plan.m)).tolist()
        self.sign = _signs(plan.seed + COORDINATES, plan.d)
        """int8, shape (d,): +1 or -1 for every coordinate."""
        self.turn = _signs(plan.seed + BUCKETS, plan.m)
        """int8, shape (m,): the same for every bucket, before the transform."""

    @cached_property
    def _slabs(self) -> list[Int32]:
        """int32, shape (rows, m): which of the coordinates of these rows falls into each bucket; for who folds."""
        m, n = self.plan.m, max(1, SLAB // self.plan.m)
        inverse, back = self._inverse()
        slabs = [affine(inverse[at : at + n], back[at : at + n], m) for at in range(0, len(inverse), n)]
        for source in slabs:
            source += np.arange(0, source.size, m, dtype=np.int32)[:, None]
        return slabs

    def _inverse(self) -> tuple[list[int], list[int]]:
        """Return the factors and the shifts of the rows the other way round."""
        m = self.plan.m
        inverse = [pow(factor, -1, m) for factor in self._factors]
        return inverse, [-factor * shift % m for factor, shift in zip(inverse, self._shifts, strict=True)]

    @property
    def bucket(self) -> Int32:
        """int32, shape (d,): the bucket of every coordinate."""
        return affine(self._factors, self._shifts, self.plan.m).reshape(-1)[: self.plan.d]

    def fold(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the buckets of coordinates: y_b = turn_b * sum of sign_i * x_i over the i of bucket b.

        values: shape (d,). float64, or the type of the values where every bucket holds one.
        """
        d, m = self.plan.d, self.plan.m
        if m >= min(d, WIDE):
            return self._by_piece(values)
        sums: npt.NDArray[np.floating] = np.zeros(m)
        signed = np.empty(self._slabs[0].size, values.dtype)
        start = 0
        for source in self._slabs:
            stop = min(start + source.size, d)
            np.multiply(values[start:stop], self.sign[start:stop], out=signed[: stop - start])
            signed[stop - start :] = 0  # the last row may be longer than what is left
            n = max(8, PIECE // len(source))
            for at in range(0, m, n):
                rows = signed.take(source[:, at : at + n], mode="wrap")  # none is out of range
                sums[at : at + n] += rows[0] if len(rows) == 1 else np.add.reduce(rows, axis=0, dtype=np.float64)
            start = stop
        sums *= self.turn
        return sums

    def _by_piece(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the same, row by row: sums of the same slabs, to the same bits.

        Where rows are as long as the net, or nearly, a piece of them at a time: no other memory is so large.
        """
        d, m = self.plan.d, self.plan.m
        far, near = _affine_parts(*self._inverse(), m)
        n_rows, fine = near.shape
        found: npt.NDArray[np.floating] = np.zeros(m, values.dtype if d <= m else np.float64)
        step = m // fine if n_rows > 4 else max(1, PIECE // fine)
        for at in range(0, m // fine, step):
            piece = found[at * fine : (at + step) * fine]
            part = np.zeros_like(piece)
            for row in range(n_rows):
                index = (far[row, at : at + step, None] + near[row]).reshape(-1)
                signed = self._signed(values, row, index)
                if n_rows == 1:
                    piece[...] = signed
                    break
                part += signed
                if (row + 1) % max(1, SLAB // m) == 0 or row + 1 == n_rows:
                    piece += part
                    part[...] = 0
        found *= self.turn
        return found

    def _signed(self, values: npt.NDArray[np.floating], row: int, index: Int64) -> npt.NDArray[np.floating]:
        """Return coordinates of a row with their signs; 0 where the last row is longer than what is left of them.

        index: within the row, modulo m, below 2 * m: to wrap that divides nothing.
        """
        m = self.plan.m
        some, sign = values[row * m : (row + 1) * m], self.sign[row * m : (row + 1) * m]
        if index.size == m:
            signed = np.empty(m, values.dtype)
            np.multiply(some, sign, out=signed[: some.size])
            signed[some.size :] = 0
            return signed.take(index, mode="wrap")
        if some.size < m:
            np.subtract(index, m, out=index, where=index >= m)
        found = some.take(index, mode="wrap")
        found *= sign.take(index, mode="wrap")
        if some.size < m:
            found[index >= some.size] = 0
        return found

    def unfold(self, buckets: npt.NDArray[Integer]) -> npt.NDArray[Integer]:
        """Return what buckets make of every coordinate: x_i = sign_i * turn_b * y_b, exact integers, shape (d,)."""
        return self.spread(buckets * self.turn)

    def spread(self, turned: npt.NDArray[Integer]) -> npt.NDArray[Integer]:
        """Return the same of buckets that are turned already: x_i = sign_i * y_b."""
        d, m, n_rows = self.plan.d, self.plan.m, len(self._factors)
        spread = np.empty(d, turned.dtype)  # no longer than what is kept of it: a version lives in it
        far, near = _affine_parts(self._factors, self._shifts, m)
        fine = near.shape[1]
        n, step = max(1, PIECE // m), max(1, PIECE // fine)
        for row in range(0, n_rows, n):
            for at in range(0, m // fine, step):
                index = (far[row : row + n, at : at + step, None] + near[row : row + n, None]).reshape(-1)
                out = spread[row * m + at * fine :][: index.size]
                # The last row may be longer than what is left. The index is below 2 * m: to wrap it divides nothing.
                turned.take(index[: out.size], out=out, mode="wrap")
        spread *= self.sign
        return spread


def affine(factors: Sequence[int], shifts: Sequence[int], m: int) -> Int32:
    """Return (factor * j + shift) mod m for every j below m, int32, a row a pair. m: a multiple of 64, < 2**26."""
    far, near = _affine_parts(factors, shifts, m)
    total = far.astype(np.uint32)[:, :, None] + near.astype(np.uint32)[:, None, :]
    flat = total.reshape(-1)
    for at in range(0, flat.size, PIECE):
        piece = flat[at : at + PIECE]
        np.minimum(piece, piece - np.uint32(m), out=piece)  # below zero it wraps, and is the larger one
    return total.reshape(len(factors), m).view(np.int32)


def _affine_parts(factors: Sequence[int], shifts: Sequence[int], m: int) -> tuple[Int64, Int64]:
    """Return (far, near), shapes (rows, m / fine) and (rows, fine), each below m, where for i below fine

        factor * (k * fine + i) + shift = far[k] + near[i]    modulo m

    so that only about a root of m divisions are made.
    """
    fine = 64
    while fine * fine < m and m % (2 * fine) == 0:
        fine *= 2
    factor, shift = np.array(factors, np.int64)[:, None], np.array(shifts, np.int64)[:, None]
    return (factor * np.arange(0, m, fine) + shift) % m, factor * np.arange(fine) % m


def coprimes(wanted: npt.NDArray[np.uint64], m: int) -> list[int]:
    """Return for each word the first number from it on, modulo m, that shares no factor with m."""
    factors = (wanted % np.uint64(m)).astype(np.int64)
    while (shared := np.gcd(factors, m) != 1).any():
        factors[shared] = (factors[shared] + 1) % m
    found: list[int] = factors.tolist()
    return found


def _signs(seed: int, n: int) -> npt.NDArray[np.int8]:
    """Return n signs: -1 where the bit is set, the lowest bit of the first output first."""
    words = splitmix.outputs(seed, 0, -(-n // 64)).astype("<u8", copy=False)
    signs = np.unpackbits(words.view(np.uint8), count=n, bitorder="little").view(np.int8)
    signs *= -2
    signs += 1
    return signs
