"""What everybody in a round agrees on: how many buckets there are, and which coordinate falls into which.

A plan belongs to a base version. Its hash and signs come from the base's public seed by splitmix64 alone, so that any
machine, in any language, draws the same. Coordinate i = r * m + j of row r falls into bucket (a_r * j + b_r) mod m with
gcd(a_r, m) = 1: a row is a permutation of the buckets, so that every bucket holds as many coordinates as every other.
It is a count sketch (Charikar, Chen and Farach-Colton 2002) of one row whose hash is balanced.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models import splitmix

FEWEST = 64
"""Fewer coordinates than this are not worth a sketch, and there are never fewer buckets."""
LARGEST_BLOCK = 8192
MOST_BUCKETS = 2**26 - LARGEST_BLOCK
"""So that a number of buckets has 26 bits."""
SLAB = 2**16
"""Coordinates that are folded at a time: what is made on the way stays in the cache."""
COORDINATES, BUCKETS = 0x5349474E53, 0x5455524E
"""Added to the seed: streams of their own for the signs of coordinates and of buckets."""

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


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
    """The hash and the signs of a plan, made once a base: 5 bytes a coordinate, 1 a bucket."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        n_rows = -(-plan.d // plan.m)
        words = splitmix.outputs(plan.seed, 0, 2 * n_rows)
        factors = [coprime(int(word) % plan.m, plan.m) for word in words[::2]]
        shifts = (words[1::2] % np.uint64(plan.m)).astype(np.int64)
        within = np.arange(plan.m, dtype=np.int64)
        bucket = np.empty((n_rows, plan.m), np.int32)
        for row, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
            bucket[row] = (within * factor + shift) % plan.m
        self.bucket = bucket.reshape(-1)[: plan.d]
        """int32, shape (d,): the bucket of every coordinate."""
        self.sign = _signs(plan.seed + COORDINATES, plan.d)
        """int8, shape (d,): +1 or -1 for every coordinate."""
        self.turn = _signs(plan.seed + BUCKETS, plan.m)
        """int8, shape (m,): the same for every bucket, before the transform."""

    def fold(self, values: npt.NDArray[np.floating]) -> Float64:
        """Return the buckets of coordinates: y_b = turn_b * sum of sign_i * x_i over the i of bucket b. float64."""
        plan = self.plan
        sums = np.zeros(plan.m)
        slab = max(1, SLAB // plan.m) * plan.m
        for at in range(0, plan.d, slab):
            bucket, signed = self.bucket[at : at + slab], values[at : at + slab] * self.sign[at : at + slab]
            if slab == plan.m:
                sums[bucket] += signed  # one row: no bucket comes twice
            else:
                sums += np.bincount(bucket, signed, minlength=plan.m)
        sums *= self.turn
        return sums

    def unfold(self, buckets: Int64) -> Int64:
        """Return what buckets make of every coordinate: x_i = sign_i * turn_b * y_b, exact integers, shape (d,)."""
        spread = (buckets * self.turn)[self.bucket]
        spread *= self.sign
        return spread


def coprime(wanted: int, m: int) -> int:
    """Return the first number from `wanted` on, modulo m, that shares no factor with m."""
    factor = wanted % m
    while math.gcd(factor, m) != 1:
        factor = (factor + 1) % m
    return factor


def _signs(seed: int, n: int) -> npt.NDArray[np.int8]:
    """Return n signs: -1 where the bit is set, the lowest bit of the first output first."""
    words = splitmix.outputs(seed, 0, -(-n // 64)).astype("<u8", copy=False)
    bits = np.unpackbits(words.view(np.uint8), count=n, bitorder="little")
    return 1 - 2 * bits.view(np.int8)
