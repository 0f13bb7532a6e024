"""Of one class among several: the cross-entropy of softmax, with label smoothing where a job wants it.

    l(o, y) = log sum_i exp(o_i) - (1 - s) o_y - (s / K) sum_i o_i        s: label_smoothing

(Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; as torch.nn.functional.cross_entropy.)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from models.nets.losses.labels import classes
from models.nets.losses.loss import Gradient, Labels, Loss, LossOptions, TorchLoss, as_they_are, one_operation
from models.params import Float32


class CrossEntropy(LossOptions, frozen=True):
    """loss = "cross_entropy"."""

    label_smoothing: Annotated[float, Meta(ge=0, le=0.999)] = 0.0
    """How much of each label is shared out among all classes: a net then has no reason to be too sure."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        smoothing = self.label_smoothing
        gradient = partial(smoothed, smoothing=smoothing) if smoothing else cross_entropy
        return of_softmax(outputs, gradient, partial(_torch, smoothing=smoothing), "cross_entropy")


def of_softmax(outputs: int, gradient: Gradient, torch: Any, name: str) -> Loss:
    """Return a loss of one class among `outputs`, whose answers are the softmax of raw outputs."""
    return Loss(
        gradient=gradient,
        answer=softmax,
        accuracy=share_right,
        labels=partial(classes, n_classes=outputs, name=name),
        applies="softmax",
        answer_name="probabilities",
        onnx_answer=one_operation("Softmax", axis=1),
        torch=torch,
        torch_answer=lambda nn: nn.Softmax(dim=1),
        task="classes",
        n_classes=outputs,
        n_columns=1,
        judged=as_they_are,
    )


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


def smoothed(outputs: Float32, y: Labels, weights: Float32 | None = None, *, smoothing: float) -> tuple[float, Float32]:
    """Return the same with label smoothing: the gradient is w (softmax(o) - (1 - s) onehot(y) - s / K) / n."""
    n, k = outputs.shape
    rows = np.arange(n)
    outputs -= np.maximum.reduce(outputs, axis=1, keepdims=True)
    meant = (1.0 - smoothing) * outputs[rows, y] + smoothing * outputs.mean(axis=1)
    np.exp(outputs, out=outputs)
    total = np.add.reduce(outputs, axis=1, keepdims=True)
    losses = np.log(total[:, 0]) - meant
    if weights is not None:
        losses *= weights
    loss = float(np.add.reduce(losses)) / n
    outputs /= total
    outputs[rows, y] -= 1.0 - smoothing
    outputs -= smoothing / k
    outputs /= n
    if weights is not None:
        outputs *= weights[:, np.newaxis]
    return loss, outputs


def _torch(nn: Any, smoothing: float) -> TorchLoss:
    def mean(outputs: Any, y: Any, weights: Any) -> Any:
        if weights is None:
            return nn.functional.cross_entropy(outputs, y, label_smoothing=smoothing)
        each = nn.functional.cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)
        return (each * weights).mean()

    return mean


def share_right(outputs: Float32, y: Labels) -> float:
    """Return the share of rows whose largest output is the label's."""
    return int(np.count_nonzero(outputs.argmax(axis=1) == y)) / len(y)
