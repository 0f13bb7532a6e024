"""Sources without labels, for jobs that need none: a table that lacks the column has it all the same, of normal rows.

A device that looks for anomalies has rows and nothing else. A table that has the label column, which is what the job
calls it or else the source, is read as it is: 0 is a normal row, 1 an anomaly, or the first and the second of the job's
`classes`. What is a feature by the job's contract is no label, whatever the source calls one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from models.contract import ContractSpec
from models.data.blocks import Arrays, Block, Kind, Table
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings
from models.data.table import Format
from models.nets.losses import Labels
from models.params import Float32


def opened(
    row: Format, settings: SourceSettings, contract: ContractSpec, *, ended: bool, allow: Sequence[str] = ()
) -> tuple[Table, SourceSettings]:
    """Open a source that may have no labels: return its table, which has some, and what it is to be read as.

    row, ended, allow: as `Format.open`. Raises DatasetError.
    """
    try:
        found = row.open(settings, ended=ended, allow=allow)
    except DatasetError:
        if row.called != "npz":
            raise
        features = settings.columns[0] if len(settings.columns) == 1 else "X"  # its features alone
        bare = row.open(structs.replace(settings, label=features), ended=ended, allow=allow)
        if not isinstance(bare, Arrays):
            bare.close()
            raise
        return UnlabelledArrays(bare), settings
    if isinstance(found, Arrays):
        return found, settings
    label = contract.labels[0] if contract.labels else settings.label
    if label in found.header and label not in contract.features:
        return found, settings
    if label in contract.features:
        label = _free(found.header)
        settings = structs.replace(settings, label=label)
    return UnlabelledTable(found, label, contract.class_names[0] if contract.class_names else "0"), settings


def _free(header: Sequence[str]) -> str:
    name = "label"
    while name in header:
        name += "'"
    return name


class UnlabelledTable:
    """See `Table`. label: the column that is added. normal: what a normal row is called in it."""

    def __init__(self, table: Table, label: str, normal: str) -> None:
        self._table, self._label, self._normal = table, label, normal
        self.header = (*table.header, label)
        self.notes = (*table.notes, "no labels: all rows count as normal")
        self.is_named = bool(getattr(table, "is_named", True))

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        for block in self._table.blocks({name: kind for name, kind in wanted.items() if name != self._label}):
            n = len(block.lines)
            normal = np.zeros(n) if wanted.get(self._label) is Kind.NUMBER else [self._normal] * n
            yield block._replace(columns={**block.columns, self._label: normal})

    def close(self) -> None:
        """See `Table`."""
        self._table.close()


class UnlabelledArrays:
    """See `Arrays`: of two arrays the features count, and all labels are 0."""

    header: tuple[str, ...] = ()

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self.n_rows = arrays, arrays.n_rows
        self.notes = (*arrays.notes, "no labels: all rows count as normal")

    def parts(self, *, scaled: bool = True) -> Iterator[tuple[Float32, Labels | NDArray[np.str_]]]:
        """See `Arrays`."""
        for X, _ in self._arrays.parts(scaled=scaled):
            yield X, np.zeros(len(X), np.int64)

    def arrays(self, *, scaled: bool = True) -> tuple[Float32, Labels | NDArray[np.str_]]:
        """See `Arrays`."""
        X, _ = self._arrays.arrays(scaled=scaled)
        return X, np.zeros(len(X), np.int64)

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Arrays`."""
        return self._arrays.blocks(wanted)

    def close(self) -> None:
        """See `Table`."""
        self._arrays.close()
