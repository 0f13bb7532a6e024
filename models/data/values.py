"""Values as databases, JSON and Python have them, as the cells of a column. Pure.

1.5, None, True, "NA", "21.5" ──NUMBER──▶ 1.5, nan, 1.0, nan, 21.5
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime

import numpy as np

from models.data import times
from models.data.blocks import Kind
from models.data.cells import NO_NUMBER, CellError, Cells, Doubles, Why, bounded, each


class Values:
    """What values mean: as one source writes them. texts_count: whether a text may be a number, as in JSON."""

    def __init__(self, cells: Cells, time_format: str | None = None, *, texts_count: bool = True) -> None:
        """Read texts by these cells; the times of columns by one format each, found where it is not given."""
        self._cells, self._time_format, self._texts_count = cells, time_format, texts_count
        self._formats: dict[str, str] = {}

    def column(self, name: str, kind: Kind, values: Sequence[object]) -> tuple[Doubles | list[str], Sequence[Why]]:
        """Return the cells of a column, and which are neither missing nor of this kind. Raises CellError.

        It does so where the times of the column may be meant in two ways.
        """
        match kind:
            case Kind.NUMBER:
                quick = self._quick(values)
                return (quick, ()) if quick is not None else each(self._number, values)
            case Kind.TEXT | Kind.LABEL:
                whys: list[Why] = []
                texts = [self._text(at, value, whys, kind) for at, value in enumerate(values)]
                return texts, whys
        return each(self._reader(name, values), values)

    def _quick(self, values: Sequence[object]) -> Doubles | None:
        """Return numbers that are all plain; None where one needs a look."""
        if not set(map(type, values)) <= {int, float}:
            return None
        try:
            found = np.array(values, np.float64)
        except OverflowError:
            return None
        limit = float(np.finfo(np.float32).max)
        if len(found) and not (found.max() <= limit and found.min() >= -limit):
            return None
        for gap in self._cells.gaps:
            found[found == gap] = math.nan
        return found

    def _number(self, value: object) -> float:
        match value:
            case None:
                return math.nan
            case bool() | np.bool_():
                return float(value)
            case int() | float() | np.integer() | np.floating():
                try:
                    number = float(value)
                except OverflowError:
                    number = math.inf
                return math.nan if number in self._cells.gaps else bounded(number)
            case str() if self._texts_count or self._cells.is_missing(value.strip()):
                try:
                    return self._cells.number(value)
                except CellError as error:
                    if "say " in str(error):  # no such keys are there for what is no CSV
                        raise CellError(f"{NO_NUMBER}: a number has a point, and nothing else between digits") from None
                    raise
        raise CellError(described(value))

    def _text(self, at: int, value: object, whys: list[Why], kind: Kind) -> str:
        match value:
            case None:
                return ""
            case str():
                text = value.strip()
                return "" if kind is Kind.TEXT and self._cells.is_missing(text) else text
            case bool() | np.bool_():
                return "true" if value else "false"
            case int() | np.integer() if -(2**63) <= value < 2**63:
                return str(int(value))
            case float() | np.floating():
                number = float(value)
                return "" if math.isnan(number) else str(int(number)) if number.is_integer() else repr(number)
        whys.append((at, f"{described(value)}, no text"))
        return ""

    def _reader(self, name: str, values: Sequence[object]) -> Callable[[object], float]:
        form = self._time_format or self._formats.get(name, "")
        if not form:
            texts = [value.strip() for value in values if isinstance(value, str)]
            form = times.found_format([text for text in texts if not self._cells.is_missing(text)])
            if not texts:
                form = times.compact_format([_digits(value) for value in values if value is not None])
            if form:
                self._formats[name] = form
        read = times.reader(form)

        def time(value: object) -> float:
            match value:
                case None:
                    return math.nan
                case bool():
                    pass
                case datetime():
                    return times.seconds(value)
                case date():
                    return times.seconds(datetime(value.year, value.month, value.day))
                case int() | float() | np.integer() | np.floating():
                    return math.nan if math.isnan(value) else times.of_number(float(value), form)
                case str():
                    text = value.strip()
                    return math.nan if self._cells.is_missing(text) else read(text)
            raise CellError(times.NO_TIME)

        return time


def _digits(value: object) -> str:
    """Return a whole number in digits; "" for anything else."""
    match value:
        case int() | np.integer() if 0 <= value < 10**15:
            return str(int(value))
        case float() if value.is_integer() and 0 <= value < 10**15:
            return str(int(value))
    return ""


def described(value: object) -> str:
    """Return what kind of thing a value is, without the value."""
    match value:
        case str():
            return "is text, and no number: store numbers, or CAST them in the query"
        case bytes() | bytearray() | memoryview():
            return "is a blob"
        case list() | tuple():
            return "is a list"
        case dict():
            return "is an object"
    return NO_NUMBER
