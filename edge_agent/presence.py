"""How often a device speaks of itself: at once when something has changed, now and then anyway, and never a flood.

It repeats itself because a broker may drop what it has acknowledged, and a fleet would wait for ever for a device whose
one word was lost.
"""

from __future__ import annotations

from broker.messages import Presence

FIRST_FEW = 4
"""Changes that may be announced without a pause, at the start of a connection; then one per interval."""


REPEAT_S = 600.0
"""A presence that has not changed is announced again after this long."""


class Announcer:
    """A token bucket in front of the presence topic."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._last: Presence | None = None
        self._last_at = 0.0
        self._tokens = float(FIRST_FEW)
        self._refilled_at = 0.0
        self._not_before = 0.0

    def forget(self, now: float, wait_s: float) -> None:
        """Whatever was announced may be lost: announce again, after this long."""
        self._last = None
        self._not_before = now + wait_s

    def due_at(self, presence: Presence) -> float:
        """Say when this presence is to be announced: as soon as may be, or again after a while."""
        if presence == self._last:
            return self._last_at + REPEAT_S
        return max(self._not_before, self._refilled_at + (1.0 - self._tokens) * self.interval_s)

    def allows(self, presence: Presence, now: float) -> bool:
        """Tell whether to announce this presence now; it then counts as announced."""
        if now < self.due_at(presence):
            return False
        refilled = self._tokens + (now - self._refilled_at) / self.interval_s
        self._tokens = min(float(FIRST_FEW), refilled) - 1.0
        self._refilled_at = now
        self._last, self._last_at = presence, now
        return True
