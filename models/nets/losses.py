"""Losses on the raw outputs of a net: value, gradient, what a person reads, how well it did.

Each loss is a set of pure functions; the registry at the end is the one list of them. All arrays are float32
and batches come first: outputs (n, k). Labels y are (n,) integers in 0..k-1 for cross_entropy, and (n, k) or, for
k = 1, (n,) float32 for mse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.params import Float32

Labels = npt.NDArray[Any]
"""int64 (n,) classes or float32 (n, outputs) values."""


class Metrics(NamedTuple):
    """How a net did on n examples. `accuracy` is the share of right classes, None where there are no classes."""

    loss: float
    accuracy: float | None
    n: int


class Loss(NamedTuple):
    """One loss.

    gradient: (outputs, y) -> (mean loss, d loss / d outputs). The outputs are overwritten and given back.
    answer: raw outputs -> what `predict` gives: probabilities, or the outputs themselves.
    accuracy: (outputs, y) -> share of right classes, or None where the labels are no classes.
    """

    gradient: Callable[[Float32, Labels], tuple[float, Float32]]
    answer: Callable[[Float32], Float32]
    accuracy: Callable[[Float32, Labels], float | None]


def softmax(outputs: Float32) -> Float32:
    """Overwrite (n, k) outputs with exp(o_j) / sum_i exp(o_i) by row.

    The row's largest is subtracted first, so no exponential overflows.
    """
    outputs -= outputs.max(axis=1, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs


def cross_entropy(outputs: Float32, y: Labels) -> tuple[float, Float32]:
    """Mean of log sum_i exp(o_i) - o_y over the rows, and its gradient (softmax(o) - onehot(y)) / n."""
    n = len(outputs)
    rows = np.arange(n)
    outputs -= np.maximum.reduce(outputs, axis=1, keepdims=True)
    right = outputs[rows, y]
    np.exp(outputs, out=outputs)
    total = np.add.reduce(outputs, axis=1, keepdims=True)
    loss = float(np.add.reduce(np.log(total[:, 0]) - right)) / n
    outputs /= total
    outputs[rows, y] -= 1.0
    outputs /= n
    return loss, outputs


def mean_squared_error(outputs: Float32, y: Labels) -> tuple[float, Float32]:
    """Mean of (o - y)^2 over rows and columns, and its gradient 2 (o - y) / (n k)."""
    outputs -= y.reshape(outputs.shape)
    loss = float(np.square(outputs).mean())
    outputs *= 2.0 / outputs.size
    return loss, outputs


def share_right(outputs: Float32, y: Labels) -> float:
    """Return the share of rows whose largest output is the label's."""
    return float((outputs.argmax(axis=1) == y).mean())


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, softmax, share_right),
    "mse": Loss(mean_squared_error, lambda outputs: outputs, lambda _outputs, _y: None),
}


def measure(loss: str, outputs: Float32, y: Labels) -> Metrics:
    """Return loss, accuracy and count of (n, k) raw outputs, which are overwritten. n is at least 1."""
    accuracy = LOSSES[loss].accuracy(outputs, y)
    return Metrics(LOSSES[loss].gradient(outputs, y)[0], accuracy, len(outputs))
