from __future__ import annotations

import numpy as np
import pytest

from models.data.labels import NONE, Classes


@pytest.mark.parametrize(
    ("names", "labels", "found"),
    [
        (("ok", "fault"), ["fault", "ok", "Ok", "", "faults"], [1, 0, NONE, NONE, NONE]),
        (("1", "2", "3"), ["1", "3", "2.0", "3e0", "0", "4", "1_0"], [0, 2, 1, 2, NONE, NONE, NONE]),
        (("False", "True"), ["true", "TRUE", "False", "1", "0.0", "2", "yes"], [1, 1, 0, 1, 0, NONE, NONE]),
        (("0", "1"), ["True", "false", "0.0", "1.0", "01"], [1, 0, 0, 1, 1]),
        (("nan", "inf"), ["nan", "inf", "1"], [0, 1, NONE]),
    ],
)
def test_a_label_is_a_class_by_its_text_or_by_its_number(
    names: tuple[str, ...], labels: list[str], found: list[int]
) -> None:
    assert Classes(names).indices(labels).tolist() == found


def test_numbers_are_classes_by_their_value() -> None:
    assert Classes(("1", "2")).of_numbers(np.array([2.0, 1.0, 0.0, np.nan])).tolist() == [1, 0, NONE, NONE]
    assert not Classes(("ok", "fault")).are_numbers
    assert Classes(("True", "no")).are_numbers


def test_as_many_labels_as_there_are_may_be_no_class() -> None:
    """A table of a million different texts is not kept in memory."""
    classes = Classes(("a",))
    assert set(classes.indices([str(n) for n in range(30_000)])) == {NONE}
    assert len(classes._known) == 10_000
    assert classes.indices(["a"]).tolist() == [0]
