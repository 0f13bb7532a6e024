"""The labels that losses take, made of those of a file: classes by number, marks that are 0 or 1, values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from models.nets.losses import loss
from models.nets.losses.loss import LabelError, Labels
from models.params import Float32


def classes(y: Labels, n_classes: int, name: str = "cross_entropy") -> npt.NDArray[np.int64]:
    """Return (n,) int64 in 0..n_classes-1 of one number a row. name: of the loss. Raises LabelError."""
    column = y.reshape(len(y), -1)
    if column.shape[1] != 1:
        raise LabelError(f"{column.shape[1]} labels a row where {name} takes one class")
    for part in _parts(len(y)):
        some = column[part, 0]
        wrong = np.flatnonzero((some < 0) | (some >= n_classes) | (some != np.trunc(some)))
        if len(wrong):
            row, most = int(wrong[0]), n_classes - 1
            told = f"the label is not one of 0..{most}: where labels are called otherwise, the job names its classes"
            raise LabelError(told, part.start + row, str(some[row]))
    return y if y.ndim == 1 and y.dtype == np.int64 else column[:, 0].astype(np.int64)


def marks(y: Labels, n_labels: int) -> Float32:
    """Return (n, n_labels) float32 of as many numbers a row, 1 where the label is there and 0 where not.

    Raises LabelError.
    """
    columns = y.reshape(len(y), -1)
    if columns.shape[1] != n_labels:
        raise LabelError(
            f"{columns.shape[1]} labels a row where multilabel takes {n_labels}, as many as the model has outputs"
        )
    for part in _parts(len(y)):
        wrong = np.argwhere((columns[part] != 0) & (columns[part] != 1))
        if len(wrong):
            row, label = part.start + int(wrong[0, 0]), int(wrong[0, 1])
            told = f"its label number {label} is neither 0 (not there) nor 1 (there); they are counted from 0"
            raise LabelError(told, row, str(columns[row, label]))
    return np.ascontiguousarray(columns, np.float32)


def values(y: Labels, outputs: int, each: int = 1) -> Float32:
    """Return (n, outputs / each) float32 of as many numbers. each: outputs for one of them. Raises LabelError."""
    columns = y.reshape(len(y), -1)
    if columns.shape[1] != outputs // each:
        of = f": {each} for each value" if each > 1 else ""
        raise LabelError(f"{columns.shape[1]} values a row where the model has outputs = {outputs}{of}")
    return np.ascontiguousarray(columns, np.float32)


def _parts(n: int) -> Iterator[slice]:
    return (slice(at, at + loss.ROWS_AT_ONCE) for at in range(0, n, loss.ROWS_AT_ONCE))
