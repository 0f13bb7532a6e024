"""A table in memory, of which devices get some rows each: as a table of their own, or as a file.

    Table ──held──▶ Held ──taken(rows)──▶ Held ──written──▶ a CSV file that reads as the same rows

Rows keep their lines in the file that they come from, so that what is said of one names a place that can be looked at.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind, Table

Column = npt.NDArray[np.float64] | list[str]
Rows = npt.NDArray[np.int64]

BROKEN = "(unreadable)"
"""Stands in a written file where a cell was no number or no time: it is none there either."""


class _FaultAt(NamedTuple):
    row: int
    fault: Fault


class Held:
    """See `Table`: some columns of one, in memory. kinds: what their cells were read as."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        columns: Mapping[str, Column],
        kinds: Mapping[str, Kind],
        lines: npt.NDArray[np.int64],
        faults: Sequence[_FaultAt] = (),
    ) -> None:
        self.header = tuple(columns)
        self.columns, self.kinds, self.lines = dict(columns), dict(kinds), lines
        self._faults = tuple(faults)
        """In the order of their rows."""
        self._fault_rows = np.array([one.row for one in faults], np.int64)

    def __len__(self) -> int:
        return len(self.lines)

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`. wanted: columns that are held, as what they were read as."""
        for begin in range(0, len(self), BLOCK_ROWS):
            part = slice(begin, begin + BLOCK_ROWS)
            here = slice(*np.searchsorted(self._fault_rows, [begin, part.stop]))
            faults = tuple(one for _, one in self._faults[here] if not one.column or one.column in wanted)
            yield Block({name: self.columns[name][part] for name in wanted}, self.lines[part], faults)

    def close(self) -> None:
        """See `Table`."""

    def taken(self, rows: Rows) -> Held:
        """Return a table of these rows, in this order."""
        columns = {name: _taken(values, rows) for name, values in self.columns.items()}
        order = np.argsort(rows, kind="stable")
        at = np.searchsorted(rows, self._fault_rows, sorter=order)
        new = order[np.minimum(at, len(rows) - 1)] if len(rows) else at
        there = np.flatnonzero((at < len(rows)) & (rows[new] == self._fault_rows)) if len(rows) else at[:0]
        faults = [_FaultAt(int(new[one]), self._faults[one].fault) for one in there.tolist()]
        return Held(columns, self.kinds, self.lines[rows], sorted(faults, key=lambda one: one.row))

    def replaced(self, name: str, kind: Kind, values: Column) -> Held:
        """Return a table with this column in place of, or beside, what it has."""
        lost = [one for one in self._faults if one.fault.column != name]
        return Held({**self.columns, name: values}, {**self.kinds, name: kind}, self.lines, lost)

    def write(self, path: Path) -> None:
        """Write the rows as CSV: commas, decimal points, times as seconds since 1970; nothing where one is missing."""
        broken = {(row, fault.column) for row, fault in self._faults}
        whole = {row for row, fault in self._faults if not fault.column}
        cells = [_cells(values) for values in self.columns.values()]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.header)
            for row, values in enumerate(zip(*cells, strict=True)):
                if row in whole:
                    writer.writerow([BROKEN] * (len(self.header) + 1))  # more cells than columns, as it was
                    continue
                writer.writerow(
                    [BROKEN if (row, name) in broken else one for name, one in zip(self.header, values, strict=True)]
                )


def held(table: Table, wanted: Mapping[str, Kind]) -> Held:
    """Return some columns of a table, read to its end. Raises DatasetError."""
    blocks = list(table.blocks(wanted))
    columns: dict[str, Column] = {}
    for name, kind in wanted.items():
        parts = [block.columns[name] for block in blocks]
        if kind is Kind.TEXT and all(isinstance(part, list) for part in parts):
            columns[name] = [cell for part in parts for cell in part]
        else:  # labels of arrays are numbers, whatever was asked for
            columns[name] = np.concatenate([np.asarray(part) for part in parts] or [np.empty(0)])
    lines = np.concatenate([block.lines for block in blocks] or [np.empty(0, np.int64)])
    faults: list[_FaultAt] = []
    at = 0
    for block in blocks:  # the line of a fault is within its row, which may go on for several
        within = np.searchsorted(block.lines, [fault.line for fault in block.faults], "right") - 1
        faults += [_FaultAt(at + max(0, row), fault) for row, fault in zip(within.tolist(), block.faults, strict=True)]
        at += len(block.lines)
    return Held(columns, wanted, lines, faults)


def _taken(values: Column, rows: Rows) -> Column:
    return [values[row] for row in rows.tolist()] if isinstance(values, list) else values[rows]


def _cells(values: Column) -> Iterator[str]:
    """Yield the cells of a column as they are written: each reads as the very same number."""
    if isinstance(values, list):
        yield from values
        return
    for value in values.tolist():
        yield "" if value != value else repr(value)
