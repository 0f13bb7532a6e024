"""What a format gives: an opened table, read as blocks of columns by name.

    a file ──open──▶ Table ──blocks(wanted)──▶ Block, Block, …   (rows in the file's order, up to BLOCK_ROWS each)

A table holds no more than one block of rows at a time, whatever the size of its file. A cell that is empty or stands
for nothing is missing: it is nan, or "". A cell that is neither missing nor what was asked for is a fault, and missing
besides; what becomes of its row is for others to say (missing.py).

Privacy: no cell's content leaves the device, so that a Fault names line and column and never the cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models.nets.losses import Labels
from models.params import Float32

BLOCK_ROWS = 4096
"""Rows of a block, at most: few enough that no step on them holds the interpreter for long."""


class Kind(Enum):
    """What the cells of a column are read as."""

    NUMBER = "number"
    TEXT = "text"
    LABEL = "label"
    """Text, in which what stands for nothing elsewhere is a word as any other: a class may be called "None"."""
    TIME = "time"


class Fault(NamedTuple):
    """A cell that is neither missing nor what was asked for."""

    line: int
    column: str
    why: str
    """As it goes on after "line 3, column a ": "is no number". Never the cell itself."""


class Block(NamedTuple):
    """Some rows, in the file's order."""

    columns: dict[str, NDArray[np.float64] | list[str]]
    """Of each column that was asked for. NUMBER: nan where missing; TEXT: stripped, "" where missing; LABEL: the
    same, but missing only where nothing stands; TIME: seconds
    since 1970 (UTC, or as the table writes it), nan where missing."""
    lines: NDArray[np.int64]
    """Of each row: its line as an editor counts (CSV, JSON lines), else its row from 0."""
    faults: tuple[Fault, ...] = ()


class Table(Protocol):
    """A table that is opened, as it is at that moment."""

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of its columns; none where columns have no names."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was found out by looking, for one line of the log: "delimiter ';'", "decimal comma"."""

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """Yield the rows of these columns, from the first on, each time it is called. Raises DatasetError."""

    def close(self) -> None:
        """Let go of the file."""


@runtime_checkable
class Arrays(Table, Protocol):
    """A table whose columns have no names (its header is empty): features and labels by position."""

    n_rows: int

    def parts(self, *, scaled: bool = True) -> Iterator[tuple[Float32, Labels | NDArray[np.str_]]]:
        """Yield some rows at a time: features (n, ...) float32, and labels: int64, float32 or text.

        scaled: divide bytes by 255, as ever; not where the job normalises. Raises DatasetError.
        """

    def arrays(self, *, scaled: bool = True) -> tuple[Float32, Labels | NDArray[np.str_]]:
        """Return all rows, as `parts` gives them. Raises DatasetError, also where a number is not finite."""
