"""Tables whose columns have no names, as the arrays X and y of an NPZ file: their columns go by position.

They get the names that a job's contract has for them, in its order, if they are as many; without such names they are
called by their number, from 1. Which rows of which meaning they hold nobody can check: it is said in the log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import structs

from models.contract import ContractSpec
from models.data.blocks import Arrays, Block, Kind
from models.data.dataset import Dataset, DatasetError, KindError, checked
from models.data.labels import Classes
from models.data.settings import SourceSettings
from models.data.spool import Spool, Spools


class Named(NamedTuple):
    """A table without names, as one that has them."""

    table: Positional
    contract: ContractSpec
    """With the names of its columns; without windows, where its rows are windows already."""
    settings: SourceSettings
    note: str
    shape: tuple[int, ...]
    """Of the inputs of one row."""


def named(arrays: Arrays, settings: SourceSettings, contract: ContractSpec) -> Named:
    """Name the columns of two arrays. Raises DatasetError where they are not as many as the job's.

    uint8 inputs are scaled to [0, 1] where the job does not say how inputs are scaled, as without a contract.
    """
    path, window = settings.path, contract.window
    first = next(iter(arrays.parts()), None)
    if first is None:
        raise DatasetError(f"{path}: no rows yet")
    X, y = first
    width, features, note = math.prod(X.shape[1:]), contract.features, ""
    if features and width == contract.n_inputs != len(features):
        note = "columns go by position, and its rows are what the model takes already"
        features = contract.columns
        if window is not None:
            features = tuple(f"{name}, row {row}" for row in range(window.length) for name in contract.columns)
            note = f"columns go by position, and its rows are windows of {window.length} already"
        contract = structs.replace(
            contract,
            features=features,
            window=None,
            ranges={},
            units={},
            missing="mean" if contract.missing == "mask" else contract.missing,
            time_features=(),
            by=None,
        )
    elif features:
        if width != len(features):
            raise DatasetError(
                f"{path}: its rows have {width:,} numbers without names, where the job has {len(features):,} features "
                f"({', '.join(features[:20])}{', …' if len(features) > 20 else ''}): have as many, in this order, or a "
                "table whose columns have names"
            )
        note = f"columns have no names and go by position: {', '.join(features[:20])}"
    else:
        features = tuple(f"feature {at + 1}" for at in range(width))
    n_labels = math.prod(y.shape[1:])
    labels = contract.labels or (("y",) if n_labels == 1 else tuple(f"y {at + 1}" for at in range(n_labels)))
    if n_labels != len(labels):
        raise DatasetError(
            f"{path}: {n_labels} labels a row, where the job has {len(labels)}: {', '.join(labels[:20])}"
        )
    return Named(
        Positional(arrays, features, labels, contract),
        structs.replace(contract, label=labels),
        SourceSettings(path, labels[0], missing=settings.missing, max_skipped=settings.max_skipped),
        note,
        X.shape[1:],
    )


def as_they_are(arrays: Arrays, settings: SourceSettings, spools: Spools, pause: Callable[[], None]) -> Dataset:
    """Return the examples of two arrays without a contract: all of them are used, or none. Raises DatasetError.

    uint8 inputs are scaled to [0, 1], every other number becomes float32; labels that are whole numbers become int64.
    """
    path, at = settings.path, 0
    key = settings.columns[0] if settings.columns else "X"
    inputs: Spool | None = None
    labels: Spool | None = None
    for X, y in arrays.parts():
        if y.dtype.kind == "U":
            raise KindError(
                f"{path}: {settings.label} is text: name the job's classes, classes = [...] in [contract] (`fedge job "
                f"draft {path}` writes the line)"
            )
        if inputs is None or labels is None:
            inputs, labels = spools.spool(X.dtype, *X.shape[1:]), spools.spool(y.dtype, *y.shape[1:])
        inputs.append(_finite(X, key, path, at))
        labels.append(_finite(y, settings.label, path, at))
        at += len(X)
        pause()
    if inputs is None or labels is None:
        raise DatasetError(f"{path}: no rows in {key}")
    return Dataset(checked(inputs.array(), key, path), checked(labels.array(), settings.label, path), path)


def _finite(some: npt.NDArray[Any], name: str, path: str, at: int) -> npt.NDArray[Any]:
    if some.dtype.kind == "f" and not np.isfinite(some).all():
        row = int(np.isfinite(some.reshape(len(some), -1)).all(axis=1).argmin())
        raise DatasetError(f"{path}, row {at + row}: {name} has a value that is not a finite float32")
    return some


class Positional:
    """See `Table`. Where no class has a number for its name, whole numbers are classes by position, as features are."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, arrays: Arrays, features: tuple[str, ...], labels: tuple[str, ...], contract: ContractSpec
    ) -> None:
        self.header = (*features, *labels)
        self._arrays, self._scaled = arrays, contract.normalise == "none"
        self._features, self._labels = features, labels
        by_number = contract.classes and len(labels) == 1 and not Classes(contract.classes).are_numbers
        self._classes = dict(enumerate(contract.classes)) if by_number else {}

    def blocks(self, _wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        at = 0
        for X, y in self._arrays.parts(scaled=self._scaled):
            n = len(X)
            X, labels = X.reshape(n, -1), y.reshape(n, -1)
            columns: dict[str, npt.NDArray[np.float64] | list[str]] = {}
            for column, name in enumerate(self._features):
                columns[name] = X[:, column].astype(np.float64)
            for column, name in enumerate(self._labels):
                columns[name] = self._label(labels[:, column])
            yield Block(columns, np.arange(at, at + n))
            at += n

    def close(self) -> None:
        """See `Table`."""

    def _label(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.float64] | list[str]:
        if labels.dtype.kind == "U":
            return [str(label).strip() for label in labels]
        numbers = labels.astype(np.float64)
        if not self._classes:
            return numbers
        return [
            "" if np.isnan(n) else self._classes.get(int(n), "?") if np.isfinite(n) and n == int(n) else "?"
            for n in numbers
        ]
