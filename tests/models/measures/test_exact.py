"""All measures, held against scikit-learn."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from models.job import ModelSpec
from models.measures import exact
from models.measures.exact import on_rows
from models.measures.table import MEASURES, confusion_of


def data(k: int, n: int, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, k) probabilities, float32, and labels."""
    rng = np.random.default_rng(n + k)
    y = rng.integers(0, k, n)
    if how == "rare":
        y = (rng.random(n) < 0.03).astype(np.int64) * (k - 1)
    outputs = rng.normal(size=(n, k))
    outputs[np.arange(n), y] += {"random": 1.0, "rare": 0.5, "ties": 1.0, "sure": 30.0, "wrong": -30.0, "flat": 0.0}[
        how
    ]
    if how == "ties":
        outputs = np.round(outputs)
    if how == "flat":
        outputs[:] = 0
    found = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32), y


def theirs(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    k, answers = p.shape[1], p.argmax(axis=1)
    p = p.astype(np.float64)
    found = {
        "accuracy": oracle.accuracy_score(y, answers),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, answers),
        "brier": oracle.brier_score_loss(
            np.eye(k)[y] if k > 2 else y, p / p.sum(axis=1, keepdims=True) if k > 2 else p[:, 1]
        ),
    }
    for name in ("precision", "recall", "f1"):
        score = getattr(oracle, f"{name}_score")
        found[f"macro_{name}"] = score(y, answers, average="macro", zero_division=0)
        each = score(y, answers, average=None, labels=range(k), zero_division=0)
        found |= {f"{name}:{index}": each[index] for index in set(y.tolist())}
        if k == 2 and 1 in y:
            found[name] = score(y, answers, zero_division=0)
    for name, score in (("auc", oracle.roc_auc_score), ("average_precision", oracle.average_precision_score)):
        # the score of the first of two classes is what its rank by the second is
        of = {
            index: p[:, index] if k > 2 or index else -p[:, 1] for index in range(k) if 0 < (y == index).sum() < len(y)
        }
        each = {index: score(y == index, column) for index, column in of.items()}
        found |= {f"{name}:{index}": value for index, value in each.items()}
        found[name] = each[1] if k == 2 else float(np.mean(list(each.values())))
    return found


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("how", ["random", "rare", "ties", "sure", "wrong", "flat"])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_measures_of_classes_are_scikit_learns(k: int, how: str) -> None:
    p, y = data(k, 1500, how)
    found = on_rows(ModelSpec(outputs=k), lambda X: p[X], np.arange(1500), y).found  # type: ignore[arg-type]
    for name, value in theirs(p, y).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("k", [2, 5])
def test_the_log_loss_is_scikit_learns(k: int) -> None:
    p, y = data(k, 900, "random")
    p[3] = np.eye(k)[(y[3] + 1) % k]  # quite sure, and wrong
    found = on_rows(ModelSpec(outputs=k), lambda X: p[X], np.arange(900), y).found  # type: ignore[arg-type]
    eps = np.finfo(np.float32).eps
    clipped = np.clip(p.astype(np.float64), eps, 1 - eps)
    assert found["log_loss"] == pytest.approx(-np.log(clipped[np.arange(900), y]).mean(), abs=1e-6)
    sure = np.delete(np.arange(900), 3)
    wide = p[sure].astype(np.float64)
    wide /= wide.sum(axis=1, keepdims=True)
    without = on_rows(ModelSpec(outputs=k), lambda X: p[sure][X], np.arange(899), y[sure]).found  # type: ignore[arg-type]
    assert without["log_loss"] == pytest.approx(oracle.log_loss(y[sure], wide, labels=range(k)), abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("noise", [0.0, 0.1, 3.0])
def test_measures_of_values_are_scikit_learns(outputs: int, noise: float) -> None:
    rng = np.random.default_rng(7)
    y = (rng.normal(size=(2500, outputs)) * [1, 10, 100][:outputs] + 5).astype(np.float32)
    answers = (y + noise * rng.normal(size=y.shape)).astype(np.float32)
    found = on_rows(ModelSpec(outputs=outputs, loss="mse"), lambda X: answers[X], np.arange(2500), y).found  # type: ignore[arg-type]
    assert found["rmse"] == pytest.approx(
        oracle.root_mean_squared_error(y.astype(float), answers.astype(float)), rel=1e-6
    )
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(y.astype(float), answers.astype(float)), rel=1e-6)
    assert found["r2"] == pytest.approx(oracle.r2_score(y.astype(float), answers.astype(float)), abs=1e-6)
    assert set(found) == {"rmse", "mae", "r2"}


