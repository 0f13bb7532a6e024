from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from models.data.dataset import Dataset
from models.nets.losses import Metrics
from models.params import Params
from models.training import probe
from models.training.probe import EARLY, EVERY, LATEST, ROWS, curvature, is_due, loss, some_rows

D = 300
EIGENVALUES = np.random.default_rng(0).exponential(2.0, D)
GRADIENT = np.random.default_rng(1).standard_normal(D) * 50
NOTHING = Dataset(np.zeros((1, 1), np.float32), np.zeros(1, np.int64))


class Quadratic:
    """L(w) = w diag(a) w / 2 + g w."""

    model: Any = None
    spec: Any = None

    def evaluate(self, params: Params, X: Any, y: Any) -> Metrics:  # noqa: ARG002
        w = np.concatenate([params["w"].reshape(-1), params["b"]]).astype(np.float64)
        return Metrics(float((EIGENVALUES * w * w).sum() / 2 + GRADIENT @ w), None, 1)

    def loss_and_gradients(self, *args: Any, **more: Any) -> Any: ...

    def predict(self, params: Params, X: Any) -> Any: ...


def weights() -> Params:
    rng = np.random.default_rng(2)
    return {"w": rng.standard_normal((20, 14)).astype(np.float32), "b": rng.standard_normal(20).astype(np.float32)}


def told(energy: float, seed: int) -> float:
    net, params = Quadratic(), weights()
    return curvature(net, params, NOTHING, loss(net, params, NOTHING), energy, np.random.default_rng(seed))


@pytest.mark.parametrize("energy", [1e-2, 1.0, 100.0])
def test_the_curvature_of_a_quadratic_is_half_its_mean_eigenvalue(energy: float) -> None:
    runs = 200
    found = [told(energy, seed) for seed in range(runs)]
    wanted = float(EIGENVALUES.mean()) / 2
    assert abs(np.mean(found) - wanted) < 4 * np.std(found) / math.sqrt(runs)
    assert np.std(found) < 0.2 * wanted  # the gradient, which is far larger, cancels


def test_where_there_is_no_noise_nothing_is_told() -> None:
    assert math.isnan(told(0.0, 0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_where_the_loss_is_not_finite_nothing_finite_is_told(bad: float) -> None:
    class Exploding(Quadratic):
        def evaluate(self, params: Params, X: Any, y: Any) -> Metrics:  # noqa: ARG002
            return Metrics(bad, None, 1)

    assert not math.isfinite(curvature(Exploding(), weights(), NOTHING, bad, 1.0, np.random.default_rng(0)))


def test_the_loss_is_taken_on_both_sides_of_the_parameters_by_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SLAB", 128)  # the last slab is shorter
    seen = []

    class Recording(Quadratic):
        def evaluate(self, params: Params, X: Any, y: Any) -> Metrics:
            seen.append(np.concatenate([value.reshape(-1) for value in params.values()]))
            return super().evaluate(params, X, y)

    start = np.concatenate([value.reshape(-1) for value in weights().values()])
    noise = np.random.default_rng(0).standard_normal(start.size, np.float32) * np.float32(math.sqrt(2.0 / start.size))
    curvature(Recording(), weights(), NOTHING, 0.0, 2.0, np.random.default_rng(0))
    over, under = seen
    assert (over == start + noise).all()
    assert (under == start - noise).all()


def test_the_first_versions_are_reported_on_by_everybody() -> None:
    assert all(is_due(f"device-{k}", number, number - 1) for k in range(50) for number in range(EARLY))
    assert all(is_due(f"device-{k}", 77, None) for k in range(50))


def test_later_ones_by_a_third_each_and_by_everybody_in_turn() -> None:
    devices = [f"device-{k}" for k in range(900)]
    for number in (20, 21, 22):
        assert abs(sum(is_due(device, number, number - 1) for device in devices) - 300) < 60
    for device in devices:
        assert sum(is_due(device, number, number - 1) for number in range(EARLY, EARLY + 30)) == 30 // EVERY


def test_who_has_not_reported_for_long_does_at_once() -> None:
    for k in range(50):
        assert is_due(f"device-{k}", 40, 40 - LATEST)
    waits = Counter(next(n for n in range(41, 60) if is_due(f"device-{k}", n, 40)) - 40 for k in range(300))
    assert set(waits) == {1, 2, 3}
    assert all(abs(count - 100) < 40 for count in waits.values())


def test_rows_are_few_the_same_every_time_and_other_ones_elsewhere() -> None:
    X = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    data = Dataset(X, np.arange(1000))
    ours, again, theirs = some_rows(data, "a"), some_rows(data, "a"), some_rows(data, "b")
    assert ours.X.shape == (ROWS, 2)
    assert len(set(ours.y.tolist())) == ROWS
    assert (ours.X[:, 0] == 2 * ours.y).all()
    assert (ours.y == again.y).all()
    assert (ours.y != theirs.y).any()


def test_a_small_data_set_is_taken_whole() -> None:
    data = Dataset(np.zeros((ROWS, 1), np.float32), np.zeros(ROWS, np.int64))
    assert some_rows(data, "a") is data
