"""The area under the ROC curve and the average precision: of scores, exact, and of histograms of scores.

Scores that are equal are one threshold, so ties count as scikit-learn counts them. A histogram is (2, m) int64: how
many negatives and positives lie in each bin, in ascending order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.integers import Int64
from models.params import Float32

_AT_ONCE = 2**13
"""Positives whose places are looked up together: it bounds the memory."""


class Ranked(NamedTuple):
    """Scores in ascending order, float32 each."""

    negatives: Float32
    positives: Float32

    @property
    def reversed(self) -> Ranked:
        """The scores of the other class of two, which are 1 minus these."""
        return Ranked(-self.positives[::-1], -self.negatives[::-1])


def ranked(scores: Float32, positive: npt.NDArray[np.bool_]) -> Ranked:
    """Return (n,) scores in order, by whether their rows are of the class. A nan is below all others."""
    found = Ranked(scores[~positive], scores[positive])
    for one in found:
        one[np.isnan(one)] = -np.inf
        one.sort()
    return found


def roc_auc(found: Ranked) -> float | None:
    """Return the share of pairs of a positive and a negative in which the positive has the higher score.

    A pair of equal scores counts half. None where there is no such pair.
    """
    negatives, positives = found
    if not len(negatives) or not len(positives):
        return None
    twice = 0
    for start in range(0, len(positives), _AT_ONCE):
        part = positives[start : start + _AT_ONCE]
        twice += int(np.searchsorted(negatives, part, "left").sum() + np.searchsorted(negatives, part, "right").sum())
    return twice / (2 * len(negatives) * len(positives))


def average_precision(found: Ranked) -> float | None:
    """Return the mean over positives of the precision where the threshold is their score.

    None where there are none. It is the sum over thresholds of the precision, by what each adds to the recall.
    """
    negatives, positives = found
    if not len(positives):
        return None
    total = 0.0
    for start in range(0, len(positives), _AT_ONCE):
        part = positives[start : start + _AT_ONCE]
        right = len(positives) - np.searchsorted(positives, part, "left")
        total += float((right / (right + len(negatives) - np.searchsorted(negatives, part, "left"))).sum())
    return total / len(positives)


def roc_auc_of_bins(bins: Int64) -> float | None:
    """Return the area as if all scores of a bin were equal: off by half the share of pairs that share a bin, at most.

    None where there is no pair.
    """
    negatives, positives = bins
    pairs = int(negatives.sum()) * int(positives.sum())
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    return _product(2 * below + negatives, positives) / (2 * pairs)


def average_precision_of_bins(bins: Int64) -> float | None:
    """Return the average precision as if all scores of a bin were equal. None where there are no positives."""
    negatives, positives = bins[:, ::-1]
    total = int(positives.sum())
    if not total:
        return None
    right = np.cumsum(positives)
    precision = right / np.maximum(right + np.cumsum(negatives), 1)
    return float((positives * precision).sum() / total)


def reversed_bins(bins: Int64) -> Int64:
    """Return the histogram of the other class of two, whose scores are 1 minus these."""
    return bins[::-1, ::-1]


def _product(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> int:
    """Return the sum of products of two series, exactly: in Python's integers where an int64 might overflow."""
    if float(np.abs(left).max(initial=0)) * float(right.sum()) < 2.0**62:
        return int(np.dot(left, right))
    return sum(a * b for a, b in zip(left.tolist(), right.tolist(), strict=True))
