"""The unnormalised Walsh-Hadamard transform over blocks of a power of two: sums and differences, so exact on integers.

H is symmetric and H H = block * identity: who applies it twice divides by the block's length once. H of a product of
powers of two is the Kronecker product of their H, so that a block of 8,192 is three small matrix products (of 16, 16
and 32), which BLAS does in a third of the time of the butterflies. A product of integers with +-1 is exact in any
order as long as the sums fit the mantissa.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from models.integers import largest

Number = TypeVar("Number", bound=np.number[Any])

LARGEST_FACTOR_BITS = 5
"""Wider matrices do more sums than BLAS saves."""
_FLOAT32_BITS, _FLOAT64_BITS = 24, 53


def hadamard(values: npt.NDArray[Number], block: int) -> npt.NDArray[Number]:
    """Return the transform of every block of `block` values (a power of two), in Sylvester's order, as a new array.

    On integers, and on floats that hold integers: exact as long as block * max|values| fits the type and 53 bits.
    """
    if values.dtype.kind == "f":
        return _transformed(values, block)
    room = (block * largest(np.asarray(values, np.int64))).bit_length()
    floats = values.astype(np.float32 if room <= _FLOAT32_BITS else np.float64)
    if room > _FLOAT64_BITS:
        raise ValueError(f"integers whose sums have {room} bits are not transformed exactly")
    return _transformed(floats, block).astype(values.dtype)


def _transformed(values: npt.NDArray[Any], block: int) -> npt.NDArray[Any]:
    """Apply H to one factor of the block after the other, the fastest-running index first."""
    found, behind = values, 1
    for bits in _factors(block):
        matrix = _matrix(bits, values.dtype.char)
        if behind == 1:
            found = found.reshape(-1, len(matrix)) @ matrix
        else:
            found = matrix @ found.reshape(-1, len(matrix), behind)
        behind <<= bits
    return found.reshape(values.shape) if found is not values else values.copy()


def _factors(block: int) -> list[int]:
    """Return the bits of the factors of a block, as equal as can be."""
    bits = block.bit_length() - 1
    n = -(-bits // LARGEST_FACTOR_BITS)
    return [bits * (i + 1) // n - bits * i // n for i in range(n)]


@functools.cache
def _matrix(bits: int, dtype: str) -> npt.NDArray[Any]:
    matrix = np.ones((1, 1), dtype)
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.ascontiguousarray(matrix)
