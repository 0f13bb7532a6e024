"""Numbers of a server optimizer on a lattice of their own: integers * 2**EXPONENT, below 2**MOST_BITS in magnitude."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from models import grid
from models.codec.decoded import CodecError, Decoded
from models.integers import Int64, bits, rescale
from models.lattice import EXPONENT as OF_MODEL

EXPONENT = OF_MODEL - 12
MOST_BITS = 46
"""So that a product with a factor of 16 bits fits an int64, and a float64 holds them exactly: values up to 1,024."""


def check_room(published: Decoded) -> None:
    """Raise CodecError where a tensor of a sum is too large for the lattice."""
    if published.integers.any() and bits(published.integers) + published.exponent - EXPONENT > MOST_BITS:
        raise CodecError("a step is too large for the server's optimizer")


def from_sum(published: Decoded) -> Int64:
    """Return a tensor of a sum on the lattice, halves to even. Raises CodecError where it is too large."""
    check_room(published)
    return (
        rescale(published.integers, published.exponent - EXPONENT) if published.integers.any() else published.integers
    )


def bounded(arrays: Iterable[Int64]) -> tuple[Int64, ...]:
    """Return the arrays. Raises CodecError where one has left the lattice."""
    found = tuple(map(np.asarray, arrays))  # of one number too, which NumPy makes a scalar of
    if any(bits(array) > MOST_BITS for array in found):
        raise CodecError("the server's optimizer has grown beyond its lattice")
    return found


def counted(integers: Int64, word: int) -> Int64:
    """Return numbers of the lattice in steps of a grid. Raises CodecError where the grid is too far from it."""
    return grid.counted(integers, EXPONENT, word)


def measured(counts: Int64, word: int) -> Int64:
    """Return so many steps of a grid on the lattice. Raises CodecError where they leave it."""
    steps = grid.measured(counts, word)
    shift = steps.exponent - EXPONENT
    if bits(counts) + 8 + shift > MOST_BITS:
        raise CodecError("a snapshot's state is beyond its lattice")
    return np.asarray(rescale(steps.integers, shift))
