"""How often a device speaks of itself: at once when something has changed, but no flood whatever changes."""

from __future__ import annotations

from broker.messages import Presence

FIRST_FEW = 4
"""Changes that may be announced without a pause, at the start of a connection; then one per interval."""


class Announcer:
    """A token bucket in front of the presence topic."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._last: Presence | None = None
        self._tokens = float(FIRST_FEW)
        self._refilled_at = 0.0
        self._not_before = 0.0

    def forget(self, now: float, wait_s: float) -> None:
        """Whatever was announced may be lost: announce again, after this long."""
        self._last = None
        self._not_before = now + wait_s

    def due_at(self, presence: Presence) -> float | None:
        """Say when this presence may be announced; None when it has been."""
        if presence == self._last:
            return None
        return max(self._not_before, self._refilled_at + (1.0 - self._tokens) * self.interval_s)

    def allows(self, presence: Presence, now: float) -> bool:
        """Tell whether to announce this presence now; it then counts as announced."""
        due_at = self.due_at(presence)
        if due_at is None or now < due_at:
            return False
        refilled = self._tokens + (now - self._refilled_at) / self.interval_s
        self._tokens = min(float(FIRST_FEW), refilled) - 1.0
        self._refilled_at = now
        self._last = presence
        return True
