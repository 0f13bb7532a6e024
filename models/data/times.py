"""What the time of a row is, in seconds since 1970, from however a table writes it. Pure.

A time without a zone is taken as if it were UTC: a device's rows are compared with each other alone. Numbers are
seconds, milliseconds, microseconds or nanoseconds since 1970, told by their size, where they are no dates written in
digits (20240131, 2024013123); small ones are seconds of a device's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from models.data.cells import CellError

NO_TIME = "is no time"
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""A second in each unit."""
_SIZES = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (math.inf, "ns"))
"""Below which a number is taken for each unit: seconds until the year 5138, milliseconds from 1973 on."""
_DATE = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})"
    r"(?:[ T,]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*([AaPp])?\.?(?:[Mm]\.?)?)?"
)
_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Dates of so many digits alone, as weather services have them."""
_EXCEL_DAYS = 25_569
"""From its day 0 to 1970."""

NAMED = ("s", "ms", "us", "ns", "iso", "day-first", "month-first", "excel")
"""What `time_format` may be beside a format of strptime."""
Order = Literal["day-first", "month-first", "year-first"]


def check(time_format: str) -> None:
    """Raise ValueError for what is no format of times."""
    if time_format not in NAMED and "%" not in time_format:
        raise ValueError(
            f'time_format = "{time_format[:50]}" is none of {", ".join(NAMED)}, and no format as "%d.%m.%Y %H:%M"'
        )


def found_format(cells: Sequence[str]) -> str:
    """Return the format of these times; "" where they show none. Raises CellError where two are possible."""
    cells = [cell for cell in map(str.strip, cells) if cell]
    numbers = [abs(value) for value in map(_number, cells) if value is not None]
    if cells and len(numbers) == len(cells):
        if form := compact_format(cells):
            return form
        return next(unit for most, unit in _SIZES if max(numbers) < most)
    dates = [match for match in map(_DATE.fullmatch, cells) if match is not None and len(match[1]) <= 2]
    if dates:
        return _order(dates)
    return "iso" if any(_is_iso(cell) for cell in cells) else ""


def compact_format(cells: Sequence[str]) -> str:
    """Return the format of dates that are digits alone, of these centuries; "" where one is none.

    Seconds since 1970 look so in the years from 2030 to 2036, until they go on: no hour has the number 24.
    """
    form = _COMPACT.get(len(cells[0])) if cells else None
    if form is None or not all(
        len(cell) == len(cells[0]) and cell.isascii() and cell.isdecimal() and "1900" <= cell[:4] < "2100"
        for cell in cells
    ):
        return ""
    try:
        for cell in cells:
            datetime.strptime(cell, form)
    except ValueError:
        return ""
    return form


def _order(dates: Sequence[re.Match[str]]) -> str:
    """Return which comes first in dates such as 03/04/2024: what is above 12 is a day; points stand after days."""
    first, second = max(int(one[1]) for one in dates), max(int(one[3]) for one in dates)
    if first > 12 or (second <= 12 and dates[0][2] == "."):
        return "day-first"
    if second > 12:
        return "month-first"
    raise CellError('may be meant in two ways: say time_format = "day-first" or "month-first"')


def reader(time_format: str) -> Callable[[str], float]:
    """Return what reads a stripped cell that is not missing: seconds since 1970. It raises CellError."""
    if time_format in _UNITS:
        return lambda cell: of_number(_known(cell), time_format)
    if time_format == "excel":
        return lambda cell: (_known(cell) - _EXCEL_DAYS) * 86_400.0
    if time_format == "iso":
        return _iso
    if not time_format:
        return _unknown
    if time_format in ("day-first", "month-first"):
        return lambda cell: _dated(cell, day_first=time_format == "day-first")
    return lambda cell: _by_format(cell, time_format)


def of_number(value: float, time_format: str = "") -> float:
    """Return the seconds of a number; in what unit shows by its size where nothing is said. Raises CellError."""
    if not math.isfinite(value):
        raise CellError(NO_TIME)
    if time_format == "excel":
        return (value - _EXCEL_DAYS) * 86_400.0
    if "%" in time_format:
        return _by_format(str(int(value)) if value.is_integer() else repr(value), time_format)
    unit = time_format if time_format in _UNITS else next(unit for most, unit in _SIZES if abs(value) < most)
    return value / _UNITS[unit]


def seconds(moment: datetime) -> float:
    """Return the seconds since 1970 of a moment; one without a zone is taken as UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_time(cell: str) -> bool:
    """Return whether a cell is a date, or a date with a time of day, and no mere number."""
    cell = cell.strip()
    return _DATE.fullmatch(cell) is not None or (_number(cell) is None and _is_iso(cell))


def _number(cell: str) -> float | None:
    try:
        value = float(cell.replace(",", ".")) if "_" not in cell else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _known(cell: str) -> float:
    value = _number(cell)
    if value is None:
        raise CellError(NO_TIME)
    return value


def _is_iso(cell: str) -> bool:
    try:
        _iso(cell)
    except CellError:
        return False
    return True


def _unknown(cell: str) -> float:
    """Return the seconds of a time in a column that shows no format. Raises CellError, which says what to do."""
    try:
        return _iso(cell)
    except CellError:
        raise CellError(
            f'{NO_TIME} in a known form: say how it is written, as in time_format = "%d-%b-%Y %H:%M:%S"'
        ) from None


def _iso(cell: str) -> float:
    cell = cell.removesuffix(" UTC")
    try:
        return seconds(datetime.fromisoformat(cell))
    except (ValueError, OverflowError):
        return _dated(cell.removesuffix("Z"), day_first=False, named=False)


def _dated(cell: str, *, day_first: bool, named: bool = True) -> float:
    """Return the seconds of a date with points, slashes or dashes. named: whether the order of day and month is known,
    where the year does not come first.
    """
    match = _DATE.fullmatch(cell)
    if match is None or (not named and len(match[1]) < 3):
        raise CellError(NO_TIME)
    first, second, third = int(match[1]), int(match[3]), int(match[4])
    if len(match[1]) > 2:
        year, month, day = first, second, third
    else:
        year = third if len(match[4]) > 2 else third + (2000 if third < 70 else 1900)
        day, month = (first, second) if day_first else (second, first)
    hour, minute, second_ = (int(match[at] or 0) for at in (5, 6, 7))
    if match[9]:
        if not 1 <= hour <= 12:
            raise CellError(NO_TIME)
        hour = hour % 12 + (12 if match[9] in "pP" else 0)
    try:
        whole = datetime(year, month, day, tzinfo=UTC) + timedelta(hours=hour, minutes=minute, seconds=second_)
    except (ValueError, OverflowError):
        raise CellError(NO_TIME) from None
    if hour > 24 or minute > 59 or second_ > 60:
        raise CellError(NO_TIME)
    return whole.timestamp() + (float(f"0.{match[8]}") if match[8] else 0.0)


def _by_format(cell: str, time_format: str) -> float:
    try:
        return seconds(datetime.strptime(cell, time_format))
    except (ValueError, OverflowError):
        raise CellError(f'{NO_TIME} as time_format = "{time_format[:50]}" has it') from None
