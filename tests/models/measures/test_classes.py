from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.measures import classes


def outcomes(y: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    right = np.bincount(y[y == answers], minlength=k)
    return np.stack([right, np.bincount(answers, minlength=k) - right, np.bincount(y, minlength=k) - right])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_they_are_scikit_learns_also_where_classes_are_missing(rows: list[tuple[int, int]]) -> None:
    y, answers = np.array(rows).T
    found = classes.overall(outcomes(y, answers, 5))
    assert found["accuracy"] == oracle.accuracy_score(y, answers)
    assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(y, answers))
    for name in ("precision", "recall", "f1"):
        score = getattr(oracle, f"{name}_score")
        assert found[f"macro_{name}"] == pytest.approx(score(y, answers, average="macro", zero_division=0))
        own = getattr(classes.by_class(outcomes(y, answers, 5)), name)
        theirs = score(y, answers, average=None, labels=range(5), zero_division=0)
        assert np.nan_to_num(own) == pytest.approx(theirs)


def test_what_is_not_defined_is_left_out_and_what_is_never_found_is_0() -> None:
    """Class 1 is there and never answered; class 2 is answered and never there; class 3 is neither."""
    found = classes.by_class(outcomes(np.array([0, 0, 1]), np.array([0, 2, 0]), 4))
    assert found.precision[:3].tolist() == [0.5, 0.0, 0.0]
    assert found.recall[:2].tolist() == [0.5, 0.0]
    assert np.isnan(found.recall[2:]).all()
    assert np.isnan([found.precision[3], found.f1[3]]).all()


@pytest.mark.parametrize(
    ("rows", "always"),
    [
        ([(97, 0), (3, 0)], 0),  # it finds none of 3 %
        ([(95, 2), (2, 1)], 0),  # it guesses: a hit costs two false alarms
        ([(97, 0), (2, 1)], None),  # it finds a third of them
        ([(0, 50), (0, 50)], 1),  # of two that are as frequent, it answers the second
        ([(0, 90), (0, 10)], 1),  # it always answers the rare one
        ([(50, 0), (50, 0)], 0),
        ([(25, 25), (25, 25)], None),  # no better than a coin, but no constant
        ([(100, 0), (0, 0)], 0),  # there is nothing else in these rows
    ],
)
def test_who_always_answers_one_class_is_named(rows: list[tuple[int, int]], always: int | None) -> None:
    (a, b), (c, d) = rows
    found = np.array([[a, d], [c, b], [b, c]])  # each pair: rows of a class that were answered 0, and 1
    assert classes.always(found, a + b + c + d) == always
