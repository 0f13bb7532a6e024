from __future__ import annotations

from array import array

import pytest

from models.data.columns import choose, dataset_of
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings


def test_all_columns_but_the_label_are_features_or_those_named_in_their_order() -> None:
    header = ["a", "y", "b"]
    assert choose(SourceSettings("x"), header, "it") == ["a", "b", "y"]
    assert choose(SourceSettings("x", features=("b", "a")), header, "it") == ["b", "a", "y"]
    assert choose(SourceSettings("x", label="b", features="y"), header, "it") == ["y", "b"]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (["a"], "x: no column 'y'; it has a"),
        (["a", "y", "y"], "x: more than one column 'y'; it has a, y, y"),
        ([], "x: no column 'y'; it has nothing"),
    ],
)
def test_a_column_that_is_not_there_once_is_named_with_those_there_are(header: list[str], why: str) -> None:
    with pytest.raises(DatasetError, match=why):
        choose(SourceSettings("x"), header, "it")


def test_the_last_column_has_the_labels() -> None:
    data = dataset_of(SourceSettings("x"), array("d", [1, 2, 0, 3, 4, 1]), 3)
    assert (data.X.tolist(), data.y.tolist(), data.source) == ([[1, 2], [3, 4]], [0, 1], "x")
    with pytest.raises(DatasetError, match="x: no rows in the features"):
        dataset_of(SourceSettings("x"), array("d"), 3)
    with pytest.raises(DatasetError, match="x, row 1: y has a value that is not a finite float32"):
        dataset_of(SourceSettings("x"), array("d", [1, 0, 2, 1e300]), 2)
