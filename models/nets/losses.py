"""Losses on the raw outputs of a net: value, gradient, what a person reads, how well it did.

Each loss is a set of pure functions; the registry at the end is the one list of them, and all that anybody asks about
a loss is in its row. All arrays are float32 and batches come first: outputs (n, k). Labels y are (n,) integers in
0..k-1 for cross_entropy, and (n, k) or, for k = 1, (n,) float32 for mse. Torch is given, not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.params import Float32

if TYPE_CHECKING:
    from models.job import ModelSpec

Labels = npt.NDArray[Any]
"""int64 (n,) classes or float32 (n, outputs) values."""


class Metrics(NamedTuple):
    """How a net did on n examples. `accuracy` is the share of right classes, None where there are no classes."""

    loss: float
    accuracy: float | None
    n: int


class LabelError(ValueError):
    """Labels that a loss cannot take. row: the first wrong one, None where they all are. cell: what it is: the message
    may travel, and has no content of a device's data.
    """

    def __init__(self, message: str, row: int | None = None, cell: str = "") -> None:
        super().__init__(message)
        self.row = row
        self.cell = cell


class Loss(NamedTuple):
    """One loss.

    gradient: (outputs, y, weights or None) -> (mean of weight * loss, d loss / d outputs). The outputs are overwritten
        and given back; weights: (n,).
    answer: raw outputs -> what `predict` gives: probabilities, or the outputs themselves.
    accuracy: (outputs, y) -> share of right classes; None where the labels are no classes.
    labels: (y of a file, k) -> the labels that it takes, as they are where they fit. Raises LabelError.
    answer_name: what an exported model calls its answers.
    onnx_answer: the operation that makes answers of raw outputs, by name and attributes; None where they are the same.
    torch: torch.nn -> the function (outputs, y, weights or None) -> mean of weight * loss, of its tensors.
    torch_answer: torch.nn -> the module that makes answers of raw outputs.
    """

    gradient: Callable[[Float32, Labels, Float32 | None], tuple[float, Float32]]
    answer: Callable[[Float32], Float32]
    accuracy: Callable[[Float32, Labels], float] | None
    labels: Callable[[Labels, int], Labels]
    answer_name: str
    onnx_answer: tuple[str, dict[str, Any]] | None
    torch: Callable[[Any], Callable[[Any, Any, Any], Any]]
    torch_answer: Callable[[Any], Any]

    @property
    def classifies(self) -> bool:
        """Whether its labels are classes, one a row; what trains on it then has an accuracy."""
        return self.accuracy is not None

    def n_columns(self, outputs: int) -> int:
        """Return how many numbers the label of one row is."""
        return 1 if self.classifies else outputs


def softmax(outputs: Float32) -> Float32:
    """Overwrite (n, k) outputs with exp(o_j) / sum_i exp(o_i) by row.

    The row's largest is subtracted first, so no exponential overflows.
    """
    outputs -= outputs.max(axis=1, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs


def cross_entropy(outputs: Float32, y: Labels, weights: Float32 | None = None) -> tuple[float, Float32]:
    """Mean of w (log sum_i exp(o_i) - o_y) over the rows, and its gradient w (softmax(o) - onehot(y)) / n."""
    n = len(outputs)
    rows = np.arange(n)
    outputs -= np.maximum.reduce(outputs, axis=1, keepdims=True)
    right = outputs[rows, y]
    np.exp(outputs, out=outputs)
    total = np.add.reduce(outputs, axis=1, keepdims=True)
    losses = np.log(total[:, 0]) - right
    if weights is not None:
        losses *= weights
    loss = float(np.add.reduce(losses)) / n
    outputs /= total
    outputs[rows, y] -= 1.0
    outputs /= n
    if weights is not None:
        outputs *= weights[:, np.newaxis]
    return loss, outputs


def mean_squared_error(outputs: Float32, y: Labels, weights: Float32 | None = None) -> tuple[float, Float32]:
    """Mean of w (o - y)^2 over rows and columns, and its gradient 2 w (o - y) / (n k)."""
    outputs -= y.reshape(outputs.shape)
    squares = np.square(outputs)
    if weights is not None:
        squares *= weights[:, np.newaxis]
    loss = float(squares.mean())
    outputs *= 2.0 / outputs.size
    if weights is not None:
        outputs *= weights[:, np.newaxis]
    return loss, outputs


def _torch_cross_entropy(nn: Any) -> Callable[[Any, Any, Any], Any]:
    def mean(outputs: Any, y: Any, weights: Any) -> Any:
        if weights is None:
            return nn.functional.cross_entropy(outputs, y)
        return (nn.functional.cross_entropy(outputs, y, reduction="none") * weights).mean()

    return mean


def _torch_squared_error(nn: Any) -> Callable[[Any, Any, Any], Any]:
    def mean(outputs: Any, y: Any, weights: Any) -> Any:
        y = y.reshape(outputs.shape)
        if weights is None:
            return nn.functional.mse_loss(outputs, y)
        return (nn.functional.mse_loss(outputs, y, reduction="none") * weights[:, None]).mean()

    return mean


def share_right(outputs: Float32, y: Labels) -> float:
    """Return the share of rows whose largest output is the label's."""
    return float((outputs.argmax(axis=1) == y).mean())


