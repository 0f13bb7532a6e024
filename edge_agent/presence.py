"""How often a device speaks of itself: when it connects, when it is called, when something has changed, never a flood.

There is no periodic presence. Whoever leads calls the roll when it comes or comes back, and asks a device that has been
silent for long; a word that a broker has lost is found again that way.
"""

from __future__ import annotations

import math
from operator import attrgetter

from broker.messages import Presence

FIRST_FEW = 4
"""Changes that may be announced without a pause, at the start of a connection; then one per interval."""


class Announcer:
    """A token bucket in front of the presence topic."""

    __slots__ = ("_last", "_named", "_refilled_at", "_tokens", "_told", "interval_s", "not_before")

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._last: Presence | None = None
        self._told: Presence | None = None
        """One that has no news against the last; looked at again, it need not be compared."""
        self._tokens = float(FIRST_FEW)
        self._refilled_at = 0.0
        self.not_before = 0.0
        """Until when nothing is announced, whatever there is to say."""
        self._named: tuple[str, ...] = ()
        """Jobs that it has said anything of."""

    def forget(self, now: float, wait_s: float) -> None:
        """Announce again after this long: it was asked for, or the last one may be lost."""
        self._last = self._told = None
        self.not_before = now + wait_s

    def due_at(self, presence: Presence) -> float:
        """Return when this presence is to be announced: as soon as may be; inf where it has been."""
        if presence is self._told:
            return math.inf
        if self._last is not None and _news(presence) == _news(self._last):
            self._last = self._told = presence
            return math.inf
        if not _jobs(presence).issubset(self._named):
            return self.not_before  # an operator waits for the first word on a job
        return max(self.not_before, self._refilled_at + (1.0 - self._tokens) * self.interval_s)

    def allows(self, presence: Presence, now: float) -> bool:
        """Return whether to announce this presence now; it then counts as announced."""
        if now < self.due_at(presence):
            return False
        refilled = self._tokens + (now - self._refilled_at) / self.interval_s
        self._tokens = max(0.0, min(float(FIRST_FEW), refilled) - 1.0)
        self._refilled_at = now
        self._named += tuple(_jobs(presence).difference(self._named))
        self._last = self._told = presence
        return True


def _jobs(presence: Presence) -> set[str]:
    return {*presence.ready, *presence.unready}


_plain = attrgetter(*(name for name in Presence.__struct_fields__ if name not in ("done", "term", "int8")))


def _news(presence: Presence) -> tuple[object, ...]:
    """Return what is news when it is another: all but what only goes along, as it changes with every round."""
    return _plain(presence), {job: one.why for job, one in presence.int8.items()}
