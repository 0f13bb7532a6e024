"""From rows to examples: put in order, filled, cut into windows, and split into what is trained on and what is not.

    Taken ──order──▶ by group and time ──fill──▶ no value is missing ──windows──▶ examples ──share──▶ Dataset

Rows that need none of this are the examples, as they were taken. What is worked out of rows is worked out a block at a
time, and lies in memory or in a file as the rows themselves do (spool.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.contract import ContractSpec, WindowSpec
from models.data import holdout, windows
from models.data.dataset import Dataset, DatasetError
from models.data.missing import Last, Means, filled
from models.data.rows import Taken
from models.data.skipped import Skipped
from models.data.spool import Array, Spools, changed, slices
from models.params import Float32

STRETCH = 3
"""Windows long is a stretch of a series that is held back, or up to twice as long by the clock: shorter ones lose more
windows, those that lie in two of them; longer ones leave a short series with few."""
NONE_BEFORE = "has no value yet"


class Maker:
    """Makes the examples of one reading.

    how: what becomes of missing values. columns: what the features are called. classifies: whether labels are classes.
    pause: called after each block. fill: (n_features,) what stands for missing values, where it is not the mean here.
    """

    def __init__(
        self,
        contract: ContractSpec,
        how: Literal["skip", "mean", "last"],
        columns: Sequence[str],
        whose: str,
        skipped: Skipped,
        spools: Spools,
        *,
        classifies: bool,
        pause: Callable[[], None],
        fill: Float32 | None = None,
    ) -> None:
        self._fill = fill
        self._contract, self._how, self._columns, self._whose = contract, how, columns, whose
        self._skipped, self._spools = skipped, spools
        self._classifies = classifies
        self._pause = pause

    def examples(self, rows: Taken) -> Dataset:
        """Return the examples of these rows. Raises DatasetError where there are none."""
        contract = self._contract
        if contract.window is not None or self._how == "last":
            rows = self._ordered(rows)
        rows = self._filled(rows)
        if contract.window is not None:
            return self._windows(rows, contract.window)
        if not contract.validation and rows.usable is None:
            return Dataset(rows.X, rows.y, self._whose, rows.weights)
        return self._split(rows)

    # Order.

    def _ordered(self, rows: Taken) -> Taken:
        """Return the rows by group, and within a group by time, where there are such; else in the table's order."""
        if rows.groups is None and rows.times is None:
            return rows
        if self._is_ordered(rows):
            return rows
        order = self._order(rows)

        def taken(values: Array) -> Array:
            return self._changed(order, lambda some, _at: values[some.imag.astype(np.int64)])

        return rows._replace(
            X=taken(rows.X),
            y=taken(rows.y),
            weights=None if rows.weights is None else taken(rows.weights),
            hashes=None if rows.hashes is None else taken(rows.hashes),
            groups=None if rows.groups is None else taken(rows.groups),
            times=None if rows.times is None else taken(rows.times),
            usable=None if rows.usable is None else taken(rows.usable),
        )

    def _is_ordered(self, rows: Taken) -> bool:
        n = len(rows.y)
        for part in slices(n):
            near = slice(max(part.start - 1, 0), part.stop)
            same: npt.NDArray[np.bool_] | bool = True
            if rows.groups is not None:
                steps = np.diff(rows.groups[near])
                if (steps < 0).any():
                    return False
                same = steps == 0
            if rows.times is not None and (same & (np.diff(rows.times[near]) < 0)).any():
                return False
        return True

    def _order(self, rows: Taken) -> npt.NDArray[np.complex128]:
        """Return (n,) time + number of the row * i: of each group its rows in order of time, one group after another.

        Complex numbers are in order by their first part, then by the second; they are sorted where they lie.
        """
        n, n_groups = len(rows.y), max(1, len(rows.of_groups))
        ends = np.zeros(n_groups, np.int64)
        if rows.groups is None:
            ends[0] = n
        else:
            for part in slices(n):
                ends += np.bincount(rows.groups[part], minlength=n_groups)
            ends = np.cumsum(ends)
        order = self._spools.mapped(np.complex128, n)
        at = np.concatenate([[0], ends[:-1]])
        for part in slices(n):
            times = np.zeros(part.stop - part.start) if rows.times is None else rows.times[part]
            groups = np.zeros(len(times), np.int64) if rows.groups is None else rows.groups[part].astype(np.int64)
            by_group = np.argsort(groups, kind="stable")
            ranked = groups[by_group]
            within = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
            order[at[ranked] + within] = times[by_group] + 1j * (part.start + by_group)
            at += np.bincount(groups, minlength=n_groups)
            self._pause()
        if rows.times is not None:
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                order[start:end].sort()
        return order

    # Missing values.

    def _filled(self, rows: Taken) -> Taken:
        how, k, masked = self._how, rows.n_features, self._contract.missing == "mask"

        def masks(some: Float32) -> list[Float32]:
            return [np.isnan(some[:, :k]).astype(np.float32)] if masked else []

        if how == "skip":
            if not masked:
                return rows
            return rows._replace(
                X=self._changed(rows.X, lambda r, _: np.concatenate([r[:, :k], *masks(r), r[:, k:]], 1))
            )
        if how == "last":
            last = Last(k)

            def forward(some: Float32, at: int) -> Float32:
                groups = None if rows.groups is None else rows.groups[at : at + len(some)]
                return np.concatenate([last.filled(some[:, :k], groups), *masks(some), some[:, k:]], axis=1)

            X = self._changed(rows.X, forward)
            return rows._replace(X=X, usable=self._changed(X, lambda some, at: self._whole(rows.usable, some, at)))
        fill = self._fill
        means = Means(k)
        for part in slices(len(rows.X)) if fill is None else ():
            used = slice(None) if rows.usable is None else rows.usable[part] > 0
            means.note(rows.X[part, :k][used])
        if fill is None and len(means.empty):
            raise DatasetError(
                f"{self._whose}: column {self._columns[means.empty[0]]!r} has no value in any row, so that there is no "
                "mean to fill it with: leave it out of the job's features, or have it measured"
            )

        values = means.values() if fill is None else fill

        def mean(some: Float32, _at: int) -> Float32:
            return np.concatenate([filled(some[:, :k], values), *masks(some), some[:, k:]], axis=1)

        return rows._replace(X=self._changed(rows.X, mean))

    def _whole(self, usable: npt.NDArray[np.uint8] | None, some: Float32, at: int) -> npt.NDArray[np.uint8]:
        """Return which rows can be used that follow no value to be filled with."""
        before = np.ones(len(some), np.uint8) if usable is None else usable[at : at + len(some)]
        missing = np.isnan(some).any(axis=1) & (before > 0)
        if missing.any():
            column = self._columns[int(np.isnan(some[missing][0]).argmax())]
            self._skipped.skip(column, NONE_BEFORE, np.empty(0, np.int64), int(missing.sum()))
        return before * ~missing

    # Examples.

    def _split(self, rows: Taken) -> Dataset:
        """Return the rows that can be used, those apart that are held back."""
        share = self._contract.validation

        def hashes(part: slice) -> holdout.Hashes:
            if rows.groups is not None:
                return rows.of_groups[rows.groups[part]]
            return rows.hashes[part] if rows.hashes is not None else np.zeros(part.stop - part.start, np.uint64)

        def used(part: slice) -> npt.NDArray[np.bool_]:
            n = part.stop - part.start
            return np.ones(n, bool) if rows.usable is None else rows.usable[part] > 0

        limit = holdout.Limit(share)
        if share:
            for part in slices(len(rows.y)):
                limit.note(hashes(part)[used(part)])
        sides = [_Side(rows, self._spools) for _ in (False, True)]
        for part in slices(len(rows.y)):
            held, use = limit.held(hashes(part)), used(part)
            for side, chosen in zip(sides, (use & ~held, use & held), strict=True):
                side.append(rows.X[part][chosen], rows.y[part][chosen], _of(rows.weights, part, chosen))
            self._pause()
        return self._dataset(sides[0], sides[1])

    def _windows(self, rows: Taken, window: WindowSpec) -> Dataset:
        """Return the windows of the rows, those apart that are held back."""
        share, n = self._contract.validation, len(rows.y)
        distance = None if rows.times is None else windows.usual_distance(rows.times, rows.groups)
        gap_s = window.gap_s or (None if distance is None else windows.GAP * distance)
        said = self._spools.mapped(np.uint8, n)
        for part in slices(n):
            said[part] = windows.flags(rows.usable, rows.times, rows.groups, gap_s, part)
            self._pause()
        if share:
            self._hold_back(rows, window, distance, said)
        found: list[list[windows.Run]] = [[], []]
        longest = 0
        for run in windows.runs(said):
            longest = max(longest, run.stop - run.start)
            if run.n_windows(window):
                found[run.held].append(run)
        if not found[0]:
            raise DatasetError(
                f"{self._whose}: windows of length = {window.length} where no more than {longest:,} rows follow each "
                "other without a gap, in one group: have more rows, or a job with shorter windows"
            )
        self._check_room(rows, window, sum(run.n_windows(window) for runs in found for run in runs), found)
        return self._dataset(*(self._cut(rows, window, runs) for runs in found))

    def _hold_back(self, rows: Taken, window: WindowSpec, distance: float | None, said: npt.NDArray[np.uint8]) -> None:
        """Mark the rows that are held back, and where one stretch of a series ends."""
        span = 2.0 ** math.ceil(math.log2(STRETCH * window.length * (distance or 1.0)))

        def hashes(part: slice) -> holdout.Hashes:
            if rows.groups is not None:
                return rows.of_groups[rows.groups[part]]
            if rows.times is not None:
                return holdout.of_numbers(np.floor(rows.times[part] / span).astype(np.int64))
            return holdout.of_numbers(np.arange(part.start, part.stop) // (STRETCH * window.length))

        limit = holdout.Limit(self._contract.validation)
        stretches = self._spools.mapped(np.uint8, len(said))
        for part in slices(len(said)):
            near = hashes(slice(max(part.start - 1, 0), part.stop))
            another = np.diff(near, prepend=near[:1])[len(near) - (part.stop - part.start) :] != 0
            stretches[part] = said[part] | windows.NEW * another.astype(np.uint8)
        for run in windows.runs(stretches):
            if run.n_windows(window):
                limit.note(hashes(slice(run.start, run.start + 1)))
        for part in slices(len(said)):
            said[part] |= windows.HELD * limit.held(hashes(part)).astype(np.uint8)
            self._pause()

    def _cut(self, rows: Taken, window: WindowSpec, runs: list[windows.Run]) -> _Side:
        side = _Side(rows, self._spools, window.length)
        whole = runs[0] if len(runs) == 1 else None
        for run in runs:
            labels = windows.over(rows.y, run, window)
            weights = None if rows.weights is None else windows.over(rows.weights, run, window)
            inputs = None if whole is not None else windows.over(rows.X, run, window)
            for some in labels:
                side.append(
                    None if inputs is None else next(inputs).reshape(len(some), -1),
                    windows.label(some, window, classes=self._classifies),
                    None if weights is None else next(weights).mean(axis=1, dtype=np.float64),
                )
                self._pause()
        if whole is not None:
            side.view = windows.view(rows.X, whole, window)
        return side

    def _check_room(self, rows: Taken, window: WindowSpec, n: int, found: list[list[windows.Run]]) -> None:
        """Raise DatasetError where the windows take more than half of the disk, or of a gigabyte without one."""
        if all(len(runs) <= 1 for runs in found):
            return
        n_bytes = n * window.length * rows.X.shape[1] * rows.X.itemsize
        room = self._spools.room
        if n_bytes > room:
            raise DatasetError(
                f"{self._whose}: {n:,} windows take {n_bytes / 1e9:,.1f} GB, where {room / 1e9:,.1f} are free: "
                "have a job with a larger hop, or fewer rows"
            )

    def _dataset(self, side: _Side, held: _Side) -> Dataset:
        held_out = held.dataset(self._whose) if len(held) else None
        return side.dataset(self._whose, held_out)

    def _changed(self, values: Array, change: Callable[[Array, int], Array]) -> Array:
        def act(some: Array, at: int) -> Array:
            self._pause()
            return change(some, at)

        return changed(values, act, self._spools)


class _Side:
    """Examples that are trained on, or those that are held back."""

    def __init__(self, rows: Taken, spools: Spools, n_rows: int = 1) -> None:
        self._X = spools.spool(np.float32, rows.X.shape[1] * n_rows)
        self._y = spools.spool(rows.y.dtype, *rows.y.shape[1:])
        self._weights = None if rows.weights is None else spools.spool(np.float32)
        self.view: Float32 | None = None
        """The inputs, where they are a view of the rows."""

    def __len__(self) -> int:
        return len(self._y)

    def append(self, X: Float32 | None, y: Array, weights: Array | None) -> None:
        if X is not None:
            self._X.append(X)
        self._y.append(y)
        if self._weights is not None and weights is not None:
            self._weights.append(weights)

    def dataset(self, whose: str, held_out: Dataset | None = None) -> Dataset:
        X = self._X.array() if self.view is None else self.view
        return Dataset(X, self._y.array(), whose, None if self._weights is None else self._weights.array(), held_out)


def _of(weights: Float32 | None, part: slice, chosen: npt.NDArray[np.bool_]) -> Float32 | None:
    return None if weights is None else weights[part][chosen]
