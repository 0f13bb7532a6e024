"""When a device says how it is: on change, rarely, and little in all. Pure: times, words and sizes are arguments.

1. Nothing is said sooner than `every_s` after the last word, whatever has happened meanwhile.
2. A change is said then: of what it does, for which job, what it waits for, what it serves, at once; of heat by 5
   degrees, of free disk by a tenth, of load by 1, when the last word has been paid for: a device that does nothing says
   no more than DAILY_BYTES of its readings a day, however they swing. Progress, bytes and clocks are no change, and go
   along.
3. Once a day it is said anyhow, so that what only goes along is never older.
4. What the broker may have lost is said again after a wait, over which a fleet spreads, and law 1 holds for that too: a
   link that comes and goes costs no more than a device that is busy.
5. What there is to say is looked at every LOOK_S; what has to be read for that only when it could be said, or where a
   file of it is kept (textfile.py).
"""

from __future__ import annotations

import math
from operator import attrgetter

from broker.messages import Vitals

HEAT_DEGREES = 5.0
DISK_SHARE = 0.1
LOAD = 1.0
"""What is a change of a reading."""
DAY_S = 86_400.0
DAILY_BYTES = 10_000
"""For changes of readings alone. A day of 20 kB has 5,760 more bytes for pings at the default keepalive."""
LOOK_S = 60.0

_WORK = attrgetter("boot", "doing", "job", "why", "serves")


class Pace:
    """When one device speaks of itself. every_s: seconds between two words, at least."""

    __slots__ = ("_last", "_last_at", "_looked_at", "_not_before", "_paid_at", "every_s")

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._last: Vitals | None = None
        """What was said last, as far as the broker may still have it."""
        self._last_at = self._looked_at = self._paid_at = -math.inf
        self._not_before = math.inf

    def forget(self, now: float, wait_s: float) -> None:
        """Announce it again after this long: the broker may have lost it, or never had it."""
        self._last, self._not_before = None, now + wait_s

    def stop(self) -> None:
        """Fall silent until the next `forget`."""
        self._not_before = math.inf

    @property
    def look_at(self) -> float:
        """When to look at what there is to say; inf before the first `forget`, and after a `stop`."""
        return max(self._looked_at + LOOK_S, self._not_before)

    @property
    def may_at(self) -> float:
        """When something could be said, if there is something."""
        return max(self._last_at + self.every_s, self._not_before)

    def is_due(self, vitals: Vitals, now: float) -> bool:
        """Return whether to say this now."""
        if now < self.may_at:
            return False
        last = self._last
        if last is None or now >= self._last_at + DAY_S or _WORK(vitals) != _WORK(last):
            return True
        return now >= self._paid_at and has_moved(vitals, last)

    def look(self, now: float) -> None:
        """Note that it was looked at what there is to say."""
        self._looked_at = now

    def say(self, vitals: Vitals, n_bytes: int, now: float) -> None:
        """Note that this was said. n_bytes: what that took on the wire."""
        self._last, self._last_at = vitals, now
        self._paid_at = now + n_bytes * DAY_S / DAILY_BYTES


def has_moved(now: Vitals, before: Vitals) -> bool:
    """Return whether a reading is another one, beyond what it varies by itself."""
    disk = DISK_SHARE * (before.disk_free or 0)
    return (
        _is_apart(now.heat, before.heat, HEAT_DEGREES)
        or _is_apart(now.load, before.load, LOAD)
        or _is_apart(now.disk_free, before.disk_free, max(disk, 1))
    )


def _is_apart(one: float | None, other: float | None, by: float) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) >= by


class Today:
    """What has passed since midnight, UTC, by the device's own clock; since its start on the first day.

    It is kept in memory alone: who starts again begins again. What passes between the last look of a day and midnight
    counts for the next one.
    """

    __slots__ = ("_before", "_day", "_last")

    def __init__(self) -> None:
        self._day: int | None = None
        self._before = self._last = 0
        """What had passed in all when the day began, and at the last look."""

    def count(self, total: int, clock: float) -> int:
        """Return the bytes of today. total: of this process so far. clock: seconds since 1970."""
        day = math.floor(clock / DAY_S)
        if self._day is not None and day != self._day:
            self._before = self._last
        self._day, self._last = day, total
        return total - self._before
