"""Coding integers without loss, in the very stream that adaptive.py writes and reads: what versions differ by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.codec.adaptive import _OCTAVES_CLASS, MAX_OCTAVES
from models.codec.decoded import CodecError, Decoded
from models.codec.steps import BIAS, HIGHEST, LOWEST
from models.codec.symbols import LARGEST_INTEGER, Writer
from models.codec.tensors import SCALAR, ZERO
from models.codec.vectors import SCALES, scale_codes, write_scale_codes, write_vectors

Int64 = npt.NDArray[np.int64]

THIRD = 3
"""Grids are powers of two, or three times one: then every integer is a multiple of three, which is not written."""
LARGE = 1 << 14
"""A tensor of so many coordinates has a scale for each vector without trying whether one for all is shorter."""


def write_exactly(tensors: Sequence[Decoded]) -> tuple[int, bytes]:
    """Code integers times powers of two without loss; give the number of lanes and the stream.

    What is read back has the same values on other exponents. Raises CodecError where an exponent is out of range or
    more than MAX_OCTAVES below the largest, or an integer is too large.
    """
    tensors = _without_twos(tensors)
    exponents = [tensor.exponent for tensor in tensors if tensor.integers.any()] or [0]
    top = max(exponents)
    thirds = top - 6 <= HIGHEST and all(not (tensor.integers % THIRD).any() for tensor in tensors)
    factor, mantissa, bits = (THIRD, 192, 6) if thirds else (1, 128, 7)  # 3 = 192 / 2**6, 1 = 128 / 2**7
    if not (min(exponents) - bits >= LOWEST and top - bits <= HIGHEST):
        raise CodecError(f"steps of 2**{min(exponents)} to 2**{top} are out of range")
    word = (top - bits + BIAS) << 7 | mantissa - 128
    writer = Writer()
    writer.uniform([word >> 8, word & 255], 8)
    for tensor in tensors:
        moved = tensor.integers.any()
        writer.uniform([SCALAR if moved else ZERO], 2)
        if moved:
            octaves = top - tensor.exponent
            if octaves > MAX_OCTAVES:
                raise CodecError(f"a step {octaves} octaves below the common one")
            writer.integers(np.array([octaves]), np.array([_OCTAVES_CLASS]))
            writer.extend(_scalar(tensor.integers // factor))
    return writer.stream()


def _without_twos(tensors: Sequence[Decoded]) -> list[Decoded]:
    """Put tensors on coarser powers of two, all by the same factor, as far as every integer allows."""
    common = 0
    for tensor in tensors:
        common |= int(np.bitwise_or.reduce(tensor.integers, axis=None))
    twos = max(0, (common & -common).bit_length() - 1)
    return [Decoded(tensor.integers >> twos, tensor.exponent + twos) for tensor in tensors]


def _scalar(integers: Int64) -> Writer:
    """Write a matrix coordinate by coordinate, with a scale for each vector or one for all."""
    if max(int(integers.max()), -int(integers.min())) >= LARGEST_INTEGER:
        raise CodecError("an integer is too large")
    shape = integers.shape
    matrix = integers.reshape((shape[0], math.prod(shape[1:])) if shape else (1, 1))
    vectors = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    written = []
    for shared in (False, True) if integers.size < LARGE else (False,):
        codes, writer = scale_codes(vectors, shared=shared), Writer()
        write_scale_codes(writer, codes, shared=shared)
        write_vectors(writer, vectors, SCALES[codes])
        written.append(writer)
    return min(written, key=lambda writer: writer.bits)
