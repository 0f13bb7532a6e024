"""What an update must be before it may touch the sum, and how much of it may.

    limit = ratio * median of the norms of many devices, each one's last (peers.py); of the model's, before 3 are known

    norm <= limit                       it counts as it is
    limit < norm <= the model's norm    it weighs limit / norm of what it would, and 1 at least
    norm > both, gate = "clip"          its numbers are scaled by f = limit / norm, and it weighs what it would
    norm > both, gate = "refuse"        it is refused, unless by now most devices are as far
    norm > 1024 * both                  it is refused in any case: no training comes to that

The first two rows are norm bounding by the weight (Sun et al. 2019, "Can You Really Backdoor Federated Learning?"),
the third is the clip of McMahan et al. (2018): u * min(1, limit / |u|), with an f so short that the bits are the same
everywhere (models/clip.py). Where nobody can be compared, so that the limit is a multiple of the model's own norm, an
update beyond it is scaled down to the model's norm itself: it is nobody's usual size.

A clipped update moves the sum as far as one at the limit, whatever it holds. So a device that is always far, as an
honest one of very few rows, still has its say; and if all are, the fleet goes on, and the limit follows it, since peers
are what devices sent and not what was let in. That is why the last row goes by the model's norm as well: the norms of
a job that has converged may be a millionth of it, and one that all are refused on is never left.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from aggregator.refusals import reason
from models.clip import Factor, factor_for

MIN_PEERS = 3
"""Peers whose norms are known before their median says what is usual; until then the model's own norm does."""
ABSURD = 1024.0
"""Times the limit and the model's norm: one beyond is that of a training that has diverged: scaled down, noise."""
SMALLEST = 2.0**-90
"""Of an update's norm: it is scaled down to no less. What has that little to say moves no lattice."""


class RefusedError(Exception):
    """Why an update is refused, in words for its device, and behind them those for the operator alone.

    norm: of an update that the gate has refused for it; 0 where it was refused for something else.
    """

    def __init__(self, why: str, for_operator: str = "", *, norm: float = 0.0) -> None:
        super().__init__(reason(why, for_operator))
        self.norm = norm


class Admitted(NamedTuple):
    """An update that is in the sum, with the weight that it has there, and what it was scaled by."""

    norm: float
    """As it came."""
    weight: int
    factor: Factor | None = None
    evaluation: bytes = b""
    """How its device scores the base; empty where it does not say."""


class Limit(NamedTuple):
    """The largest norm that is let in as it is, and what one beyond is scaled down to."""

    most: float
    clipped_to: float
    is_of_model: bool = False
    """Whether the model's norm says it, for want of peers."""

    @property
    def whose(self) -> str:
        """Return what a norm beyond it is far from."""
        return "the model's" if self.is_of_model else "its peers'"


def is_far(norm: float, limit: Limit, model_norm: float) -> bool:
    """Return whether an update is neither within the limit nor smaller than the model; NaN is."""
    return not norm <= max(limit.most, model_norm)


def weighed(
    norm: float,
    weight: int,
    limit: Limit,
    model_norm: float = 0.0,
    gate: Literal["clip", "refuse"] = "refuse",
    *,
    with_most: bool = False,
    advice: str = "",
) -> Admitted:
    """Hold an update's norm against the limit, and return what it has in the sum. Raises RefusedError.

    with_most: whether most of those that were sent to its base are far as well. advice: what to do about one that is
    far from the model's.
    """
    if is_far(norm, limit, model_norm):
        if gate == "refuse" or not norm <= ABSURD * max(limit.most, model_norm):
            why = f"its norm is far from {limit.whose}"
            if limit.is_of_model:
                why += f": {advice}" if advice else ""
            elif with_most:
                why = "its norm is far from what was usual, as those of most are now"
            raise RefusedError(why, f"{norm:.4g} where {max(limit.most, model_norm):.4g} is let in", norm=norm)
        return Admitted(norm, weight, factor_for(norm, max(limit.clipped_to, SMALLEST * norm)))
    return Admitted(norm, max(1, int(weight * (limit.most / norm))) if norm > limit.most else weight)


def limit_of_norm(peers: Sequence[float], model_norm: float, ratio: float) -> Limit:
    """Return the limit: `ratio` times the median of the peers', or of the model's own norm.

    Devices that move nothing (norm 0) say nothing of what is usual.
    """
    moving = [norm for norm in peers if norm > 0]
    if len(moving) >= MIN_PEERS:
        most = ratio * statistics.median(moving)
        return Limit(most, most)
    if model_norm > 0:
        return Limit(ratio * model_norm, model_norm, is_of_model=True)
    return Limit(math.inf, math.inf, is_of_model=True)
