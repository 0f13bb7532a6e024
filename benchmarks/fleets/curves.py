"""From the curves of two codings on the same seeds to one number: how many times the rounds of float32 one needs.

A level is reached in the round at which the mean of the last three rounds reaches it, interpolated between rounds; the
curve is the mean over seeds. The ratio of rounds is the median over all levels from 60 % of the rise (from float32's
first round to the target) to the target, so that it neither hangs on one lucky crossing nor on the first rounds, in
which everything rises. Its standard error is that of the jackknife over paired seeds (Efron and Stein 1981): all of it
is done again without each seed in turn.

Curves are scores, (seeds, rounds) float64, and higher is better: a loss goes in with its sign turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

WINDOW = 3
FIRST_SHARE = 0.6
N_LEVELS = 101


class NoRiseError(ValueError):
    """A baseline that does not rise: there is nothing to compare."""


class Estimate(NamedTuple):
    """A number and its standard error; nan where there is one seed."""

    value: float
    error: float

    @property
    def least(self) -> float:
        """The number less its error, where that is known."""
        return self.value if math.isnan(self.error) else self.value - self.error


class Crossing(NamedTuple):
    """When two curves reach one level; where a curve never does, the round after its last, and `reached` is False."""

    level: float
    ours: float
    theirs: float
    reached: bool


def smooth(curve: Float64) -> Float64:
    """Return the mean of the last three rounds at each round, of fewer at the first two. curve: (rounds,)."""
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    ends = np.arange(1, len(curve) + 1)
    starts = np.maximum(ends - WINDOW, 0)
    means: Float64 = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def crossing(smoothed: Float64, level: float) -> float | None:
    """Return the round at which a curve first reaches a level, a fraction between two rounds; None: it never does."""
    above = np.flatnonzero(smoothed >= level)
    if not len(above):
        return None
    i = int(above[0])
    if i == 0:
        return 1.0
    return i + float((level - smoothed[i - 1]) / (smoothed[i] - smoothed[i - 1]))


def levels(theirs: Float64, target: float, since: int | None = None) -> Float64:
    """Return the levels that are compared, (N_LEVELS,): up to the target, or to the best that float32 reached if less.

    theirs: float32's smoothed curve. They begin at 60 % of the rise, or at float32's level in round `since`. Raises
    NoRiseError.
    """
    top = min(target, float(theirs.max()))
    first = float(theirs[0])
    low = first + FIRST_SHARE * (top - first) if since is None else float(theirs[min(since, len(theirs)) - 1])
    if not (math.isfinite(low) and first < top and low < top):
        raise NoRiseError(f"float32 does not rise from {first:.4g} to {target:.4g}")
    return np.linspace(low, top, N_LEVELS)


def crossings(ours: Float64, theirs: Float64, target: float, since: int | None = None) -> list[Crossing]:
    """Return when both mean curves reach each level. ours, theirs: (seeds, rounds). Raises NoRiseError."""
    mine, other = smooth(ours.mean(axis=0)), smooth(theirs.mean(axis=0))
    pairs = ((level, crossing(mine, level), crossing(other, level)) for level in levels(other, target, since))
    return [
        Crossing(float(level), len(mine) + 1.0 if at is None else at, it, at is not None)
        for level, at, it in pairs
        if it is not None
    ]


def rounds_ratio(ours: Float64, theirs: Float64, target: float, since: int | None = None) -> Estimate:
    """Return the median over levels of our rounds by theirs, and its error. Raises NoRiseError."""

    def median(seeds: npt.NDArray[np.int64]) -> float:
        reached = crossings(ours[seeds], theirs[seeds], target, since)
        return float(np.median([one.ours / one.theirs for one in reached]))

    return jackknife(median, len(ours))


def end_gap(ours: Float64, theirs: Float64) -> Estimate:
    """Return how far our last rounds lie above theirs: the mean of the last five, of a third where they are few."""
    n_last = max(1, min(5, ours.shape[1] // 3))
    gaps = (ours[:, -n_last:] - theirs[:, -n_last:]).mean(axis=1)
    return jackknife(lambda seeds: float(gaps[seeds].mean()), len(gaps))


def jackknife(statistic: Callable[[npt.NDArray[np.int64]], float], n: int) -> Estimate:
    """Return a statistic of all n seeds, and its standard error by leaving out each in turn."""
    seeds = np.arange(n)
    whole = statistic(seeds)
    if n < 2:
        return Estimate(whole, math.nan)
    without = np.array([statistic(np.delete(seeds, seed)) for seed in seeds])
    return Estimate(whole, math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum())))
