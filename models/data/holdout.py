"""Which rows a device holds back: nobody trains on them, versions are scored on them.

    a row's content, or its group's name ──hash──▶ 64 bits ──below share * 2**64──▶ held back

What is held back follows from the row or its group alone: it is the same after a restart, in any order of the rows and
in any order of the columns of a file, and rows that come later change nothing for those before. Only where the hashes
would hold back nothing, or everything, one side gets what is next to the limit: with few rows or groups, others that
come may then take its place.

Windows of a series share rows, so that it is stretches of it that are held back, by when they are or where they stand;
windows that lie in two of them are left out (windows.py).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
"""(n,) of rows or of groups; the same content has the same hash on every machine."""

_GOLDEN, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def of_rows(*columns: npt.NDArray[Any]) -> Hashes:
    """Return the hash of each row of (n,) or (n, k) float32 arrays side by side. A nan counts as any other nan."""
    found = np.zeros(len(columns[0]), np.uint64)
    for values in columns:
        canonical = np.where(np.isnan(values), np.float32("nan"), values + np.float32(0.0))  # no -0
        flat = np.ascontiguousarray(canonical, "<f4")
        for column in flat.reshape(len(flat), math.prod(flat.shape[1:])).view("<u4").T:
            found = _mixed(found + _GOLDEN + column.astype(np.uint64))
    return found


def of_numbers(values: npt.NDArray[np.int64]) -> Hashes:
    """Return the hash of each whole number."""
    return _mixed(values.astype(np.uint64) * _GOLDEN + _GOLDEN)


def of_text(text: str) -> int:
    """Return the hash of a name."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mixed(z: Hashes) -> Hashes:
    """Return splitmix64's output of these states."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


class Limit:
    """Below which hash something is held back. Told of all hashes first, so that neither side is empty.

    share: above 0, at most a half.
    """

    def __init__(self, share: float) -> None:
        self._limit = int(share * 2**64)
        self._lowest, self._highest = 2**64, -1

    def note(self, hashes: Hashes) -> None:
        """Look at some."""
        if len(hashes):
            self._lowest = min(self._lowest, int(hashes.min()))
            self._highest = max(self._highest, int(hashes.max()))

    @property
    def is_one(self) -> bool:
        """Whether all are alike, so that there is nothing to hold back."""
        return self._lowest >= self._highest

    def held(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Return which of them are held back: as the share says, but the lowest at least, and never the highest."""
        if self.is_one:
            return np.zeros(len(hashes), bool)
        most = min(max(self._limit, self._lowest + 1), self._highest)
        return hashes < np.uint64(most)
