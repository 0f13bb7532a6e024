"""What the text of a cell means: a number, nothing, or neither. Pure.

    "1.234,5" ──(decimal ",", thousands ".")──▶ 1234.5      "NA" ──▶ nan      "warm" ──▶ nan, and why

The quick way takes columns in which every cell is a plain number; every other column is looked at cell by cell. Both
come to the same numbers: those of Python's float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Cell = TypeVar("Cell")
Why = tuple[int, str]
"""Which of some cells, and why it is none of what was asked for."""

MISSING = ("na", "n/a", "#n/a", "#nv", "nan", "null", "none", "-", "--", "?")
"""What stands for nothing beside an empty cell, however it is written: of R, Excel, C, JSON, Python and people."""
MOST_OF_FLOAT32 = float(np.finfo(np.float32).max)
BEYOND = "is beyond what a float32 holds"
NO_NUMBER = "is no number"
_MARKS = (",", ".", " ", "'")
_TRUTHS = {"true": 1.0, "false": 0.0}


def missing_of(said: Iterable[str] | None) -> frozenset[str]:
    """Return what stands for nothing, in small letters: as said, else as everybody writes it."""
    return frozenset(MISSING) if said is None else frozenset(map(str.lower, map(str.strip, said)))


class Cells(NamedTuple):
    """How the numbers of a table are written."""

    decimal: str = "."
    thousands: str = ""
    """What stands between groups of digits; " " is every kind of space."""
    missing: frozenset[str] = frozenset(MISSING)
    """What stands for nothing beside an empty cell, in small letters."""

    @property
    def gaps(self) -> tuple[float, ...]:
        """Return the numbers that stand for nothing: -999."""
        return _gaps(self)

    def is_missing(self, cell: str) -> bool:
        """Return whether a stripped cell stands for nothing."""
        return not cell or cell.lower() in self.missing

    def number(self, cell: str) -> float:
        """Return the number of a cell, nan where it is missing. Raises CellError."""
        cell = cell.strip()
        if self.is_missing(cell):
            return math.nan
        if "\x00" in cell:
            raise CellError("holds NUL bytes, as a power cut leaves them")
        plain = self._plain(cell)
        try:
            value = float(plain)
        except ValueError:
            value = _TRUTHS.get(cell.lower(), math.nan)
            if math.isnan(value):
                raise CellError(NO_NUMBER + self._hint(cell)) from None
        return math.nan if value in self.gaps else bounded(value)

    def _plain(self, cell: str) -> str:
        """Return a cell as float reads it, or "" for what is no number here."""
        if "_" in cell or (self.decimal != "." and "." in cell and self.thousands != "."):
            return ""
        if self.thousands and (len(cell.split()) > 1 if self.thousands == " " else self.thousands in cell):
            if _grouped(self.decimal, self.thousands).fullmatch(cell) is None:
                return ""
            cell = "".join(cell.split()) if self.thousands == " " else cell.replace(self.thousands, "")
        return cell.replace(self.decimal, ".") if self.decimal != "." else cell

    def _hint(self, cell: str) -> str:
        """Return what to do about a cell that is no number here but would be one elsewhere."""
        if "_" in cell:
            return ": no underscores"
        other = "," if self.decimal == "." else "."
        ways = [f'decimal = "{other}"'] * self._fits(cell, other, self.thousands)
        ways += [f'thousands = "{mark}"' for mark in _MARKS if self._fits(cell, self.decimal, mark)]
        if not ways:
            both = [f'decimal = "{other}" and thousands = "{mark}"' for mark in _MARKS if self._fits(cell, other, mark)]
            ways = [f'decimal = "{other}"'] if self._fits(cell, other, "") else both[:1]
        return f": say {' or '.join(ways)}, if it is meant as one" if ways else ""

    @staticmethod
    def _fits(cell: str, decimal: str, thousands: str) -> bool:
        """Return whether a cell would be a number if numbers were written so."""
        return decimal != thousands and _is_float(Cells(decimal, thousands)._plain(cell))

    def quick(self, cells: Sequence[str]) -> Doubles | None:
        """Return the numbers of cells, none with an underscore, if all are plain or missing; else None."""
        if self.thousands:
            return None
        if self.decimal != ".":
            if "." in "".join(cells):
                return None
            cells = [cell.replace(self.decimal, ".") for cell in cells]
        try:
            try:
                values = np.fromiter(map(float, cells), np.float64, len(cells))
            except ValueError:
                filled = ("nan" if self.is_missing(cell.strip()) else cell for cell in cells)
                values = np.fromiter(map(float, filled), np.float64, len(cells))
        except ValueError:
            return None
        if (np.abs(values) > MOST_OF_FLOAT32).any():
            return None
        for gap in self.gaps:
            values[values == gap] = math.nan
        return values

    def numbers(self, cells: Sequence[str]) -> tuple[Doubles, Sequence[Why]]:
        """Return the numbers of cells, nan for what is missing or none, and which are none."""
        quick = None if "_" in "".join(cells) else self.quick(cells)
        return (quick, ()) if quick is not None else each(self.number, cells)

    def texts(self, cells: Iterable[str]) -> list[str]:
        """Return cells stripped, "" for what is missing."""
        return ["" if self.is_missing(cell) else cell for cell in map(str.strip, cells)]


class CellError(ValueError):
    """A cell that is not what was asked for. The message goes on after "line 3, column a ", without the cell."""


def bounded(value: float) -> float:
    """Return a number that a float32 holds, or nan. Raises CellError."""
    if abs(value) > MOST_OF_FLOAT32:
        with np.errstate(over="ignore"):
            if not np.isfinite(np.float32(value)):  # a little above, it is rounded down
                raise CellError(BEYOND)
    return value


def each(read: Callable[[Cell], float], cells: Sequence[Cell]) -> tuple[Doubles, list[Why]]:
    """Return what each cell is read as, nan where that raises CellError, and which did."""
    values, whys = np.full(len(cells), math.nan), list[Why]()
    for at, cell in enumerate(cells):
        try:
            values[at] = read(cell)
        except CellError as error:
            whys.append((at, str(error)))
    return values, whys


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, in any notation that Cells knows, and no missing one."""
    plain = cell.strip()
    return plain[:1] in _BEGINS and any(_is_float(other._plain(plain)) for other in _NOTATIONS)


_BEGINS = frozenset("0123456789+-.,")
_NOTATIONS = (Cells(), Cells(","), Cells(".", ","), Cells(",", "."))


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@lru_cache
def _gaps(cells: Cells) -> tuple[float, ...]:
    return tuple(float(plain) for cell in cells.missing if _is_float(plain := cells._plain(cell)))


@lru_cache
def _grouped(decimal: str, thousands: str) -> re.Pattern[str]:
    """Return what numbers in groups look like: of three digits each, but for the first; or of two, as in India."""
    mark, point = r"\s" if thousands == " " else re.escape(thousands), re.escape(decimal)
    return re.compile(rf"[+-]?\d{{1,3}}(?:{mark}\d{{2,3}})*{mark}\d{{3}}(?:{point}\d*)?(?:[eE][+-]?\d+)?")
