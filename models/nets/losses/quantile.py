"""Of values, and how sure they are: of each value several quantiles, by the pinball loss.

    l(o, y) = t max(y - o, 0) + (1 - t) max(o - y, 0)        t: the quantile; 1/2 is half of the absolute error

(Koenker and Bassett 1978, "Regression Quantiles"; its subgradient at o = y is taken as 0.) Outputs go by value, and
within each by quantile: of the values a, b and quantiles [0.1, 0.5, 0.9] they are

    a 0.1   a 0.5   a 0.9   b 0.1   b 0.5   b 0.9

Nothing makes the outputs of one value ascend; where a net is badly trained they cross. Answers are sorted, value by
value, which never makes them worse (Chernozhukov, Fernández-Val and Galichon 2010, "Quantile and probability curves
without crossing"); the loss is that of the outputs as they are.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from models.nets.losses.labels import values
from models.nets.losses.loss import Labels, Loss, LossOptions, TorchLoss, by_row, mean, torch_mean
from models.nets.losses.squared_error import of_values
from models.nets.op import Op
from models.params import Float32

MOST_QUANTILES = 99


class Quantile(LossOptions, frozen=True):
    """loss = "quantile"."""

    quantiles: Annotated[
        tuple[Annotated[float, Meta(ge=1e-6, le=1 - 1e-6)], ...], Meta(min_length=1, max_length=MOST_QUANTILES)
    ] = (0.1, 0.5, 0.9)
    """Which ones, each between 0 and 1, ascending."""

    def loss(self, outputs: int) -> Loss:
        """See `LossOptions`."""
        levels, n = self.quantiles, len(self.quantiles)
        if any(after <= before for before, after in pairwise(levels)):
            raise ValueError(f"loss_options.quantiles = {list(levels)} do not ascend: each is above the one before")
        if outputs % n:
            raise ValueError(
                f'outputs = {outputs} is no multiple of the {n} of loss_options.quantiles: with loss = "quantile" each '
                f"value has {n} outputs, so that one value wants outputs = {n}"
            )
        t = np.tile(np.asarray(levels, np.float32), outputs // n)
        found = of_values(outputs, partial(pinball, t=t, each=n), partial(_torch, t=t, each=n))
        return found._replace(
            answer=partial(ascending, each=n),
            onnx_answer=partial(_operations, columns=outputs // n, each=n),
            torch_answer=partial(_module, columns=outputs // n, each=n),
            labels=partial(values, outputs=outputs, each=n),
            n_columns=outputs // n,
            levels=levels,
            judged=partial(middle, at=min(range(n), key=lambda i: abs(levels[i] - 0.5)), each=n),
        )


def pinball(
    outputs: Float32, y: Labels, weights: Float32 | None = None, *, t: Float32, each: int
) -> tuple[float, Float32]:
    """Mean of w l over rows and columns, and its gradient w ([o > y] - t) / (n k), 0 where o = y.

    t: (k,) the quantile of each output. each: how many there are of one value.
    """
    outputs -= np.repeat(y.reshape(len(outputs), -1), each, axis=1)
    above, below = outputs > 0, outputs < 0
    slope = above * (np.float32(1) - t) - below * t
    lost = np.abs(outputs)
    lost *= np.abs(slope)
    by_row(weights, lost)
    np.copyto(outputs, slope, where=~np.isnan(outputs))
    outputs /= outputs.size
    by_row(weights, outputs)
    return mean(lost), outputs


def ascending(outputs: Float32, each: int) -> Float32:
    """Return outputs (n, k), those of each value sorted; what is no number comes last."""
    return np.sort(outputs.reshape(len(outputs), -1, each), axis=2).reshape(outputs.shape)


def middle(answers: Float32, at: int, each: int) -> Float32:
    """Return of each value its quantile next to the median, (n, k / each): what errors are measured of."""
    return np.ascontiguousarray(answers[:, at::each])


def _torch(nn: Any, t: Float32, each: int) -> TorchLoss:
    def loss(outputs: Any, y: Any, weights: Any) -> Any:
        off = y.reshape(len(outputs), -1).repeat_interleave(each, dim=1) - outputs
        levels = outputs.new_tensor(t.tolist())
        lost = levels * nn.functional.relu(off) + (1 - levels) * nn.functional.relu(-off)
        return torch_mean(lost, weights)

    return loss


def _operations(outputs: str, answers: str, columns: int, each: int) -> tuple[Op, ...]:
    """Return the operations that sort the outputs of each value."""
    grouped, shape = f"{answers}.grouped", f"{answers}.shape"
    return (
        Op("Constant", (), shape, {"value_ints": [0, columns, each]}),  # 0: as many rows as there are
        Op("Reshape", (outputs, shape), grouped),
        Op("Constant", (), f"{answers}.each", {"value_ints": [each]}),
        Op(
            *("TopK", (grouped, f"{answers}.each"), f"{answers}.sorted"),
            attributes={"axis": 2, "largest": 0, "sorted": 1},
            more=(f"{answers}.order",),
        ),
        Op("Flatten", (f"{answers}.sorted",), answers, {"axis": 1}),
    )


def _module(nn: Any, columns: int, each: int) -> Any:
    """Return the same as a module."""

    class Ascending(nn.Module):  # type: ignore[misc]  # Torch is given
        def forward(self, outputs: Any) -> Any:
            return outputs.reshape(-1, columns, each).sort(dim=2).values.flatten(1)

    return Ascending()
