"""Rows that somebody else's code gives: `"package.module:factory"`, for whatever no format of ours reads.

The factory is called with the source's `options` each time that rows are read, and gives one of

    an iterable of dicts      {"temp": 21.5, "vib": None, "y": "ok"}: a row each; what is nested is named with points
    an iterable of Blocks     (blocks.py), for columns that are arrays already
    (X, y)                    two arrays: by position

It is code, and runs only where agent.toml or aggregator.toml allows it by name. Rows are counted from 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind, Table
from models.data.cells import CellError, Cells, Doubles, missing_of
from models.data.dataset import DatasetError, checked, float32
from models.data.jsonl_file import lookup, names_of
from models.data.naming import called, listed, places
from models.data.settings import SourceSettings
from models.data.values import Values
from models.nets.factory import is_factory
from models.nets.losses import Labels
from models.params import Float32

_SAMPLE = 100
"""Rows whose keys are looked at."""


def named_by(settings: SourceSettings) -> str | None:
    """Return the factory that a source's settings name, as its format or in place of a path; None for none."""
    if settings.format is not None:
        return settings.format if is_factory(settings.format) else None
    return settings.path if is_factory(settings.path) else None


def open_table(settings: SourceSettings, *, ended: bool, allow: Sequence[str] = ()) -> Table:  # noqa: ARG001
    """Call a source's factory, and look at what it gives.

    allow: the "package.module:factory" strings that may run here. Raises DatasetError.
    """
    name = named_by(settings) or ""
    if name not in allow:
        raise DatasetError(
            f"{name} is code that may not run here: if you trust it, add it to allow in [models] of agent.toml (or "
            "aggregator.toml)"
        )
    source = _Factory(name, settings.options)
    made = source.made()
    if isinstance(made, tuple) and len(made) == 2 and not any(isinstance(one, dict | Block) for one in made):
        return FactoryArrays(name, *made)
    return FactoryTable(source, settings, made)


