"""The rows of one device as arrays, and what must hold of them before a net trains on them.

Every error is a DatasetError that names the source and the place. Rows are counted from 0, as in the array.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.job import ModelSpec
from models.nets import table as nets
from models.nets.losses import LabelError, Labels
from models.params import Float32

MOST_CELL = 200
"""Characters of a cell that a log is shown."""


class DatasetError(ValueError):
    """Data that cannot be used; the message names the file and the row, line or column.

    The message may travel: to a presence, to the operator. What a cell holds may not, and stands in `cell` alone, for
    this machine's own log.
    """

    def __init__(self, told: str, *, cell: str = "") -> None:
        super().__init__(told)
        self.cell = cell[:MOST_CELL]


class Dataset(NamedTuple):
    """X: (n, ...) float32, C-contiguous. y: n labels. n is at least 1; everything is finite."""

    X: Float32
    y: Labels
    source: str = "data"
    """The file, for messages."""
    weights: Float32 | None = None
    """(n,) float32 above 0: how much each example counts in the loss; all alike where there are none."""
    held_out: Dataset | None = None
    """Examples that nobody trains on: what a device scores versions on, where its job asks for that."""

    @property
    def fingerprint(self) -> int:
        """Return the CRC-32 of the arrays, worked out anew each time: other rows, another number (or one in 2**32)."""
        # of views, since NumPy keeps with an array what it has once told of its buffer
        arrays = (self.X, self.y) if self.weights is None else (self.X, self.y, self.weights)
        found = 0
        for values in arrays:
            found = zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, found)
        return found


def fit(data: Dataset, model: ModelSpec) -> Dataset:
    """Return the data as this model takes them, or raise DatasetError.

    As the row of its kind does: X (n, inputs) for the built-in nets, as it is for a factory's; y as the loss takes it,
    (n,) int64 in 0..outputs-1 for cross_entropy, (n, outputs) float32 for mse. Arrays that fit already are not copied.
    """
    n_features = math.prod(data.X.shape[1:])
    if n_features != model.inputs:
        raise DatasetError(
            f"{data.source}: {n_features} features an example where the model has inputs = {model.inputs}"
        )
    kind = nets.find(model.kind)
    try:
        X, y = kind.fit(kind.spec.of(model), data.X, data.y)
    except LabelError as error:
        where = data.source if error.row is None else f"{data.source}, row {error.row}"
        raise DatasetError(f"{where}: {error}") from error
    held_out = None if data.held_out is None else fit(data.held_out, model)
    same = X is data.X and y is data.y and held_out is data.held_out
    return data if same else data._replace(X=X, y=y, held_out=held_out)


def float32(values: npt.NDArray[Any]) -> Float32:
    """Return the values as a C-contiguous float32 array."""
    with np.errstate(over="ignore"):  # what is too large becomes inf, which the check reports with its row
        return np.ascontiguousarray(values, np.float32)


def checked(values: npt.NDArray[Any], name: str, source: object) -> npt.NDArray[Any]:
    """Return the values back, or raise DatasetError if there are none or one is not finite."""
    if values.size == 0:
        raise DatasetError(f"{source}: no rows in {name}")
    # nan and inf show in the extremes, which need no array of the size of the data
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
        row = next(i for i, value in enumerate(values) if not np.isfinite(value).all())
        raise DatasetError(f"{source}, row {row}: {name} has a value that is not a finite float32")
    return values
