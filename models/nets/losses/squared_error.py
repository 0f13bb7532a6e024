"""Of values: the mean of squared errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from models.nets.losses.labels import values
from models.nets.losses.loss import Gradient, Labels, Loss, LossOptions, TorchLoss, as_they_are, identity
from models.params import Float32


class SquaredError(LossOptions, frozen=True):
    """loss = "mse"; it has no options."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        return of_values(outputs, mean_squared_error, _torch)


def of_values(outputs: int, gradient: Gradient, torch: Any) -> Loss:
    """Return a loss of `outputs` values, whose answers are the raw outputs."""
    return Loss(
        gradient=gradient,
        answer=as_they_are,
        accuracy=None,
        labels=partial(values, outputs=outputs),
        applies="",
        answer_name="values",
        onnx_answer=None,
        torch=torch,
        torch_answer=identity,
        task="values",
        n_classes=0,
        n_columns=outputs,
        judged=as_they_are,
    )


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


def _torch(nn: Any) -> TorchLoss:
    def mean(outputs: Any, y: Any, weights: Any) -> Any:
        y = y.reshape(outputs.shape)
        if weights is None:
            return nn.functional.mse_loss(outputs, y)
        return (nn.functional.mse_loss(outputs, y, reduction="none") * weights[:, None]).mean()

    return mean
