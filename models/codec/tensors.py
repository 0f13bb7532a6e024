"""The ways to code one tensor, each a writer and a reader, and the choice among them.

    ZERO      nothing
    SCALAR    scale codes, then the matrix as vectors along its longer side
    LOWRANK   rank, powers, the vectors of A, the vectors of B (lowrank.py)
    RAW       1 bit: int8 symbols after a step of their own, or float32 bits; bytes as they are

A candidate costs its bits and LAMBDA for each squared step of error. A tensor is a matrix (first axis, all
others); one axis or none is a single vector.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.codec import lowrank
from models.codec.decoded import BUDGET, CodecError, Decoded
from models.codec.dither import UNIT, Dither
from models.codec.lowrank import Pairs, rounded, scales
from models.codec.plain import float32_bytes, int8_bytes, read_float32, read_int8
from models.codec.steps import STEP_BYTES, step_value
from models.codec.symbols import LARGEST_INTEGER, Reader, Writer
from models.codec.vectors import (
    SCALES,
    read_dithered,
    read_scale_codes,
    read_vectors,
    scale_codes,
    write_scale_codes,
    write_vectors,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

ZERO, SCALAR, LOWRANK, RAW = range(4)
LAMBDA = 6.5
"""Bits that a squared step of error is worth."""
DEAD_ZONE = 0.6
"""Where a coordinate rounds away from zero: the bits saved are worth more than the error added."""
SMALLEST_SIDE = 4
"""Matrices with a shorter side are not factored."""
_MAX_POWER = 24
_FALLS = 14
"""Class of a fall between neighbouring powers: half an octave either way, nearly always 0 or 1."""


class Candidate(NamedTuple):
    """One way to code a tensor: what it writes, and bits and error together."""

    mode: int
    writer: Writer
    cost: float


class Coder:
    """One tensor, a step for it, and the ways to code it."""

    def __init__(self, values: Float32, word: int, rng: np.random.Generator, dither: Dither | None) -> None:
        """Take a finite tensor and the word of its step. dither: to round at random with; None: to nearest."""
        self.values = values
        self.matrix = values.reshape(_matrix(values.shape))
        self.step = step_value(word)
        self.rng = rng
        self.dither = dither
        self.noise = rng if dither is not None else None
        self.energy = values.size * (rms(values) / self.step) ** 2

    def cheapest(self) -> Candidate:
        """Return the candidate of the least cost."""
        if not self.values.any():
            return Candidate(ZERO, Writer(), 0.0)
        found = self._lowrank()
        if self.noise is None:  # to send nothing is a bias
            found.append(Candidate(ZERO, Writer(), LAMBDA * self.energy))
        bound = min((candidate.cost for candidate in found), default=math.inf)
        if self._scalar_estimate() < 1.1 * bound:
            found += self._scalar()
        if min((candidate.cost for candidate in found), default=math.inf) > 8 * self.values.size:
            found += [self._raw(0), self._raw(1)]
        return min(found, key=lambda candidate: candidate.cost)

    def _scalar(self) -> list[Candidate]:
        return [c for c in (self._vectors(self._long(), shared=shared) for shared in (False, True)) if c]

    def _scalar_estimate(self) -> float:
        """Judge the scalar cost of a large matrix by a few of its vectors; small ones are simply tried."""
        vectors = self._long()
        if self.values.size < 1 << 14 or len(vectors) < 32:
            return 0.0
        few = vectors[:: len(vectors) // 8]
        candidate = self._vectors(few, shared=False)
        return candidate.cost * len(vectors) / len(few) if candidate else math.inf

    def _long(self) -> Float32:
        """Return the matrix as few long vectors."""
        return self.matrix if self.matrix.shape[0] <= self.matrix.shape[1] else self.matrix.T

    def _vectors(self, vectors: Float32, *, shared: bool) -> Candidate | None:
        wide = vectors.astype(np.float64) / self.step
        if float(np.abs(wide).max()) >= LARGEST_INTEGER - 2:
            return None
        symbols = rounded(wide, self.noise, DEAD_ZONE)
        codes, writer = scale_codes(symbols, shared=shared), Writer()
        write_scale_codes(writer, codes, shared=shared)
        write_vectors(writer, symbols, SCALES[codes])
        return Candidate(SCALAR, writer, writer.bits + LAMBDA * float(np.square(wide - symbols).sum()))

    def _lowrank(self) -> list[Candidate]:
        if min(self.matrix.shape) < SMALLEST_SIDE:
            return []
        found = lowrank.factors(self.matrix, self.rng)
        kept = lowrank.choose(found, self.step, self.noise)
        if not len(kept.S):
            return []
        if self.dither is None:
            pairs = lowrank.quantise(self.matrix, kept, self.step)
        else:
            pairs = lowrank.dithered(kept, self.step, self.rng, self.dither)
        if not len(pairs.k) or not _fits(pairs):
            return []
        writer = Writer()
        _write_pairs(writer, pairs, None if self.dither is None else self.dither.again())
        return [Candidate(LOWRANK, writer, writer.bits + LAMBDA * lowrank.lost(found, pairs, self.step, self.energy))]

    def _raw(self, kind: int) -> Candidate:
        data = int8_bytes(self.values) if kind == 0 else float32_bytes(self.values)
        read = read_int8 if kind == 0 else read_float32
        error = (self.values - read(memoryview(data), self.values.shape).values()) / self.step
        writer = Writer()
        writer.uniform([kind], 1)
        writer.uniform(np.frombuffer(data, np.uint8).astype(np.int64), 8)
        return Candidate(RAW, writer, writer.bits + LAMBDA * float(np.square(error).sum()))


def rms(values: Float32) -> float:
    """Return the root of the mean square, to float32 accuracy, of values of any size."""
    peak = float(np.abs(values).max(initial=0.0))
    if not peak:
        return 0.0
    scaled = values.ravel() / np.float32(peak)
    return peak * math.sqrt(float(scaled @ scaled) / values.size)


Step = tuple[int, int]
"""Mantissa and exponent."""


def read_zero(reader: Reader, shape: tuple[int, ...], step: Step, dither: Dither | None) -> Decoded:
    """Read nothing."""
    del reader, dither
    _, exponent = step
    return Decoded(np.zeros(shape, np.int64), exponent)


def read_scalar(reader: Reader, shape: tuple[int, ...], step: Step, dither: Dither | None) -> Decoded:
    """Read a matrix coordinate by coordinate."""
    del dither  # most coordinates are 0, which dithering would make worse
    mantissa, exponent = step
    m, n = _matrix(shape)
    if not m * n:
        raise CodecError("symbols for a tensor without coordinates")
    codes = read_scale_codes(reader, min(m, n))
    vectors = read_vectors(reader, max(m, n), SCALES[codes])
    return Decoded((vectors if m <= n else vectors.T).reshape(shape) * mantissa, exponent)


def read_lowrank(reader: Reader, shape: tuple[int, ...], step: Step, dither: Dither | None) -> Decoded:
    """Read factors and multiply them: exact, since every sum of products is below 2**52, which is checked."""
    mantissa, exponent = step
    m, n = _matrix(shape)
    rank = reader.number(8)
    if not 1 <= rank <= min(m, n):
        raise CodecError(f"rank {rank} for a matrix of {m} x {n}")
    top = reader.number(6)
    k = top - np.concatenate([[0], np.cumsum(reader.raw_symbols(np.full(rank - 1, _FALLS)))])
    if top > _MAX_POWER or k[-1] < 0:
        raise CodecError("powers out of range")
    if dither is None:
        a, b, unit = read_vectors(reader, m, scales(k, m)), read_vectors(reader, n, scales(k, n)), 0
    else:
        a, b = read_dithered(reader, m, scales(k, m), dither), read_dithered(reader, n, scales(k, n), dither)
        unit = UNIT
    if _product_bits(a, b, k, mantissa) > BUDGET:
        raise CodecError("a product of factors leaves the budget")
    return Decoded(_product(a, b, k).astype(np.int64).reshape(shape) * mantissa, exponent - top - 2 * unit)


def read_raw(reader: Reader, shape: tuple[int, ...], step: Step, dither: Dither | None) -> Decoded:
    """Read a tensor's bytes as they are."""
    del step, dither
    size = math.prod(shape)
    if reader.number(1):
        return read_float32(memoryview(reader.uniform(4 * size, 8).astype(np.uint8).tobytes()), shape)
    return read_int8(memoryview(reader.uniform(STEP_BYTES + size, 8).astype(np.uint8).tobytes()), shape)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def _fits(pairs: Pairs) -> bool:
    small = max(_largest(pairs.A), _largest(pairs.B)) < LARGEST_INTEGER
    return small and int(pairs.k[0]) <= _MAX_POWER and _product_bits(pairs.a, pairs.b, pairs.k, 255) <= BUDGET


def _write_pairs(writer: Writer, pairs: Pairs, dither: Dither | None) -> None:
    writer.uniform([len(pairs.k)], 8)
    writer.uniform(pairs.k[:1], 6)
    writer.raw_symbols(-np.diff(pairs.k), np.full(len(pairs.k) - 1, _FALLS))
    for vectors in (pairs.A, pairs.B):
        write_vectors(writer, vectors, scales(pairs.k, vectors.shape[1]), dither)


def _product(a: Int64, b: Int64, k: Int64) -> Float64:
    weights = np.ldexp(1.0, k[0] - k)
    product: Float64 = (a * weights[:, None]).T @ b.astype(np.float64)
    return product


def _product_bits(a: Int64, b: Int64, k: Int64, mantissa: int) -> int:
    """Bound the bits of any partial sum of the product, whatever the order in which it is summed."""
    top = int(k[0])
    bound = sum(_largest(u) * _largest(v) << top - int(power) for u, v, power in zip(a, b, k, strict=True))
    return (mantissa * bound).bit_length()


def _largest(vector: Int64) -> int:
    return int(np.abs(vector).max())
