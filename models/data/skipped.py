"""The rows of a source that cannot be used: how many, why, and where the first of each kind are.

A few are left out and told of; more than the source's `max_skipped` of all, and the device is out. A reason names the
column and what is wrong with it, never what stands there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.dataset import DatasetError

MOST_LINES = 3
"""That are named for a reason."""
MOST_REASONS = 5
"""That are named."""
MOST_KNOWN = 1000
"""Reasons that are told apart."""


class _Found(NamedTuple):
    n: int
    lines: tuple[int, ...]


class _Wrong(NamedTuple):
    n: int
    first: str


class Skipped:
    """What is left out of one reading.

    whose: the source, for messages. most: the share of its rows that may be left out. place: what a line is called
    there, "line" or "row".
    """

    def __init__(self, whose: str, most: float, place: str = "line") -> None:
        self.n_rows = 0
        """All that were read."""
        self.n_skipped = 0
        self._whose, self._most, self._place = whose, most, place
        self._reasons: dict[tuple[str, str], _Found] = {}
        self._wrong: dict[str, _Wrong] = {}
        self._replaced: dict[tuple[str, str], _Found] = {}

    def skip(self, column: str, why: str, lines: npt.NDArray[np.int64], n: int | None = None) -> None:
        """Leave out these rows, none of which was before. n: how many, where their lines are not known any more."""
        n = len(lines) if n is None else n
        self.n_skipped += n
        _note(self._reasons, column, why, lines, n)

    def replace(self, column: str, why: str, lines: npt.NDArray[np.int64]) -> None:
        """Note values that count as missing though something stands there."""
        _note(self._replaced, column, why, lines, len(lines))

    def note_fault(self, column: str, line: int, why: str) -> None:
        """Count a cell that is not what was asked for."""
        found = self._wrong.get(column) or _Wrong(0, f"in {self._place} {line} it {why}")
        self._wrong[column] = found._replace(n=found.n + 1)

    def share_wrong(self, column: str) -> float:
        """Return the share of a column's cells that are not what was asked for."""
        found = self._wrong.get(column)
        return 0.0 if found is None else found.n / max(1, self.n_rows)

    def first_wrong(self, column: str) -> str:
        """Return where the first such cell of a column is, and why: "in line 3 it is no number"."""
        return self._wrong[column].first

    def check(self) -> None:
        """Raise DatasetError where there are no rows, or too many of them cannot be used."""
        if not self.n_rows:
            raise DatasetError(f"{self._whose}: no rows yet")
        if self.n_skipped == self.n_rows:
            raise DatasetError(f"{self._whose}: none of its {self.n_rows:,} rows can be used: {self._listed()}")
        if self.n_skipped > self._most * self.n_rows:
            raise DatasetError(
                f"{self._whose}: {self.n_skipped:,} of {self.n_rows:,} rows cannot be used, more than max_skipped = "
                f"{self._most:g} allows: {self._listed()}"
            )

    @property
    def exact(self) -> str:
        """Return all of it for this machine's log; "" where everything is used as it is."""
        told = []
        if self.n_skipped:
            told.append(f"{self.n_skipped:,} of {self.n_rows:,} rows are left out: {self._listed()}")
        if self._replaced:
            told.append(f"taken for missing: {_sentence(self._replaced, self._place)}")
        return "; ".join(told)

    @property
    def told(self) -> str:
        """Return a sentence for the operator, which stays the same while about as much is left out; "" for nothing."""
        if not self.n_skipped:
            return ""
        share = 100 * self.n_skipped / self.n_rows
        about = "less than 1" if share < 1 else f"about {float(f'{share:.1g}'):g}"
        (column, why), found = max(self._reasons.items(), key=lambda item: item[1].n)
        where = f" ({self._place} {found.lines[0]})" if found.lines else ""
        return f"{self._whose}: {about} % of the rows are left out, most because {_why(column, why)}{where}"

    def _listed(self) -> str:
        return _sentence(self._reasons, self._place)


def _note(reasons: dict[tuple[str, str], _Found], column: str, why: str, lines: npt.NDArray[np.int64], n: int) -> None:
    if not n:
        return
    key = column, why
    found = reasons.get(key)
    if found is None:
        if len(reasons) >= MOST_KNOWN:
            return
        found = _Found(0, ())
    new = () if len(found.lines) >= MOST_LINES else tuple(int(line) for line in lines[: MOST_LINES - len(found.lines)])
    reasons[key] = _Found(found.n + n, found.lines + new)


def _sentence(reasons: dict[tuple[str, str], _Found], place: str) -> str:
    ranked = sorted(reasons.items(), key=lambda item: -item[1].n)
    told = []
    for (column, why), found in ranked[:MOST_REASONS]:
        more = ", …" if found.n > len(found.lines) else ""
        places = place if found.n == 1 else f"{place}s"
        where = f" ({places} {', '.join(map(str, found.lines))}{more})" if found.lines else ""
        told.append(f"{found.n:,} because {_why(column, why)}{where}")
    if len(ranked) > MOST_REASONS:
        told.append(f"and {len(ranked) - MOST_REASONS} reasons more")
    return "; ".join(told)


def _why(column: str, why: str) -> str:
    return f"{column!r} {why}" if column else f"the line {why}"
