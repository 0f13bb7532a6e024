from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from models.measures import curves

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60)
"""Few scores, so that many are equal."""


def split(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score / 7 for score, _ in pairs], np.float32), np.array([own for _, own in pairs])


@given(PAIRS)
def test_auc_and_average_precision_are_scikit_learns_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, own = split(pairs)
    found = curves.ranked(scores, own)
    if own.any():
        assert curves.average_precision(found) == pytest.approx(average_precision_score(own, scores), abs=1e-12)
    if own.any() and not own.all():
        assert curves.roc_auc(found) == pytest.approx(roc_auc_score(own, scores), abs=1e-12)
        other = average_precision_score(~own, -scores)
        assert curves.average_precision(found.reversed) == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("n", [3, 20_000])
def test_many_rows_are_looked_up_in_blocks(n: int) -> None:
    rng = np.random.default_rng(n)
    own = np.arange(n) % 3 > 0
    scores = np.round(rng.random(n) + 0.2 * own, 3).astype(np.float32)
    found = curves.ranked(scores, own)
    assert curves.roc_auc(found) == pytest.approx(roc_auc_score(own, scores), abs=1e-12)
    assert curves.average_precision(found) == pytest.approx(average_precision_score(own, scores), abs=1e-12)


def test_rows_of_one_class_have_no_auc() -> None:
    scores = np.array([0.1, 0.7], np.float32)
    for own in (np.array([True, True]), np.array([False, False])):
        assert curves.roc_auc(curves.ranked(scores, own)) is None
    assert curves.average_precision(curves.ranked(scores, np.array([False, False]))) is None
    none = np.zeros((2, 4), np.int64)
    assert curves.roc_auc_of_bins(none) is None
    assert curves.average_precision_of_bins(none) is None


def test_a_score_that_is_none_is_below_all_others() -> None:
    scores = np.array([np.nan, 0.0, 1.0], np.float32)
    assert curves.roc_auc(curves.ranked(scores, np.array([True, False, False]))) == 0.0


@given(PAIRS)
def test_of_a_bin_for_each_score_a_histogram_is_exact(pairs: list[tuple[int, bool]]) -> None:
    scores, own = split(pairs)
    where = np.array([score for score, _ in pairs])
    bins = np.stack([np.bincount(where[~own], minlength=7), np.bincount(where[own], minlength=7)]).astype(np.int64)
    exact = curves.ranked(scores, own)
    assert curves.roc_auc_of_bins(bins) == curves.roc_auc(exact)
    found, wanted = curves.average_precision_of_bins(bins), curves.average_precision(exact)
    assert (found is None) == (wanted is None)
    assert found == pytest.approx(wanted)
    assert curves.roc_auc_of_bins(curves.reversed_bins(bins)) == curves.roc_auc(exact.reversed)


def test_the_area_of_counts_that_an_int64_does_not_hold_is_right() -> None:
    many = np.array([[2**40, 2**40], [2**40, 2**40]], np.int64)
    assert curves.roc_auc_of_bins(many) == 0.5
