"""A file of rows dealt out to devices: each one's share is read by the job's contract, as a device reads its own file.

    file ──open──▶ Table ──held──▶ Rows ──deal──▶ Share, Share, …   ──read──▶ Dataset, or why it cannot be used
                                       └────────▶ Share to test on  ──write──▶ a file, and the keys of its source

So what is missing, classes, windows and what is held back are what they would be on that many devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import structs

from fleet.problems.held import Held, held
from fleet.problems.held import Rows as RowNumbers
from fleet.problems.partition import PartitionError
from models.contract import NO_CONTRACT, ContractSpec
from models.data import matching, positional, reader, table, unlabelled
from models.data.blocks import Arrays, Kind
from models.data.dataset import Dataset, DatasetError, fit
from models.data.labels import Classes
from models.data.settings import SourceSettings
from models.job import ModelSpec

OWNER = "device"
"""The column that keeps the series of two devices apart in what is tested on."""
_IN_LINES = ("CSV", "JSON lines")


class Rows:
    """All rows of a file, as a job means them."""

    def __init__(
        self,
        whole: Held,
        settings: SourceSettings,
        contract: ContractSpec,
        model: ModelSpec,
        *,
        place: str = "row",
        arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """place: what a line is called. arrays: features and labels, where columns have no names in the file."""
        self.table, self.settings, self.contract, self.model = whole, settings, contract, model
        self.place, self.arrays, self.notes = place, arrays, notes
        self.match = matching.match(settings, contract, whole.header)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Return what rows are dealt out by: (n,) int64 of classes that have names, -1 for none of them; else float64,
        (n,) or (n, k).
        """
        names = self.match.labels
        cells = [self.table.columns[name] for name in names]
        if self.contract.classes and len(names) == 1:
            classes, first = Classes(self.contract.classes), cells[0]
            return classes.indices(first) if isinstance(first, list) else classes.of_numbers(first)
        columns = [np.asarray(one, np.float64) for one in cells]
        values = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
        if self.contract != NO_CONTRACT and self.model.labels_are_classes and values.ndim == 1:
            return np.nan_to_num(values, nan=-1).astype(np.int64)
        return values

    @property
    def is_series(self) -> bool:
        """Whether examples are stretches of rows, which must not be torn."""
        return self.contract.window is not None

    def in_order(self, rows: RowNumbers) -> RowNumbers:
        """Return these rows by their time, where they have one; else as they stand in the file."""
        name = self.match.time
        if name is None:
            return rows
        times = np.asarray(self.table.columns[name])[rows]
        return rows[np.argsort(times, kind="stable")]

    def share(self, rows: RowNumbers, owner: str) -> Share:
        """Return some rows as the share of a device."""
        return Share(self, rows, owner)


