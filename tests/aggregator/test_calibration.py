"""The threshold of a fleet: a quantile of its devices' scores, whatever one of them claims."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from aggregator.calibration import FACTOR, Scored, calibrated
from models.measures import anomalies


def scored(scores: list[float] | np.ndarray, weight: int | None = None, bad: int = 0) -> Scored:
    """The last `bad` rows are known anomalies."""
    y = np.zeros(len(scores), np.int64)
    y[len(y) - bad :] = 1
    return Scored(weight or len(scores), anomalies.histogram(np.array(scores, np.float32), y))


def drawn(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(size=n)


def threshold(voices: list[Scored], normal_share: float = 0.95, share: float = 0.5) -> float:
    found = calibrated(voices, normal_share, share)
    assert found is not None
    return found.threshold


def test_it_is_the_quantile_of_all_rows_together_in_any_order() -> None:
    parts = [drawn(200, seed) for seed in range(4)]
    whole = np.concatenate(parts)
    found = {threshold([scored(parts[i]) for i in order], share=1.0) for order in permutations(range(4))}
    assert len(found) == 1
    right = float(np.quantile(whole, 0.95))
    assert right * 0.98 <= found.pop() <= right * 2 ** (1 / anomalies.PER_OCTAVE) * 1.02


def test_a_device_weighs_its_rows() -> None:
    assert threshold([scored([1.0] * 96), scored([8.0] * 4)], share=1.0) == 1.0
    assert threshold([scored([1.0] * 95), scored([8.0] * 5)], share=1.0) == 1.0
    assert threshold([scored([1.0] * 94), scored([8.0] * 6)], share=1.0) == 8.0


@pytest.mark.parametrize("claims", [20, 10**6, 2**40])
@pytest.mark.parametrize("score", [1e-9, 1e30])
def test_a_device_that_says_anything_moves_it_within_bounds(claims: int, score: float) -> None:
    honest = [scored(drawn(200, seed)) for seed in range(6)]
    everything = np.concatenate([drawn(200, seed) for seed in range(6)])
    found = threshold([*honest, scored([score] * 20, claims)])
    lowest = float(np.quantile(everything, (0.95 - 0.5) / 0.5))
    own = sorted(threshold([one]) for one in honest)
    assert lowest * 0.9 <= found <= FACTOR * own[3]


def test_fewer_than_half_cannot_raise_it_beyond_a_multiple_of_what_is_usual() -> None:
    honest = [scored(drawn(100, seed)) for seed in range(4)]
    liars = [scored([1e6] * 100) for _ in range(3)]
    usual = sorted(threshold([one]) for one in honest)
    assert threshold([*honest, *liars]) <= FACTOR * usual[-1]


def test_known_anomalies_do_not_count_but_say_what_is_found() -> None:
    found = calibrated([scored([*[1.0] * 100, 5.0, 0.5], bad=2)], 0.99, 0.5)
    assert found is not None
    assert found.threshold == 1.0
    assert found.worth == {"false_alarms": 0.0, "recall": 0.5, "precision": 1.0, "f1": pytest.approx(2 / 3)}


def test_without_a_normal_row_there_is_none() -> None:
    assert calibrated([], 0.99, 0.5) is None
    assert calibrated([scored([3.0] * 20, bad=20)], 0.99, 0.5) is None


def test_the_largest_counts_that_a_tally_has_do_not_overflow() -> None:
    huge = Scored(2**40, anomalies.histogram(np.ones(1, np.float32), np.zeros(1, np.int64)) * 2**40)
    assert threshold([huge, huge, huge]) == 1.0
