from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.measures import values

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30)


@given(FLOATS)
def test_sums_of_labels_and_of_their_squares_are_exact(numbers: list[float]) -> None:
    y = np.array(numbers, np.float32)
    found = values.of_column(y, y)
    exact = [Fraction(float(number)) for number in y]
    assert found == (0, 0, sum(exact) * 2**values.UNIT, sum(e * e for e in exact) * 4**values.UNIT)


@given(FLOATS, st.integers(0, 30))
def test_the_sums_of_two_halves_are_those_of_all(numbers: list[float], at: int) -> None:
    y = np.array(numbers, np.float32)
    answers = np.roll(y, 1)
    parts = [values.of_column(answers[rows], y[rows]) for rows in (slice(at), slice(at, None))]
    assert tuple(map(sum, zip(*parts, strict=True))) == values.of_column(answers, y)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_rmse_mae_and_r2_are_scikit_learns_at_every_scale(scale: float, mean: float) -> None:
    rng = np.random.default_rng(0)
    y = ((rng.normal(size=5000) + mean) * scale).astype(np.float32)
    answers = (y + 0.3 * scale * rng.normal(size=5000)).astype(np.float32)
    found = values.of_column(answers, y)
    wide, answered = y.astype(np.float64), answers.astype(np.float64)
    assert values.rmse(found, 5000) == pytest.approx(oracle.root_mean_squared_error(wide, answered), rel=1e-7)
    assert values.mae(found, 5000) == pytest.approx(oracle.mean_absolute_error(wide, answered), rel=1e-7)
    assert values.r2(found, 5000) == pytest.approx(oracle.r2_score(wide, answered), rel=1e-7)


def test_labels_that_are_all_the_same_have_no_r2() -> None:
    y = np.full(100, 0.1, np.float32)
    assert values.r2(values.of_column(y + 1, y), 100) is None


def test_an_error_that_no_float32_holds_counts_as_the_largest() -> None:
    most = np.float32(3e38)
    found = values.of_column(np.array([-most], np.float32), np.array([most], np.float32))
    assert values.mae(found, 1) == values.LARGEST_ERROR
    assert values.rmse(found, 1) == values.LARGEST_ERROR


def test_an_answer_that_is_not_finite_adds_no_error() -> None:
    y = np.array([1, 2], np.float32)
    found = values.of_column(np.array([np.nan, 3], np.float32), y)
    assert (values.mae(found, 1), found.y) == (1.0, 3 << values.UNIT)


def test_more_rows_than_are_summed_at_once_are_summed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    whole = values.of_column(y * 2, y)
    monkeypatch.setattr(values, "MOST_ROWS_AT_ONCE", 7)
    assert values.of_column(y * 2, y) == whole
