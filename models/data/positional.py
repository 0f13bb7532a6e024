"""Tables whose columns have no names, as the arrays X and y of an NPZ file: their columns go by position.

They get the names that a job's contract has for them, in its order, if they are as many; without such names they are
called by their number, from 1. Which rows of which meaning they hold nobody can check: it is said in the log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import structs

from models.contract import ContractSpec
from models.data.blocks import BLOCK_ROWS, Block, Kind
from models.data.dataset import Dataset, DatasetError, checked, float32
from models.data.labels import Classes
from models.data.settings import SourceSettings
from models.data.spool import Spools, slices

MOST_NUMBERS = 2**20
"""Of a block."""


class Rows(Protocol):
    """An array, or what is read as one, a few rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of its numbers."""

    def __getitem__(self, part: slice, /) -> npt.NDArray[Any]:
        """Return some rows. They are asked for in order."""


class Named(NamedTuple):
    """A table without names, as one that has them."""

    table: Positional
    contract: ContractSpec
    """With the names of its columns; without windows, where its rows are windows already."""
    settings: SourceSettings
    note: str
    shape: tuple[int, ...]
    """Of the inputs of one row."""


def named(X: Rows, y: Rows, settings: SourceSettings, contract: ContractSpec) -> Named:
    """Give the columns of two arrays names. Raises DatasetError where they are not as many as the job's.

    uint8 inputs are scaled to [0, 1] where the job does not say how inputs are scaled, as without a contract.
    """
    path = settings.path
    for what, values in (("X", X), ("y", y)):
        if not values.shape or values.dtype.kind not in ("buif" if what == "X" else "buifU"):
            raise DatasetError(f"{path}: the array of {what} is {values.dtype} {values.shape}, not rows of numbers")
    if X.shape[0] != y.shape[0]:
        raise DatasetError(f"{path}: {X.shape[0]} rows of features but {y.shape[0]} labels")
    width, features, note = math.prod(X.shape[1:]), contract.features, ""
    window = contract.window
    if features and window is not None and width == contract.n_inputs != len(features):
        features = tuple(f"{name}, row {row}" for row in range(window.length) for name in contract.columns)
        contract = structs.replace(
            contract,
            features=features,
            window=None,
            ranges={},
            units={},
            missing="mean" if contract.missing == "mask" else contract.missing,
            time_features=(),
        )
        note = f"columns go by position, and its rows are windows of {window.length} already"
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
    scale = 255.0 if X.dtype == np.uint8 and contract.normalise == "none" else None
    return Named(
        Positional(X, y, features, labels, contract, scale),
        structs.replace(contract, label=labels),
        SourceSettings(settings.path, labels[0], missing=settings.missing, max_skipped=settings.max_skipped),
        note,
        X.shape[1:],
    )


def as_they_are(X: Rows, y: Rows, settings: SourceSettings, scratch: Path | None, pause: Callable[[], None]) -> Dataset:
    """Return the examples of two arrays without a contract: all of them are used, or none. Raises DatasetError.

    uint8 inputs are scaled to [0, 1], every other number becomes float32; labels that are whole numbers become int64.
    """
    path = settings.path
    key = settings.columns[0] if settings.columns else "X"
    for name, values in ((key, X), (settings.label, y)):
        if values.dtype.kind not in "buif" or not values.shape:
            raise DatasetError(f"{path}: {name} is {values.dtype} {values.shape}, not rows of numbers")
    if X.shape[0] != y.shape[0]:
        raise DatasetError(f"{path}: {X.shape[0]} rows in {key} but {y.shape[0]} in {settings.label}")
    spools = Spools(scratch, path)
    inputs = spools.spool(np.float32, *X.shape[1:])
    labels = spools.spool(np.float32 if y.dtype.kind == "f" else np.int64, *y.shape[1:])
    width = max(1, math.prod(X.shape[1:]))
    for part in slices(X.shape[0], max(1, min(BLOCK_ROWS, MOST_NUMBERS // width))):
        some = float32(X[part])
        if X.dtype == np.uint8:
            some /= 255.0
        inputs.append(_finite(some, key, path, part.start))
        labels.append(_finite(float32(y[part]) if y.dtype.kind == "f" else y[part], settings.label, path, part.start))
        pause()
    return Dataset(checked(inputs.array(), key, path), checked(labels.array(), settings.label, path), path)


def _finite(some: npt.NDArray[Any], name: str, path: str, at: int) -> npt.NDArray[Any]:
    if some.dtype.kind == "f" and not np.isfinite(some).all():
        row = int(np.isfinite(some.reshape(len(some), -1)).all(axis=1).argmin())
        raise DatasetError(f"{path}, row {at + row}: {name} has a value that is not a finite float32")
    return some


class Positional:
    """See `Table`."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        X: Rows,
        y: Rows,
        features: tuple[str, ...],
        labels: tuple[str, ...],
        contract: ContractSpec,
        scale: float | None,
    ) -> None:
        self.header = (*features, *labels)
        self._X, self._y, self._scale = X, y, scale
        self._features, self._labels = features, labels
        by_number = contract.classes and y.dtype.kind != "U" and not Classes(contract.classes).are_numbers
        self._classes = contract.classes if by_number else ()

    def blocks(self, _wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        width = max(1, len(self.header))
        for part in slices(self._X.shape[0], max(1, min(BLOCK_ROWS, MOST_NUMBERS // width))):
            X = np.asarray(self._X[part]).reshape(part.stop - part.start, -1)
            y = np.asarray(self._y[part]).reshape(part.stop - part.start, -1)
            if self._scale is not None:
                X = X.astype(np.float32) / np.float32(self._scale)
            columns: dict[str, npt.NDArray[np.float64] | list[str]] = {}
            for at, name in enumerate(self._features):
                columns[name] = X[:, at].astype(np.float64)
            for at, name in enumerate(self._labels):
                columns[name] = self._label(y[:, at])
            yield Block(columns, np.arange(part.start, part.stop))

    def close(self) -> None:
        """See `Table`."""

    def _label(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.float64] | list[str]:
        if labels.dtype.kind == "U":
            return [str(label).strip() for label in labels]
        numbers = labels.astype(np.float64)
        if not self._classes:
            return numbers
        names = dict(enumerate(self._classes))  # classes without numbers in their names: by position, as features
        return [names.get(int(n), "?") if np.isfinite(n) and n == int(n) else "?" for n in numbers]
