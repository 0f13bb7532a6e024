"""Whether a job ends with its last version, kept as versions come: what `convergence.reason_to_end` says, without
reading them all.

What is kept is of the versions before the last one, which is looked at anew (ranking.py says why):

    target        what may be the best of them by the metric of the rule to stop
    patience      the improvements since a version that no round has made: each better by more than min_delta than the
                  one before it. The last of them is what patience counts from
    max_rounds    how many of them no round has made

An improvement whose score turns out to be on too few rows falls out, and what follows it is read again until the next
one that stays. Where the last version makes it so, which may yet change, all are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aggregator.convergence import (
    STARTED,
    is_as_drawn,
    is_given,
    is_scored,
    is_thin,
    patience_over,
    reason_to_end,
    rounds_done,
    rows_by_devices,
    sign_of,
    target_reached,
)
from aggregator.improvements import Improvements, Scored
from aggregator.ranking import Frontier
from models.job import RoundsSpec

Metrics = Mapping[str, float]


class Progress:
    """The rule to stop of one job, held against its versions as they come."""

    def __init__(self, history: Sequence[Metrics], rounds: RoundsSpec, classes: Sequence[str] = ()) -> None:
        """Follow this list, now and as it grows: appended to, and nothing changed but its last one.

        history: the metrics of version 0, 1, …. classes: their names, for the words.
        """
        self._history = history
        self._rounds = rounds
        self._classes = classes
        self._read(0)

    def reason_to_end(self) -> str | None:
        """Return what `convergence.reason_to_end` says of all versions."""
        if not self._history:
            return None
        self._catch_up(len(self._history) - 1)
        last, stop = self._history[-1], self._rounds.stop
        if self._turns(last) or self._improvements.is_any_thin(self._frontier.most_with(last)):
            return reason_to_end(self._history, self._rounds, self._classes)
        if stop.target is not None:
            place = self._frontier.best_with(self._n, last, is_in=self._is_trained(last))
            if place is not None and place[0] >= sign_of(stop.metric) * stop.target:
                return target_reached(stop, self._history[-place[1]], self._classes)
        since = self._last_improvement(last)
        if since is not None and self._improvements.scored_since + is_scored(last) >= (stop.patience or 0):
            return patience_over(stop, self._history[since], self._classes)
        if self._n - self._n_given - is_given(last) >= self._rounds.max_rounds:
            return rounds_done(self._rounds, last, self._classes)
        return None

    def _last_improvement(self, last: Metrics) -> int | None:
        """Return what patience counts from, where that is before the last version; None also without patience."""
        value = self._value(last, self._frontier.most_with(last))
        return None if is_given(last) or self._improvements.is_one(value) else self._improvements.last

    def _catch_up(self, n: int) -> None:
        """Read the first n versions, of which most have been read."""
        if self._n == n - 1 and not self._turns(self._history[n - 1]):
            self._add(self._history[n - 1])
        elif self._n != n:
            self._read(n)

    def _read(self, n: int) -> None:
        """Read the first n versions, anew: which scores are on too few rows is known of all of them first."""
        stop = self._rounds.stop
        self._n = self._n_given = 0
        self._is_started = any(STARTED in self._history[number] for number in range(n))
        self._has_drawn = False
        self._frontier = Frontier(stop.metric)
        self._improvements = Improvements(stop.min_delta)
        for number in range(n):
            self._frontier.most = self._frontier.most_with(self._history[number])
        for number in range(n):
            self._add(self._history[number])

    def _add(self, metrics: Metrics) -> None:
        stop, improvements = self._rounds.stop, self._improvements
        self._is_started |= STARTED in metrics
        self._has_drawn |= is_as_drawn(metrics)
        is_in = stop.target is not None and self._is_trained(metrics)
        self._frontier.add(self._n, metrics, is_in=is_in)
        if stop.patience is not None:
            if is_given(metrics):  # what was rolled back has no say
                improvements.begin()
            while (thin := improvements.take_thin(self._frontier.most)) is not None:
                improvements.mend(thin, self._after(thin))
            rows = rows_by_devices(metrics, stop.metric)
            value = self._value(metrics, self._frontier.most)
            improvements.add(Scored(self._n, value, rows, is_scored(metrics)))
        self._n_given += is_given(metrics)
        self._n += 1

    def _after(self, number: int) -> Iterator[Scored]:
        """Read again what came after a version, as far as it is asked for."""
        for later in range(number + 1, self._n):
            metrics = self._history[later]
            rows = rows_by_devices(metrics, self._rounds.stop.metric)
            yield Scored(later, self._value(metrics, self._frontier.most), rows, is_scored(metrics))

    def _value(self, metrics: Metrics, most: float) -> float | None:
        """Return how good a version is, higher is better; None where nothing says so, or on too few rows."""
        metric = self._rounds.stop.metric
        is_out = not self._is_trained(metrics) or is_thin(rows_by_devices(metrics, metric), most)
        return None if is_out or metric not in metrics else sign_of(metric) * metrics[metric]

    def _is_trained(self, metrics: Metrics) -> bool:
        return self._is_started or STARTED in metrics or not is_as_drawn(metrics)

    def _turns(self, metrics: Metrics) -> bool:
        """Return whether the next version makes what was drawn before it count."""
        return STARTED in metrics and not self._is_started and self._has_drawn
