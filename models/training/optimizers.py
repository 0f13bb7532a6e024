"""The optimizers of local training: pure functions over explicit state, which they move in place; as in torch.optim.

    kept = init(train, params)                      a row for every param: none, the velocity, or both averages
    step(train, params, kept, gradients, pace)      params and kept are moved; gradients are used up

Every round starts with fresh state, and what an optimizer keeps within it stays on the device: an average of the
gradients of one version says little of those of the next, which another cohort made, and would have to travel or wait
with the device. It is a part of the checkpoint, so that a run that is resumed has the same bits.

What is worked out lies in slabs that stay in the cache, and in one scratch of that size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from models.job import TrainSpec
from models.params import Float32, Params

SLAB = 2**16
"""Coordinates that are moved at a time: a scratch of them has 256 kB."""


class Pace(NamedTuple):
    """Where a run stands, for the step that comes."""

    rate: float
    """The learning rate of this step."""
    grown: float
    """By what it is more, or less, than that of the step before: 1 where it is the same, and for the first."""
    number: int
    """Of the step, counted from 1 through all epochs."""


class Kept(NamedTuple):
    """What an optimizer keeps from step to step, in the order of the params; {} where it keeps none."""

    momentum: Params
    """SGD's velocity, times the learning rate of its step; of "adam" and "adamw" M = m / (1 - beta1)."""
    squares: Params
    """Of these V = v / (1 - beta2)."""


class Optimizer(NamedTuple):
    """One optimizer.

    rows: how many arrays of every param it keeps.
    takes_rate: whether the gradients that it gets are to be multiplied by the learning rate, which costs least at the
        outputs of a net.
    step: see the module; gradients times the rate where it takes that.
    """

    rows: Callable[[TrainSpec], int]
    takes_rate: bool
    step: Callable[[TrainSpec, Params, Kept, Params, Pace], None]


def init(train: TrainSpec, params: Params) -> Kept:
    """Return the state before the first step: zeros."""
    n = OPTIMIZERS[train.optimizer].rows(train)
    momentum, squares = ({name: np.zeros_like(p) for name, p in params.items()} if n > i else {} for i in range(2))
    return Kept(momentum, squares)


def sgd(train: TrainSpec, params: Params, kept: Kept, changes: Params, pace: Pace) -> None:
    """Move by SGD (torch.optim.SGD, dampening 0; Sutskever et al. 2013).

        g = gradient + weight_decay p,    v = momentum v + g,    p = p - rate v
                                                       nesterov: p = p - rate (g + momentum v)

    changes: rate * gradients. The velocity has the rate in it too; where that changes between two steps, it is taken
    from the one to the other.
    """
    decay, keep = pace.rate * train.weight_decay, train.momentum * pace.grown
    if not (decay or train.nesterov):
        for name, p in params.items():
            change = changes[name]
            if keep:
                velocity = kept.momentum[name]
                velocity *= keep
                velocity += change
                change = velocity
            p -= change
        return
    for p, change, spare, *rows in _slabs(params, changes, kept.momentum):
        if decay:
            np.multiply(p, decay, out=spare)
            change += spare
        for velocity in rows:  # one, or none
            velocity *= keep
            velocity += change
            if train.nesterov:
                np.multiply(velocity, train.momentum, out=spare)
                change += spare
            else:
                change = velocity
        p -= change


def adam(train: TrainSpec, params: Params, kept: Kept, gradients: Params, pace: Pace) -> None:
    """Move by Adam (Kingma and Ba 2015; torch.optim.Adam), in the order of the end of its section 2.

    g = gradient + weight_decay p
    m = beta1 m + (1 - beta1) g,    v = beta2 v + (1 - beta2) g^2
    p = p - rate m' / (sqrt(v') + epsilon),    m' = m / (1 - beta1^t),    v' = v / (1 - beta2^t)

    What is kept is M = beta1 M + g and V = beta2 V + g^2, which takes fewer passes over the weights.
    """
    _adam(train, params, kept, gradients, pace, coupled=train.weight_decay, decoupled=0.0)


def adamw(train: TrainSpec, params: Params, kept: Kept, gradients: Params, pace: Pace) -> None:
    """Move by AdamW (Loshchilov and Hutter 2019; torch.optim.AdamW): as `adam`, but for the weight decay.

    First p = p - rate weight_decay p, of which the averages know nothing.
    """
    _adam(train, params, kept, gradients, pace, coupled=0.0, decoupled=pace.rate * train.weight_decay)


def _adam(
    train: TrainSpec,
    params: Params,
    kept: Kept,
    gradients: Params,
    pace: Pace,
    *,
    coupled: float,
    decoupled: float,
) -> None:
    root = math.sqrt((1.0 - train.beta2**pace.number) / (1.0 - train.beta2))  # sqrt(v') is sqrt(V) / root
    size = pace.rate * root * (1.0 - train.beta1) / (1.0 - train.beta1**pace.number)
    for p, g, spare, sums, squares in _slabs(params, gradients, kept.momentum, kept.squares):
        if coupled:
            np.multiply(p, coupled, out=spare)
            g += spare
        if decoupled:
            p *= 1.0 - decoupled
        sums *= train.beta1
        sums += g
        squares *= train.beta2
        squares += np.square(g, out=g)
        np.sqrt(squares, out=spare)
        spare += train.epsilon * root
        np.divide(sums, spare, out=spare)
        spare *= size
        p -= spare


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(lambda train: 1 if train.momentum else 0, takes_rate=True, step=sgd),
    "adam": Optimizer(lambda _: 2, takes_rate=False, step=adam),
    "adamw": Optimizer(lambda _: 2, takes_rate=False, step=adamw),
}


def clipped(gradients: Params, most: float) -> float:
    """Return what gradients are multiplied by so that their norm, all together, is `most` at most: 1, or less.

    As torch.nn.utils.clip_grad_norm_ has it (Pascanu et al. 2013); but it finds the norm of what overflows too.
    """
    square = math.fsum(_square(gradient.reshape(-1)) for gradient in gradients.values())
    return min(1.0, most / (math.sqrt(square) + 1e-6))


def _square(row: Float32) -> float:
    found = float(np.dot(row, row))
    if math.isinf(found):  # squares have no room in a float32
        pieces = (row[at : at + SLAB].astype(np.float64) for at in range(0, row.size, SLAB))
        found = sum(float(np.dot(piece, piece)) for piece in pieces)
    return found


def _slabs(params: Params, gradients: Params, *kept: Params) -> Iterator[tuple[Float32, ...]]:
    """Give the slabs of each param, of its gradient, a scratch, and of what is kept of it."""
    spare = np.empty(min(SLAB, max((p.size for p in params.values()), default=0)), np.float32)
    for name, p in params.items():
        rows = [p.reshape(-1), gradients[name].reshape(-1), *(row[name].reshape(-1) for row in kept if row)]
        for at in range(0, p.size, SLAB):
            p_slab, g_slab, *others = (row[at : at + SLAB] for row in rows) if p.size > SLAB else rows
            yield p_slab, g_slab, spare[: p_slab.size], *others
