"""What a symbol of 1 to 4 bits stands for: the levels of the best quantiser of a Gaussian (Max 1960, Lloyd 1982).

After the transform every bucket is close to Gaussian, so the levels are fixed, and only their scale is measured: with
S = |z|^2 / <z, Q(z)> the decoded vector is unbiased under a random rotation (DRIVE for one bit, Vargaftik et al. 2021,
eq. 4; EDEN for more, Vargaftik et al. 2022, section 3). Levels are small integers, the best ones within 1 %.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", bound=np.number[Any])

SLAB = 2**15
"""Coordinates, or a block of them, that are quantised at a time: what is made on the way stays in the cache."""

LEVELS = {1: (1,), 2: (3, 10), 3: (10, 31, 55, 88), 4: (10, 30, 51, 73, 98, 126, 161, 213)}
"""Bits to the positive levels; symbols are their indices, with the sign as the highest bit."""
UNITS = {1: 1.0, 2: 3 / 0.4528, 3: 10 / 0.2451, 4: 10 / 0.1284}
"""What the levels of a Gaussian of rms 1 are multiplied by."""
ADDED = {1: 0.5708, 2: 0.133, 3: 0.0358, 4: 0.0096}
"""Share of a vector's energy that its quantisation adds: pi / 2 - 1 for one bit, and EDEN's table."""
KEPT = {bits: 1 / (1 + added) for bits, added in ADDED.items()}
"""Share of a decoded vector's energy that was the vector's own."""


def quantised(
    z: npt.NDArray[np.floating], bits: int, block: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return the symbols (uint8, shape (m,)) and the scale of every block (float64): z is about scale * level.

    The sign of 0 is +. A block of zeros has scale 0.
    """
    symbols, scales = np.empty(z.size, np.uint8), np.empty(z.size // block)
    n = max(1, SLAB // block)
    for first in range(0, len(scales), n):
        slab = slice(first * block, (first + n) * block)
        symbols[slab], scales[first : first + n] = _quantised(z[slab].reshape(-1, block), bits)
    return symbols, scales


def _quantised(blocks: npt.NDArray[np.floating], bits: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return the same of a few blocks, a row each."""
    block = blocks.shape[1]
    energy = np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64)
    size = np.abs(blocks)
    if bits == 1:
        along = size.sum(axis=1, dtype=np.float64)
        return (blocks < 0).reshape(-1).view(np.uint8), _ratio(energy, along)
    levels = np.array(LEVELS[bits], blocks.dtype)
    unit = np.sqrt(energy / block) / UNITS[bits]
    index = np.zeros(blocks.shape, np.uint8)
    for edge in ((levels[:-1] + levels[1:]) / 2).tolist():
        index += size > (edge * unit).astype(blocks.dtype)[:, None]
    along = np.einsum("ij,ij->i", size, levels[index], dtype=np.float64)
    index |= (blocks < 0).view(np.uint8) << np.uint8(bits - 1)
    return index.reshape(-1), _ratio(energy, along)


def levels_of(symbols: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int32]:
    """Return the level of every symbol, with its sign: int32."""
    return _levels(symbols, bits, np.int32)


def floats_of(symbols: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.float32]:
    """Return the same as float32, which holds them, and the sums of a block of them, exactly."""
    return _levels(symbols, bits, np.float32)


def _levels(symbols: npt.NDArray[np.uint8], bits: int, dtype: type[Number]) -> npt.NDArray[Number]:
    if bits == 1:
        found = symbols.astype(dtype)
        found *= -2
        found += 1
        return found
    positive = LEVELS[bits]
    return np.array([*positive, *(-level for level in positive)], dtype).take(symbols)


def _ratio(energy: npt.NDArray[np.float64], along: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(energy, along, out=np.zeros_like(energy), where=along > 0)
