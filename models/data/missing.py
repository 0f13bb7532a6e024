"""What becomes of a row with a missing value: left out, or filled (ContractSpec.missing).

    skip   the row is left out                      last   the value of the row before, of the same group
    mean   the mean of the column on this device    mask   the mean, and one more input: 1 where it was missing

A missing value is a nan. All arrays are float32, a row each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.params import Float32


class Means:
    """The means of columns, of values that come a block at a time: exact sums of float64 in the order of the rows."""

    def __init__(self, n_columns: int) -> None:
        self._sums = np.zeros(n_columns, np.float64)
        self._counts = np.zeros(n_columns, np.int64)

    def note(self, rows: Float32) -> None:
        """Count (n, n_columns) values, but those that are missing."""
        there = ~np.isnan(rows)
        self._sums += np.where(there, rows, 0.0).sum(axis=0, dtype=np.float64)
        self._counts += there.sum(axis=0)

    @property
    def empty(self) -> npt.NDArray[np.int64]:
        """The columns without any value, for which there is no mean."""
        return np.flatnonzero(self._counts == 0)

    def values(self) -> Float32:
        """Return (n_columns,) means; nan for a column without any value."""
        with np.errstate(invalid="ignore"):
            return np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.nan).astype(np.float32)


def filled(rows: Float32, fill: Float32) -> Float32:
    """Return the rows with (n_columns,) values in place of what is missing."""
    return np.where(np.isnan(rows), fill, rows)


class Last:
    """Fills what is missing with the value of the row before, where that is of the same group; block by block."""

    def __init__(self, n_columns: int) -> None:
        self._row = np.full(n_columns, np.nan, np.float32)
        self._group: int | None = None

    def filled(self, rows: Float32, groups: npt.NDArray[np.int64] | None = None) -> Float32:
        """Return the rows that follow those of last time. What no row before has a value for stays missing.

        groups: (n,) numbers of the groups, whose rows stand together; all are of one group when not given.
        """
        if groups is None:
            groups = np.zeros(len(rows), np.int64)
        if not len(rows):
            return rows
        at = np.arange(len(rows))
        begins = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
        begin = begins[np.searchsorted(begins, at, side="right") - 1]
        latest = np.maximum.accumulate(np.where(np.isnan(rows), -1, at[:, None]), axis=0)
        known = latest >= begin[:, None]
        found = np.where(known, np.take_along_axis(rows, np.maximum(latest, 0), axis=0), np.float32(np.nan))
        if self._group == int(groups[0]):
            first = begin == 0
            found = np.where(first[:, None] & ~known, self._row, found)
        self._row, self._group = found[-1].copy(), int(groups[-1])
        return found
