"""All measures of a tally, by their names: what a version is told to be worth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from models.integers import Int64
from models.measures import anomalies, values
from models.measures import classes as of_classes
from models.measures import curves as of_curves
from models.measures.tally import UNIT, Tally

MOST_NAMED = 16
"""Classes whose own measures are among the scores without being asked for."""


def scores(one: Tally, classes: Sequence[str] = (), *, also: Collection[str] = ()) -> dict[str, float]:
    """Return every measure of a tally by its name (`models.measures.table`), all but "loss"; none of no rows.

    What is not defined is left out: the AUC where rows are of one class, R2 where all labels are the same, RMSE, MAE
    and R2 where an answer is not finite. AUC and average precision are those of histograms, near the exact ones.
    classes: their names in order; their numbers when not given. also: measures of classes that are wanted though there
    are more than MOST_NAMED.
    """
    if not one.n:
        return {}
    if one.layout.is_scores:
        return anomalies.curves_of(one.histograms[0]) | mean_score(one)
    if not one.layout.classes:
        return _scores_of_values(one)
    bins = list(one.histograms)
    if one.layout.curves == 1:
        bins = [of_curves.reversed_bins(bins[0]), bins[0]]
    curves = Curves([*map(of_curves.roc_auc_of_bins, bins)], [*map(of_curves.average_precision_of_bins, bins)])
    return overall(one) | named_scores(one.outcomes, curves if bins else None, classes, also, each=one.layout.is_each)


def overall(one: Tally) -> dict[str, float]:
    """Return the measures of a tally of classes that are of all of them together."""
    if one.layout.is_each:
        found = of_classes.overall_of_labels(one.outcomes, one.n)
    else:
        found = of_classes.overall(one.outcomes)
    return found | {"log_loss": one.log_loss, "brier": one.brier}


def mean_score(one: Tally) -> dict[str, float]:
    """Return the mean anomaly score of the normal rows of a tally; none where there are none."""
    n = int(one.histograms[0, 0].sum())
    return {"mean_score": one.sums[0] / (n << UNIT)} if n else {}


class Curves(NamedTuple):
    """Of each class; None where it is not defined."""

    auc: list[float | None]
    average_precision: list[float | None]


def named_scores(
    outcomes: Int64,
    curves: Curves | None,
    classes: Sequence[str] = (),
    also: Collection[str] = (),
    *,
    each: bool = False,
) -> dict[str, float]:
    """Return the measures that are of a class each; those of two classes that are of the second; and, of more, the
    means of AUC and average precision over classes that have one. each: whether every class is there or not in each
    row, so that two of them are not one another's opposite.
    """
    k = outcomes.shape[1]
    names = [str(index) for index in range(k)] if len(classes) != k else classes
    own: dict[str, list[float | None]] = {
        measure: [None if np.isnan(value) else float(value) for value in values_]
        for measure, values_ in of_classes.by_class(outcomes)._asdict().items()
    }
    found: dict[str, float] = {}
    if curves is not None:
        own |= curves._asdict()
        for measure, found_ in curves._asdict().items():
            if (each or k > 2) and (there := [value for value in found_ if value is not None]):
                found[measure] = sum(there) / len(there)
    for measure, by_class in own.items():
        if k == 2 and not each and (second := by_class[1]) is not None:
            found[measure] = second
        for name, value in zip(names, by_class, strict=True):
            if value is not None and (k <= MOST_NAMED or f"{measure}:{name}" in also):
                found[f"{measure}:{name}"] = value
    return found


def _scores_of_values(one: Tally) -> dict[str, float]:
    if one.broken:
        return {}
    n, sums = one.n * (one.layout.labels // one.layout.outputs), one.by_output
    found = {
        "rmse": values.mean([values.rmse(s, n) for s in sums]),
        "mae": values.mean([values.mae(s, n) for s in sums]),
    }
    if one.layout.has_interval:
        found["coverage"] = int(one.counts[-1]) / (one.n * one.layout.labels)
    r2 = [value for s in sums if (value := values.r2(s, n)) is not None]
    return found | ({"r2": values.mean(r2)} if r2 else {})
