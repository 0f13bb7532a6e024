"""Grids: what a snapshot says is rounded to whole steps of one, as part of the version (chain.py).

A grid is one step word (codec/steps.py): a short mantissa times a power of two.
"""

from __future__ import annotations

from models.codec.decoded import CodecError, Decoded
from models.codec.steps import read_step
from models.integers import Int64, bits

COARSEST = 40
"""Bits that a grid may lie above a tensor's lattice: all of it would be zero long before."""
MOST_BITS = 40
"""Of a count."""


def counted(integers: Int64, exponent: int, grid: int) -> Int64:
    """Return integers * 2**exponent in whole steps of a grid, rounded to the nearest, halves up.

    Raises CodecError for a word that is none, and for a grid that is too far from the lattice.
    """
    mantissa, on = read_step(grid)
    up, down = max(0, exponent - on), max(0, on - exponent)
    if bits(integers) + up > 60 or down > COARSEST:
        raise CodecError("a grid is too far from the lattice of what it is for")
    step = mantissa << down
    return ((integers << up) + step // 2) // step


def measured(counts: Int64, grid: int) -> Decoded:
    """Return what so many steps of a grid are. Raises CodecError for a word that is none, and for too many steps."""
    mantissa, exponent = read_step(grid)
    if bits(counts) > MOST_BITS:
        raise CodecError("a snapshot is too far from what it counts from")
    return Decoded(counts * mantissa, exponent)
