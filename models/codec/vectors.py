"""Vectors of integers that share a profile: the one shape that everything in a body has.

The columns of a factor and the rows of a small matrix are r vectors of length n. Each has a scale, its mean
magnitude, and all of them have large and small entries at about the same places: units that are never active,
pixels that are always black. What is expected of entry i of vector j comes from the vectors before it,

    expected[i, j] = scale[j] * (PRIOR + sum_{k<j} |q[i, k]|) / (PRIOR + sum_{k<j} scale[k])

in fixed point, and picks the class that codes it. The first vector knows only its scale; nothing is sent but
scales and symbols.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from models.codec.dither import Dither, to_levels, to_symbols
from models.codec.symbols import POINT, Reader, Writer, classes_of

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SCALES = np.array([0] + [isqrt(1 << code + 9) for code in range(63)], np.int64)
"""Mean magnitude for each scale code, fixed point: half octaves from 2**-7.5; code 0 is a vector of zeros."""
_PRIOR = 1 << POINT - 1
_RATIO = 8
_DELTAS = 16
"""Class of a difference between neighbouring scale codes: about one either way."""


class _Profile:
    """The running sums; the same on both sides."""

    def __init__(self, n: int) -> None:
        self.sizes = np.full(n, _PRIOR, np.int64)
        self.scales = _PRIOR

    def classes(self, scale: int) -> Int64:
        ratio = np.minimum((self.sizes << _RATIO) // self.scales, 1 << 20)
        return classes_of(ratio * scale >> _RATIO)

    def take(self, vector: Int64, scale: int) -> None:
        self.sizes += np.abs(vector) << POINT
        self.scales += scale


def write_vectors(writer: Writer, vectors: Int64, scales: Int64, dither: Dither | None = None) -> None:
    """Write r vectors, (r, n), with scales that the reader knows already; one of scale 0 is not written.

    dither: what they were rounded with, from its beginning.
    """
    profile = _Profile(vectors.shape[1])
    numbers = [None] * len(vectors) if dither is None else dither.take(vectors.size).reshape(vectors.shape)
    for vector, scale, by in zip(vectors, scales.tolist(), numbers, strict=True):
        if scale:
            writer.integers(vector, profile.classes(scale), by)
            profile.take(vector, scale)


def read_vectors(reader: Reader, n: int, scales: Int64) -> Int64:
    """Read vectors of length n, one for each scale."""
    vectors = np.zeros((len(scales), n), np.int64)
    profile = _Profile(n)
    for vector, scale in zip(vectors, scales.tolist(), strict=True):
        if scale:
            vector[:] = reader.integers(profile.classes(scale))
            profile.take(vector, scale)
    return vectors


def dither_vectors(values: Float64, scales: Int64, dither: Dither, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Round (r, n) values with a dither. Give the symbols to write, and the levels that will be read.

    scales: positive, as `write_vectors` will be given them.
    """
    symbols, levels = np.zeros(values.shape, np.int64), np.zeros(values.shape, np.int64)
    profile, numbers = _Profile(values.shape[1]), dither.take(values.size).reshape(values.shape)
    for j, scale in enumerate(scales.tolist()):
        classes = profile.classes(scale)
        symbols[j] = to_symbols(values[j], classes, numbers[j], rng)
        levels[j] = to_levels(symbols[j], classes, numbers[j])
        profile.take(symbols[j], scale)
    return symbols, levels


def read_dithered(reader: Reader, n: int, scales: Int64, dither: Dither) -> Int64:
    """Read the levels of dithered vectors of length n, one for each scale."""
    levels = np.zeros((len(scales), n), np.int64)
    profile, numbers = _Profile(n), dither.take(levels.size).reshape(levels.shape)
    for level, scale, by in zip(levels, scales.tolist(), numbers, strict=True):
        classes = profile.classes(scale)
        symbols = reader.integers(classes, by)
        level[:] = to_levels(symbols, classes, by)
        profile.take(symbols, scale)
    return levels


def scale_codes(vectors: Int64, *, shared: bool) -> Int64:
    """Choose a scale code for each of (r, n) vectors, in half octaves: its own, or one that all share."""
    sizes = np.abs(vectors).mean(axis=1) * (1 << POINT)
    if shared:
        sizes = np.full_like(sizes, sizes.mean())
    codes = np.clip(np.rint(2 * np.log2(np.maximum(sizes, 1)) - 8), 1, len(SCALES) - 1).astype(np.int64)
    return np.where(sizes > 0, codes, 0)


def write_scale_codes(writer: Writer, codes: Int64, *, shared: bool) -> None:
    """Write scale codes: the first one, then differences unless all are the same."""
    writer.uniform([int(shared)], 1)
    writer.uniform(codes[:1], 6)
    if not shared:
        steps = np.diff(codes)
        writer.integers(steps, np.full(len(steps), _DELTAS))


def read_scale_codes(reader: Reader, r: int) -> Int64:
    """Read scale codes of r >= 1 vectors."""
    shared, first = reader.number(1), reader.number(6)
    steps = np.zeros(r - 1, np.int64) if shared else reader.integers(np.full(r - 1, _DELTAS))
    codes: Int64 = np.clip(np.concatenate([[0], np.cumsum(steps)]) + first, 0, len(SCALES) - 1)
    return codes
