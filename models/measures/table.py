"""The measures there are, a row each: what they are called, which way is better, and of which models there are any.

Words alone, without NumPy: a job's rule to stop names one (models/job.py). A measure of one class is written
"recall:fault"; classes without a name go by their number, "recall:3".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from models.job import ModelSpec


NO_LIMIT = 1e30
"""As much as a job file may say."""


class Measure(NamedTuple):
    """What there is to know of a measure."""

    of: Literal["classes", "values", "both", "quantiles", "scores"]
    """Models that have it; of quantiles: those of values that answer several. Those of anomaly scores have
    OF_SCORES."""
    is_high: bool
    """Whether higher is better."""
    most: float = NO_LIMIT
    """What it is at most."""
    least: float = 0.0
    alone: Literal["all", "second"] = "all"
    """What it is without a class behind it: of all classes (their mean), or, of two, of the second one."""
    by_class: bool = False
    """Whether it may have a class behind it."""

    @property
    def is_bounded(self) -> bool:
        """Whether it cannot improve by more than `most`."""
        return self.least == 0 and self.most < NO_LIMIT


MEASURES: dict[str, Measure] = {
    "accuracy": Measure("classes", True, 1.0),
    "loss": Measure("both", False),
    "balanced_accuracy": Measure("classes", True, 1.0),
    "macro_f1": Measure("classes", True, 1.0),
    "macro_precision": Measure("classes", True, 1.0),
    "macro_recall": Measure("classes", True, 1.0),
    "f1": Measure("classes", True, 1.0, alone="second", by_class=True),
    "precision": Measure("classes", True, 1.0, alone="second", by_class=True),
    "recall": Measure("classes", True, 1.0, alone="second", by_class=True),
    "auc": Measure("classes", True, 1.0, by_class=True),
    "average_precision": Measure("classes", True, 1.0, by_class=True),
    "log_loss": Measure("classes", False, 16.0),
    "brier": Measure("classes", False, 2.0),
    "rmse": Measure("values", False),
    "mae": Measure("values", False),
    "r2": Measure("values", True, 1.0, least=-NO_LIMIT),
    "coverage": Measure("quantiles", True, 1.0),
    "false_alarms": Measure("scores", False, 1.0),
}
OF_SCORES = ("auc", "loss", "average_precision", "recall", "precision", "f1", "false_alarms")
"""What is measured of anomaly scores, where some rows have labels; "loss" and "false_alarms" where none have. Where a
threshold is needed it is the fleet's."""
MOST_CURVES = 32
"""Classes of a model that has an AUC and an average precision: each takes a histogram, or a sort of all scores."""
THRESHOLD = "threshold"
"""Among what was measured of anomaly scores: the fleet's, of the version, or of an earlier one while nobody has scored
it."""
THRESHOLD_DEVICES = "threshold_devices"
"""By how many devices that is."""
SCORES = "scores"
"""Among what was measured of anomaly scores: a bin that is not empty is called "scores:1:200" (anomalies.py)."""
CONFUSION = "confusion"
"""Among what was measured: a cell of the confusion matrix that is not 0 is called "confusion:0:1", for rows of class 0
that were answered 1; behind the last class is no answer."""
ALWAYS = "always"
"""Among what was measured of a model that is as good as always answering one class: the number of that."""
_KIN = {"f1": "macro_f1", "precision": "macro_precision", "recall": "macro_recall"}


def split(name: str) -> tuple[str, str | None]:
    """Return a measure's name and the class behind it, if there is one; a class may have colons in it."""
    base, colon, of = name.partition(":")
    return base, of if colon else None


def find(name: str) -> Measure:
    """Return the row of a measure. Raises ValueError, with what may have been meant."""
    base, of = split(name)
    measure = MEASURES.get(base)
    if measure is None:
        near = difflib.get_close_matches(base.lower().replace("-", "_"), MEASURES, 1, 0.6)
        behind = f":{of[:100]}" if of is not None and near and MEASURES[near[0]].by_class else ""
        meant = f'did you mean "{near[0]}{behind}"?' if near else f"there are {', '.join(MEASURES)}"
        raise ValueError(f'"{name[:100]}" is no measure: {meant}')
    if of is not None and not measure.by_class:
        named = ", ".join(f'"{each}"' for each, row in MEASURES.items() if row.by_class)
        raise ValueError(f'"{name[:100]}": {base} is not of one class; {named} are')
    return measure


