"""How good a version is by its devices: each scores it on rows that it holds back, and says sums and counts. Pure.

    tally of a device ──▶ its measures ──▶ mean, each device weighing its rows, at most its share
                                      └──▶ spread between devices, the worst of them, the mean by label

What a device says is a claim, and nothing shows whether it is so. It is bounded instead:

 1. A device weighs the rows that it says it has scored, at most those that it says it trains on, and at most `share`
    of all who have the measure (shares.py). So whatever it claims moves a measure between 0 and 1 by no more than that.
 2. A measure that has no bound counts as FACTOR times the median of all devices, one voice each, where it is worse than
    that; so one device cannot make it as large as it likes, and fewer than half of them not either. Of two devices
    nobody can say which one is absurd, and both count as they are: else one that claims no error at all would make the
    other's nothing, and reach any target.
 3. A device that says nothing has no say, and one whose rows are all of one class none in measures that want two.

Devices report on the version that they were drawn to leave, so that its score is known when the next one is made: one
version later than on a test split. Spread and worst are of what devices say, as it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aggregator import calibration, shares
from models.job import JobSpec
from models.measures import classes, table, tally
from models.measures.scores import scores
from models.measures.tally import TallyError

__all__ = ["Federated", "TallyError", "Voice", "heard", "limit_of", "together"]

FACTOR = 10.0
"""Times the median: a measure without a bound counts as no worse."""
FEWEST_VOICES = 3
"""Devices whose median one of them cannot choose."""
UNBOUNDED = ("log_loss", "rmse", "mae", "r2", "mean_score")
"""Measures that one device could make as bad as it likes, or nearly. Of R2 it is 1 - R2."""
MOST_LABELS = 32
"""Labels that are told of, those first that are found least."""


class Voice(NamedTuple):
    """What one device says of a version. weight: of its rows, in a mean. rows: of each class, those it has scored."""

    device: str
    weight: int
    scores: Mapping[str, float]
    rows: Mapping[str, int]
    outcomes: Any = None
    """Of a model of one class a row, as `Tally.outcomes`, as many as it weighs."""
    n: int = 0
    """All of its rows, where they are of classes."""
    counts: Any = None
    """Of a model of anomaly scores, how its rows score (calibration.py)."""

    def weight_of(self, measure: str) -> int:
        """Return what it weighs in a mean of this measure: of one class, by the rows of that class."""
        of = table.split(measure)[1]
        return self.weight if of is None else max(1, self.weight * self.rows.get(of, 0) // self.n)


class Federated(NamedTuple):
    """How good a version is by its devices. metrics: the means, by measure. told: all of it, for people."""

    metrics: dict[str, float]
    told: dict[str, Any]


def heard(spec: JobSpec, device: str, rows: int, content: bytes) -> Voice:
    """Return what a device says. rows: that it claims to train on. Raises TallyError for bytes that are no tally."""
    one = tally.from_bytes(content, spec.model)
    if not one.n:
        raise TallyError("it is of no rows")
    names = _classes(spec)
    also = {f"recall:{name}" for name in names} | {spec.rounds.stop.metric}
    by_class = (one.outcomes[0] + one.outcomes[2]).tolist() if names else []
    weight = max(1, min(one.n, rows))
    return Voice(
        device,
        weight,
        scores(one, spec.contract.class_names, also=also),
        dict(zip(names, by_class, strict=True)),
        one.outcomes * (weight / one.n) if names and not one.layout.is_each else None,
        one.n,
        one.histograms[0] if spec.model.finds_anomalies else None,
    )


def _classes(spec: JobSpec) -> Sequence[str]:
    """Return what the classes are called; none of a model of values."""
    if not spec.model.classifies:
        return ()
    return spec.contract.class_names or tuple(map(str, range(spec.model.n_classes)))


def limit_of(max_share: float | None) -> float:
    """Return what one device may weigh in a score, where a job says what it may weigh in a mean; else half."""
    return shares.USUAL if max_share is None else max_share


def together(voices: Sequence[Voice], share: float, normal_share: float | None = None) -> Federated | None:
    """Return how good a version is by all that is said of it; None where nothing is. share: of one device, at most.

    normal_share: of rows below the threshold, of a model of anomaly scores: its "threshold" is among the metrics.
    """
    if not voices:
        return None
    measures = sorted({name for voice in voices for name in voice.scores})
    means = {name: _mean(name, voices, share) for name in measures}
    labels = {of for name in measures if (of := table.split(name)[1]) is not None}
    metrics = {
        name: value for name, value in means.items() if table.split(name)[1] is None or len(labels) <= MOST_LABELS
    }
    if (always := _always(voices, share)) is not None:
        metrics[table.ALWAYS] = float(always)
    if normal_share is not None:
        scored = [calibration.Scored(voice.weight, voice.counts) for voice in voices if voice.counts is not None]
        if (found := calibration.calibrated(scored, normal_share, share)) is not None:
            metrics |= {**found.worth, table.THRESHOLD: found.threshold}
    alone = [name for name in measures if table.split(name)[1] is None]
    told: dict[str, Any] = {
        "devices": len(voices),
        "rows": sum(voice.weight for voice in voices),
        "mean": {name: means[name] for name in alone},
        "spread": {name: _spread(name, voices) for name in alone},
        "quartiles": {name: _quartiles(name, voices) for name in alone},
        "worst": {name: _worst(name, voices) for name in alone},
    }
    if labels:
        told["labels"] = _by_label(voices, means)
    return Federated(metrics, told)


_PARTS = 1000
"""Into so many a row is divided, where devices weigh less than their rows."""


def _always(voices: Sequence[Voice], share: float) -> int | None:
    """Return the class that the model is as good as always answering, by all rows together; None where it is better."""
    cap = shares.cap_for([voice.weight for voice in voices], share)
    parts = [v.outcomes * (_PARTS * min(v.weight, cap) / v.weight) for v in voices if v.outcomes is not None]
    if not parts:
        return None
    counts = sum(parts[1:], parts[0]).astype("int64")
    return classes.always(counts, int((counts[0] + counts[2]).sum()))


def _mean(measure: str, voices: Sequence[Voice], share: float) -> float:
    there = [(voice.weight_of(measure), voice.scores[measure]) for voice in voices if measure in voice.scores]
    cap = shares.cap_for([weight for weight, _ in there], share)
    values = _bounded(measure, [value for _, value in there])
    weights = [min(weight, cap) for weight, _ in there]
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def _bounded(measure: str, values: list[float]) -> list[float]:
    """Return values of which none is worse than FACTOR times their median, where the measure has no bound itself."""
    base = table.split(measure)[0]
    if base not in UNBOUNDED or len(values) < FEWEST_VOICES:
        return values
    errors = [1.0 - value for value in values] if base == "r2" else values
    most = FACTOR * statistics.median_low(errors)
    bounded = [min(error, most) for error in errors]
    return [1.0 - error for error in bounded] if base == "r2" else bounded


def _said(measure: str, voices: Sequence[Voice]) -> list[tuple[float, str]]:
    return sorted((voice.scores[measure], voice.device) for voice in voices if measure in voice.scores)


def _spread(measure: str, voices: Sequence[Voice]) -> float:
    """Return the standard deviation between devices, one voice each."""
    return statistics.pstdev(_bounded(measure, [value for value, _ in _said(measure, voices)]))


def _quartiles(measure: str, voices: Sequence[Voice]) -> list[float]:
    """Return what a quarter, a half and three quarters of the devices are at most at."""
    values = [value for value, _ in _said(measure, voices)]
    return values * 3 if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")


def _worst(measure: str, voices: Sequence[Voice]) -> list[Any]:
    """Return who says the worst, the first by name of several, and what."""
    said = _said(measure, voices)
    extreme = (min if table.is_high(measure) else max)(value for value, _ in said)
    return [next(device for value, device in said if value == extreme), extreme]


def _by_label(voices: Sequence[Voice], means: Mapping[str, float]) -> dict[str, Any]:
    """Return of each label how many rows have it, how much of them is found, and by whom least."""
    found = {}
    names = {name for voice in voices for name in voice.rows}
    known = sorted((means[f"recall:{name}"], name) for name in names if f"recall:{name}" in means)
    for recall, name in known[:MOST_LABELS]:
        rows = sum(voice.rows.get(name, 0) for voice in voices)
        found[name] = {"rows": rows, "recall": recall, "worst": _worst(f"recall:{name}", voices)}
    return found
