"""How many rows go through a net at once where nobody trains, and NumPy's words about what they give."""

from __future__ import annotations

import numpy as np

ROWS_AT_ONCE = 1024
"""Rows that predict and evaluate push through together, at most: bounds their memory, and is wide enough for BLAS."""
NUMBERS_AT_ONCE = 2**18
"""Numbers that so many rows may make in all layers of a stack: 1 MB, about the cache of a small processor."""


def rows_at_once(n_units: int) -> int:
    """Return how many rows of a net go through it together. n_units: numbers that all layers make of one row."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // max(1, n_units)))


def quietly() -> np.errstate:
    """Parameters that have diverged show in the answer, as inf or nan, and need no warning beside it."""
    return np.errstate(over="ignore", invalid="ignore")
