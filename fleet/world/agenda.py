"""Made-up time: what is planned happens in the order of its time, and of its planning where times are equal.

Nothing waits. Between two planned things the world's clock stands still for whoever acts, unless he spends time of his
own. Each process has a clock of its own, as monotonic clocks are: it begins anywhere, anew at every start, and only
goes forward; nobody can compare two of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Act = Callable[..., None]


class Agenda:
    """All that is planned in one world."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the beginning of the world."""
        self.n_done = 0
        """Things that were planned and have happened."""
        self._heap: list[tuple[float, int, Act, tuple[Any, ...]]] = []
        self._n_planned = 0

    def later(self, seconds: float, act: Act, *args: Any) -> None:
        """Plan something in so many seconds."""
        self.at(self.now + max(seconds, 0.0), act, *args)

    def at(self, when: float, act: Act, *args: Any) -> None:
        """Plan something at a time; what is planned for the past happens next."""
        self._n_planned += 1
        heapq.heappush(self._heap, (when, self._n_planned, act, args))

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen that is planned up to a time, or until it is enough."""
        heap = self._heap
        while heap and heap[0][0] <= until and not enough():
            when, _, act, args = heapq.heappop(heap)
            self.now = max(self.now, when)
            self.n_done += 1
            act(*args)
        if not enough():
            self.now = max(self.now, until)


class Clock:
    """The monotonic clock of one start of a process: the world's time, and an offset of its own."""

    def __init__(self, agenda: Agenda, offset: float) -> None:
        self._agenda = agenda
        self._offset = offset
        self._spent = 0.0
        self._last = offset

    def __call__(self) -> float:
        self._last = max(self._last, self._agenda.now + self._offset + self._spent)
        return self._last

    def spend(self, seconds: float) -> None:
        """Let time pass for this process alone, within what it does now."""
        self._spent += seconds

    def settle(self) -> float:
        """End what the process did: give how long it is to rest, so that the world's time catches up with it."""
        spent, self._spent = self._spent, 0.0
        return spent

    def in_the_world(self, time: float) -> float:
        """Turn a time of this clock into one of the world's."""
        return time - self._offset
