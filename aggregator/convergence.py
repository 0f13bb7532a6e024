"""When a job has converged: a pure function of the metrics of its versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.job import RoundsSpec


def reason_to_end(history: Sequence[Mapping[str, float]], rounds: RoundsSpec) -> str | None:
    """Say why the job ends here, or None while it goes on.

    history: the metrics of version 0, 1, …; a version without the metric neither improves nor spoils anything.
    """
    stop = rounds.stop
    sign = 1.0 if stop.metric == "accuracy" else -1.0
    best, best_at = -float("inf"), 0
    for number, metrics in enumerate(history):
        value = sign * metrics.get(stop.metric, -sign * float("inf"))
        if value > best + stop.min_delta:
            best, best_at = value, number
    last = len(history) - 1
    if stop.target is not None and best >= sign * stop.target:
        return f"{stop.metric} {sign * best:.4f} has reached the target {stop.target:g}"
    if stop.patience is not None and last - best_at >= stop.patience:
        return f"no better {stop.metric} than {sign * best:.4f} for {stop.patience} rounds"
    if last >= rounds.max_rounds:
        return f"max_rounds = {rounds.max_rounds} are done"
    return None
