"""The area under the ROC curve and the average precision of scores, exact, and of histograms of scores.

Both are functions of groups: how many negatives and positives have each score (or lie in each bin), (2, m) int64, in
ascending order of the score. Scores that are equal are one group, so ties count as scikit-learn counts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.integers import Int64
from models.params import Float32

NEGATIVES, POSITIVES = 0, 1


def groups(scores: Float32, positive: npt.NDArray[np.bool_]) -> Int64:
    """Return (2, m) of (n,) scores: negatives and positives of each that occurs. A nan is below all others."""
    scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    order = np.argsort(scores, kind="stable")
    ordered, is_positive = scores[order], positive[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    hits = np.diff(np.cumsum(is_positive, dtype=np.int64)[ends], prepend=0)
    return np.stack([np.diff(ends, prepend=-1) - hits, hits])


def roc_auc(found: Int64) -> float | None:
    """Return the share of pairs of a positive and a negative in which the positive has the higher score.

    A pair of equal scores counts half. None where there is no such pair. Of a histogram it is off by
    `roc_auc_error` at most.
    """
    negatives, positives = found
    pairs = int(negatives.sum()) * int(positives.sum())
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    return _product(2 * below + negatives, positives) / (2 * pairs)


def roc_auc_error(found: Int64) -> float:
    """Return how far the area of a histogram may be from the exact one: half the share of pairs within one bin."""
    negatives, positives = found
    pairs = int(negatives.sum()) * int(positives.sum())
    return _product(negatives, positives) / (2 * pairs) if pairs else 0.0


def average_precision(found: Int64) -> float | None:
    """Return the sum over thresholds of the precision there, weighted by what each adds to the recall.

    None where there are no positives.
    """
    negatives, positives = found[:, ::-1]
    total = int(positives.sum())
    if not total:
        return None
    above = np.cumsum(positives)
    answered = above + np.cumsum(negatives)
    precision = above / np.maximum(answered, 1)
    return float((positives * precision).sum() / total)


def reversed_groups(found: Int64) -> Int64:
    """Return the groups of the other class of two, whose score is 1 minus this one's."""
    return found[::-1, ::-1]


def _product(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> int:
    """Return the sum of products of two series, exactly: in Python's integers where an int64 might overflow."""
    if float(np.abs(left).max(initial=0)) * float(right.sum()) < 2.0**62:
        return int(np.dot(left, right))
    return sum(a * b for a, b in zip(left.tolist(), right.tolist(), strict=True))
