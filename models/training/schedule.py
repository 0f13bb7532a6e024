"""How the learning rate goes within a round: it is the round's rate times a factor that follows from the step alone.

    k = warmup * steps, rounded up          the first k rise evenly, the k-th has the whole rate
    q = 0, 1/(steps - k), 2/(steps - k), …  for those after them, below 1

    "constant"  1          "linear"  1 - q          "cosine"  (1 + cos(pi q)) / 2      (Loshchilov and Hutter 2017)

It is never 0. The schedule starts again in every round; from round to round there is `learning_rate_decay`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from models.job import TrainSpec

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda q: 1.0 - q,
    "cosine": lambda q: (1.0 + math.cos(math.pi * q)) / 2.0,
}


def factor(train: TrainSpec, step: int, n_steps: int) -> float:
    """Return what a step's learning rate is of the round's. step: counted from 0 through all epochs."""
    warm = math.ceil(train.warmup * n_steps)
    if step < warm:
        return (step + 1) / warm
    return SCHEDULES[train.schedule]((step - warm) / (n_steps - warm))
