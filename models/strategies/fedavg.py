"""Federated averaging (McMahan et al. 2017, algorithm 1), and with server momentum FedAvgM (Hsu, Qi and Brown 2019).

    v = momentum * v + published,    step = v,    published = server_learning_rate * mean

All of it is integers: the velocity lies on a lattice of its own (fixed.py), the factor has 16 bits, and what is shifted
out is rounded half to even. Without momentum there is no velocity, and the step is what was published.

State: the velocity, an array for each tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from models.codec.coding import Tensors
from models.codec.decoded import Decoded
from models.codec.steps import step_near
from models.integers import Int64, rescale
from models.params import Spec
from models.strategies import fixed
from models.strategies.state import State, read
from models.strategies.strategy import Gains, Strategy
from models.sums import Sum

if TYPE_CHECKING:
    from models.job import AggregateSpec, JobSpec

FACTOR_BITS = 16


def _refusal(job: JobSpec) -> str:  # noqa: ARG001 -- it does for every job
    return ""


def _init(spec: Spec, rules: AggregateSpec) -> State:
    return State(tuple(np.zeros(t.shape, np.int64) for t in spec)) if rules.server_momentum else State()


def step(published: Tensors, state: State, rules: AggregateSpec) -> tuple[Tensors, State]:
    """Return the step and the next velocity. Raises CodecError where the velocity leaves its lattice."""
    if not rules.server_momentum:
        return published, State()
    factor = round(rules.server_momentum * 2**FACTOR_BITS)
    after = fixed.bounded(
        rescale(v * factor, -FACTOR_BITS) + fixed.from_sum(p) for v, p in zip(state.arrays, published, strict=True)
    )
    return tuple(Decoded(v, fixed.EXPONENT) for v in after), State(after)


def _is_plain(rules: AggregateSpec) -> bool:
    return not rules.server_momentum


def _gains(state: State, rules: AggregateSpec) -> Gains:  # noqa: ARG001 -- linear: the state has no say
    return Gains(rules.server_learning_rate, 1.0, rules.server_learning_rate / (1 - rules.server_momentum))


def _rows(rules: AggregateSpec) -> int:
    return 1 if rules.server_momentum else 0


def _grid(size: float, state: State, rules: AggregateSpec) -> int:  # noqa: ARG001
    """A velocity that is off by so much moves the model by 1 / (1 - momentum) times that in the end."""
    if not rules.server_momentum:
        return 0
    return step_near(max(size * (1 - rules.server_momentum), 2.0**fixed.EXPONENT))


def _counts(state: State, word: int, rules: AggregateSpec) -> Iterator[Int64]:  # noqa: ARG001
    return (fixed.counted(v, word) for v in state.arrays)


def _restored(counts: Iterable[Int64], word: int, spec: Spec, rules: AggregateSpec) -> State:  # noqa: ARG001
    return State(tuple(fixed.measured(cells, word) for cells in counts))


FEDAVG = Strategy(
    keys=frozenset({"server_learning_rate", "server_momentum"}),
    refusal=_refusal,
    combine=Sum,
    init=_init,
    step=step,
    is_plain=_is_plain,
    gains=_gains,
    rows=_rows,
    grid=_grid,
    counts=_counts,
    restored=_restored,
    read=partial(read, form="", rows=1, what="velocity"),
)
