"""The rows of one device as arrays, and what must hold of them before a net trains on them.

Every error is a DatasetError that names the source and the place. Rows are counted from 0, as in the array.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.spool import NoRoomError, Spool, Spools, slices
from models.job import ModelSpec
from models.nets import table as nets
from models.nets.losses import LabelError, Labels
from models.params import Float32

_ROWS_AT_ONCE = 2**16
_BYTES_AT_ONCE = 2**20
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


class KindError(DatasetError):
    """A column that is of another type, as a whole, than it has to be; a job that names its columns may do without it.

    Also labels that are text, where a job does not name its classes.
    """


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
    told: str = ""
    """What an operator should know of them: how much was left out, and why; never what a cell holds."""

    @property
    def fingerprint(self) -> int:
        """Return the CRC-32 of the arrays, worked out anew each time: other rows, another number (or one in 2**32)."""
        # of views, since NumPy keeps with an array what it has once told of its buffer
        arrays = (self.X, self.y) if self.weights is None else (self.X, self.y, self.weights)
        found = 0
        for values in arrays:
            for part in slices(len(values), _BYTES_AT_ONCE // max(1, values[:1].nbytes) + 1):
                found = zlib.crc32(np.ascontiguousarray(values[part]).reshape(-1).view(np.uint8).data, found)
        return found


def fit(data: Dataset, model: ModelSpec, scratch: Path | None = None) -> Dataset:
    """Return the data as this model takes them, or raise DatasetError.

    As the row of its kind does: X (n, inputs) for the built-in nets, as it is for a factory's; y as the loss takes it,
    (n,) int64 in 0..outputs-1 for cross_entropy, (n, outputs) float32 for mse. Arrays that fit already are not copied.
    scratch: where labels lie that are made anew and are too many for the memory.
    """
    n_features = math.prod(data.X.shape[1:])
    if n_features != model.inputs:
        raise DatasetError(
            f"{data.source}: {n_features} features an example where the model has inputs = {model.inputs}"
        )
    kind = nets.find(model.kind)
    spec, done = kind.spec.of(model), 0
    try:
        if len(data.y) <= _ROWS_AT_ONCE:
            X, y = kind.fit(spec, data.X, data.y)
        else:  # what is made anew is made a few rows at a time, and may lie in a file
            spools = Spools(scratch, data.source)
            made_X, made_y = _Fitted(data.X, spools), _Fitted(data.y, spools)
            for part in slices(len(data.y), _ROWS_AT_ONCE):
                done = part.start
                some_X, some_y = kind.fit(spec, data.X[part], data.y[part])
                made_X.add(some_X, part)
                made_y.add(some_y, part)
            X, y = made_X.array(), made_y.array()
    except NoRoomError as error:
        raise DatasetError(str(error)) from error
    except LabelError as error:
        where = data.source if error.row is None else f"{data.source}, row {done + error.row}"
        raise DatasetError(f"{where}: {error}", cell=error.cell) from error
    held_out = None if data.held_out is None else fit(data.held_out, model, scratch)
    same = X is data.X and y is data.y and held_out is data.held_out
    return data if same else data._replace(X=X, y=y, held_out=held_out)


class _Fitted:
    """An array that is fitted a few rows at a time: itself, a view of it, or another."""

    def __init__(self, values: npt.NDArray[Any], spools: Spools) -> None:
        self._values, self._spools = values, spools
        self._shape: tuple[int, ...] = values.shape[1:]
        self._spool: Spool | None = None

    def add(self, some: npt.NDArray[Any], part: slice) -> None:
        """Take what came of these rows."""
        if self._spool is None:
            self._shape = some.shape[1:]
            if some.dtype == self._values.dtype and np.may_share_memory(some, self._values[part]):
                return
            self._spool = self._spools.spool(some.dtype, *self._shape)
        self._spool.append(some)

    def array(self) -> npt.NDArray[Any]:
        """Return all of it."""
        if self._spool is not None:
            return self._spool.array()
        if self._shape == self._values.shape[1:]:
            return self._values
        return self._values.reshape(len(self._values), *self._shape)


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
