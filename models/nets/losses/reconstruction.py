"""Of nets that give their rows back: the mean of their scores, which are their outputs (layers/reconstruction.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.nets.losses.loss import LabelError, Labels, Loss, LossOptions, TorchLoss, as_they_are, identity
from models.params import Float32

NORMAL, ANOMALY = 0, 1
"""What labels are, where rows have some."""


class Reconstruction(LossOptions, frozen=True):
    """loss = "reconstruction", of the kinds that have it and of no other; it has no options."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        if outputs != 1:
            raise ValueError(f"outputs = {outputs}: what finds anomalies answers one score a row: leave outputs out")
        return Loss(
            gradient=mean_score,
            answer=as_they_are,
            accuracy=None,
            labels=labels,
            applies="",
            answer_name="score",
            onnx_answer=None,
            torch=_torch,
            torch_answer=identity,
            task="scores",
            n_classes=0,
            n_columns=1,
            judged=as_they_are,
        )


def labels(y: Labels) -> npt.NDArray[np.int64]:
    """Return (n,) int64, 0 of a normal row and 1 of an anomaly. Raises LabelError."""
    column = y.reshape(len(y), -1)
    if column.shape[1] != 1:
        raise LabelError(f"{column.shape[1]} labels a row where what finds anomalies takes one, or none")
    wrong = np.flatnonzero((column[:, 0] != NORMAL) & (column[:, 0] != ANOMALY))
    if len(wrong):
        row = int(wrong[0])
        told = "the label is neither 0 (normal) nor 1 (an anomaly): where it is no label, the job names its features"
        raise LabelError(told, row, str(column[row, 0]))
    return y if y.ndim == 1 and y.dtype == np.int64 else column[:, 0].astype(np.int64)


def mean_score(scores: Float32, y: Labels, weights: Float32 | None = None) -> tuple[float, Float32]:
    """Mean over the rows of w s, where w is 0 of an anomaly, and its gradient w / n. scores: (n, 1)."""
    counted = (y == NORMAL).astype(np.float32)
    if weights is not None:
        counted *= weights
    loss = float(np.dot(counted, scores[:, 0])) / len(scores)
    np.divide(counted, len(scores), out=scores[:, 0])
    return loss, scores


def _torch(_nn: Any) -> TorchLoss:
    def mean(scores: Any, y: Any, weights: Any) -> Any:
        counted = scores[:, 0] * (y == NORMAL)
        return (counted if weights is None else counted * weights).mean()

    return mean
