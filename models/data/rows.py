"""From a table to examples: what a job's contract makes of the rows of a source, a block at a time.

   Table ──blocks──▶ take ──▶ Taken ──▶ examples.py: order, fill, windows, held-out share ──▶ Dataset
                      │
                      └── a row that cannot be used: Skipped (skipped.py)

1. Columns are matched by name (matching.py). A table without names goes by position, and its columns are counted.
2. A value outside its range is missing. A row is left out where a cell is not what it has to be, its label or its
   weight is missing, or, with missing = "skip", any value is. Where there are windows, what is left out breaks the
   series: the row is kept, and marked.
3. No more than a block of rows is worked on at a time, and between two blocks other threads have their turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.contract import ContractSpec
from models.data import holdout, moments
from models.data.blocks import Block, Kind, Table
from models.data.cells import MISSING
from models.data.dataset import DatasetError
from models.data.labels import NONE, Classes
from models.data.matching import Match, how
from models.data.settings import SourceSettings
from models.data.skipped import Skipped
from models.data.spool import Array, Spool, Spools
from models.params import Float32

MOST_GROUPS = 100_000
"""Of one source: their names are in memory while it is read."""
EMPTY = "is empty"
NOT_FINITE = "is infinite, or too large for a float32"
NO_CLASS = "is none of the job's classes"
OUTSIDE = "is outside its range"
NO_WEIGHT = "is no weight above 0"
NO_TIME = "has no time"

_FIRST_S = 1e8
"""Seconds since 1970, in the year 1973: what is below, in all rows, is of a clock that began with the device."""

_Mask = npt.NDArray[np.bool_]


def breathe() -> None:
    """Let other threads have their turn."""
    time.sleep(0)


class Taken(NamedTuple):
    """The rows of a table, in its order, as arrays."""

    X: Float32
    """(n, n_features + waves of time): nan where a feature is missing."""
    n_features: int
    y: Array
    """(n,) int64 classes where they have names; else (n,) or (n, k) float32."""
    weights: Float32 | None
    hashes: holdout.Hashes | None
    """(n,) of the content of rows, where single rows are held back."""
    groups: npt.NDArray[np.int64] | None
    """(n,) numbers of groups, in the order in which they came."""
    of_groups: holdout.Hashes
    """The hash of the name of each group."""
    times: npt.NDArray[np.float64] | None
    usable: npt.NDArray[np.uint8] | None
    """(n,) 0 for a row that only breaks a series; None where all can be used."""


def take(
    table: Table,
    match: Match,
    settings: SourceSettings,
    contract: ContractSpec,
    skipped: Skipped,
    spools: Spools,
    pause: Callable[[], None] = breathe,
) -> Taken:
    """Return the rows of a table as a job means them. pause: called after each block. Raises DatasetError."""
    taker = _Taker(match, settings, contract, skipped, spools)
    for block in table.blocks(match.wanted):
        taker.take(block)
        pause()
    return taker.taken()


class _Taker:
    def __init__(
        self, match: Match, settings: SourceSettings, contract: ContractSpec, skipped: Skipped, spools: Spools
    ) -> None:
        self._match, self._contract, self._skipped = match, contract, skipped
        self._whose = settings.path
        self._classes = Classes(contract.classes) if contract.classes and len(match.labels) == 1 else None
        self._ranges = [contract.ranges.get(name) for name in contract.features] or [None] * len(match.features)
        self._label_ranges = [contract.ranges.get(name) for name in contract.labels] or [None] * len(match.labels)
        self._series = contract.window is not None
        self._how = how(settings, contract)
        self._width = len(match.features)
        waves = 2 * len(contract.time_features)
        self._X = spools.spool(np.float32, self._width + waves)
        label = () if len(match.labels) == 1 else (len(match.labels),)
        self._y = spools.spool(np.int64 if self._classes else np.float32, *label)
        self._weights = spools.spool(np.float32) if match.weight is not None else None
        by_rows = contract.validation and not self._series and match.group is None
        self._hashes = spools.spool(np.uint64) if by_rows else None
        self._groups = spools.spool(np.int32) if match.group is not None else None
        self._names: dict[str, int] = {}
        ordered = match.time is not None and (self._series or self._how == "last")
        self._times = spools.spool(np.float64) if ordered else None
        self._usable = spools.spool(np.uint8) if self._series else None
        self._last_time, self._last_group = np.nan, -1
        self._are_moments = not contract.time_features or settings.time_format is not None
        """Whether the times of the rows are known to have a date."""

    def take(self, block: Block) -> None:
        n = len(block.lines)
        self._skipped.n_rows += n
        if not n:
            return
        ok = _Rows(block, self._skipped, np.ones(n, bool))
        ok.faults()
        X = np.empty((n, self._X.shape[0]), np.float32)
        y = self._labels(block, ok)
        weights = self._weigh(block, ok)
        missing = np.zeros(n, bool)
        for at, (name, limits) in enumerate(zip(self._match.features, self._ranges, strict=True)):
            missing |= self._feature(X[:, at], name, limits, block, ok)
        times = self._moments(block, ok)
        if self._contract.time_features and times is not None:
            X[:, self._width :] = moments.waves(np.nan_to_num(times), self._contract.time_features)
        groups = self._grouped(block, ok)
        self._keep(ok.ok, X, y, weights, times, groups)

    def _feature(self, into: Float32, name: str, limits: tuple[float, float] | None, block: Block, ok: _Rows) -> _Mask:
        """Write a column as float32 where it belongs, and return where it is missing."""
        values = _numbers(block, name)
        with np.errstate(over="ignore"):
            into[:] = values
        infinite = np.isinf(into)
        ok.skip(name, NOT_FINITE, infinite)
        into[infinite] = np.nan  # which nothing is filled with, in a row after it
        outside = np.zeros(len(into), bool) if limits is None else (values < limits[0]) | (values > limits[1])
        into[outside] = np.nan
        if self._how == "skip":
            ok.skip(name, OUTSIDE, outside)
            ok.skip(name, EMPTY, np.isnan(into))
        else:
            self._skipped.replace(name, OUTSIDE, block.lines[outside & ok.ok])
        return np.isnan(into)

    def _labels(self, block: Block, ok: _Rows) -> Array:
        """Return the labels of the rows; of a row without one it is 0."""
        names = self._match.labels
        if self._classes is not None:
            cells = block.columns[names[0]]
            if isinstance(cells, list):
                indices = self._classes.indices(cells)
                marks = MISSING if self._match.wanted[names[0]] is Kind.LABEL else ()
                empty = np.fromiter((not cell or cell.lower() in marks for cell in cells), bool, len(cells))
                empty &= indices == NONE
            else:
                indices, empty = self._classes.of_numbers(cells), np.isnan(cells)
            ok.skip(names[0], EMPTY, empty)
            ok.skip(names[0], NO_CLASS, indices == NONE)
            return np.where(indices == NONE, 0, indices)
        columns = []
        for name, limits in zip(names, self._label_ranges, strict=True):
            values = _numbers(block, name)
            ok.skip(name, EMPTY, np.isnan(values))
            if limits is not None:
                ok.skip(name, OUTSIDE, (values < limits[0]) | (values > limits[1]))
            with np.errstate(over="ignore"):
                column = values.astype(np.float32)
            ok.skip(name, NOT_FINITE, np.isinf(column))
            columns.append(np.where(np.isfinite(column), column, np.float32(0)))
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    def _weigh(self, block: Block, ok: _Rows) -> Float32 | None:
        name = self._match.weight
        if name is None:
            return None
        with np.errstate(over="ignore"):
            weights = _numbers(block, name).astype(np.float32)
        ok.skip(name, NO_WEIGHT, ~(np.isfinite(weights) & (weights > 0)))
        return np.where(ok.ok, weights, np.float32(1))

    def _moments(self, block: Block, ok: _Rows) -> npt.NDArray[np.float64] | None:
        """Return when each row is; of one that does not say, the time of the row before."""
        name = self._match.time
        if name is None:
            return None
        times = _numbers(block, name)
        wrong = ~(np.abs(times) <= moments.MOST_S)
        ok.skip(name, NO_TIME, wrong)
        latest = np.maximum.accumulate(np.where(wrong, -1, np.arange(len(times))))
        times = np.where(latest < 0, self._last_time, times[np.maximum(latest, 0)])
        self._last_time = times[-1]
        self._are_moments = self._are_moments or bool((~wrong & ((times < 0) | (times >= _FIRST_S))).any())
        return times

    def _grouped(self, block: Block, ok: _Rows) -> npt.NDArray[np.int64] | None:
        """Return the number of each row's group; of one that does not say, that of the row before."""
        name = self._match.group
        if name is None:
            return None
        cells = block.columns[name]
        if not isinstance(cells, list):
            cells = ["" if np.isnan(cell) else repr(float(cell)) for cell in cells]
        ok.skip(name, EMPTY, np.fromiter((not cell for cell in cells), bool, len(cells)))
        found = np.empty(len(cells), np.int64)
        for at, cell in enumerate(cells):
            if cell:
                self._last_group = self._names.setdefault(cell, len(self._names))
            found[at] = self._last_group
        if len(self._names) > MOST_GROUPS:
            raise DatasetError(
                f"{self._whose}: column {name!r} has more than {MOST_GROUPS:,} groups: name a column whose rows belong "
                "together, as by in the job's [contract] or as group in the source's table"
            )
        return found

    def _keep(
        self,
        ok: _Mask,
        X: Float32,
        y: Array,
        weights: Float32 | None,
        times: npt.NDArray[np.float64] | None,
        groups: npt.NDArray[np.int64] | None,
    ) -> None:
        kept = ok
        if self._usable is not None:  # the others break a series where they stand, if that is known
            kept = np.ones(len(ok), bool)
            if times is not None:
                kept &= ~np.isnan(times)
            if groups is not None:
                kept &= groups >= 0
            self._usable.append(ok[kept])
        self._X.append(X[kept])
        self._y.append(y[kept])
        if self._hashes is not None:
            labels = y.astype(np.float32) if y.ndim == 1 else y
            self._hashes.append(holdout.of_rows(X[kept], labels[kept]))
        for spool, values in ((self._weights, weights), (self._times, times), (self._groups, groups)):
            if spool is not None and values is not None:
                spool.append(values[kept])

    def taken(self) -> Taken:
        """Return all of them. Raises DatasetError where the job wants the dates of rows and their times have none."""
        if not self._are_moments and not np.isnan(self._last_time):
            raise DatasetError(
                f"{self._whose}: column {self._match.time!r} has no date in any row: its numbers are too small for "
                "seconds since 1970, or of a clock that was not set, and the job makes inputs of the date: say "
                'what they are, as in time_format = "excel" (days) or "s" (seconds of a day)'
            )
        return Taken(
            self._X.array(),
            self._width,
            self._y.array(),
            _array(self._weights),
            _array(self._hashes),
            _array(self._groups),
            np.fromiter((holdout.of_text(name) for name in self._names), np.uint64, len(self._names)),
            _array(self._times),
            _array(self._usable),
        )


class _Rows:
    """Which rows of a block can be used so far."""

    def __init__(self, block: Block, skipped: Skipped, ok: _Mask) -> None:
        self.ok = ok
        self._block, self._skipped = block, skipped

    def skip(self, column: str, why: str, wrong: _Mask) -> None:
        """Leave out what is wrong, where it was not left out before."""
        new = wrong & self.ok
        if new.any():
            self._skipped.skip(column, why, self._block.lines[new])
            self.ok &= ~new

    def faults(self) -> None:
        """Leave out the rows with a cell that is not what was asked for."""
        lines = self._block.lines
        for fault in self._block.faults:
            self._skipped.note_fault(fault.column, fault.line, fault.why)
            at = int(np.searchsorted(lines, fault.line, "right")) - 1  # a row may go on for several lines
            if at >= 0 and self.ok[at]:
                self.ok[at] = False
                self._skipped.skip(fault.column, fault.why, lines[at : at + 1])


def _numbers(block: Block, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(block.columns[name], np.float64)


def _array(spool: Spool | None) -> Array | None:
    return None if spool is None else spool.array()