class _Factory:
    """Code that gives rows."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self._options = name, options

    def made(self) -> Any:
        """Return what it gives. Raises DatasetError."""
        module, _, attribute = self.name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)(**self._options)
        except Exception as error:
            raise self.failed(error) from error

    def failed(self, error: Exception) -> DatasetError:
        """Return an error of ours. What its own says may hold what is in a row."""
        if isinstance(error, DatasetError):
            return error
        return DatasetError(
            f"{self.name}: failed with {type(error).__name__}: the log of this machine has why", cell=str(error)
        )

    def items(self, made: Any) -> Iterator[Any]:
        """Yield what an iterable of it has. Raises DatasetError."""
        try:
            yield from made
        except Exception as error:
            raise self.failed(error) from error


class FactoryTable:
    """See `Table`."""

    notes: tuple[str, ...] = ()

    def __init__(self, source: _Factory, settings: SourceSettings, made: Any) -> None:
        """Look at its first rows. Raises DatasetError."""
        self._source, self._settings = source, settings
        self._values = Values(Cells(missing=missing_of(settings.missing_values)), settings.time_format)
        if not isinstance(made, Iterable) or isinstance(made, str | bytes | dict):
            raise DatasetError(
                f"{source.name}: gave a {type(made).__name__}: it shall give an iterable of dicts, or (X, y)"
            )
        first = list(islice(source.items(made), _SAMPLE))
        if not first:
            raise DatasetError(f"{source.name}: no rows yet: it gave none")
        names = dict.fromkeys(name for item in first for name in self._names(item))
        self._inner = tuple(names)
        self.header = called(self._inner, settings)

    def _names(self, item: object) -> Iterable[str]:
        match item:
            case Block():
                return item.columns
            case dict():
                return names_of(item)
        raise DatasetError(f"{self._source.name}: gave a {type(item).__name__} as a row: a row is a dict")

    def close(self) -> None:
        """See `Table`."""

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        at = places(self.header, wanted, self._source.name)
        return self._blocks({self._inner[at[name]]: name for name in wanted}, wanted)

    def _blocks(self, names: Mapping[str, str], wanted: Mapping[str, Kind]) -> Iterator[Block]:
        rows: list[Mapping[str, object]] = []
        n = 0
        for item in self._source.items(self._source.made()):
            if isinstance(item, Block):
                cells = {name: item.columns.get(inner, ()) for inner, name in names.items()}
                n_rows = len(item.lines)
                for begin in range(0, n_rows, BLOCK_ROWS):
                    part = {name: values[begin : begin + BLOCK_ROWS] for name, values in cells.items()}
                    yield self._block(part, wanted, n, min(BLOCK_ROWS, n_rows - begin))
                    n += min(BLOCK_ROWS, n_rows - begin)
                continue
            self._names(item)
            rows.append(item)
            if len(rows) == BLOCK_ROWS:
                yield self._of_rows(rows, names, wanted, n)
                n += len(rows)
                rows = []
        if rows:
            yield self._of_rows(rows, names, wanted, n)

    def _of_rows(
        self, rows: Sequence[Mapping[str, object]], names: Mapping[str, str], wanted: Mapping[str, Kind], first: int
    ) -> Block:
        cells = {name: [lookup(row, inner) for row in rows] for inner, name in names.items()}
        return self._block(cells, wanted, first, len(rows))

    def _block(self, cells: Mapping[str, Any], wanted: Mapping[str, Kind], first: int, n: int) -> Block:
        columns: dict[str, Doubles | list[str]] = {}
        faults: list[Fault] = []
        for name, kind in wanted.items():
            values = cells[name].tolist() if isinstance(cells[name], np.ndarray) else list(cells[name])
            if len(values) != n:
                raise DatasetError(f"{self._source.name}: gave {len(values)} cells of {name!r} for {n} rows")
            try:
                columns[name], whys = self._values.column(name, kind, values)
            except CellError as error:
                raise DatasetError(f"{self._source.name}, column {name}: {error}") from None
            faults += [Fault(first + row, name, why) for row, why in whys]
        faults.sort(key=lambda fault: fault.line)
        return Block(columns, np.arange(first, first + n), tuple(faults))


class FactoryArrays:
    """Two arrays of a factory: see `Arrays`."""

    header: tuple[str, ...] = ()

    def __init__(self, name: str, X: Any, y: Any) -> None:
        """Look at their types. Raises DatasetError."""
        self._name, self._X, self._y = name, np.asarray(X), np.asarray(y)
        for what, array, kinds in (("X", self._X, "buif"), ("y", self._y, "buifU")):
            if array.dtype.kind not in kinds or not array.ndim:
                raise DatasetError(f"{name}: {what} is {array.dtype} {array.shape}, not rows of numbers")
        if len(self._X) != len(self._y):
            raise DatasetError(f"{name}: {len(self._X)} rows in X but {len(self._y)} in y")
        scaled = ("bytes, 0 to 255: divided by 255, unless the job normalises",) if self._X.dtype == np.uint8 else ()
        self.notes: tuple[str, ...] = ("columns by position", *scaled)
        self.n_rows = len(self._X)

    def close(self) -> None:
        """See `Table`."""

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """Raise DatasetError: there are no names."""
        raise DatasetError(f"{self._name}: gave arrays without names, so that {listed(list(wanted))} cannot be found")

    def parts(self, *, scaled: bool = True) -> Iterator[tuple[Float32, Labels | NDArray[np.str_]]]:
        """See `Arrays`."""
        for begin in range(0, self.n_rows, BLOCK_ROWS):
            X, y = self._X[begin : begin + BLOCK_ROWS], self._y[begin : begin + BLOCK_ROWS]
            values = float32(X)
            if scaled and X.dtype == np.uint8:
                values /= 255.0
            kind = y.dtype.kind
            yield values, y if kind == "U" else float32(y) if kind == "f" else y.astype(np.int64)

    def arrays(self, *, scaled: bool = True) -> tuple[Float32, Labels | NDArray[np.str_]]:
        """See `Arrays`."""
        parts = list(self.parts(scaled=scaled))
        if not parts:
            raise DatasetError(f"{self._name}: no rows in X")
        X, y = np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
        return checked(X, "X", self._name), checked(y, "y", self._name)
