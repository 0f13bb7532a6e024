"""When a job has converged: a pure function of the metrics of its versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.job import RoundsSpec


def reason_to_end(history: Sequence[Mapping[str, float]], rounds: RoundsSpec) -> str | None:
    """Return why the job ends here, or None while it goes on.

    history: the metrics of version 0, 1, …; a version without the metric is no improvement, and patience begins with
    the first version that has it. One that was not evaluated in time (`unscored`) says nothing either way.
    """
    stop = rounds.stop
    sign = 1.0 if stop.metric == "accuracy" else -1.0
    values = [(number, sign * metrics[stop.metric]) for number, metrics in enumerate(history) if stop.metric in metrics]
    last = len(history) - 1
    if values and stop.target is not None:
        best = max(value for _, value in values)
        if best >= sign * stop.target:
            number = next(number for number, value in values if value == best)
            whose = _whose_word(history[number], stop.metric)
            return f"{stop.metric} {sign * best:.4f} has reached the target {stop.target:g}{whose}"
    if values and stop.patience is not None:
        best_at, best = _last_improvement(values, stop.min_delta)
        if sum("unscored" not in metrics for metrics in history[best_at + 1 :]) >= stop.patience:
            return f"no better {stop.metric} than {sign * best:.4f} for {stop.patience} rounds"
    if last >= rounds.max_rounds:
        return f"max_rounds = {rounds.max_rounds} are done"
    return None


def _whose_word(metrics: Mapping[str, float], metric: str) -> str:
    """Return by whose word a version is as good as that, where it is not by a test split."""
    if "federated_devices" in metrics and metric != "loss" and f"federated_{metric}" not in metrics:
        n = metrics["federated_devices"]
        return f", by its devices: {n:.0f} of them, on rows that they hold back"
    if metric != "loss" or metrics.get("device_loss") != metrics["loss"]:
        return ""
    return f", by what more than half of {metrics['participants']:.0f} devices report"


def _last_improvement(values: Sequence[tuple[int, float]], min_delta: float) -> tuple[int, float]:
    """Return the version, and its value, after which none was better by more than min_delta."""
    best_at, best = values[0]
    for number, value in values:
        if value > best + min_delta:
            best_at, best = number, value
    return best_at, best
