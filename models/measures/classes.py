"""Measures of models that learn classes, of how many rows of each were answered right, wrongly and not at all.

As scikit-learn has them, with these differences: what is not defined is left out (nan here) instead of 0, but for the
precision of a class that rows have and no answer is: that is 0, and so is its F1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.integers import Int64

Float64 = npt.NDArray[np.float64]


class ByClass(NamedTuple):
    """(K,) float64 each; nan where a class has none."""

    precision: Float64
    recall: Float64
    f1: Float64


def by_class(outcomes: Int64) -> ByClass:
    """Return precision, recall and F1 of each class. outcomes: (3, K) right, wrongly answered, missed."""
    right, wrong, missed = outcomes
    return ByClass(
        precision=np.where(right + missed > 0, _share(right, right + wrong, 0.0), _share(right, right + wrong)),
        recall=_share(right, right + missed),
        f1=_share(2 * right, 2 * right + wrong + missed),
    )


def overall(outcomes: Int64) -> dict[str, float]:
    """Return accuracy, balanced accuracy, and the means over classes: of those that rows or answers are, as
    scikit-learn's "macro", where one that no row has counts with a recall of 0.
    """
    right, wrong, missed = outcomes
    found, occurs = by_class(outcomes), (right + wrong + missed) > 0
    return {
        "accuracy": int(right.sum()) / int((right + missed).sum()),
        "balanced_accuracy": _mean(found.recall),
        "macro_precision": _mean(np.nan_to_num(found.precision)[occurs]),
        "macro_recall": _mean(np.nan_to_num(found.recall)[occurs]),
        "macro_f1": _mean(np.nan_to_num(found.f1)[occurs]),
    }


def overall_of_labels(outcomes: Int64, n: int) -> dict[str, float]:
    """Return the same of n rows with several labels each, there or not: accuracy is the share of all labels of all rows
    that are right; balanced accuracy the mean over labels of how many of both kinds of rows are.
    """
    right, wrong, missed = outcomes
    there = right + missed
    found, occurs = by_class(outcomes), (there + wrong) > 0
    both = np.stack([found.recall, _share(n - there - wrong, n - there)])
    macro = {name: _mean(np.nan_to_num(values)[occurs]) for name, values in found._asdict().items() if occurs.any()}
    return {
        "accuracy": 1.0 - int((wrong + missed).sum()) / (n * len(right)),
        "balanced_accuracy": float(np.nanmean(both, axis=0).mean()),
        **{f"macro_{name}": value for name, value in macro.items()},
    }


FOUND = 0.05
"""Who gets no more than this of all other classes right has found none of them."""
ANSWERED = 0.95
"""Of all rows: who answers so often the same always does, nearly."""


def always(outcomes: Int64, n: int) -> int | None:
    """Return the class that a model is as good as always answering; None where it is better than that.

    So it is where nearly every answer is this class, and hardly more rows are right than have it.
    """
    right, wrong, missed = outcomes
    of = int((right + wrong).argmax())
    have, answered, is_right = int(right[of] + missed[of]), int(right[of] + wrong[of]), int(right.sum())
    return of if answered >= ANSWERED * n and is_right - have <= FOUND * (n - have) else None


def _share(part: Int64, of: Int64, without: float = np.nan) -> Float64:
    found = np.full(len(part), without)
    np.divide(part, of, out=found, where=of > 0)
    return found


def _mean(found: Float64) -> float:
    return float(np.mean(found[~np.isnan(found)]))
