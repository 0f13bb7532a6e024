"""Which version of a job is the best, kept as versions come: what `convergence.best_of` says, without reading them all.

history    v0  v1  v2  …  v(n-1)  │  v(n)
read once, as each is  │  looked at anew whenever something is asked: its metrics may change
left                   │  as long as it is the last one

1. Whoever keeps the list appends to it, and changes nothing but its last one. A list that has grown by several, or
that has not come to what was to be read, is read once as a whole.
2. A score by devices on less than half of the rows of another says nothing (`convergence.is_thin`). The most rows only
grow; so of the versions before, those are kept that would be the best if what is on fewer rows said nothing: a list
that falls in value as it rises in rows (`Frontier`), most often of one.
3. A version that puts earlier ones out of the running, or back into it, has all of them read once, when it is left:
one that is restored, or weights that were given after something was drawn. While it is the last one, every
question reads all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from aggregator.convergence import (
    RESTORED,
    STARTED,
    best_of,
    is_as_drawn,
    is_thin,
    judged_by,
    out_of_the_running,
    rows_by_devices,
    sign_of,
)
from models.job import RoundsSpec

Metrics = Mapping[str, float]
Place = tuple[float, int]
"""How good a version is, higher is better, and minus its number: of equal ones the first is the largest."""


class Frontier:
    """The versions of which one is the best by one metric, however many rows a score has to be on."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.most = 0.0
        """Rows on which devices have scored a version, at the most."""
        self._sign = sign_of(metric)
        self._rows: list[float] = []
        """Rising; inf for a score that is not by devices, or for which they are not asked."""
        self._places: list[Place] = []
        """Falling: each is the best of all on as many rows or more."""

    def most_with(self, metrics: Metrics) -> float:
        """Return the most rows on which a version was scored, this one and all that were added."""
        return max(self.most, rows_by_devices(metrics, self.metric) or 0.0)

    def place(self, number: int, metrics: Metrics, most: float) -> Place | None:
        """Return how good a version is; None where nothing says so, or on too few rows."""
        if self.metric not in metrics or is_thin(rows_by_devices(metrics, self.metric), most):
            return None
        return self._sign * metrics[self.metric], -number

    def add(self, number: int, metrics: Metrics, *, is_in: bool) -> None:
        """Add the next version. is_in: it may be the best; its rows count anyway."""
        most = self.most_with(metrics)
        if most > self.most:
            self.most = most
            thin = bisect_left(self._rows, most / 2)
            del self._rows[:thin], self._places[:thin]
        place = self.place(number, metrics, most) if is_in else None
        if place is None:
            return
        rows = rows_by_devices(metrics, self.metric)
        rows = float("inf") if rows is None else rows
        at = bisect_left(self._rows, rows)
        if at < len(self._rows) and self._places[at] > place:
            return
        first = after = bisect_right(self._rows, rows)
        while first and self._places[first - 1] < place:
            first -= 1
        self._rows[first:after], self._places[first:after] = [rows], [place]

    def best_with(self, number: int, metrics: Metrics, *, is_in: bool) -> Place | None:
        """Return the best of all that were added and this one, which is not; None where there is none."""
        most = self.most_with(metrics)
        at = bisect_left(self._rows, most / 2)
        found = [self._places[at]] if at < len(self._rows) else []
        if is_in and (place := self.place(number, metrics, most)) is not None:
            found.append(place)
        return max(found, default=None)


class Ranking:
    """The versions of one job, ranked as they come."""

    def __init__(self, history: Sequence[Metrics], rounds: RoundsSpec) -> None:
        """Rank what is in this list, now and as it grows. history: the metrics of version 0, 1, …"""
        self._history = history
        self._rounds = rounds
        self._newest: Metrics | None = None
        """The last one that was read."""
        self._read(0)

    def best(self) -> int | None:
        """Return what `best_of` says of all versions."""
        if not self._history:
            return None
        self._catch_up(len(self._history) - 1)
        last = self._history[-1]
        return best_of(self._history, self._rounds) if self._turns(last) else self._best_with(last)

    def best_after(self, left: Metrics, made: Metrics) -> int | None:
        """Return what `best_of` will say once the last version is `left` and is followed by `made`.

        It is read as if it were so already; where the list then goes on with another one, it is read again.
        """
        before = len(self._history) - 1
        self._catch_up(before)
        turns = self._turns(left)
        self._add(left)
        if turns or self._turns(made):
            self._newest = None
            return best_of([*self._history[:before], left, made], self._rounds)
        return self._best_with(made)

    def _catch_up(self, n: int) -> None:
        """Read the first n versions, of which most have been read."""
        is_so = self._n == 0 or (self._n <= n and self._newest is self._history[self._n - 1])
        if is_so and self._n == n - 1 and not self._turns(self._history[n - 1]):
            self._add(self._history[n - 1])
        elif not is_so or self._n != n:
            self._read(n)

    def _read(self, n: int) -> None:
        """Read the first n versions, anew."""
        before = self._history[:n]
        self._n, self._newest = 0, None
        self._is_started = any(STARTED in metrics for metrics in before)
        self._has_drawn = False
        self._frontiers = [Frontier(metric) for metric in judged_by(self._rounds)]
        out = out_of_the_running(before)
        for number, metrics in enumerate(before):
            self._add(metrics, is_out=number in out)

    def _add(self, metrics: Metrics, *, is_out: bool = False) -> None:
        is_in = self._n > 0 and not is_out and self._is_trained(metrics)
        for frontier in self._frontiers:
            frontier.add(self._n, metrics, is_in=is_in)
        self._is_started |= STARTED in metrics
        self._has_drawn |= is_as_drawn(metrics)
        self._n, self._newest = self._n + 1, metrics

    def _best_with(self, last: Metrics) -> int | None:
        is_in = self._n > 0 and self._is_trained(last)
        found = (frontier.best_with(self._n, last, is_in=is_in) for frontier in self._frontiers)
        return next((-place[1] for place in found if place is not None), None)

    def _is_trained(self, metrics: Metrics) -> bool:
        return self._is_started or STARTED in metrics or not is_as_drawn(metrics)

    def _turns(self, metrics: Metrics) -> bool:
        """Return whether the next version puts earlier ones out of the running, or back into it."""
        if RESTORED in metrics and int(metrics[RESTORED]) + 1 < self._n:
            return True
        return STARTED in metrics and not self._is_started and self._has_drawn
