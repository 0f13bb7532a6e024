"""How many buckets, and of how many bits, the next round needs: as many as keep its noise cheap.

Coding adds noise to every version, spread evenly over all directions of weight space, and its energy is known:

    E(m, up, down) = spread * (1 + a_down) * (M + a_up * I) - M,      spread = d / m, at least 1

    M = |mean update|^2,  I = sum w_k^2 |update_k|^2,  a_b: what b bits add to a vector's energy (levels.py)

What it costs is asked of the devices: each says on some of its rows what loss isotropic noise adds per unit of its
energy (`curvature`, half the mean eigenvalue of the Hessian where it is small), and what the model gained a version
since the one it held last (`gain`). What noise costs a version is not lost for good: the next rounds train most of it
away. So a round's noise holds the training up by about PERSISTS * curvature * E / gain rounds, once and not anew in
each round, and it is these that are held to a share of the rounds so far:

    PERSISTS * curvature * E / gain <= tolerance * max(PERSISTS, rounds so far, of which max(WINDOWS) count)

Early rounds have no more than `tolerance` of what they gain to spend, later ones so many times more as they are older.
The curvature is a median of reports; the gain is a clipped and trimmed mean over devices, in which each has one value
however often it has reported, over a window that doubles until it is three standard errors: one that lies in every
round moves what is allowed by about a fifth, more where honest gains are few and spread widely.
Where it never is, the job is on a plateau, and what was allowed last stays allowed. Where it has not been in any round
yet, the noise may be what hides it, as with few devices and a small net: it is halved until there is a gain to see.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from models.codec.levels import ADDED
from models.codec.plan import FEWEST, shape
from models.codec.terms import INT8, Terms, terms_for

FEWEST_REPORTS = 5
FEWEST_GAINS = 2
"""Rounds that reported a gain before any is believed."""
DROWNED = 4
"""Rounds that reported a gain, after which one should have shown."""
LOOKS_BACK = 8
"""Rounds whose reports on the curvature may be pooled."""
WINDOWS = (1, 2, 4, 8, 16, 32)
"""Rounds over which the gain is taken."""
MOST_REPORTS = 16
"""Of one round that are remembered."""
SIGMAS = 3.0
CLIP = 4.0
"""Gains are clipped to so many median deviations from their median."""
TRIMMED = 8
"""Of the gains that devices tell, one in so many is left out at either end, and one at least."""
MOST_OF_MODEL = 0.1
"""Share of the model's own energy that a version's noise may have."""
EARLY_OF_MODEL = 0.02
"""The same before anything is known of what noise costs."""
PERSISTS = 10
"""Rounds within which a version's noise is trained away again."""
RAISED, LOWERED = 2.0, 1.25
"""The most that a round's buckets and bits change by, as factors; before anything is known they halve, too."""
FULL = ((1, 2), (2, 2), (2, 3), (3, 3), (4, 4))
"""Bits up and down where every coordinate has its bucket."""
LARGEST = 1e30
"""No energy of a job that goes on is larger."""
_Energy = Annotated[float, Meta(ge=0, le=LARGEST)]


class Report(Struct, frozen=True, array_like=True):
    """What a device measured on some of its rows: [curvature, gain a version, whose]; the gain where it is known."""

    curvature: float
    gain: float | None = None
    who: Annotated[int, Meta(ge=0, lt=2**16)] = 0
    """Tells the device from others; 0 where that is not known."""


class RoundSummary(Struct, frozen=True, array_like=True):
    """What is remembered of a round."""

    mean: _Energy
    """M, as the buckets tell it."""
    single: _Energy
    """I."""
    reports: tuple[Report, ...] = ()


class Choice(NamedTuple):
    """How the next round is coded."""

    terms: Terms
    down: int
    """Bits a bucket of the sum."""
    allowed: float
    """Energy of the noise that a round may add; inf before anything is known of it."""


class Rung(NamedTuple):
    """One way to code a round."""

    m: float
    up: int
    down: int

    @property
    def size(self) -> float:
        """Bits that a device sends."""
        return self.m * self.up


def first(d: int) -> Choice:
    """Return how the first round of a job is coded: nothing is known of it, so every coordinate has its bucket."""
    return Choice(terms_for(d, d), 1, math.inf)


def noise(d: int, terms: Terms, down: int, seen: RoundSummary) -> float:
    """Return the energy of the noise that coding a round like this one adds to its version."""
    return _noise(d, Rung(terms.m, terms.bits, down), seen)


def choose(d: int, before: Choice, history: Sequence[RoundSummary], tolerance: float, model_energy: float) -> Choice:
    """Return how the next round is coded.

    history: the rounds so far, of which max(WINDOWS) count; the latest last, `before` is its coding. model_energy:
    |W|^2 now.
    """
    latest = history[-1]
    if before.terms == INT8 or not latest.mean:
        return before
    size = min(before.terms.m, d) * before.terms.bits
    now = Rung(before.terms.m, before.terms.bits, before.down)
    age = min(len(history), max(WINDOWS)) / PERSISTS
    told, most = allowed(history, tolerance * max(1.0, age)), before.allowed
    if told is not None:
        least = _noise(d, Rung(d, *FULL[-1]), latest) / RAISED**2  # there is no way to code it so well
        told = max(least, min(told, RAISED**2 * _noise(d, now, latest)))
        most = told if told < most else math.sqrt(told * most)
    limit = min(most, (EARLY_OF_MODEL if math.isinf(most) else MOST_OF_MODEL) * model_energy)
    if told is None and math.isinf(most) and _is_drowned(history):
        limit = min(limit, _noise(d, now, latest) / RAISED)
    wanted = _cheapest(d, latest, limit)
    if told is None and wanted.size < size and not math.isinf(most):
        return before._replace(allowed=most)
    found = _within(d, wanted, size, RAISED if math.isinf(most) else LOWERED)
    return Choice(terms_for(d, math.ceil(found.m), found.up), found.down, most)