def check_target(name: str, target: float) -> None:
    """Raise ValueError for a target that this measure cannot have, or that says nothing."""
    measure = find(name)
    what = split(name)[0]
    if measure.is_high and measure.least == 0 and not 0 < target <= measure.most:
        raise ValueError(f"target = {target:g} is no {what}: it is above 0 and at most {measure.most:g}")
    if not measure.least <= target <= measure.most:
        least = f"at least {measure.least:g} and " if measure.least == 0 else ""
        raise ValueError(f"target = {target:g} is no {what}: it is {least}at most {measure.most:g}")


def check(name: str, model: ModelSpec, classes: Sequence[str] = ()) -> None:
    """Raise ValueError where a model has no such measure. classes: their names, where the contract says them."""
    measure = find(name)
    base, of = split(name)
    if model.finds_anomalies:
        if base not in OF_SCORES or of is not None:
            others = ", ".join(OF_SCORES[1:])
            raise ValueError(
                f'kind = "{model.kind}" has no {name[:100]}: say metric = "auc", where some rows have labels (or '
                f"another of anomaly scores: {others})"
            )
        return
    if measure.of == "scores" or (measure.of != "both" and (measure.of == "classes") != model.classifies):
        learns, has = ("classes", "accuracy") if model.classifies else ("values", "loss")
        other = ", ".join(each for each, row in MEASURES.items() if row.of in (learns, "both") and each != has)
        raise ValueError(
            f'a model with loss = "{model.loss}" has no {base}: say metric = "{has}" (or another of {learns}: {other})'
        )
    if measure.of == "quantiles" and len(model.levels) < 2:
        raise ValueError(
            f'{base} is the share of labels between the lowest and the highest quantile: loss = "{model.loss}" answers '
            'none, or one; say metric = "loss"'
        )
    if needs_curves(name) and not 2 <= model.n_classes <= MOST_CURVES:
        raise ValueError(
            f'"{name[:100]}" is measured of 2 to {MOST_CURVES} classes, and this model has {model.n_classes}'
        )
    if of is None:
        several = model.task == "labels"
        if measure.alone == "second" and (several or model.n_classes != 2):
            has = "has several labels a row" if several else f"has {model.n_classes}"
            raise ValueError(
                f'"{base}" without a class is of two classes, and this model {has}: say "{base}:CLASS", '
                f'or "{_KIN[base]}" for the mean of all'
            )
        return
    names = tuple(classes)
    if names and of not in names:
        near = difflib.get_close_matches(of, names, 1, 0.5)
        known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        meant = f'did you mean "{base}:{near[0]}"?' if near else f"[contract] classes are {known}"
        raise ValueError(f'"{name[:100]}": there is no such class: {meant}')
    if not names and not (of.isdecimal() and of.isascii() and str(int(of)) == of and int(of) < model.n_classes):
        raise ValueError(
            f'"{name[:100]}": [contract] names no classes, so that they are 0 to {model.n_classes - 1}: say '
            f'"{base}:{model.n_classes - 1}", or classes = [...]'
        )


def needs_curves(name: str) -> bool:
    """Return whether this is measured by how scores lie, of which a tally has histograms only where it is asked for."""
    return split(name)[0] in ("auc", "average_precision")


def is_high(name: str) -> bool:
    """Return whether higher is better; of a measure that there is not, that it is not."""
    measure = MEASURES.get(split(name)[0])
    return measure is not None and measure.is_high


def is_detail(name: str) -> bool:
    """Return whether this is one of many counts that stand among what was measured: a cell of the confusion matrix, a
    bin of scores.
    """
    return split(name)[0] in (CONFUSION, SCORES)


def confusion_of(found: Mapping[str, float], n_classes: int) -> list[list[int]]:
    """Return the confusion matrix that lies in what was measured, (K, K + 1) rows; empty where there is none."""
    cells = {name: value for name, value in found.items() if name.startswith(f"{CONFUSION}:")}
    if not cells:
        return []
    columns = range(n_classes + 1)
    return [[int(cells.get(f"{CONFUSION}:{of}:{answer}", 0)) for answer in columns] for of in range(n_classes)]
