"""All measures of a net on rows that lie here: AUC and average precision exact, everything else of the rows' tally.

Rows go through the net in blocks, so that a test split of a million takes no more memory than their scores do; and
where those are more than MOST_KEPT, AUC and average precision are of their histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from models.job import ModelSpec
from models.measures import anomalies
from models.measures import classes as of_classes
from models.measures import curves as of_curves
from models.measures.scores import Curves, named_scores, scores
from models.measures.table import ALWAYS, CONFUSION, MOST_CURVES
from models.measures.tally import Tally, empty, merged, tally
from models.nets import losses
from models.nets.losses import Labels
from models.params import Float32

MOST_ROWS_AT_ONCE = 2**16
MOST_CELLS_AT_ONCE = 2**22
"""Answers of rows that a net evaluates together: 16 MB."""
MOST_PREDICTED = 2**10
"""Rows whose answers are taken apart together."""
MOST_KEPT = 2**24
"""Scores that are kept to be sorted: 64 MB."""
MOST_CONFUSED = 10
"""Classes whose confusion matrix is among what is measured: it is kept for every version."""


class Measured(NamedTuple):
    """What came of it."""

    found: dict[str, float]
    """Every measure but "loss", by its name; with CONFUSION and ALWAYS."""
    tally: Tally


def blocks(n: int, model: ModelSpec) -> Iterator[slice]:
    """Return which rows a net evaluates together: the same ones on every machine, and all of an ordinary test split."""
    rows = max(1, min(MOST_ROWS_AT_ONCE, MOST_CELLS_AT_ONCE // model.outputs))
    return (slice(start, start + rows) for start in range(0, n, rows))


def on_rows(
    model: ModelSpec,
    predict: Callable[[Float32], Float32],
    X: Float32,
    y: Labels,
    classes: Sequence[str] = (),
    also: Collection[str] = (),
) -> Measured:
    """Return how good a net is on (n, ...) rows, one at least, and their labels. predict: `Net.predict` of its params.

    classes, also: as in `scores`.
    """
    loss = losses.of(model)
    k, each = loss.n_classes, loss.task == "labels"
    kept = [1] if k == 2 and not each else list(range(k or 1))
    has_curves = loss.task == "scores" or 2 <= k <= MOST_CURVES
    is_exact = has_curves and len(y) * len(kept) <= MOST_KEPT
    columns = np.empty((len(kept) if is_exact else 0, len(y)), np.float32)
    whole = empty(model, curves=not is_exact)
    step = max(1, min(MOST_PREDICTED, MOST_CELLS_AT_ONCE // model.outputs))
    for rows in (slice(start, start + step) for start in range(0, len(y), step)):
        answers = predict(X[rows])
        whole = merged([whole, tally(model, answers, y[rows], curves=not is_exact)])
        if is_exact:
            columns[:, rows] = loss.judged(answers)[:, kept].T
    if model.finds_anomalies:
        return Measured(_of_anomalies(whole, columns, y), whole)
    found = scores(whole, classes, also=also)
    if is_exact:
        found |= named_scores(whole.outcomes, _curves(columns, kept, y), classes, also, each=each)
    return Measured(found | besides(whole), whole)


def _of_anomalies(whole: Tally, scores_: Float32, y: Labels) -> dict[str, float]:
    """Return the measures of anomaly scores, and their histogram: what a threshold is worth is known once it is."""
    found = scores(whole) | anomalies.named(whole.histograms[0])
    return found | (anomalies.exact_curves(scores_[0], y) if len(scores_) else {})


def _curves(columns: Float32, kept: Sequence[int], y: Labels) -> Curves:
    """Return the curves of each class, one after the other: their sorted scores take as much memory as all of one.

    y: (n,) classes, or (n, K) of labels that are there or not.
    """
    found = Curves([], [])
    for scores_, index in zip(columns, kept, strict=True):
        one = of_curves.ranked(scores_, y == index if y.ndim == 1 else y[:, index] > 0)
        for scored in (one.reversed, one) if len(kept) == 1 else (one,):
            found.auc.append(of_curves.roc_auc(scored))
            found.average_precision.append(of_curves.average_precision(scored))
    return found


def besides(one: Tally) -> dict[str, float]:
    """Return what is to be said of a tally beside its measures: its confusion matrix, where that is small, and whether
    the net is as good as always answering one class.
    """
    if not one.layout.classes or one.layout.is_each or not one.n:
        return {}
    always = of_classes.always(one.outcomes, one.n)
    found = {} if always is None else {ALWAYS: float(always)}
    if one.confusion is not None and one.layout.classes <= MOST_CONFUSED:
        for of, answer in np.argwhere(one.confusion).tolist():
            found[f"{CONFUSION}:{of}:{answer}"] = float(one.confusion[of, answer])
    return found
