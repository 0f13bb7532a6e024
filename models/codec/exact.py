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

MANTISSA_BITS = 7
"""A power of two is written as a mantissa of 128 times another."""
LARGE = 1 << 14
"""A tensor of so many coordinates has a scale for each vector without trying whether one for all is shorter."""


def write_exactly(tensors: Sequence[Decoded]) -> tuple[int, bytes]:
    """Code integers times powers of two without loss; give the number of lanes and the stream.

    What is read back has exponents that are lower by MANTISSA_BITS. Raises CodecError where an exponent is out of
    range or more than MAX_OCTAVES below the largest, or an integer is too large.
    """
    exponents = [tensor.exponent for tensor in tensors if tensor.integers.any()] or [0]
    top = max(exponents)
    if not (min(exponents) - MANTISSA_BITS >= LOWEST and top - MANTISSA_BITS <= HIGHEST):
        raise CodecError(f"steps of 2**{min(exponents)} to 2**{top} are out of range")
    word = (top - MANTISSA_BITS + BIAS) << MANTISSA_BITS  # a mantissa of 128
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
            writer.extend(_scalar(tensor.integers))
    return writer.stream()


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
