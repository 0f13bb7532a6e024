"""From the published sum to the step of the model: the server's optimizer, as pure functions that everybody computes.

A version's body is the sum of its round, whatever the strategy: devices hold the optimizer's state too, and go the same
step as the server. So all of it is integers: the state lies on a lattice of its own, factors have 16 bits, and what is
shifted out is rounded half to even.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.codec.coding import Tensors
from models.codec.decoded import CodecError, Decoded
from models.integers import Int64, bits, rescale
from models.job import AggregateSpec
from models.lattice import EXPONENT

Velocity = tuple[Int64, ...]
"""The server optimizer's state: integers * 2**VELOCITY_EXPONENT for each tensor, or () where it has none."""

VELOCITY_EXPONENT = EXPONENT - 12
FACTOR_BITS = 16
MOST_BITS = 46
"""So that a product with a factor fits an int64: velocities up to 1,024."""


def fedavg(velocity: Velocity, published: Tensors, rules: AggregateSpec) -> tuple[Velocity, Tensors]:
    """Return the next velocity, and the step that the published sum makes.

        v = momentum * v + published,    step = v

    The server's learning rate is in the published sum. Without momentum and at a rate of 1 this is federated averaging
    (McMahan et al. 2017, algorithm 1); with momentum it is FedAvgM (Hsu, Qi and Brown 2019). Raises CodecError where
    the velocity leaves its lattice.
    """
    if not rules.server_momentum:
        return (), published
    factor = round(rules.server_momentum * 2**FACTOR_BITS)
    before = velocity or tuple(np.zeros(p.integers.shape, np.int64) for p in published)
    after = tuple(rescale(v * factor, -FACTOR_BITS) + _on_lattice(p) for v, p in zip(before, published, strict=True))
    if any(bits(v) > MOST_BITS for v in after):
        raise CodecError("the server's momentum has grown beyond its lattice")
    return after, tuple(Decoded(v, VELOCITY_EXPONENT) for v in after)


def is_plain(rules: AggregateSpec) -> bool:
    """Return whether the step is the published sum itself, and nothing is kept from one to the next."""
    return rules.strategy == "fedavg" and not rules.server_momentum


STRATEGIES: dict[str, Callable[[Velocity, Tensors, AggregateSpec], tuple[Velocity, Tensors]]] = {
    "fedavg": fedavg,
}


def _on_lattice(published: Decoded) -> Int64:
    shift = published.exponent - VELOCITY_EXPONENT
    if published.integers.any() and bits(published.integers) + shift > MOST_BITS:
        raise CodecError("a step is too large for the server's momentum")
    return rescale(published.integers, shift) if published.integers.any() else published.integers
