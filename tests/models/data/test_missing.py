from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.missing import Last, Means, filled

NAN = float("nan")


def test_means_are_of_what_is_there() -> None:
    means = Means(3)
    means.note(np.array([[1, NAN, NAN], [3, NAN, 7]], np.float32))
    means.note(np.array([[8, NAN, NAN]], np.float32))
    assert means.empty.tolist() == [1]
    np.testing.assert_array_equal(means.values(), np.array([4, NAN, 7], np.float32))


def test_only_what_is_missing_is_filled() -> None:
    rows = np.array([[1, NAN], [NAN, 4]], np.float32)
    assert filled(rows, np.array([9, 8], np.float32)).tolist() == [[1, 8], [9, 4]]


def test_the_last_value_is_that_of_the_same_group_in_an_earlier_block_too() -> None:
    last = Last(1)
    first = last.filled(np.array([[NAN], [1], [NAN], [NAN]], np.float32), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(first[:, 0], np.array([NAN, 1, 1, NAN], np.float32))
    second = last.filled(np.array([[NAN], [5], [NAN]], np.float32), np.array([1, 1, 1]))
    np.testing.assert_array_equal(second[:, 0], np.array([NAN, 5, 5], np.float32))
    third = last.filled(np.array([[NAN], [NAN]], np.float32), np.array([1, 2]))
    np.testing.assert_array_equal(third[:, 0], np.array([5, NAN], np.float32))
    assert last.filled(np.empty((0, 1), np.float32)).shape == (0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([NAN, 1.0, 2.0]), st.sampled_from([NAN, 3.0])), min_size=1),
    st.integers(1, 7),
)
def test_however_rows_are_cut_into_blocks_they_are_filled_alike(cells: list[tuple[int, float, float]], n: int) -> None:
    cells = sorted(cells, key=lambda row: row[0])
    groups = np.array([row[0] for row in cells])
    rows = np.array([row[1:] for row in cells], np.float32)
    expected, seen = rows.copy(), {}
    for at, group in enumerate(groups):
        for column in range(2):
            if np.isnan(rows[at, column]):
                expected[at, column] = seen.get((group, column), NAN)
            else:
                seen[group, column] = rows[at, column]
    last = Last(2)
    found = [last.filled(rows[at : at + n], groups[at : at + n]) for at in range(0, len(rows), n)]
    np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("n", [1, 3])
def test_all_rows_are_of_one_group_where_there_are_no_groups(n: int) -> None:
    last = Last(1)
    rows = np.array([[2], [NAN], [NAN]], np.float32)
    assert np.concatenate([last.filled(rows[at : at + n]) for at in range(0, 3, n)])[:, 0].tolist() == [2, 2, 2]
