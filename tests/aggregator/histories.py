"""Made-up histories of a job: versions of all kinds, close enough to each other that every rule has a say."""

from __future__ import annotations

import random
from collections.abc import Iterator

from aggregator.convergence import AGREEING, RESTORED, STARTED, UNSCORED
from models.job import RoundsSpec, StopSpec

Metrics = dict[str, float]


def rules(rng: random.Random) -> RoundsSpec:
    metric = rng.choice(["accuracy", "accuracy", "loss", "recall:fault"])
    stop = StopSpec(
        metric=metric,
        target=rng.choice([None, 0.15 if metric == "loss" else 0.85]),
        patience=rng.choice([None, 2, 4, 8]),
        min_delta=rng.choice([0.0, 0.0, 0.1]),
    )
    return RoundsSpec(max_rounds=rng.choice([12, 100]), stop=stop)


def version(rng: random.Random, number: int, *, grows: bool) -> Metrics:
    """Return a version. grows: its devices have ever more rows."""
    names = ["accuracy", "loss", "recall:fault"]
    found: Metrics = {name: rng.randint(2, 9) / 10 for name in names if rng.random() < 0.85}
    if rng.random() < 0.1:
        found = {UNSCORED: 1.0}
    if rng.random() < 0.6:
        rows = number * 10 + 5 if grows else rng.choice([10, 40, 70, 90, 90, 100, 100, 100, 250])
        found |= {"federated_rows": float(rows), "federated_devices": 3.0}
        if rng.random() < 0.1:
            found[f"federated_{rng.choice(names)}"] = 0.5
    rare = rng.random()
    if rare < 0.06 and number:
        found[RESTORED] = float(rng.choice([0, number - 1, rng.randrange(number)]))
    elif rare < 0.1:
        found[AGREEING] = 3.0
    if rng.random() < (0.3 if AGREEING in found else 0.02):
        found[STARTED] = 1.0
    if rng.random() < 0.1:
        found["always"] = 1.0
    return found


def grow(rng: random.Random, history: list[Metrics], n: int) -> Iterator[None]:
    """Append so many versions to a history, and change its last one now and then; stop after each change."""
    grows = rng.random() < 0.3
    for _ in range(n):
        history.append(version(rng, len(history), grows=grows))
        yield
        while rng.random() < 0.3:
            history[-1] = version(rng, len(history) - 1, grows=grows)
            yield