def allowed(history: Sequence[RoundSummary], tolerance: float) -> float | None:
    """Return the energy of noise that costs `tolerance` of what a round gains; None while that is not known."""
    curvatures: list[float] = []
    for seen in reversed(history[-LOOKS_BACK:]):
        curvatures += [report.curvature for report in seen.reports if math.isfinite(report.curvature)]
        if len(curvatures) >= FEWEST_REPORTS:
            break
    if len(curvatures) < FEWEST_REPORTS:
        return None
    gain = _gain(history)
    if gain is None:
        return None
    curvature = statistics.median(curvatures)
    return tolerance * gain / curvature if curvature > 0 else math.inf


def _is_drowned(history: Sequence[RoundSummary]) -> bool:
    """Return whether devices have told of gains for rounds, and none has ever shown: the noise may be why."""
    return sum(any(report.gain is not None for report in seen.reports) for seen in history) >= DROWNED


def clipped(values: Sequence[float]) -> list[float]:
    """Return the values, each moved to within CLIP median deviations of their median."""
    middle = statistics.median(values)
    reach = CLIP * statistics.median([abs(value - middle) for value in values])
    lowest, highest = middle - reach, middle + reach
    return [lowest if value < lowest else min(value, highest) for value in values]


def trimmed(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of three values or more without the ends, and its standard error (Tukey and McLaughlin 1963)."""
    ordered, cut = sorted(values), max(1, len(values) // TRIMMED)
    middle = ordered[cut : len(ordered) - cut]
    held = [*[middle[0]] * cut, *middle, *[middle[-1]] * cut]
    share = len(middle) / len(ordered)
    mean = math.fsum(held) / len(held)
    spread = math.fsum([(value - mean) ** 2 for value in held]) / (len(held) - 1)
    return statistics.fmean(middle), math.sqrt(spread) / (share * math.sqrt(len(ordered)))


def _gain(history: Sequence[RoundSummary]) -> float | None:
    """Return what the loss will fall by in a round; None where that is not three standard errors above nothing.

    It is what it fell by in the last ones; where that was less than half of what it had been before, as in the first
    rounds of a job, it goes on falling like that. One round alone says nothing: the first gain is the largest.
    """
    if sum(any(report.gain is not None for report in seen.reports) for seen in history) < FEWEST_GAINS:
        return None
    for window in WINDOWS:
        told = _gains(history[-window:])
        if len(told) < FEWEST_REPORTS:
            continue
        mean, error = trimmed(told)
        if mean > SIGMAS * error and mean > 0:
            before = _gains(history[-2 * window : -window])
            usual = trimmed(before)[0] if len(before) >= FEWEST_REPORTS else mean
            return mean * mean / usual if mean < usual / 2 else mean
    return None


def _gains(rounds: Sequence[RoundSummary]) -> list[float]:
    """Return what each device has told, its mean; what each report has, where devices are too few for that."""
    told: dict[int, list[float]] = {}
    nobody = 0
    for seen in rounds:
        for report in seen.reports:
            gain, who = report.gain, report.who
            if gain is None or not math.isfinite(gain):
                continue
            if not who:
                nobody -= 1
                who = nobody
            if who in told:
                told[who].append(gain)
            else:
                told[who] = [gain]
    if len(told) < FEWEST_REPORTS:
        found = [gain for gains in told.values() for gain in gains]
    else:
        found = [math.fsum(gains) / len(gains) for gains in told.values()]
    return clipped(found) if found else []


def _noise(d: int, rung: Rung, seen: RoundSummary) -> float:
    spread = max(1.0, d / rung.m)
    return spread * (1 + ADDED[rung.down]) * (seen.mean + ADDED[rung.up] * seen.single) - seen.mean


def _rungs(d: int) -> Iterator[Rung]:
    """Return the ways to code with a bucket for each coordinate, the shortest first."""
    for up, down in FULL:
        yield Rung(d, up, down)


def _cheapest(d: int, seen: RoundSummary, limit: float) -> Rung:
    """Return the shortest coding whose noise is within the limit, or the longest there is."""
    m = d * (1 + ADDED[1]) * (seen.mean + ADDED[1] * seen.single) / (limit + seen.mean)
    if m < d:
        return Rung(max(m, FEWEST), 1, 1)
    rungs = list(_rungs(d))
    return next((rung for rung in rungs if _noise(d, rung, seen) <= limit), rungs[-1])


def _within(d: int, wanted: Rung, size: float, lowered: float) -> Rung:
    """Return the wanted coding, or the nearest to it that a round may change to from one of this size."""
    most, least = size * RAISED, size / lowered
    if shape(math.ceil(least))[0] >= size:
        least = size / RAISED  # there is none between
    if wanted.size > most:
        return Rung(most, 1, 1) if most < d else [rung for rung in _rungs(d) if rung.size <= most][-1]
    if wanted.size >= least:
        return wanted
    if size <= d:
        return Rung(least, 1, 1)
    shorter = [rung for rung in _rungs(d) if rung.size < size]
    return next(rung for rung in shorter if rung.size == shorter[-1].size)
