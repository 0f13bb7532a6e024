"""Of what is there or not: one output for two classes ("binary"), or one for each of several labels ("multilabel").

    l(o, y) = c log(1 + exp(-o)) where y is 1, and log(1 + exp(o)) where it is 0        c: pos_weight

as torch.nn.functional.binary_cross_entropy_with_logits; with e = exp(-|o|), which never overflows, it is
c (max(-o, 0) + log(1 + e)) and max(o, 0) + log(1 + e). An answer is the probability of 1; what is above 1/2 is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from models.nets.losses.labels import classes, marks
from models.nets.losses.loss import (
    Labels,
    Loss,
    LossOptions,
    TorchLoss,
    as_they_are,
    by_row,
    mean,
    one_operation,
    torch_mean,
)
from models.params import Float32

MOST_LABELS = 100_000
Positive = Annotated[float, Meta(ge=1e-6, le=1e6)]


class Binary(LossOptions, frozen=True):
    """loss = "binary": two classes, of which the one output says how probable the second is. Labels are 0 and 1, int64
    (n,).
    """

    pos_weight: Positive = 1.0
    """How much more a row of the second class counts."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        if outputs != 1:
            raise ValueError(
                f'outputs = {outputs}: loss = "binary" has one output for its two classes: say outputs = 1, or '
                'loss = "cross_entropy" (one class of several) or "multilabel" (several labels a row)'
            )
        labels = partial(classes, n_classes=2, name="binary")
        return _of_sigmoid(np.float32(self.pos_weight), labels, "classes", n_classes=2, n_columns=1, judged=both)


class Multilabel(LossOptions, frozen=True):
    """loss = "multilabel": several labels a row, each there or not, an output for each. Labels are float32 (n, outputs)
    of 0 and 1.
    """

    pos_weight: Positive | Annotated[tuple[Positive, ...], Meta(max_length=MOST_LABELS)] = 1.0
    """How much more a label that is there counts: one number, or one for each label."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        if outputs < 2:
            raise ValueError('outputs = 1: loss = "multilabel" has several labels a row: for one say loss = "binary"')
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != outputs:
            raise ValueError(
                f"loss_options.pos_weight has {len(self.pos_weight)} numbers where the model has outputs = {outputs}: "
                "give one for each label, or one for all"
            )
        weight = np.asarray(self.pos_weight, np.float32)
        labels = partial(marks, n_labels=outputs)
        return _of_sigmoid(weight, labels, "labels", n_classes=outputs, n_columns=outputs, judged=as_they_are)


def _of_sigmoid(
    positive: Any,
    labels: Callable[[Labels], Labels],
    task: Literal["classes", "labels"],
    *,
    n_classes: int,
    n_columns: int,
    judged: Callable[[Float32], Float32],
) -> Loss:
    return Loss(
        gradient=partial(logistic, positive=positive),
        answer=sigmoid,
        accuracy=share_right,
        labels=labels,
        applies="sigmoid",
        answer_name="probabilities",
        onnx_answer=one_operation("Sigmoid"),
        torch=partial(_torch, positive=positive),
        torch_answer=lambda nn: nn.Sigmoid(),
        task=task,
        n_classes=n_classes,
        n_columns=n_columns,
        judged=judged,
    )


def sigmoid(outputs: Float32) -> Float32:
    """Overwrite outputs with 1 / (1 + exp(-o)); what is infinite becomes nan, so that it shows where a net diverged."""
    small = np.exp(-np.abs(outputs))
    negative = outputs < 0
    outputs -= outputs  # 0 or nan
    outputs += np.where(negative, small, np.float32(1))
    small += 1.0
    outputs /= small
    return outputs


def logistic(outputs: Float32, y: Labels, weights: Float32 | None = None, *, positive: Any) -> tuple[float, Float32]:
    """Mean of w l over rows and columns, and its gradient w c (sigmoid(o) - y) / (n k), where c is 1 for y = 0.

    positive: what c is for y = 1, a float32 or (k,).
    """
    there = y.reshape(outputs.shape) > 0
    np.negative(outputs, out=outputs, where=there)  # l = c log(1 + exp(o)), and nothing is lost in sigmoid(o) - 1
    each = np.log1p(np.exp(-np.abs(outputs)))
    each += np.maximum(outputs, np.float32(0))
    each *= np.where(there, positive, np.float32(1))
    by_row(weights, each)
    sigmoid(outputs)
    outputs *= np.where(there, -positive, np.float32(1))
    outputs /= outputs.size
    by_row(weights, outputs)
    return mean(each), outputs


def both(answers: Float32) -> Float32:
    """Return (n, 2) probabilities of both classes of (n, 1) answers, which say that of the second."""
    found = np.empty((len(answers), 2), np.float32)
    np.subtract(np.float32(1), answers[:, 0], out=found[:, 0])
    found[:, 1] = answers[:, 0]
    return found


def share_right(outputs: Float32, y: Labels) -> float:
    """Return the share of all labels of all rows that are right: 1 where the answer is above 1/2."""
    answered = sigmoid(outputs.copy()) > np.float32(0.5)
    return float((answered == y.reshape(outputs.shape)).mean())


def _torch(nn: Any, positive: Any) -> TorchLoss:
    def loss(outputs: Any, y: Any, weights: Any) -> Any:
        y = y.reshape(outputs.shape).to(outputs.dtype)
        counts = outputs.new_tensor(positive.tolist())
        each = nn.functional.binary_cross_entropy_with_logits(outputs, y, reduction="none", pos_weight=counts)
        return torch_mean(each, weights)

    return loss
