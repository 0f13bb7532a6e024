"""Of one class among several, most of which are easy: rows that a net is sure of, and right, hardly count.

    l(o, y) = -(1 - p)^g log p,    p = softmax(o)_y,    g: gamma; 0 is the cross-entropy

(Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4. The factor by class there is `class_weight`.)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from models.nets.losses.cross_entropy import of_softmax
from models.nets.losses.loss import Labels, Loss, LossOptions, TorchLoss
from models.params import Float32

_LEAST = 1e-38
"""Of 1 - p in Torch: its power has a derivative there, whatever gamma is."""


class Focal(LossOptions, frozen=True):
    """loss = "focal"."""

    gamma: Annotated[float, Meta(ge=0, le=20)] = 2.0
    """How much less rows count that are right already."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        return of_softmax(outputs, partial(focal, gamma=self.gamma), partial(_torch, gamma=self.gamma), "focal")


def focal(outputs: Float32, y: Labels, weights: Float32 | None = None, *, gamma: float) -> tuple[float, Float32]:
    """Mean of w l over the rows, and its gradient w m (softmax(o) - onehot(y)) / n.

    m = (1 - p)^g (1 - g p log p / (1 - p)), in which log p / (1 - p) is -1 where p is 1.
    """
    n = len(outputs)
    rows = np.arange(n)
    outputs -= np.maximum.reduce(outputs, axis=1, keepdims=True)
    log_p = outputs[rows, y]
    np.exp(outputs, out=outputs)
    total = np.add.reduce(outputs, axis=1, keepdims=True)
    log_p -= np.log(total[:, 0])
    rest = -np.expm1(log_p)  # 1 - p
    easy = rest ** np.float32(gamma)
    losses = -easy * log_p
    ratio = np.divide(log_p, rest, out=np.full(n, -1.0, np.float32), where=rest > 0)
    easy *= 1.0 - gamma * np.exp(log_p) * ratio
    if weights is not None:
        losses *= weights
        easy *= weights
    outputs /= total
    outputs[rows, y] -= 1.0
    outputs *= easy[:, np.newaxis]
    outputs /= n
    return float(np.add.reduce(losses)) / n, outputs


def _torch(nn: Any, gamma: float) -> TorchLoss:
    def mean(outputs: Any, y: Any, weights: Any) -> Any:
        surprise = nn.functional.cross_entropy(outputs, y, reduction="none")
        each = surprise.neg().expm1().neg().clamp_min(_LEAST) ** gamma * surprise
        return each.mean() if weights is None else (each * weights).mean()

    return mean
