"""In which order a device's examples are trained on: another one in every epoch, the same whenever it is asked for.

    order = rows_of(seed, epoch, n)
    order(start, stop)                 the examples that come at these places; all n come once

Up to MOST_SHUFFLED examples are shuffled all at once. More are shuffled by blocks, since the order of ten million alone
would be 80 MB, and examples taken from anywhere in a file would have the card read a page for each of them:

    rows, as on a ring cut open at a drawn place    |····|····|····|····|····|···|     blocks of consecutive rows
    the blocks, shuffled                            |    window    |    window   |     WINDOW blocks or more each
    the rows of each window, shuffled                ················

So an epoch reads each block once, and a window's order is all that is in memory. The blocks are cut elsewhere in every
epoch, so that no two rows are always together.

How far that is from a shuffle of everything: a batch of b rows is b draws from a window, and a window is WINDOW or more
blocks drawn from all. Where rows that follow each other are alike, as in a series, the worst case is a block all of one
kind: the mean over a batch then has the variance s^2 (1/b + 1/WINDOW) at most, where a shuffle has s^2 / b, s^2 being
that of one row. For b = 32 this is 12 % more, for b = 256 it is twice as much. Where neighbours are not alike it is
s^2 / b.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

MOST_SHUFFLED = 2**18
"""Examples that are shuffled all at once, in 2 MB: their order has always been that."""
BLOCK_ROWS = 256
"""Rows of a block; of 48 features it is twelve pages of a file. Longer where there would be more than MOST_BLOCKS."""
MOST_BLOCKS = 2**17
"""Beyond 33 million rows blocks get longer instead: their own order is 1 MB at most."""
WINDOW = 256
"""Blocks of a window, at least: 65,536 rows."""


def rows_of(seed: bytes, epoch: int, n: int) -> Callable[[int, int], Int64]:
    """Return the order of n examples in an epoch: a function from places [start, stop) to the examples there.

    A stop beyond n is n. Any place may be asked for at once, which costs no more than a window.
    """
    if n > MOST_SHUFFLED:
        return _Blocks(seed, epoch, n)
    order = order_of(seed, epoch, n)
    return lambda start, stop: order[start:stop]


def order_of(seed: bytes, epoch: int, n: int) -> Int64:
    """Return the order of n examples, shuffled all at once by PCG64 seeded with sha256(seed, epoch)."""
    return _generator(seed + epoch.to_bytes(8, "little")).permutation(n)


class _Blocks:
    """An order by blocks. Holds that of the blocks, and one window."""

    def __init__(self, seed: bytes, epoch: int, n: int) -> None:
        self._n = n
        self._length = max(BLOCK_ROWS, -(-n // MOST_BLOCKS))
        self._key = seed + epoch.to_bytes(8, "little")
        generator = _generator(self._key + b"blocks")
        self._first = int(generator.integers(n))
        n_blocks = -(-n // self._length)
        # The last block is shorter, and stays last: so places are found by division.
        self._blocks = np.append(generator.permutation(n_blocks - 1), n_blocks - 1)
        self._n_windows = max(1, n_blocks // WINDOW)
        self._window, self._rows = -1, np.empty(0, np.int64)

    def __call__(self, start: int, stop: int) -> Int64:
        stop = min(stop, self._n)
        pieces = []
        while start < stop:
            window = self._window_at(start)
            begins, ends = self._place(window), self._place(window + 1)
            pieces.append(self._rows_in(window)[start - begins : min(stop, ends) - begins])
            start = min(stop, ends)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [self._rows[:0]])

    def _window_at(self, place: int) -> int:
        """Return the window that a place lies in."""
        return ((place // self._length + 1) * self._n_windows - 1) // len(self._blocks)

    def _first_block(self, window: int) -> int:
        return window * len(self._blocks) // self._n_windows

    def _place(self, window: int) -> int:
        """Return the place where a window begins; the end of all for the one after the last."""
        return min(self._n, self._first_block(window) * self._length)

    def _rows_in(self, window: int) -> Int64:
        if window != self._window:
            blocks = self._blocks[self._first_block(window) : self._first_block(window + 1)]
            rows = (blocks[:, np.newaxis] * self._length + np.arange(self._length)).reshape(-1)
            rows = rows[: self._place(window + 1) - self._place(window)]  # the last block of all is shorter
            rows += self._first
            rows[rows >= self._n] -= self._n
            _generator(self._key + window.to_bytes(8, "little")).shuffle(rows)
            self._window, self._rows = window, rows
        return self._rows


def _generator(key: bytes) -> np.random.Generator:
    words = np.frombuffer(hashlib.sha256(key).digest(), "<u4").astype(np.uint32, copy=False)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
