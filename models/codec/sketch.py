"""A vector of d coordinates as bytes: a scale a block, one to four bits a bucket, and beside them what dominates.

    scales     n_blocks words of 16 bits (steps.py)
    symbols    `bits` planes of m bits, the signs last
    beside     at most 16 times: index (uint32), value (float32), indices ascending

All little-endian. d, m, bits and seed are the round's (`Plan`), so nothing of them stands in a body, and how many
coordinates are beside follows from its length. What is sent is a vector z, levels times the scale of their block, with

    buckets = turn * H z,      x_i = sign_i * buckets[bucket_i] + beside_i

and H unnormalised, so that decoding is sums and differences of integers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models import energy
from models.codec.decoded import CodecError, Decoded
from models.codec.hadamard import hadamard
from models.codec.levels import KEPT, floats_of, levels_of, quantised
from models.codec.plan import Hash, Int64, Plan
from models.codec.steps import STEP_BYTES, read_step, step_near

MOST_BESIDE = 16
SHARE, OUTLIER = 1 / 32, 8
"""A coordinate with more of the energy than this, and than so many times the mean one's, travels beside: under it all
others would starve, or swell. (Of a hundred coordinates several have a thirty-second by mere chance.)"""
BESIDE = np.dtype([("index", "<u4"), ("value", "<f4")])
_NOTHING = np.empty(0, BESIDE)
SLAB = 2**15
"""Buckets at a time, or a block of them: what is made on the way stays in the cache."""
FINER = 24
"""Bits that the scale of a block is kept to below the largest one's: what is finer changes nothing that matters."""

Beside = npt.NDArray[np.void]
"""dtype BESIDE, shape (at most 16,): coordinates that are not in the buckets."""


class Sketch(NamedTuple):
    """A decoded body: z = levels of the symbols * scales of their blocks * 2**exponent, and what is beside."""

    symbols: npt.NDArray[np.uint8]
    """Of `bits` bits each, shape (m,)."""
    bits: int
    scales: Int64
    exponent: int
    beside: Beside

    @property
    def levels(self) -> npt.NDArray[np.int32]:
        """What the symbols stand for, shape (m,)."""
        return levels_of(self.symbols, self.bits)

    def z(self) -> Decoded:
        """Return the transformed buckets, shape (m,), exactly."""
        return Decoded(_scaled(self.levels, self.scales), self.exponent)


def n_bytes(plan: Plan, bits: int) -> int:
    """Return the length of a body without coordinates beside."""
    return STEP_BYTES * plan.n_blocks + plan.m * bits // 8


def max_bytes(plan: Plan, bits: int) -> int:
    """Return the length of the longest body."""
    return n_bytes(plan, bits) + MOST_BESIDE * BESIDE.itemsize


