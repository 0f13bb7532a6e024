"""When a connection is tested and when it is given up: by silence alone. Pure: the time is an argument.

Alive means that bytes move, in either direction, within one and a half keepalive intervals. (paho's own check wants a
PINGRESP within one, and would cut a slow link that is busy with a large body.)
"""

from __future__ import annotations

from typing import Literal

_INTERVALS = 1.5

Due = Literal["unanswered", "silent", "ping"]


class Keepalive:
    """The clock of one connection, from the moment it is there.

    interval_s: longest silence before a ping. answer_s: how long the broker may take to answer CONNECT: as long as the
    operator says, since a busy broker is slow.
    """

    def __init__(self, interval_s: float, answer_s: float, now: float) -> None:
        self.interval_s = interval_s
        self.answer_s = answer_s
        self._began_at = self._heard_at = self._pinged_at = now
        self._answered = False

    def answered(self, interval_s: float | None, now: float) -> None:
        """Note that the broker let us in. interval_s: its own (MQTT 5 Server Keep Alive), None or 0: ours holds."""
        self.interval_s = interval_s or self.interval_s
        self._answered, self._pinged_at = True, now

    def heard(self, now: float) -> None:
        """Note that bytes moved."""
        self._heard_at = now

    def silence_s(self, now: float) -> float:
        """Return the seconds since bytes moved."""
        return now - self._heard_at

    @property
    def due_at(self) -> float:
        """When `due` has something to say, if nothing is heard before."""
        first = self._pinged_at + self.interval_s if self._answered else self._began_at + self.answer_s
        return min(first, self._heard_at + _INTERVALS * self.interval_s)

    def due(self, now: float) -> Due | None:
        """Return what is due: to give up ("unanswered": no CONNACK; "silent"), or to send a ping, which it notes."""
        if not self._answered and now >= self._began_at + self.answer_s:
            return "unanswered"
        if now >= self._heard_at + _INTERVALS * self.interval_s:
            return "silent"
        if self._answered and now >= self._pinged_at + self.interval_s:
            self._pinged_at = now
            return "ping"
        return None
