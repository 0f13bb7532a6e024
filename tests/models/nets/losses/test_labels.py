from __future__ import annotations

import numpy as np
import pytest

from models.nets.losses import LabelError, loss
from models.nets.losses.labels import classes, marks, values


def test_classes_are_whole_numbers_below_the_outputs_or_the_row_is_named() -> None:
    y = np.array([0, 2])
    assert classes(y, 3) is y
    assert classes(np.array([[1.0], [2.0]], np.float32), 3).tolist() == [1, 2]
    for wrong in (3.0, -1.0, 0.5):
        with pytest.raises(LabelError, match=r"the label is not one of 0\.\.2") as caught:
            classes(np.array([1, wrong], np.float32), 3)
        assert (caught.value.row, caught.value.cell) == (1, str(wrong))
    with pytest.raises(LabelError, match="2 labels a row where focal takes one class"):
        classes(np.zeros((2, 2)), 3, "focal")


def test_marks_are_0_or_1_or_the_row_and_the_label_are_named_but_not_what_is_there() -> None:
    y = np.array([[0, 1], [1, 1]], np.float32)
    assert np.shares_memory(marks(y, 2), y)
    assert marks(np.array([[True, False]]), 2).tolist() == [[1.0, 0.0]]
    for wrong in (2.0, -1.0, 0.25):
        with pytest.raises(LabelError, match="its label number 1 is neither 0") as caught:
            marks(np.array([[0, 0], [1, wrong]], np.float32), 2)
        assert (caught.value.row, caught.value.cell) == (1, str(np.float32(wrong)))
        assert str(wrong) not in str(caught.value)
    with pytest.raises(LabelError, match="3 labels a row where multilabel takes 2"):
        marks(np.zeros((2, 3)), 2)


def test_values_are_as_many_numbers_a_row_as_there_are_outputs() -> None:
    y = np.zeros((2, 3), np.float32)
    assert np.shares_memory(values(y, 3), y)
    assert values(np.array([1, 2]), 1).shape == (2, 1)
    assert values(np.array([1, 2]), 3, each=3).shape == (2, 1)
    with pytest.raises(LabelError, match="3 values a row where the model has outputs = 2") as caught:
        values(y, 2)
    assert caught.value.row is None
    with pytest.raises(LabelError, match="3 values a row where the model has outputs = 3: 3 for each value"):
        values(y, 3, each=3)


def test_labels_of_many_rows_are_looked_at_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "ROWS_AT_ONCE", 10)
    y = np.arange(25) % 3
    assert classes(y, 3) is y
    with pytest.raises(LabelError, match=r"the label is not one of 0\.\.1") as caught:
        classes(np.append(np.zeros(21, np.int64), [2, 3]), 2)
    assert caught.value.row == 21
    with pytest.raises(LabelError) as marked:
        marks(np.append(np.zeros((21, 2)), [[0, 2]], axis=0), 2)
    assert marked.value.row == 21
