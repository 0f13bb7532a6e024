"""Rows that a model is asked about: read by the contract that it was trained by, without labels.

    Table ──match, missing, windows──▶ examples, and of each the row that it is of

A row goes the very way that it would go on a device (reader.py): columns by name, ranges, times, what is missing. In
place of a label it carries its number, so that each answer finds its row, whatever is left out or put in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import structs

from models.contract import ContractSpec
from models.data import matching, positional, reader, rows
from models.data.blocks import Arrays, Block, Kind, Table
from models.data.dataset import DatasetError
from models.data.missing import Means
from models.data.settings import SourceSettings
from models.data.skipped import Skipped
from models.data.spool import Spools, slices
from models.data.unlabelled import UnlabelledArrays
from models.params import Float32

MOST_ROWS = 2**24
"""Whose numbers a float32 has room for."""
_NUMBER = "(number)"


class Asked(NamedTuple):
    """What a model is asked about."""

    X: Float32
    """(n, inputs) float32."""
    rows: npt.NDArray[np.int64]
    """(n,) the number of each one's row, from 0; of a window that of its last one. They rise."""
    lines: npt.NDArray[np.int64]
    """(n_rows,) of each row of the table: its line as an editor counts, or its number from 0."""
    notes: tuple[str, ...]
    """What was found out by looking, and what is not answered: for who asks."""


def ask(
    opened: Table,
    settings: SourceSettings,
    contract: ContractSpec,
    fill: Float32 | None = None,
    *,
    place: str = "line",
) -> Asked:
    """Return the rows of a table as a model takes them that was trained by this contract. Labels are ignored.

    fill: what stands for missing values where they are filled with a mean, (n_features,); the means of these rows when
    not given. place: what a line is called. Raises DatasetError.
    """
    names = {*(contract.labels or (settings.label,)), *filter(None, (contract.weight,))} - {*contract.features}
    contract = _unlabelled(contract)
    notes: tuple[str, ...] = opened.notes
    if isinstance(opened, Arrays):
        named = positional.named(UnlabelledArrays(opened), structs.replace(settings, label="y"), contract)
        opened, contract, settings, place = named.table, _unlabelled(named.contract), named.settings, "row"
        names, notes = {"y"}, (*notes, *filter(None, (named.note,)))
    check(opened, settings, contract)
    numbered = _Numbered(opened, names)
    contract = structs.replace(contract, label=numbered.number)
    settings = structs.replace(settings, label=numbered.number, max_skipped=1.0)
    read = reader.read(numbered, settings, contract, classifies=False, place=place, fill=fill)
    if numbered.n_rows > MOST_ROWS:
        raise DatasetError(f"{settings.path}: {numbered.n_rows:,} rows: ask about {MOST_ROWS:,} at a time")
    found = np.asarray(read.data.y, np.float32).astype(np.int64)
    order = np.argsort(found, kind="stable")
    lines = np.concatenate(numbered.lines or [np.empty(0, np.int64)])
    return Asked(read.data.X[order], found[order], lines, (*notes, *read.notes))


def check(opened: Table, settings: SourceSettings, contract: ContractSpec) -> None:
    """Raise DatasetError where a table has not the columns that a model takes by this contract."""
    if not isinstance(opened, Arrays):
        matching.check(settings, contract, opened.header, contract.features or settings.columns, "the header")


def means(opened: Table, settings: SourceSettings, contract: ContractSpec) -> Float32 | None:
    """Return (n_features,) what a device that trains on this table fills missing values with; None for one that does
    not, or whose columns have no names. Raises DatasetError.
    """
    if isinstance(opened, Arrays) or matching.how(settings, contract) != "mean":
        return None
    match = matching.match(settings, contract, opened.header)
    spools, skipped = Spools(None, settings.path), Skipped(settings.path, 1.0)
    taken = rows.take(opened, match, settings, contract, skipped, spools)
    found = Means(taken.n_features)
    for part in slices(len(taken.y)):
        used = slice(None) if taken.usable is None else taken.usable[part] > 0
        found.note(taken.X[part, : taken.n_features][used])
    return None if len(found.empty) else found.values()


def _unlabelled(contract: ContractSpec) -> ContractSpec:
    """Return what a contract says of the inputs alone."""
    window = contract.window
    return structs.replace(
        contract,
        label=None,
        classes=(),
        units={},
        ranges={name: limits for name, limits in contract.ranges.items() if name in contract.features},
        window=None if window is None else structs.replace(window, label="last"),
        validation=0.0,
        weight=None,
        class_weight="none",
    )


class _Numbered:
    """A table with the numbers of its rows as one more column. leave: columns that are no features."""

    notes: tuple[str, ...] = ()

    def __init__(self, table: Table, leave: set[str]) -> None:
        self._table = table
        self.number = _NUMBER
        while self.number in table.header:
            self.number += "'"
        self.header = (*(name for name in table.header if name not in leave), self.number)
        self.lines: list[npt.NDArray[np.int64]] = []
        self.n_rows = 0

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        self.lines, self.n_rows = [], 0
        for block in self._table.blocks({name: kind for name, kind in wanted.items() if name != self.number}):
            n = len(block.lines)
            numbers = np.arange(self.n_rows, self.n_rows + n, dtype=np.float64)
            self.lines.append(block.lines)
            self.n_rows += n
            yield block._replace(columns={**block.columns, self.number: numbers})

    def close(self) -> None:
        """See `Table`."""
