from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract import WindowSpec
from models.data import windows
from models.data.windows import HELD, NEW, UNUSABLE, Run, runs


def said(*flags: int) -> np.ndarray:
    return np.array(flags, np.uint8)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ([], []),
        ([0, 0, 0], [(0, 3, False)]),
        ([UNUSABLE, 0, 0], [(1, 3, False)]),
        ([0, UNUSABLE, 0, 0, UNUSABLE], [(0, 1, False), (2, 4, False)]),
        ([NEW, 0, NEW, 0], [(0, 2, False), (2, 4, False)]),
        ([0, UNUSABLE | NEW, UNUSABLE, NEW, 0], [(0, 1, False), (3, 5, False)]),
        ([0, HELD, HELD, 0], [(0, 1, False), (1, 3, True), (3, 4, False)]),
        ([HELD, HELD | UNUSABLE, HELD], [(0, 1, True), (2, 3, True)]),
        ([UNUSABLE], []),
    ],
)
def test_runs_end_at_a_gap_at_what_cannot_be_used_and_where_a_side_ends(
    flags: list[int], found: list[tuple[int, int, bool]]
) -> None:
    assert list(runs(said(*flags))) == found


@given(st.lists(st.integers(0, 7), max_size=60))
def test_runs_are_the_same_however_long_the_series_is(flags: list[int]) -> None:
    """Two blocks of the series are looked at one after the other."""
    before = [0] * (2**16 - 30)
    found = list(runs(said(*before, *flags)))
    expected: list[list[int]] = []
    for at, flag in enumerate([*before, *flags]):
        if flag & UNUSABLE:
            continue
        last = expected[-1] if expected else None
        if last and last[1] == at and not flag & NEW and last[2] == bool(flag & HELD):
            last[1] += 1
        else:
            expected.append([at, at + 1, bool(flag & HELD)])
    assert found == [tuple(run) for run in expected]


def test_a_series_is_broken_by_a_gap_in_time_and_by_another_group() -> None:
    times = np.array([0.0, 1, 2, 7, 8, 100])
    groups = np.array([0, 0, 0, 0, 1, 1])
    usable = np.array([1, 1, 0, 1, 1, 1], np.uint8)
    whole = windows.flags(usable, times, groups, 4.0, slice(0, 6))
    assert whole.tolist() == [0, 0, UNUSABLE, NEW, NEW, NEW]
    for cut in range(7):
        parts = [windows.flags(usable, times, groups, 4.0, part) for part in (slice(0, cut), slice(cut, 6))]
        assert np.concatenate(parts).tolist() == whole.tolist()
    assert windows.flags(None, None, None, None, slice(0, 6)).tolist() == [0] * 6


def test_the_usual_distance_is_the_median_within_groups() -> None:
    times = np.array([0.0, 10, 20, 20, 500, 0, 10, 1000])
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    assert windows.usual_distance(times, groups) == 10
    assert windows.usual_distance(np.zeros(5), None) is None


WINDOW = WindowSpec(length=3, hop=2)


def test_windows_are_counted_to_the_last_whole_one() -> None:
    assert [Run(0, n, held=False).n_windows(WINDOW) for n in range(8)] == [0, 0, 0, 1, 1, 2, 2, 3]


def test_the_windows_of_one_run_are_a_view_of_its_rows() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    found = windows.view(rows, Run(1, 9, held=False), WINDOW)
    assert np.shares_memory(found, rows)
    assert found.tolist() == [[2, 3, 4, 5, 6, 7], [6, 7, 8, 9, 10, 11], [10, 11, 12, 13, 14, 15]]


@pytest.mark.parametrize("at_once", [1, 12, 10_000])
def test_windows_that_are_written_out_are_those_of_the_view(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "AT_ONCE", at_once)
    rows, run = np.arange(40, dtype=np.float32).reshape(20, 2), Run(3, 17, held=False)
    found = np.concatenate([some.reshape(len(some), -1) for some in windows.over(rows, run, WINDOW)])
    assert found.tolist() == windows.view(rows, run, WINDOW).tolist()


def test_the_label_of_a_window_is_the_majority_the_last_or_the_mean() -> None:
    labels = np.array([[0, 2, 2, 1], [1, 0, 1, 0], [3, 3, 3, 0], [7, 7, 5, 5]])
    assert windows.label(labels, WindowSpec(length=4), classes=True).tolist() == [2, 0, 3, 5]
    assert windows.label(labels, WindowSpec(length=4, label="last"), classes=True).tolist() == [1, 0, 0, 5]
    values = labels.astype(np.float32)
    assert windows.label(values, WindowSpec(length=4), classes=False).tolist() == [1.25, 0.5, 2.25, 6]
    assert windows.label(values, WindowSpec(length=4), classes=True).dtype == np.float32
    several = values[:, :, None].repeat(2, axis=2)
    assert windows.label(several, WindowSpec(length=4), classes=False).shape == (4, 2)
