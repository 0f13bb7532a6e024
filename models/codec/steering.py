"""Steering the step: as coarse as the round can bear.

Rounding without bias adds noise to the mean of a round and nothing else. How much noise a round bears does
not depend on the net or on the step as such, but on what the mean holds anyway: what the updates have in
common, and the noise of training that they do not. So the aggregator watches the share of the mean step's
energy that is the codec's,

    share = nmse / (1 + nmse) * energy / (n |mean|^2)

where nmse is what the devices report on average, energy the average |decoded|^2, n the effective number of
updates and |mean|^2 the energy of their mean. (Without bias, E |decoded|^2 = (1 + nmse) |update|^2.) The step
follows the share to `noise_share`: more devices in a round, or updates that agree more, bear a coarser step; late in
training, when only noise is left to average away, it becomes finer by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

FASTEST = 1.25
"""Most that the scale changes from one round to the next, either way."""
RANGE = 8.0
"""Most that it may leave the job's own step, either way."""
_MEMORY = 3


class Observed(NamedTuple):
    """What the aggregator saw of one committed round."""

    step_scale: float
    n_effective: float
    """Number of updates that weigh equally: (sum w)^2 / sum w^2."""
    nmse: float
    """Average of what the devices reported."""
    energy: float
    """Average |decoded|^2."""
    mean_energy: float
    """|mean of the decoded|^2."""


def steer(history: Sequence[Observed], noise_share: float) -> float:
    """Return the step scale of the next round from the rounds so far, oldest first; 1 before there are any.

    noise_share: 0 to 1; at 1/2 the codec adds as much energy to a step as everything else, which was measured to cost
    1 to 3 % more rounds.

    Pure and total: rounds without energy or with reports that make no sense are passed over.
    """
    sensible = [seen for seen in history if _sensible(seen)][-_MEMORY:]
    if not sensible:
        return 1.0
    share = math.fsum(map(_share, sensible)) / len(sensible)
    change = min(max(math.sqrt(noise_share / max(share, 1e-6)), 1 / FASTEST), FASTEST)
    return min(max(sensible[-1].step_scale * change, 1 / RANGE), RANGE)


def _share(seen: Observed) -> float:
    return seen.nmse / (1 + seen.nmse) * seen.energy / (seen.n_effective * seen.mean_energy)


def _sensible(seen: Observed) -> bool:
    positive = (seen.step_scale, seen.n_effective, seen.energy, seen.mean_energy)
    return all(1e-99 < value < 1e99 for value in positive) and 0 <= seen.nmse < 1e6
