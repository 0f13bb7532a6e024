"""From the mean of a round to the step of the model: the server's optimizer, as pure functions over explicit state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from models.job import AggregateSpec

Float64 = npt.NDArray[np.float64]
Velocity = tuple[Float64, ...]
"""The server optimizer's state: one array per tensor, or () where it has none."""


def fedavg(mean: Sequence[Float64], velocity: Velocity, rules: AggregateSpec) -> tuple[list[Float64], Velocity]:
    """Return the step that the mean of the updates makes, and the next velocity.

        v = momentum * v + mean,    step = server_learning_rate * v

    Without momentum and at a rate of 1 this is federated averaging (McMahan et al. 2017, algorithm 1); with momentum it
    is FedAvgM (Hsu, Qi and Brown 2019). Elementwise IEEE arithmetic only, so the same mean gives the same bits.
    """
    if not rules.server_momentum:
        return [rules.server_learning_rate * m for m in mean], ()
    before = velocity or tuple(np.zeros_like(m) for m in mean)
    after = tuple(rules.server_momentum * v + m for v, m in zip(before, mean, strict=True))
    return [rules.server_learning_rate * v for v in after], after


STRATEGIES: dict[str, Callable[[Sequence[Float64], Velocity, AggregateSpec], tuple[list[Float64], Velocity]]] = {
    "fedavg": fedavg,
}
