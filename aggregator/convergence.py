"""When a job has converged, and which of its versions is the best: pure functions of the metrics of its versions.

They read all versions, and are the law. What a round asks is kept as versions come, with the same answers: the best one
in ranking.py, whether the job ends in progress.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from models.job import RoundsSpec, StopSpec
from models.measures import table as measures

AGREEING = "agreeing"
"""In the metrics of the version on which a fleet has agreed: how many devices had something to say."""
RESTORED, STARTED = "restored", "started"
"""In the metrics of a version that no round has made: the number of the one that it is again, or 1 for the start that a
job was given."""
UNSCORED = "unscored"
"""In the metrics of a version of which it is not known how good it is: it says nothing for or against going on."""


def best_of(history: Sequence[Mapping[str, float]], rounds: RoundsSpec) -> int | None:
    """Return the number of the best version, the first of equal ones; None where nothing says which it is.

    By the metric of the stop rule; where no version has it, by accuracy, else by loss. Version 0 is none: it is drawn,
    not trained; nor is that on which the fleet has agreed, which has its numbers. What an operator has rolled back is
    none either, however good it seems: patience would serve it again.
    """
    out = out_of_the_running(history)
    for metric in judged_by(rounds):
        sign, thin = sign_of(metric), _thinly_scored(history, metric)
        there = ((n, metrics) for n, metrics in enumerate(history) if n and n not in out and n not in thin)
        if found := [(sign * metrics[metric], -number) for number, metrics in there if metric in metrics]:
            return -max(found)[1]
    return None


def judged_by(rounds: RoundsSpec) -> tuple[str, ...]:
    """Return by which metrics the best version is found, the one that goes before all others first."""
    return tuple(dict.fromkeys((rounds.stop.metric, "accuracy", "loss")))


def out_of_the_running(history: Sequence[Mapping[str, float]]) -> set[int]:
    """Return the numbers of the versions that nobody has trained, or that were rolled back."""
    back = ((int(metrics[RESTORED]), number) for number, metrics in enumerate(history) if RESTORED in metrics)
    return _untrained(history).union(*(range(wanted + 1, number) for wanted, number in back))


def _untrained(history: Sequence[Mapping[str, float]]) -> set[int]:
    """Return the numbers of the versions after 0 whose weights are as they were drawn."""
    if any(STARTED in metrics for metrics in history):  # then what the fleet agrees on is of trained weights
        return set()
    return {number for number, metrics in enumerate(history) if is_as_drawn(metrics)}


def is_as_drawn(metrics: Mapping[str, float]) -> bool:
    """Return whether a version has the weights that were drawn, unless its job was given others to start from."""
    return AGREEING in metrics or metrics.get(RESTORED) == 0


def _thinly_scored(history: Sequence[Mapping[str, float]], metric: str) -> set[int]:
    """Return the numbers of the versions that devices have scored on less than half of the rows that another was
    scored on: a score on few rows is good by luck, and is held against none.

    metric: what they are compared by; where it is a test split's, devices have no say in it.
    """
    rows = {number: n for number, metrics in enumerate(history) if (n := rows_by_devices(metrics, metric)) is not None}
    most = max(rows.values(), default=0.0)
    return {number for number, n in rows.items() if is_thin(n, most)}


def rows_by_devices(metrics: Mapping[str, float], metric: str) -> float | None:
    """Return on how many rows devices have scored a version; None where its score is not by them."""
    by_devices = metric in metrics and f"federated_{metric}" not in metrics
    return metrics.get("federated_rows") if by_devices else None


def is_thin(rows: float | None, most: float) -> bool:
    """Return whether a score by devices is on too few rows. most: that any version was scored on."""
    return rows is not None and 2 * rows < most


def to_serve(history: Sequence[Mapping[str, float]], rounds: RoundsSpec) -> int | None:
    """Return the number of the version that a job serves which ends here by its rule to stop; None for its last.

    By patience it is the best one, where that is another; by a target the one that has reached it, where devices have
    said so when it was left already. What ends by max_rounds serves its last version.
    """
    stop, best = rounds.stop, best_of(history, rounds)
    if best is None or stop.metric not in history[best]:
        return None
    patient = structs.replace(rounds, stop=structs.replace(stop, patience=None))
    by_target = stop.target is not None and sign_of(stop.metric) * (history[best][stop.metric] - stop.target) >= 0
    if by_target:
        return best if stop.metric not in history[-1] and RESTORED not in history[-1] else None
    if stop.patience is None or reason_to_end(history, patient) is not None:
        return None
    return None if best in (len(history) - 1, history[-1].get(RESTORED)) else best


def reason_to_end(
    history: Sequence[Mapping[str, float]], rounds: RoundsSpec, classes: Sequence[str] = ()
) -> str | None:
    """Return why the job ends here, or None while it goes on.

    history: the metrics of version 0, 1, …; a version without the metric is no improvement, and patience begins with
    the first version that has it. One that was not evaluated in time (`unscored`) says nothing either way, and so does
    that on which a fleet has agreed: nothing is trained yet, and it may by chance answer one class always, whose recall
    nothing exceeds. classes: their names, for the words.
    """
    stop = rounds.stop
    sign, out = sign_of(stop.metric), _untrained(history) | _thinly_scored(history, stop.metric)
    there = ((number, metrics) for number, metrics in enumerate(history) if number not in out)
    values = [(number, sign * metrics[stop.metric]) for number, metrics in there if stop.metric in metrics]
    last = len(history) - 1
    if values and stop.target is not None:
        best = max(value for _, value in values)
        if best >= sign * stop.target:
            number = next(number for number, value in values if value == best)
            return target_reached(stop, history[number], classes)
    if values and stop.patience is not None:
        since = max((number for number, metrics in enumerate(history) if is_given(metrics)), default=0)
        here = [(number, value) for number, value in values if number >= since]  # what was rolled back has no say
        best_at = _last_improvement(here, stop.min_delta) if here else last
        if sum(is_scored(metrics) for metrics in history[best_at + 1 :]) >= stop.patience:
            return patience_over(stop, history[best_at], classes)
    if last - sum(map(is_given, history)) >= rounds.max_rounds:
        return rounds_done(rounds, history[last], classes)
    return None


def target_reached(stop: StopSpec, metrics: Mapping[str, float], classes: Sequence[str]) -> str:
    """Return in words that a job ends by its target. metrics: of the version that has reached it."""
    told = _whose_word(metrics, stop.metric) + _but(metrics, classes)
    return f"{stop.metric} {metrics[stop.metric]:.4f} has reached the target {stop.target:g}{told}"


def patience_over(stop: StopSpec, metrics: Mapping[str, float], classes: Sequence[str]) -> str:
    """Return in words that a job ends by its patience. metrics: of the version after which none was better."""
    told = _but(metrics, classes)
    return f"no better {stop.metric} than {metrics[stop.metric]:.4f} for {stop.patience} rounds{told}"


def rounds_done(rounds: RoundsSpec, metrics: Mapping[str, float], classes: Sequence[str]) -> str:
    """Return in words that a job has had all its rounds. metrics: of its last version."""
    return f"max_rounds = {rounds.max_rounds} are done{_but(metrics, classes)}"


def is_scored(metrics: Mapping[str, float]) -> bool:
    """Return whether a version was evaluated, or had its time to be."""
    return UNSCORED not in metrics


def is_given(metrics: Mapping[str, float]) -> bool:
    """Return whether a version was not made by a round."""
    return RESTORED in metrics or STARTED in metrics


def no_better(metrics: Mapping[str, float], classes: Sequence[str] = ()) -> str:
    """Return what answers that never change a version is no better than, in words; empty where it is better.

    Of classes: it answers one, nearly always, and is right as often as that class occurs. Of values: R2 is 0 or less.
    """
    if (of := metrics.get(measures.ALWAYS)) is not None:
        index = int(of)
        return f"as good as always answering '{classes[index] if index < len(classes) else index}'"
    if metrics.get("r2", 1.0) <= 0:
        return "no better than always answering the mean"
    return ""


def _but(metrics: Mapping[str, float], classes: Sequence[str]) -> str:
    words = no_better(metrics, classes)
    return f", but the model is {words}" if words else ""


def sign_of(metric: str) -> float:
    """Return what a metric is multiplied by so that more is better: 1 or -1."""
    return 1.0 if measures.is_high(metric) else -1.0


def _whose_word(metrics: Mapping[str, float], metric: str) -> str:
    """Return by whose word a version is as good as that, where it is not by a test split."""
    if "federated_devices" in metrics and metric != "loss" and f"federated_{metric}" not in metrics:
        n = metrics["federated_devices"]
        return f", by its devices: {n:.0f} of them, on rows that they hold back"
    if metric != "loss" or metrics.get("device_loss") != metrics["loss"]:
        return ""
    return f", by what more than half of {metrics['participants']:.0f} devices report"


def _last_improvement(values: Sequence[tuple[int, float]], min_delta: float) -> int:
    """Return the version after which none was better by more than min_delta."""
    best_at, best = values[0]
    for number, value in values:
        if value > best + min_delta:
            best_at, best = number, value
    return best_at
