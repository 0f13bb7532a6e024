from __future__ import annotations

import subprocess
import sys

import pytest

from models.job import ModelSpec
from models.measures import table

TWO, TEN, VALUES = ModelSpec(outputs=2), ModelSpec(outputs=10), ModelSpec(loss="mse")
SEVERAL = ModelSpec(outputs=2, loss="multilabel")


def test_its_words_need_no_numbers() -> None:
    code = "import sys, models.measures.table; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_class_may_have_colons_in_it() -> None:
    assert table.split("recall:a:b") == ("recall", "a:b")
    assert table.split("accuracy") == ("accuracy", None)
    assert table.split("recall:") == ("recall", "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("acuracy", 'did you mean "accuracy"?'),
        ("Macro-F1", 'did you mean "macro_f1"?'),
        ("zzz", "there are accuracy, loss"),
        ("accuracy:ok", 'accuracy is not of one class; "f1", "precision", "recall"'),
    ],
)
def test_what_is_no_measure_is_refused_with_what_may_be_meant(name: str, why: str) -> None:
    with pytest.raises(ValueError) as found:
        table.find(name)
    assert why in str(found.value)


@pytest.mark.parametrize(
    ("name", "model", "classes", "why"),
    [
        ("recall:falt", TWO, ("ok", "fault"), 'did you mean "recall:fault"?'),
        ("recall:zzz", TWO, ("ok", "fault"), "[contract] classes are ok, fault"),
        ("recall:10", TEN, (), 'they are 0 to 9: say "recall:9", or classes = [...]'),
        ("recall:01", TEN, (), "they are 0 to 9"),
        ("recall:fault", TEN, (), "[contract] names no classes"),
        ("recall:", TEN, (), "[contract] names no classes"),
        ("f1", TEN, (), 'say "f1:CLASS", or "macro_f1" for the mean of all'),
        ("auc", ModelSpec(outputs=33), (), "is measured of 2 to 32 classes, and this model has 33"),
        ("auc", ModelSpec(outputs=1), (), "is measured of 2 to 32 classes"),
        ("accuracy", VALUES, (), 'a model with loss = "mse" has no accuracy: say metric = "loss"'),
        ("auc", VALUES, (), "has no auc"),
        ("f1", SEVERAL, ("a", "b"), 'this model has several labels a row: say "f1:CLASS"'),
        ("coverage", VALUES, (), 'loss = "mse" answers none, or one'),
        ("coverage", TWO, (), 'has no coverage: say metric = "accuracy"'),
        ("rmse", TWO, (), 'a model with loss = "cross_entropy" has no rmse: say metric = "accuracy"'),
    ],
)
def test_what_a_model_has_no_measure_for_is_refused_with_what_to_say(
    name: str, model: ModelSpec, classes: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ValueError) as found:
        table.check(name, model, classes)
    assert why in str(found.value)


@pytest.mark.parametrize(
    ("name", "model", "classes"),
    [
        ("loss", VALUES, ()),
        ("loss", TWO, ()),
        ("r2", VALUES, ()),
        ("f1", TWO, ("ok", "fault")),
        ("recall:fault", TWO, ("ok", "fault")),
        ("recall:a:b", TWO, ("ok", "a:b")),
        ("auc:9", TEN, ()),
        ("f1", ModelSpec(outputs=1, loss="binary"), ()),
        ("recall:1", ModelSpec(outputs=1, loss="binary"), ()),
        ("auc:b", SEVERAL, ("a", "b")),
        ("macro_f1", SEVERAL, ()),
        ("coverage", ModelSpec(outputs=3, loss="quantile"), ()),
        ("average_precision", TEN, ()),
    ],
)
def test_what_a_model_has_is_taken(name: str, model: ModelSpec, classes: tuple[str, ...]) -> None:
    table.check(name, model, classes)


@pytest.mark.parametrize(
    ("name", "target", "why"),
    [
        ("accuracy", 96, "target = 96 is no accuracy: it is above 0 and at most 1"),
        ("recall:fault", 0.0, "target = 0 is no recall: it is above 0 and at most 1"),
        ("r2", 1.5, "target = 1.5 is no r2: it is at most 1"),
        ("rmse", -1.0, "target = -1 is no rmse: it is at least 0"),
        ("brier", 3.0, "at most 2"),
        ("loss", float("nan"), "is no loss"),
    ],
)
def test_a_target_that_a_measure_cannot_have_is_refused(name: str, target: float, why: str) -> None:
    with pytest.raises(ValueError) as found:
        table.check_target(name, target)
    assert why in str(found.value)


def test_targets_within_the_range_of_a_measure_are_taken() -> None:
    for name, target in (("r2", -3.0), ("r2", 1.0), ("rmse", 0.0), ("rmse", 1e5), ("accuracy", 1.0), ("loss", 0.0)):
        table.check_target(name, target)


def test_only_measures_of_ranks_want_histograms() -> None:
    assert [name for name in table.MEASURES if table.needs_curves(name)] == ["auc", "average_precision"]
    assert table.needs_curves("auc:fault")
