from __future__ import annotations

import pytest

from models.data.cells import CellError
from models.data.times import check, found_format, is_time, of_number, reader

NOON = 1_704_110_400.0  # 2024-01-01 12:00:00 UTC


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("2024-01-01T12:00:00", "iso"),
        ("2024-01-01 13:00:00+01:00", "iso"),
        ("2024-01-01T12:00:00.000000000Z", "iso"),
        ("2024/01/01 12:00", "iso"),
        ("1704110400", "s"),
        ("1704110400.0", "s"),
        ("1704110400000", "ms"),
        ("1704110400000000", "us"),
        ("1704110400000000000", "ns"),
    ],
)
def test_the_format_of_a_time_is_found(cell: str, form: str) -> None:
    assert found_format([cell]) == form
    assert reader(form)(cell) == NOON


@pytest.mark.parametrize(
    ("cell", "form", "seconds"),
    [
        ("01.02.2024 12:00", "day-first", 31 * 86_400),
        ("01/02/24 12:00", "month-first", 86_400),
        ("1-2-2024, 12:00:30.5", "day-first", 31 * 86_400 + 30.5),
        ("1/2/2024 12:00 PM", "month-first", 86_400),
        ("1/2/2024 12:00 a.m.", "month-first", 86_400 - 43_200),
        ("1/2/2024", "month-first", 86_400 - 43_200),
        ("45292.5", "excel", 0),
        ("01. Jan 2024", "%d. %b %Y", -43_200),
    ],
)
def test_times_in_a_format_that_is_said(cell: str, form: str, seconds: float) -> None:
    check(form)
    assert reader(form)(cell) == NOON + seconds


def test_day_and_month_are_told_by_what_is_no_month() -> None:
    assert found_format(["01/02/2024", "13/02/2024"]) == "day-first"
    assert found_format(["01/02/2024", "01/13/2024"]) == "month-first"
    assert found_format(["01.02.2024"]) == "day-first"
    assert found_format(["soon", ""]) == ""
    with pytest.raises(CellError, match='say time_format = "day-first" or "month-first"'):
        found_format(["01/02/2024", "03/04/2024"])


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("later", "iso"),
        ("2024-13-01", "iso"),
        ("31.02.2024", "day-first"),
        ("01.01.2024 25:00", "day-first"),
        ("1/1/2024 13:00 PM", "month-first"),
        ("x", "s"),
        ("2024-01-01", "%d.%m.%Y"),
        ("9" * 400, "s"),
    ],
)
def test_what_is_no_time_says_so(cell: str, form: str) -> None:
    with pytest.raises(CellError, match="is no time"):
        reader(form)(cell)


def test_numbers_are_told_by_their_size_unless_it_is_said() -> None:
    assert of_number(5.0) == 5.0
    assert of_number(5000.0, "ms") == 5.0
    assert of_number(NOON * 1e3) == NOON
    assert of_number(45292.5, "excel") == NOON
    with pytest.raises(CellError):
        of_number(float("inf"))


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="is none of s, ms, us, ns, iso, day-first, month-first, excel, and no format as"
    ):
        check("dd.mm.yyyy")


@pytest.mark.parametrize(
    ("cell", "is_one"), [("2024-01-01", True), ("1.2.24", True), ("1700000000", False), ("ok", False)]
)
def test_a_time_is_known_from_a_number(cell: str, is_one: bool) -> None:
    assert is_time(cell) == is_one


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["20231231", "20240101"], "%Y%m%d"),
        (["2023123123", "2024010100"], "%Y%m%d%H"),
        (["202312312359", "202401010000"], "%Y%m%d%H%M"),
        (["20231231235959", "20240101000000"], "%Y%m%d%H%M%S"),
        (["20240131", "20240132"], "s"),
        (["2024013123", "2024013124"], "s"),
        (["20240131", "202401"], "s"),
        (["1704110400", "1704114000"], "s"),
        (["20240131", "-20240131"], "s"),
    ],
)
def test_dates_may_be_digits_alone(cells: list[str], form: str) -> None:
    assert found_format(cells) == form


def test_a_number_is_read_by_the_format_of_dates_that_is_said() -> None:
    assert of_number(2024010112.0, "%Y%m%d%H") == NOON
    for value in (2024010124.0, 2024.5):
        with pytest.raises(CellError, match=r'is no time as time_format = "%Y%m%d%H" has it'):
            of_number(value, "%Y%m%d%H")


def test_where_no_time_is_known_the_sentence_says_what_to_do() -> None:
    assert found_format(["01-Jan-2024 12:00"]) == ""
    with pytest.raises(CellError, match=r"is no time in a known form: say how it is written, as in time_format = "):
        reader("")("01-Jan-2024 12:00")


def test_utc_may_be_named_in_words() -> None:
    assert reader("iso")("2024-01-01 12:00:00 UTC") == NOON
    assert is_time("2024-01-01 12:00 UTC")
