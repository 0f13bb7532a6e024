"""The versions of a job each of which was better by more than min_delta than the one before it among them. Pure.

One may fall out, as a score on too few rows. Then what came after it may be an improvement on what was before it, up to
the first that still is one by both: from there on they are the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from aggregator.convergence import is_thin


class Scored(NamedTuple):
    """A version. value: how good it is, higher is better; None where nothing says so. rows: on which devices have
    scored it, None where they have not. is_scored: patience counts it.
    """

    number: int
    value: float | None
    rows: float | None
    is_scored: bool


class Improvements:
    """What patience counts from, and how far it has come."""

    def __init__(self, min_delta: float) -> None:
        self._min_delta = min_delta
        self._n_scored = 0
        self._numbers: list[int] = []
        self._values: list[float] = []
        self._scored_by: list[int] = []
        """Of each improvement, how many versions were scored up to it."""
        self._lightest: list[tuple[float, int]] = []
        """Rows and numbers of improvements that devices have scored, a heap; also of some that are none any more."""
        self._peaks: list[tuple[int, float]] = []
        """Versions that none after them is as good as, with their values: how far it is worth reading on."""

    @property
    def last(self) -> int | None:
        """The number of the last improvement; None where there is none."""
        return self._numbers[-1] if self._numbers else None

    @property
    def scored_since(self) -> int:
        """Versions that were scored since the last improvement, or since there are any."""
        return self._n_scored - (self._scored_by[-1] if self._scored_by else 0)

    def begin(self) -> None:
        """Forget all improvements: what comes next is the first one."""
        for kept in (self._numbers, self._values, self._scored_by, self._lightest, self._peaks):
            kept.clear()

    def is_one(self, value: float | None) -> bool:
        """Return whether a version that is as good would be an improvement."""
        return value is not None and (not self._values or value > self._values[-1] + self._min_delta)

    def add(self, one: Scored) -> None:
        """Add the next version."""
        self._n_scored += one.is_scored
        if one.value is None:
            return
        while self._peaks and self._peaks[-1][1] <= one.value:
            self._peaks.pop()
        self._peaks.append((one.number, one.value))
        if self.is_one(one.value):
            self._put(len(self._numbers), [(one, one.value, self._n_scored)])

    def is_any_thin(self, most: float) -> bool:
        """Return whether an improvement falls out, or one that was, where versions were scored on so many rows."""
        return bool(self._lightest) and is_thin(self._lightest[0][0], most)

    def take_thin(self, most: float) -> int | None:
        """Return the number of an improvement that falls out, and is to be mended; None where all stay.

        most: rows on which a version was scored.
        """
        while self.is_any_thin(most):
            _, number = heappop(self._lightest)
            at = bisect_left(self._numbers, number)
            if at < len(self._numbers) and self._numbers[at] == number:
                return number
        return None

    def mend(self, number: int, after: Iterable[Scored]) -> None:
        """Take an improvement out. after: the versions after it, read as far as they may be others."""
        first = bisect_left(self._numbers, number)
        best = self._values[first - 1] if first else None
        n_scored, until, found = self._scored_by[first], first + 1, list[tuple[Scored, float, int]]()
        for one in after:
            if not self._may_follow(one.number, best):
                until = len(self._numbers)
                break
            n_scored += one.is_scored
            was_one = until < len(self._numbers) and self._numbers[until] == one.number
            if one.value is not None and (best is None or one.value > best + self._min_delta):
                if was_one:
                    break
                found.append((one, one.value, n_scored))
                best = one.value
            until += was_one
        for kept in (self._numbers, self._values, self._scored_by):
            del kept[first:until]
        self._put(first, found)

    def _may_follow(self, number: int, best: float | None) -> bool:
        """Return whether from this version on any may be an improvement on what is as good as best."""
        at = bisect_left(self._peaks, (number,))
        return best is None or (at < len(self._peaks) and self._peaks[at][1] > best + self._min_delta)

    def _put(self, at: int, found: list[tuple[Scored, float, int]]) -> None:
        self._numbers[at:at] = [one.number for one, _, _ in found]
        self._values[at:at] = [value for _, value, _ in found]
        self._scored_by[at:at] = [n_scored for _, _, n_scored in found]
        for one, _, _ in found:
            if one.rows is not None:
                heappush(self._lightest, (one.rows, one.number))