def classes(y: Labels, outputs: int) -> npt.NDArray[np.int64]:
    """Return (n,) int64 in 0..outputs-1 of one number a row. Raises LabelError."""
    column = y.reshape(len(y), -1)
    if column.shape[1] != 1:
        raise LabelError(f"{column.shape[1]} labels a row where cross_entropy takes one class")
    for at in range(0, len(y), ROWS_AT_ONCE):
        some = column[at : at + ROWS_AT_ONCE, 0]
        wrong = np.flatnonzero((some < 0) | (some >= outputs) | (some != np.trunc(some)))
        if len(wrong):
            row, most = int(wrong[0]), outputs - 1
            told = f"the label is not one of 0..{most}: where labels are called otherwise, the job names its classes"
            raise LabelError(told, at + row, str(some[row]))
    return y if y.ndim == 1 and y.dtype == np.int64 else column[:, 0].astype(np.int64)


def values(y: Labels, outputs: int) -> Float32:
    """Return (n, outputs) float32 of as many numbers. Raises LabelError."""
    columns = y.reshape(len(y), -1)
    if columns.shape[1] != outputs:
        raise LabelError(f"{columns.shape[1]} values a row where the model has outputs = {outputs}")
    return np.ascontiguousarray(columns, np.float32)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        gradient=cross_entropy,
        answer=softmax,
        accuracy=share_right,
        labels=classes,
        answer_name="probabilities",
        onnx_answer=("Softmax", {"axis": 1}),
        torch=_torch_cross_entropy,
        torch_answer=lambda nn: nn.Softmax(dim=1),
    ),
    "mse": Loss(
        gradient=mean_squared_error,
        answer=lambda outputs: outputs,
        accuracy=None,
        labels=values,
        answer_name="values",
        onnx_answer=None,
        torch=_torch_squared_error,
        torch_answer=lambda nn: nn.Identity(),
    ),
}


def of(model: ModelSpec) -> Loss:
    """Return the loss of a model: its kind's own, where that has one, else the one that the model names."""
    from models.nets import table  # here alone: its rows stand on this

    return table.find(model.kind).loss or LOSSES[model.loss]


ROWS_AT_ONCE = 2**18
"""Rows whose outputs, or labels, are in memory at once; the metrics of as many have always been worked out in one."""


def measure_all(loss: Loss, outputs: Callable[[Float32], Float32], X: Float32, y: Labels) -> Metrics:
    """Return loss, accuracy and count over all rows, whose outputs are worked out ROWS_AT_ONCE at a time.

    outputs: X of some rows -> their raw outputs, which are overwritten. n is at least 1.
    """
    parts = [slice(at, at + ROWS_AT_ONCE) for at in range(0, len(X), ROWS_AT_ONCE)]
    found = [measure(loss, outputs(X[part]), y[part]) for part in parts]
    if len(found) == 1:
        return found[0]
    accuracy = None
    if loss.classifies:
        accuracy = sum(one.n * (one.accuracy or 0.0) for one in found) / len(X)
    return Metrics(sum(one.n * one.loss for one in found) / len(X), accuracy, len(X))


def measure(loss: Loss, outputs: Float32, y: Labels) -> Metrics:
    """Return loss, accuracy and count of (n, k) raw outputs, which are overwritten. n is at least 1."""
    accuracy = loss.accuracy(outputs, y) if loss.accuracy else None
    return Metrics(loss.gradient(outputs, y, None)[0], accuracy, len(outputs))
