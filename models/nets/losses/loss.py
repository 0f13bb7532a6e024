"""What a loss is: value, gradient, what a person reads, how well a net did, what labels it takes.

All that anybody asks about the loss of a model is in its `Loss`. All arrays are float32 and batches come first: outputs
(n, k). Torch is given, not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from models.nets.op import Op
from models.params import Float32

Labels = npt.NDArray[Any]
"""int64 (n,) classes or float32 (n, columns) values; of labels that are there or not, 1 or 0 each."""
Gradient = Callable[[Float32, Labels, "Float32 | None"], tuple[float, Float32]]
TorchLoss = Callable[[Any, Any, Any], Any]


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
    """The loss of one model, its options bound.

    gradient: (outputs, y, weights or None) -> (mean of weight * loss, d loss / d outputs). The outputs are overwritten
        and given back; weights: (n,). No outputs that are finite overflow.
    answer: raw outputs, which may be overwritten -> what `predict` gives: probabilities, or the outputs themselves.
    accuracy: (outputs, y) -> share of right classes, or of right labels where a row has several; None for values.
    labels: y of a file -> the labels that it takes, as they are where they fit. Raises LabelError.
    applies: what `answer` applies to raw outputs, "" for nothing; a module that ends with it already is wrong.
    answer_name: what an exported model calls its answers.
    onnx_answer: names of raw outputs and of answers -> the operations that make these of those; None where they are the
        same.
    torch: torch.nn -> the function (outputs, y, weights or None) -> mean of weight * loss, of its tensors.
    torch_answer: torch.nn -> the module that makes answers of raw outputs.
    task: what a row's label is: one of several classes; several labels, each there or not; numbers; of anomaly scores,
        whether it is an anomaly, where it has a label at all.
    n_classes: classes, or labels that are there or not; 0 for values.
    n_columns: numbers that the label of one row is.
    judged: answers -> what measures look at: (n, n_classes) probabilities, or (n, n_columns) values.
    levels: of which quantiles of each value there is an output; none where an output is a value.
    """

    gradient: Gradient
    answer: Callable[[Float32], Float32]
    accuracy: Callable[[Float32, Labels], float] | None
    labels: Callable[[Labels], Labels]
    applies: Literal["softmax", "sigmoid", ""]
    answer_name: str
    onnx_answer: Callable[[str, str], tuple[Op, ...]] | None
    torch: Callable[[Any], TorchLoss]
    torch_answer: Callable[[Any], Any]
    task: Literal["classes", "labels", "values", "scores"]
    n_classes: int
    n_columns: int
    judged: Callable[[Float32], Float32]
    levels: tuple[float, ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether what trains on it has an accuracy: its labels are classes, or are there or not."""
        return self.task in ("classes", "labels")


class LossOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What a job says of its loss, in [model.loss_options]; each loss has its own."""

    def loss(self, outputs: int) -> Loss:
        """Return the loss of a model with so many outputs. Raises ValueError, with the key, if it cannot be."""
        raise NotImplementedError


class HasLoss(Protocol):
    """What a loss is made of: a `ModelSpec`, or a kind's own specification."""

    @property
    def loss(self) -> str: ...
    @property
    def loss_options(self) -> dict[str, Any]: ...
    @property
    def outputs(self) -> int: ...


def as_they_are(outputs: Float32) -> Float32:
    """Return what is given: of losses whose answers are the raw outputs."""
    return outputs


def one_operation(type_: str, **attributes: Any) -> Callable[[str, str], tuple[Op, ...]]:
    """Return an `onnx_answer` of one operation, by its name and attributes."""
    return lambda outputs, answers: (Op(type_, (outputs,), answers, attributes),)


def identity(nn: Any) -> Any:
    """Return the module that changes nothing. nn: torch.nn."""
    return nn.Identity()


def mean(each: Float32) -> float:
    """Return the mean of a loss over rows and columns, added up in float64."""
    return float(each.mean(dtype=np.float64))


def by_row(weights: Float32 | None, values: Float32) -> None:
    """Multiply the rows of (n, k) values by (n,) weights, in place; nothing where all count alike."""
    if weights is not None:
        values *= weights[:, np.newaxis]


def torch_mean(each: Any, weights: Any) -> Any:
    """Return the mean over rows and columns of (n, k) losses of Torch, by row times its weight."""
    return each.mean() if weights is None else (each * weights[:, None]).mean()


ROWS_AT_ONCE = 2**18
"""Rows whose outputs, or labels, are in memory at once; the metrics of as many have always been worked out in one."""


def measure_all(loss: Loss, outputs: Callable[[Float32], Float32], X: Float32, y: Labels) -> Metrics:
    """Return loss, accuracy and count over all rows, whose outputs are worked out ROWS_AT_ONCE at a time.

    outputs: X of some rows -> their raw outputs, which are overwritten. n is at least 1.
    """
    if len(X) <= ROWS_AT_ONCE:
        return measure(loss, outputs(X), y)
    parts = [slice(at, at + ROWS_AT_ONCE) for at in range(0, len(X), ROWS_AT_ONCE)]
    found = [measure(loss, outputs(X[part]), y[part]) for part in parts]
    accuracy = None
    if loss.classifies:
        accuracy = sum(one.n * (one.accuracy or 0.0) for one in found) / len(X)
    return Metrics(sum(one.n * one.loss for one in found) / len(X), accuracy, len(X))


def measure(loss: Loss, outputs: Float32, y: Labels) -> Metrics:
    """Return loss, accuracy and count of (n, k) raw outputs, which are overwritten. n is at least 1."""
    accuracy = loss.accuracy(outputs, y) if loss.accuracy else None
    return Metrics(loss.gradient(outputs, y, None)[0], accuracy, len(outputs))
