from __future__ import annotations

import numpy as np
import pytest

from models.job import ModelSpec
from models.measures.scores import MOST_NAMED, scores
from models.measures.tally import empty, tally

TWO = ModelSpec(outputs=2)


def certain(y: list[int], answers: list[int], k: int) -> dict[str, float]:
    model = ModelSpec(outputs=k)
    return scores(tally(model, np.eye(k, dtype=np.float32)[answers], np.array(y)))


def test_no_rows_have_no_scores() -> None:
    assert scores(empty(TWO)) == {}
    assert scores(empty(ModelSpec(loss="mse"))) == {}


def test_of_two_classes_the_second_is_meant_where_none_is_said() -> None:
    one = tally(TWO, np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]], np.array([0, 0, 0, 1, 1]))
    found = scores(one, ("ok", "fault"))
    for name in ("precision", "recall", "f1", "auc", "average_precision"):
        assert found[name] == found[f"{name}:fault"]
    assert found["recall"] == 0.5
    assert found["recall:ok"] == pytest.approx(2 / 3)


def test_of_more_classes_only_means_have_no_class() -> None:
    found = certain([0, 1, 2, 2], [0, 1, 2, 0], 3)
    assert not {"f1", "precision", "recall"} & found.keys()
    assert {"auc", "average_precision", "macro_f1", "f1:2", "recall:0"} <= found.keys()


def test_a_class_that_is_never_answered_has_a_precision_of_0_and_one_that_is_not_there_has_none() -> None:
    found = certain([0, 0, 1], [0, 0, 0], 3)
    assert (found["precision:1"], found["recall:1"], found["f1:1"]) == (0.0, 0.0, 0.0)
    assert not {"precision:2", "recall:2", "f1:2", "auc:2"} & found.keys()


def test_rows_of_one_class_have_no_auc_rather_than_a_half() -> None:
    found = certain([0, 0], [0, 0], 2)
    assert "auc" not in found
    assert found["average_precision:0"] == 1.0
    assert "average_precision" not in found


@pytest.mark.parametrize("k", [MOST_NAMED, MOST_NAMED + 1])
def test_of_many_classes_only_those_that_are_asked_for_are_named(k: int) -> None:
    model = ModelSpec(outputs=k)
    one = tally(model, np.eye(k, dtype=np.float32), np.arange(k))
    named = {name for name in scores(one, also=("recall:3",)) if ":" in name}
    assert named == ({"recall:3"} if k > MOST_NAMED else named)
    assert "recall:3" in named
    assert ("f1:0" in named) == (k <= MOST_NAMED)


def test_a_model_of_values_that_has_diverged_has_no_scores() -> None:
    y = np.ones((3, 1), np.float32)
    answers = y.copy()
    answers[1] = np.inf
    assert scores(tally(ModelSpec(loss="mse"), answers, y)) == {}


def test_r2_is_left_out_where_labels_are_all_the_same_and_of_many_outputs_averaged_over_the_others() -> None:
    model = ModelSpec(loss="mse")
    y = np.full((5, 1), 0.1, np.float32)
    assert set(scores(tally(model, y, y))) == {"rmse", "mae"}
    both = np.stack([np.arange(4), np.ones(4)], axis=1).astype(np.float32)
    assert scores(tally(ModelSpec(outputs=2, loss="mse"), both, both))["r2"] == 1.0
