"""What signatures cost on the wire: a fleet of real processes, twice, behind the counting proxy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.wire import Wired, run
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec

INPUTS, OUTPUTS, DEVICES = 561, 6, 3
FEW, MANY = 3, 9
"""Rounds: what is said once a connection or a job is in both, and cancels out."""
MOST_DOWN, MOST_UP = 75, 20
"""Bytes a device and round."""


def rows(seed: int, n: int = 40) -> Dataset:
    """As many columns as the activity of people by their phones has, and as many classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % OUTPUTS
    X = rng.standard_normal((n, INPUTS)) + 0.5 * y[:, None]
    return Dataset(np.ascontiguousarray(X, np.float32), y)


def finish(n_rounds: int, *, keys: bool) -> Wired:
    spec = JobSpec(
        "activity",
        ModelSpec(inputs=INPUTS, hidden=(32,), outputs=OUTPUTS),
        data="activity",
        compression="strong",
        deploy="never",
        train=TrainSpec(epochs=1, batch_size=10, learning_rate=0.05),
        rounds=RoundsSpec(deadline_s=60.0, max_rounds=n_rounds),
    )
    return run(spec, [rows(n) for n in range(DEVICES)], rows(99), keys=keys, vitals=False)


def costs() -> tuple[float, float]:
    """Return what signatures cost down and up, in bytes a device and round, and hold that they change no model."""
    bare, signed = ([finish(n, keys=keys) for n in (FEW, MANY)] for keys in (False, True))
    assert [one.sha256[:32] for one in bare] == [one.sha256[:32] for one in signed]
    assert [(len(one.rounds), len(one.sha256)) for one in signed] == [(FEW, 64), (MANY, 64)]

    def cost(bytes_of: Callable[[Wired], int]) -> float:
        few, many = (bytes_of(one) - bytes_of(other) for one, other in zip(signed, bare, strict=True))
        return (many - few) / (DEVICES * (MANY - FEW))

    return cost(lambda one: one.wire_down), cost(lambda one: one.wire_up)


@pytest.mark.long
def test_signatures_change_no_model_and_cost_no_more_than_they_may_a_device_and_round() -> None:
    for _ in range(3):  # on a busy machine words are said once more, in one run and not in the other
        down, up = costs()
        print(f"bytes a device and round: +{down:.1f} down, +{up:.1f} up")
        if 0 < down <= MOST_DOWN and 0 < up <= MOST_UP:
            return
    assert (0 < down <= MOST_DOWN, 0 < up <= MOST_UP) == (True, True), (down, up)
