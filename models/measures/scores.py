"""All measures of a tally, by their names: what a version is told to be worth."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from models.integers import Int64
from models.measures import classes as of_classes
from models.measures import curves as of_curves
from models.measures import values
from models.measures.tally import Tally

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
    if not one.layout.classes:
        return _scores_of_values(one)
    curves = list(one.histograms)
    if one.layout.curves == 1:
        curves = [of_curves.reversed_groups(curves[0]), curves[0]]
    found = of_classes.overall(one.outcomes) | {"log_loss": one.log_loss, "brier": one.brier}
    return found | named_scores(one.outcomes, curves, classes, also)


def named_scores(
    outcomes: Int64, curves: Sequence[Int64], classes: Sequence[str] = (), also: Collection[str] = ()
) -> dict[str, float]:
    """Return the measures that are of a class each, and those of two classes that are of the second.

    curves: of each class its groups of scores (`models.measures.curves`); empty where there are none.
    """
    k = outcomes.shape[1]
    names = [str(index) for index in range(k)] if len(classes) != k else classes
    own: dict[str, Sequence[float | None]] = dict(of_classes.by_class(outcomes)._asdict())
    found: dict[str, float] = {}
    if curves:
        of_all = {
            "auc": [*map(of_curves.roc_auc, curves)],
            "average_precision": [*map(of_curves.average_precision, curves)],
        }
        own |= of_all
        for measure, of_each in of_all.items():
            there = [value for value in of_each if value is not None]
            if k > 2 and there:
                found[measure] = sum(there) / len(there)
    for measure, each in own.items():
        if k == 2 and (second := each[1]) is not None and not np.isnan(second):
            found[measure] = float(second)
        for name, value in zip(names, each, strict=True):
            if (k <= MOST_NAMED or f"{measure}:{name}" in also) and value is not None and not np.isnan(value):
                found[f"{measure}:{name}"] = float(value)
    return found


def _scores_of_values(one: Tally) -> dict[str, float]:
    if one.broken:
        return {}
    n, sums = one.n * (one.layout.labels // one.layout.outputs), one.by_output
    found = {
        "rmse": values.mean([values.rmse(s, n) for s in sums]),
        "mae": values.mean([values.mae(s, n) for s in sums]),
    }
    r2 = [value for s in sums if (value := values.r2(s, n)) is not None]
    return found | ({"r2": values.mean(r2)} if r2 else {})
