"""Of values, some of which are far off: squared errors up to `delta`, beyond it only their size.

    l(o, y) = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2)        d = o - y

(Huber 1964, "Robust Estimation of a Location Parameter"; as torch.nn.functional.huber_loss.)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from models.nets.losses.loss import Labels, Loss, LossOptions, TorchLoss, by_row, mean, torch_mean
from models.nets.losses.squared_error import of_values
from models.params import Float32


class Huber(LossOptions, frozen=True):
    """loss = "huber"."""

    delta: Annotated[float, Meta(ge=1e-6, le=1e6)] = 1.0
    """The largest error that counts by its square, in the unit of the label."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        return of_values(outputs, partial(huber, delta=self.delta), partial(_torch, delta=self.delta))


def huber(outputs: Float32, y: Labels, weights: Float32 | None = None, *, delta: float) -> tuple[float, Float32]:
    """Mean of w l over rows and columns, and its gradient w clip(o - y, -delta, delta) / (n k)."""
    outputs -= y.reshape(outputs.shape)
    size = np.abs(outputs)
    near = np.minimum(size, np.float32(delta))
    size -= np.float32(0.5) * near
    size *= near  # no square of what is far off
    by_row(weights, size)
    np.clip(outputs, np.float32(-delta), np.float32(delta), out=outputs)
    outputs /= outputs.size
    by_row(weights, outputs)
    return mean(size), outputs


def _torch(nn: Any, delta: float) -> TorchLoss:
    def loss(outputs: Any, y: Any, weights: Any) -> Any:
        each = nn.functional.huber_loss(outputs, y.reshape(outputs.shape), reduction="none", delta=delta)
        return torch_mean(each, weights)

    return loss
