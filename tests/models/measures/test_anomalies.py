"""Anomaly scores as counts: what a threshold is, and that counts go through a tally's bytes as they are."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.contract import ContractSpec
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.measures import anomalies, exact, table
from models.measures.scores import scores
from models.measures.tally import TallyError, from_bytes, max_bytes, merged, tally, to_bytes
from models.nets.table import build

MODEL = ModelSpec("autoencoder", inputs=4, hidden=(2,))

SHARES = st.floats(0.5, 0.9999) | st.sampled_from([0.5, 0.75, 0.9])
"""Some that whole numbers of rows are exactly."""


def drawn(n: int = 400, seed: int = 0) -> tuple[np.ndarray, Any]:
    """Return scores, higher for the tenth of the rows that are anomalies, and labels."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.1).astype(np.int64)
    return (rng.lognormal(size=n) * (1 + 3 * y)).astype(np.float32), y


@given(st.lists(st.floats(0, 2.0**130, width=64), min_size=1, max_size=50), SHARES)
@settings(max_examples=60)
def test_a_threshold_is_the_lowest_edge_that_the_share_of_rows_does_not_exceed(
    found: list[float], share: float
) -> None:
    rows = np.array([min(one, 3e38) for one in found], np.float32)
    threshold = anomalies.threshold_of(anomalies.histogram(rows, np.zeros(len(rows), np.int64))[0], share)
    at = int(np.searchsorted(anomalies.EDGES, np.float32(threshold)))
    assert anomalies.EDGES[at] == np.float32(threshold)
    if at < len(anomalies.EDGES) - 1:
        assert (rows <= threshold).sum() >= share * len(rows) * (1 - 1e-9)
    if at:
        assert (rows <= anomalies.EDGES[at - 1]).sum() < share * len(rows)


def test_what_a_threshold_is_worth_is_exact_though_scores_are_counted_in_bins() -> None:
    found, y = drawn()
    counts = anomalies.histogram(found, y)
    threshold = anomalies.threshold_of(counts[0], 0.9)
    worth, told = anomalies.at_threshold(counts, threshold), found > threshold
    assert worth["false_alarms"] == told[y == 0].mean() <= 0.1
    assert worth["recall"] == pytest.approx(oracle.recall_score(y, told))
    assert worth["precision"] == pytest.approx(oracle.precision_score(y, told))
    assert worth["f1"] == pytest.approx(oracle.f1_score(y, told))


def test_curves_are_those_of_scikit_learn_and_near_them_of_bins() -> None:
    found, y = drawn()
    told = anomalies.exact_curves(found, y)
    assert told["auc"] == pytest.approx(oracle.roc_auc_score(y, found))
    assert told["average_precision"] == pytest.approx(oracle.average_precision_score(y, found))
    coarse = anomalies.curves_of(anomalies.histogram(found, y))
    assert coarse["auc"] == pytest.approx(told["auc"], abs=0.01)
    assert anomalies.curves_of(anomalies.histogram(found, np.zeros_like(y))) == {}


def test_a_score_that_is_no_number_is_beyond_every_threshold() -> None:
    found = np.array([1.0, np.nan, np.inf], np.float32)
    counts = anomalies.histogram(found, np.array([0, 1, 1]))
    assert anomalies.at_threshold(counts, float(anomalies.EDGES[-1]))["recall"] == 1.0


def test_a_tally_adds_up_and_goes_through_bytes_as_it_is() -> None:
    found, y = drawn()
    whole = tally(MODEL, found[:, None], y)
    parts = merged([tally(MODEL, found[:100, None], y[:100]), tally(MODEL, found[100:, None], y[100:])])
    assert (whole.n, whole.sums, whole.counts.tolist()) == (parts.n, parts.sums, parts.counts.tolist())
    back = from_bytes(to_bytes(whole), MODEL)
    assert (back.layout, back.n, back.sums, back.counts.tolist()) == (
        *(whole.layout, whole.n, whole.sums, whole.counts.tolist()),
    )
    assert len(to_bytes(whole)) <= max_bytes(MODEL, 400)
    assert scores(whole)["mean_score"] == pytest.approx(found[y == 0].mean(), rel=1e-5)


def test_a_tally_that_counts_other_rows_than_its_own_is_refused() -> None:
    whole = tally(MODEL, np.ones((30, 1), np.float32), np.zeros(30, np.int64))
    with pytest.raises(TallyError, match="histograms"):
        from_bytes(to_bytes(whole._replace(n=31)), MODEL)
    with pytest.raises(TallyError):
        from_bytes(b"\x00" + to_bytes(whole)[1:], MODEL)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_there_is_one_error(data: bytes) -> None:
    with contextlib.suppress(TallyError):
        assert to_bytes(from_bytes(data, MODEL)) == data


def test_the_measures_of_rows_have_their_histogram_by_name() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 4)).astype(np.float32), (np.arange(200) % 10 == 0).astype(np.int64)
    X[y == 1] *= 4
    net = build(MODEL)
    params = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in net.spec}
    found = exact.on_rows(MODEL, lambda rows: net.predict(params, rows), X, y).found
    answers = net.predict(params, X)[:, 0]
    assert found["auc"] == pytest.approx(oracle.roc_auc_score(y, answers))
    counts = anomalies.of_named(found)
    assert counts is not None
    assert counts.tolist() == anomalies.histogram(answers, y).tolist()
    assert all(table.is_detail(name) for name in found if ":" in name)


@pytest.mark.parametrize("metric", table.OF_SCORES)
def test_a_job_may_stop_by_what_is_measured_of_scores(metric: str) -> None:
    stop = StopSpec(metric, patience=3)
    assert (
        JobSpec("hum", MODEL, contract=ContractSpec(validation=0.1), rounds=RoundsSpec(stop=stop)).rounds.stop == stop
    )


@pytest.mark.parametrize("metric", ["accuracy", "rmse", "balanced_accuracy", "recall:1"])
def test_other_measures_are_refused_with_those_that_there_are(metric: str) -> None:
    with pytest.raises(ValueError, match=r'has no .*say metric = "auc", where some rows have labels'):
        JobSpec("hum", MODEL, rounds=RoundsSpec(stop=StopSpec(metric, patience=3)))


@pytest.mark.parametrize("model", [ModelSpec(outputs=2), ModelSpec(outputs=2, loss="mse")])
def test_false_alarms_are_of_anomalies_alone(model: ModelSpec) -> None:
    with pytest.raises(ValueError, match="has no false_alarms"):
        JobSpec("hum", model, rounds=RoundsSpec(stop=StopSpec("false_alarms", patience=3)))