@pytest.mark.parametrize("k", [2, 4])
def test_measures_of_several_labels_a_row_are_scikit_learns(k: int) -> None:
    rng = np.random.default_rng(k)
    y = (rng.random((900, k)) < np.linspace(0.1, 0.7, k)).astype(np.float32)
    p = (1 / (1 + np.exp(-rng.normal(size=y.shape) - 2 * y + 1))).astype(np.float32)
    model = ModelSpec(outputs=k, loss="multilabel")
    found = on_rows(model, lambda X: p[X], np.arange(900), y).found  # type: ignore[arg-type]
    there = p > 0.5
    assert found["accuracy"] == pytest.approx((there == y).mean())
    for name in ("precision", "recall", "f1"):
        each = getattr(oracle, f"{name}_score")(y, there, average=None)
        assert [found[f"{name}:{at}"] for at in range(k)] == pytest.approx(each)
        assert found[f"macro_{name}"] == pytest.approx(each.mean())
        assert name not in found
    for name, score in (("auc", oracle.roc_auc_score), ("average_precision", oracle.average_precision_score)):
        each = [score(y[:, at], p[:, at]) for at in range(k)]
        assert [found[f"{name}:{at}"] for at in range(k)] == pytest.approx(each, abs=1e-6)
        assert found[name] == pytest.approx(np.mean(each), abs=1e-6)
    balanced = [oracle.balanced_accuracy_score(y[:, at], there[:, at]) for at in range(k)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    costs = [oracle.log_loss(y[:, at], p[:, at].astype(float)) for at in range(k)]
    assert found["log_loss"] == pytest.approx(np.mean(costs), abs=1e-5)
    assert found["brier"] == pytest.approx(np.square(p.astype(float) - y).mean(), abs=1e-5)
    assert confusion_of(found, k) == []
    assert "always" not in found


def test_one_output_for_two_classes_is_measured_as_two_outputs_are() -> None:
    p, y = data(2, 800, "random")
    p[:, 0] = 1 - p[:, 1]
    two = on_rows(ModelSpec(outputs=2), lambda X: p[X], np.arange(800), y, ("ok", "bad")).found  # type: ignore[arg-type]
    model = ModelSpec(outputs=1, loss="binary")
    one = on_rows(model, lambda X: p[X, 1:], np.arange(800), y, ("ok", "bad")).found  # type: ignore[arg-type]
    assert one == two
    assert {"f1:bad", "recall:ok", "auc", "f1"} <= one.keys()
    assert confusion_of(one, model.n_classes) == confusion_of(two, 2) != []


def test_errors_of_quantiles_are_those_of_the_median() -> None:
    answers = np.array([[0, 1, 2], [0, 5, 9]], np.float32)
    y = np.array([[2], [5]], np.float32)
    found = on_rows(ModelSpec(outputs=3, loss="quantile"), lambda X: answers[X], np.arange(2), y).found  # type: ignore[arg-type]
    assert found["mae"] == 0.5


def test_coverage_is_the_share_of_labels_within_the_outermost_quantiles() -> None:
    rng = np.random.default_rng(0)
    answers = np.sort(rng.normal(size=(500, 2, 3)).astype(np.float32), axis=2)
    y = rng.normal(size=(500, 2)).astype(np.float32)
    model = ModelSpec(outputs=6, loss="quantile")
    found = on_rows(model, lambda X: answers[X].reshape(-1, 6), np.arange(500), y).found  # type: ignore[arg-type]
    assert found["coverage"] == pytest.approx(((answers[:, :, 0] <= y) & (y <= answers[:, :, 2])).mean())
    assert found["mae"] == pytest.approx(np.abs(answers[:, :, 1] - y).mean(), rel=1e-6)


def test_every_measure_but_the_loss_is_among_them() -> None:
    p, y = data(2, 50, "random")
    of_classes = on_rows(ModelSpec(outputs=2), lambda X: p[X], np.arange(50), y).found  # type: ignore[arg-type]
    values = np.arange(4, dtype=np.float32)[:, np.newaxis]
    of_values = on_rows(ModelSpec(loss="mse"), lambda X: X, values, values).found
    of_quantiles = on_rows(ModelSpec(outputs=3, loss="quantile"), lambda X: X.repeat(3, axis=1), values, values).found
    assert set(MEASURES) - {"loss", "false_alarms"} <= of_classes.keys() | of_values.keys() | of_quantiles.keys()


def test_the_confusion_matrix_of_few_classes_is_kept() -> None:
    p = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    p[3] = np.nan
    found = on_rows(ModelSpec(outputs=3), lambda X: p[X], np.arange(4), np.array([0, 1, 0, 2])).found  # type: ignore[arg-type]
    assert confusion_of(found, 3) == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    wide = np.eye(11, dtype=np.float32)
    found = on_rows(ModelSpec(outputs=11), lambda X: wide[X], np.arange(11), np.arange(11)).found  # type: ignore[arg-type]
    assert confusion_of(found, 11) == []


def test_a_net_that_always_answers_the_same_is_told() -> None:
    y = np.array([0] * 97 + [1] * 3)
    always = np.tile(np.array([0.9, 0.1], np.float32), (100, 1))
    assert on_rows(ModelSpec(outputs=2), lambda X: always[X], np.arange(100), y).found["always"] == 0.0  # type: ignore[arg-type]
    finds = np.eye(2, dtype=np.float32)[y]
    assert "always" not in on_rows(ModelSpec(outputs=2), lambda X: finds[X], np.arange(100), y).found  # type: ignore[arg-type]


def test_where_scores_are_too_many_to_be_kept_curves_are_of_their_histograms(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = data(3, 1000, "random")

    def found() -> dict[str, float]:
        return on_rows(ModelSpec(outputs=3), lambda X: p[X], np.arange(1000), y).found  # type: ignore[arg-type]

    sorted_ = found()
    monkeypatch.setattr(exact, "MOST_KEPT", 2999)
    binned = found()
    assert binned["auc"] != sorted_["auc"]
    assert binned["auc"] == pytest.approx(sorted_["auc"], abs=0.002)
    assert {name: binned[name] for name in ("log_loss", "f1:1")} == {n: sorted_[n] for n in ("log_loss", "f1:1")}


def test_a_million_rows_take_little_more_memory_than_their_scores() -> None:
    n = 1_000_000
    y = (np.arange(n) % 3 == 0).astype(np.int64)
    X = np.linspace(0, 1, n, dtype=np.float32)[:, np.newaxis]

    def predict(rows: Any) -> Any:
        return np.concatenate([1 - rows, rows], axis=1)

    tracemalloc.start()
    found = on_rows(ModelSpec(outputs=2), predict, X, y).found
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["auc"] == pytest.approx(0.5, abs=1e-5)
    assert most < 16 * n
