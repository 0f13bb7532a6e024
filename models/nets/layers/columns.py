"""What a kernel sees, place by place, as the rows of a matrix (im2col): a convolution is then one product.

    x (n, *sizes, C) ──▶ (n * places, taps * C), the channels of a tap side by side

The matrix is larger than x by the number of taps, so it is made of a few examples at a time, and made again where it is
wanted again: in memory that the processor's cache holds, and that grows neither with the batch nor with the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from models.nets.layers.axis import Axis
from models.nets.layers.layer import Place
from models.params import Float32

MOST_NUMBERS = 2**17
"""Of a matrix, unless one example has more: 512 kB, which the second cache of a small processor holds."""
SHORT_RUN = 16
"""Where fewer numbers than this lie side by side, in x as in a row of the matrix, it is made column by column."""


class Columns:
    """The matrices of one layer. ones: whether each row ends with a 1, which a bias is multiplied by."""

    def __init__(self, axes: tuple[Axis, ...], channels: int, *, ones: bool = False) -> None:
        self._axes, self._channels, self._ones = axes, channels, ones
        self._taps = tuple(axis.kernel for axis in axes)
        self._places = tuple(axis.outputs for axis in axes)
        self._padded = tuple(axis.padded for axis in axes)
        self._inside = tuple(axis.inside for axis in axes)
        self.n_places = math.prod(self._places)
        self.width = math.prod(self._taps) * channels
        """Numbers of a row, without the 1."""
        self.examples = max(1, MOST_NUMBERS // (self.n_places * (self.width + ones)))
        """Of which a matrix is made at once."""
        self._upright = axes[-1].kernel * channels < SHORT_RUN

    def blocks(self, n: int) -> Iterator[tuple[slice, slice]]:
        """Yield which examples are taken at once, of n, and which rows of all places those are."""
        for start in range(0, n, self.examples):
            end = min(n, start + self.examples)
            yield slice(start, end), slice(start * self.n_places, end * self.n_places)

    def of(self, place: Place, x: Float32) -> Float32:
        """Return the matrix of a block of examples, (n * places, width) or one wider with the ones.

        It stands until any layer asks for one: all have the same memory.
        """
        seen, n_rows, width = self._seen(place, x), len(x) * self.n_places, self.width + self._ones
        axes = len(self._axes)
        if self._upright:
            across = place.scratch.array("columns", shape=(width, n_rows))
            np.copyto(
                across[: self.width].reshape(*self._taps, self._channels, len(x), *self._places),
                seen.transpose(*range(1 + axes, 2 + 2 * axes), *range(1 + axes)),
            )
            across[self.width :] = 1.0
            return across.T
        rows = place.scratch.array("columns", shape=(n_rows, width))
        view = rows[:, : self.width].reshape(len(x), *self._places, *self._taps, self._channels)
        np.copyto(view, seen)
        rows[:, self.width :] = 1.0
        return rows

    def _seen(self, place: Place, x: Float32) -> Float32:
        """Return a view of x with its zeros: (n, *places, *taps, channels)."""
        if self._padded != x.shape[1:-1]:
            padded = place.scratch.array("padded", shape=(len(x), *self._padded, self._channels))
            padded.fill(0.0)
            padded[(slice(None), *self._inside)] = x
            x = padded
        n, *along, last = x.strides
        steps = (stride * axis.stride for stride, axis in zip(along, self._axes, strict=True))
        shape = (len(x), *self._places, *self._taps, self._channels)
        return np.ndarray(shape, x.dtype, x, strides=(n, *steps, *along, last))
