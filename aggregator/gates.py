"""What an update must be before it may touch the sum."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

MIN_PEERS = 3
"""Peers whose norms are known before their median says what is usual; until then the model's own norm does."""


class RefusedError(Exception):
    """Why an update is refused, in words for its device's operator."""


class Admitted(NamedTuple):
    """An update that is in the sum, with the weight that it has there."""

    norm: float
    weight: int


def weighed(norm: float, weight: int, limit: float, most: float = 0.0) -> Admitted:
    """Hold an update's norm against the limit, and return the weight that it has in the sum.

    One whose norm is over the limit weighs less, but 1 at least, so that it moves the sum about as far as one at the
    limit does (norm bounding: Sun et al. 2019, "Can You Really Backdoor Federated Learning?"); one that is over `most`
    as well is refused. Raises RefusedError.
    """
    if not norm <= max(limit, most):
        raise RefusedError(f"its norm {norm:.4g} is more than {limit:.4g}, which is far from its peers'")
    return Admitted(norm, max(1, int(weight * (limit / norm))) if norm > limit else weight)


def limit_of_norm(peers: Sequence[float], model_norm: float, ratio: float) -> float:
    """Return the largest norm that is let in: `ratio` times the median of the peers', or of the model's own norm.

    Devices that move nothing (norm 0) say nothing of what is usual.
    """
    moving = [norm for norm in peers if norm > 0]
    usual = statistics.median(moving) if len(moving) >= MIN_PEERS else model_norm
    return ratio * usual if usual > 0 else math.inf
