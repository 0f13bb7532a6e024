"""Windows over a series: which rows belong together, and the examples that stretches of them make.

   rows, in the order of group and time:   . . . . . | . . x . . . . | . . .        |: another group, or a gap
   runs:                                   ─────────   ───   ───────   ─────        x: a row that cannot be used
   windows (length 3, hop 2):              ━━━━━             ━━━━━     ━━━━━
                                               ━━━━━             (…)

1. A window lies in one run: it never spans two groups, a gap in time, or a row that was left out.
2. Where a share of the examples is held back, a run lies on one side of it too, so that no row is in a window that is
   trained on and in one that is held back.
3. The inputs of a window are those of its rows, one row after the other. Where all windows are of one run they are a
   view of the rows; else they are written out, to a file where they are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.contract import WindowSpec
from models.data.spool import Array, slices
from models.params import Float32

GAP = 4.0
"""Times the usual distance of two rows: a series with a longer one is broken, where the job does not say."""
LOOKED_AT = 65_536
"""Distances that say what is usual, the first ones: later rows then change nothing."""
AT_ONCE = 2**18
"""Numbers of windows that are written out in one step."""

NEW, UNUSABLE, HELD = 1, 2, 4
"""What is said of a row: a run begins with it, at the latest; it is in none; it is held back."""


class Run(NamedTuple):
    """Rows start to stop - 1, which belong together."""

    start: int
    stop: int
    held: bool

    def n_windows(self, window: WindowSpec) -> int:
        """Return how many windows lie in it."""
        return max(0, (self.stop - self.start - window.length) // window.step + 1)


def usual_distance(times: npt.NDArray[np.float64], groups: npt.NDArray[np.int64] | None) -> float | None:
    """Return the median distance of two rows of a group that are not of one moment, in seconds; None for no such."""
    here = times[: LOOKED_AT + 1]
    distances = np.diff(here)
    together = distances > 0
    if groups is not None:
        together &= np.diff(groups[: LOOKED_AT + 1]) == 0
    return float(np.median(distances[together])) if together.any() else None


def flags(
    usable: npt.NDArray[np.uint8] | None,
    times: npt.NDArray[np.float64] | None,
    groups: npt.NDArray[np.int64] | None,
    gap_s: float | None,
    part: slice,
) -> npt.NDArray[np.uint8]:
    """Return (n,) NEW and UNUSABLE of some rows, which go by the row before them as well. part: of all rows."""
    n = part.stop - part.start
    found = np.zeros(n, np.uint8)
    before = max(part.start - 1, 0)
    if groups is not None:
        found[n - (part.stop - before) + 1 :] |= NEW * (np.diff(groups[before : part.stop]) != 0).astype(np.uint8)
    if times is not None and gap_s is not None:
        found[n - (part.stop - before) + 1 :] |= NEW * (np.diff(times[before : part.stop]) > gap_s).astype(np.uint8)
    if usable is not None:
        found |= UNUSABLE * (usable[part] == 0).astype(np.uint8)
    return found


def runs(said: npt.NDArray[np.uint8]) -> Iterator[Run]:
    """Yield the runs of rows of which this is said, in order."""
    start, last = 0, UNUSABLE
    for part in slices(len(said), 2**16):
        block = said[part]
        sides = block & (UNUSABLE | HELD)
        begins = np.flatnonzero((block & NEW != 0) | (np.diff(sides, prepend=np.uint8(last & (UNUSABLE | HELD))) != 0))
        for at in begins:
            here = part.start + int(at)
            if here > start and not last & UNUSABLE:
                yield Run(start, here, bool(last & HELD))
            start, last = here, int(sides[at])
        last = int(sides[-1])
    if len(said) > start and not last & UNUSABLE:
        yield Run(start, len(said), bool(last & HELD))


def view(rows: Float32, run: Run, window: WindowSpec) -> Float32:
    """Return the windows of a run, (n_windows, length * n_columns), which share the memory of (n, n_columns) rows."""
    n, n_columns = run.n_windows(window), rows.shape[1]
    rows = np.ascontiguousarray(rows[run.start : run.stop])
    row_bytes, number_bytes = rows.strides[0], rows.itemsize
    return np.lib.stride_tricks.as_strided(
        rows, (n, window.length * n_columns), (window.step * row_bytes, number_bytes), writeable=False
    )


def over(values: Array, run: Run, window: WindowSpec) -> Iterator[Array]:
    """Yield (m, length, ...) views of what belongs to the rows of each window of a run, some windows at a time."""
    n = run.n_windows(window)
    width = int(np.prod(values.shape[1:], dtype=np.int64)) * window.length
    for part in slices(n, max(1, AT_ONCE // max(width, 1))):
        first = run.start + part.start * window.step
        last = run.start + (part.stop - 1) * window.step + window.length
        seen = np.lib.stride_tricks.sliding_window_view(values[first:last], window.length, axis=0)[:: window.step]
        yield np.moveaxis(seen, -1, 1)


def label(labels: Array, window: WindowSpec, *, classes: bool) -> Array:
    """Return the label of each of (m, length, ...) labels of windows: the last, the most frequent class (of as frequent
    ones the lowest; each column for itself), or the mean of values.
    """
    if window.label == "last":
        return labels[:, -1]
    if not classes:
        means: Array = labels.mean(axis=1, dtype=np.float64).astype(np.float32)
        return means
    if labels.ndim > 2:
        each = labels.reshape(*labels.shape[:2], -1)
        columns = [label(each[:, :, at], window, classes=True) for at in range(each.shape[2])]
        found: Array = np.stack(columns, axis=1).reshape(len(labels), *labels.shape[2:])
        return found
    ordered = np.sort(labels, axis=1)
    at = np.arange(ordered.shape[1])
    begins = np.where(np.diff(ordered, axis=1, prepend=ordered[:, :1]) != 0, at, 0)
    lengths = at - np.maximum.accumulate(begins, axis=1)
    found = np.take_along_axis(ordered, lengths.argmax(axis=1)[:, None], axis=1)
    return found[:, 0]
