from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import DatasetError
from models.data.skipped import Skipped


def lines(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_nothing_is_said_of_a_table_that_is_used_as_it_is() -> None:
    skipped = Skipped("x.csv", 0.5)
    skipped.n_rows = 10
    skipped.check()
    assert (skipped.exact, skipped.told) == ("", "")


def test_reasons_are_counted_and_the_first_lines_named() -> None:
    skipped = Skipped("x.csv", 0.5)
    skipped.n_rows = 1000
    skipped.skip("temp", "is empty", lines(5, 7))
    skipped.skip("temp", "is empty", lines(9, 11, 13))
    skipped.skip("y", "is none of the job's classes", lines(20))
    skipped.skip("", "has 3 cells where the header has 4", lines(30))
    skipped.replace("vib", "is outside its range", lines(2))
    assert skipped.exact == (
        "7 of 1,000 rows are left out: 5 because 'temp' is empty (lines 5, 7, 9, …); 1 because 'y' is none of the "
        "job's classes (line 20); 1 because the line has 3 cells where the header has 4 (line 30); taken for missing: "
        "1 because 'vib' is outside its range (line 2)"
    )
    assert skipped.told == "x.csv: less than 1 % of the rows are left out, most because 'temp' is empty (line 5)"
    skipped.check()


def test_what_is_told_stays_the_same_while_about_as_much_is_left_out() -> None:
    told = set()
    for n in range(15, 25):
        skipped = Skipped("x.csv", 0.5)
        skipped.n_rows = 1000
        skipped.skip("temp", "is empty", lines(*range(3, 3 + n)))
        told.add(skipped.told)
    assert told == {"x.csv: about 2 % of the rows are left out, most because 'temp' is empty (line 3)"}


def test_more_than_the_source_allows_takes_the_device_out() -> None:
    skipped = Skipped("x.csv", 0.1, "row")
    skipped.n_rows = 100
    skipped.skip("temp", "is empty", lines(*range(10)))
    skipped.check()
    skipped.skip("vib", "is no number", lines(50))
    with pytest.raises(
        DatasetError,
        match=r"x.csv: 11 of 100 rows cannot be used, more than max_skipped = 0.1 allows: 10 because 'temp' is "
        r"empty \(rows 0, 1, 2, …\); 1 because 'vib' is no number \(row 50\)",
    ):
        skipped.check()


def test_no_rows_at_all_are_none_yet_and_none_that_can_be_used_are_an_error_under_any_limit() -> None:
    skipped = Skipped("x.csv", 1.0)
    with pytest.raises(DatasetError, match=r"x\.csv: no rows yet"):
        skipped.check()
    skipped.n_rows = 2
    skipped.skip("y", "is empty", lines(2, 3))
    with pytest.raises(DatasetError, match=r"none of its 2 rows can be used: 2 because 'y' is empty \(lines 2, 3\)"):
        skipped.check()


def test_a_table_that_is_wrong_in_a_thousand_ways_says_the_most_frequent_ones() -> None:
    skipped = Skipped("x.csv", 0.5)
    skipped.n_rows = 10_000
    for column in range(2000):
        skipped.skip(f"column {column}", "is empty", lines(column))
    assert skipped.exact.endswith("; and 995 reasons more")
    assert len(skipped.exact) < 500