def encode(values: npt.NDArray[np.floating], hashed: Hash, bits: int = 1) -> bytes:
    """Code coordinates, floats of shape (d,). Raises CodecError for values that are not finite."""
    if values.shape != (hashed.plan.d,):
        raise CodecError(f"{values.shape} coordinates where ({hashed.plan.d},) belong")
    beside = dominating(values)
    rest = values
    if beside.size:
        rest = values.copy()
        rest[beside["index"]] = 0.0
    buckets = hashed.fold(rest)
    unit = max(float(buckets.max()), -float(buckets.min())) or 1.0
    buckets /= unit
    floats = buckets.astype(np.float32, copy=False)
    del buckets, rest
    block = hashed.plan.block
    n = max(block, SLAB // block * block)
    for at in range(0, floats.size, n):
        slab = floats[at : at + n]
        slab[...] = hadamard(slab, block)
    return write(floats, hashed.plan, bits, beside, unit / block)


def write(z: npt.NDArray[np.floating], plan: Plan, bits: int, beside: Beside, unit: float = 1.0) -> bytes:
    """Code transformed buckets, in units of `unit`, shape (m,)."""
    symbols, scales = quantised(z, bits, plan.block)
    words = [step_near(scale * unit) if scale * unit else 0 for scale in scales.tolist()]
    planes = [np.packbits(symbols >> plane & 1, bitorder="little").tobytes() for plane in range(bits)]
    return np.array(words, "<u2").tobytes() + b"".join(planes) + beside.tobytes()


def decode(body: bytes, plan: Plan, bits: int = 1) -> Sketch:
    """Read a body of this plan. Raises CodecError, and nothing else, whatever the bytes are."""
    n_beside, rest = divmod(len(body) - n_bytes(plan, bits), BESIDE.itemsize)
    if rest or not 0 <= n_beside <= MOST_BESIDE:
        raise CodecError(f"a body of {len(body)} bytes where {plan.m} buckets of {bits} bits belong")
    scales, exponent = _read_scales(np.frombuffer(body, "<u2", plan.n_blocks))
    planes = np.frombuffer(body, np.uint8, bits * plan.m // 8, STEP_BYTES * plan.n_blocks).reshape(bits, -1)
    symbols = np.unpackbits(planes[0], bitorder="little")
    for plane in range(1, bits):
        symbols |= np.unpackbits(planes[plane], bitorder="little") << np.uint8(plane)
    return Sketch(symbols, bits, scales, exponent, _read_beside(body[n_bytes(plan, bits) :], plan.d))


def unfold(sketch: Sketch, hashed: Hash) -> Decoded:
    """Return what the buckets of a sketch make of all coordinates: exact integers, shape (d,). `beside` is left out."""
    whole = hadamard(floats_of(sketch.symbols, sketch.bits), hashed.plan.block)
    return Decoded(hashed.unfold(_scaled(whole.astype(np.int64), sketch.scales)), sketch.exponent)


def rounded(sketch: Sketch, hashed: Hash, exponent: int) -> npt.NDArray[np.int32] | None:
    """Return the same, each rounded half to even to a multiple of 2**exponent: int32, shape (d,).

    None where a bucket is 2**30 such multiples or more. In float64, which holds every product of a sum of levels and a
    scale; what many coordinates share is rounded once.
    """
    block, n = hashed.plan.block, max(1, SLAB // hashed.plan.block)
    factors = np.ldexp(sketch.scales.astype(np.float64), sketch.exponent - exponent)
    buckets = np.empty(hashed.plan.m, np.int32)
    for first in range(0, len(factors), n):
        slab = slice(first * block, (first + n) * block)
        whole = hadamard(floats_of(sketch.symbols[slab], sketch.bits), block).reshape(-1, block)
        scaled = np.multiply(whole, factors[first : first + n, None], dtype=np.float64)
        np.rint(scaled, out=scaled)
        if not max(float(scaled.max()), -float(scaled.min())) < 2.0**30:
            return None
        buckets[slab] = scaled.reshape(-1)
    buckets *= hashed.turn
    return hashed.spread(buckets)


def norm(sketch: Sketch, bits: int) -> float:
    """Return about the norm of the vector that was coded: the decoded one's, less what the bits added."""
    block = len(sketch.symbols) // len(sketch.scales)
    squares = [block] * len(sketch.scales)
    if bits > 1:
        blocks = sketch.levels.reshape(len(sketch.scales), -1).astype(np.int64)
        squares = np.einsum("ij,ij->i", blocks, blocks).tolist()
    total = block * sum(q * s * s for q, s in zip(squares, sketch.scales.tolist(), strict=True))
    inside = float(energy.root(total, sketch.exponent) * KEPT[bits] ** 0.5)
    if not sketch.beside.size:
        return inside
    values = sketch.beside["value"].astype(np.float64)
    return float(np.hypot(inside, np.sqrt(np.square(values).sum())))


def dominating(values: npt.NDArray[np.floating]) -> Beside:
    """Return the coordinates that hold more than `share_of(d)` of the energy each, at most 16, in their order.

    Raises CodecError for values that are not finite.
    """
    size = max(float(values.max()), -float(values.min())) if values.size else 0.0
    if not np.isfinite(size):
        raise CodecError("a coordinate is not finite")
    if not size or _is_even(values, size):
        return np.empty(0, BESIDE)
    squares = np.square(values / size, dtype=np.float64)
    first = np.flatnonzero(squares > share_of(values.size) * squares.sum())
    if first.size > MOST_BESIDE:
        first = np.sort(first[np.argsort(-np.abs(values[first]), kind="stable")[:MOST_BESIDE]])
    beside = np.empty(first.size, BESIDE)
    beside["index"], beside["value"] = first, values[first]
    return beside


def _is_even(values: npt.NDArray[np.floating], size: float) -> bool:
    """Return whether surely no coordinate dominates: by a sum of squares that is a little off. False: look closer."""
    if not 2.0**-40 < size < 2.0**40:
        return False
    return size * size < 0.99 * share_of(values.size) * float(np.dot(values, values))


def share_of(d: int) -> float:
    """Return the share of the energy of d coordinates from which one is too much for the buckets."""
    return max(SHARE, OUTLIER / d)


def _scaled(blocks: npt.NDArray[np.int32] | Int64, scales: Int64) -> Int64:
    return (blocks.reshape(len(scales), -1) * scales[:, None]).reshape(-1)


def _read_scales(words: npt.NDArray[np.uint16]) -> tuple[Int64, int]:
    """Return the scales of all blocks as integers on one exponent. Raises CodecError for a word no encoder writes."""
    pairs = [read_step(word) if word else (0, 0) for word in words.tolist()]
    exponents = [exponent for mantissa, exponent in pairs if mantissa] or [0]
    common = max(min(exponents), max(exponents) - FINER)
    scales = [
        mantissa << exponent - common if exponent >= common else _rescaled(mantissa, exponent - common)
        for mantissa, exponent in pairs
    ]
    return np.array(scales, np.int64), common


def _rescaled(mantissa: int, shift: int) -> int:
    """Return mantissa * 2**shift, half to even. shift: below 0."""
    whole, rest, half = mantissa >> -shift, mantissa & (1 << -shift) - 1, 1 << -shift - 1
    return whole + (rest > half or (rest == half and whole & 1 == 1))


def _read_beside(raw: bytes, d: int) -> Beside:
    if not raw:
        return _NOTHING
    beside = np.frombuffer(raw, BESIDE)
    index = beside["index"].astype(np.int64)
    if index.size and (index[-1] >= d or (np.diff(index) <= 0).any()):
        raise CodecError("coordinates beside are not in order")
    if not np.isfinite(beside["value"]).all():
        raise CodecError("a coordinate beside is not finite")
    return beside