class Share(NamedTuple):
    """Some rows of a file, which are one device's, or those that versions are scored on."""

    of: Rows
    rows: RowNumbers
    owner: str
    """Whose they are, for messages."""
    apart: npt.NDArray[Any] | None = None
    """(n,) what no series goes across, of rows to test on."""

    def read(self, *, whole: bool = False) -> Dataset:
        """Return the examples of these rows, as the model takes them; whole: hold none of them back.

        Raises DatasetError.
        """
        found, settings = self._table()
        contract = structs.replace(self.of.contract, validation=0.0) if whole else self.of.contract
        model = self.of.model
        read = reader.read(found, settings, contract, classifies=model.labels_are_classes, place=self.of.place)
        data = read.data
        if self.of.arrays is not None:
            data = reader.shaped(data, self.of.arrays[0].shape[1:])
        return fit(data, model)

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write these rows as a file of a device; return the keys of its source. Raises OSError."""
        if self.of.arrays is not None and self.apart is None:
            X, y = self.of.arrays
            path = folder / f"{stem}.npz"
            np.savez(path, X=X[self.rows], y=y[self.rows])
            return {"path": str(path), **_kept(self.of.settings, ("missing", "max_skipped"))}
        path = folder / f"{stem}.csv"
        found, settings = self._table()
        found.write(path)
        match = self.of.match
        keys: dict[str, Any] = {"path": str(path), "delimiter": ",", "decimal": ".", "comment": ""}
        if not self.of.contract.labels:
            keys["label"] = match.labels[0]
        if settings.columns and not self.of.contract.features:
            keys["features"] = list(match.features)
        if match.time is not None:
            keys |= {"time": match.time, "time_format": "s"}
        if settings.group is not None and settings.group in found.columns:
            keys["group"] = settings.group
        return keys | _kept(settings, ("missing", "missing_values", "max_skipped"))

    def _table(self) -> tuple[Held, SourceSettings]:
        found, settings = self.of.table.taken(self.rows), self.of.settings
        if self.apart is None:
            return found, settings
        name = self.of.match.group or OWNER
        own = found.columns.get(name)
        cells = own if isinstance(own, list) else [""] * len(found)
        apart = [f"{owner} {cell}" for owner, cell in zip(self.apart.tolist(), cells, strict=True)]
        if own is not None:
            apart = ["" if not cell else one for cell, one in zip(cells, apart, strict=True)]
        settings = settings if self.of.contract.by == name else structs.replace(settings, group=name)
        return found.replaced(name, Kind.TEXT, apart), settings


def _kept(settings: SourceSettings, keys: Sequence[str]) -> dict[str, Any]:
    """Return those keys of a source that are not as usual, as TOML has them."""
    usual = SourceSettings("x")
    found = {key: getattr(settings, key) for key in keys if getattr(settings, key) != getattr(usual, key)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def read_rows(
    settings: SourceSettings, contract: ContractSpec, model: ModelSpec, column: str | None = None
) -> tuple[Rows, list[str] | None] | None:
    """Return all rows of a file, and what stands in one more column, whatever the format.

    None for two arrays without a contract, whose rows are the examples as they are. Raises DatasetError.
    """
    row = table.known(settings)
    allow = table.factories_of(settings)  # who names code here wants it to run
    if model.finds_anomalies:
        opened, settings = unlabelled.opened(row, settings, contract, ended=False, allow=allow)
    else:
        opened = row.open(settings, ended=False, allow=allow)
    try:
        if isinstance(opened, Arrays):
            if contract == NO_CONTRACT:
                return None
            named = positional.named(opened, settings, contract)
            arrays = opened.arrays(scaled=contract.normalise == "none")
            header = named.table.header
            match = matching.match(named.settings, named.contract, header)
            whole = held(named.table, match.wanted)
            notes = tuple(filter(None, (*opened.notes, named.note)))
            return Rows(whole, named.settings, named.contract, model, arrays=arrays, notes=notes), None
        header = opened.header
        if column is not None and header.count(column) != 1:
            raise DatasetError(
                f"{settings.path}: no column {column!r} to deal the rows out by, or more than one; it has "
                f"{', '.join(header[:20])}"
            )
        if column is not None and column not in _named(settings, contract):
            header = tuple(name for name in header if name != column)  # who a row belongs to is no feature
        match = matching.match(settings, contract, header, "the query" if settings.query else "the header")
        place = "line" if row.name in _IN_LINES else "row"
        whole = held(opened, match.wanted)
        if not len(whole):
            raise DatasetError(f"{settings.path}: no rows yet")
        rows = Rows(whole, settings, contract, model, place=place, notes=opened.notes)
        return rows, None if column is None else _texts(opened, column)
    finally:
        opened.close()


def _named(settings: SourceSettings, contract: ContractSpec) -> set[str | None]:
    """Return the columns that somebody names."""
    by = settings.group if contract.by is None else contract.by
    return {*contract.features, *settings.columns, *(contract.labels or (settings.label,)), by, contract.weight}


def _texts(opened: Any, column: str) -> list[str]:
    cells = held(opened, {column: Kind.TEXT}).columns[column]
    return cells if isinstance(cells, list) else [repr(cell) for cell in cells.tolist()]


def by_owner(owners: Sequence[str], rows: RowNumbers) -> dict[str, RowNumbers]:
    """Return the rows of each owner: numbers in their order, then names in that of the alphabet.

    Rows of nobody are left out. Raises PartitionError where nobody is named.
    """
    found: dict[str, list[int]] = {}
    for row in rows.tolist():
        if owners[row]:
            found.setdefault(owners[row], []).append(row)
    if not found:
        raise PartitionError("the column is empty: it names no device")
    return {owner: np.array(found[owner], np.int64) for owner in sorted(found, key=_as_number)}


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def stretches(rows: Rows, n_devices: int) -> list[RowNumbers]:
    """Return each device its stretch of the rows, or whole groups where the rows have such. Raises PartitionError."""
    everything = rows.in_order(np.arange(len(rows)))
    name = rows.match.group
    if name is None:
        return [np.sort(part) for part in np.array_split(everything, n_devices)]
    cells = rows.table.columns[name]
    groups: dict[object, list[int]] = {}
    for row in everything.tolist():
        groups.setdefault(cells[row], []).append(row)
    if len(groups) < n_devices:
        raise PartitionError(
            f"{n_devices} devices are more than the {len(groups)} groups in {name!r}, which no window goes across: say "
            "fewer --devices"
        )
    parts = np.array_split(np.arange(len(groups)), n_devices)
    listed = list(groups.values())
    return [np.sort(np.concatenate([listed[at] for at in part])).astype(np.int64) for part in parts]


def usable(
    shares: Sequence[Share], read: Callable[[Share], Dataset]
) -> tuple[list[Share], list[Dataset], dict[str, str]]:
    """Return the shares that can be used, with their examples, and of the others why not."""
    kept, data, refused = [], [], {}
    for share in shares:
        try:
            data.append(read(share))
            kept.append(share)
        except DatasetError as error:
            refused[share.owner] = str(error)
    return kept, data, refused
