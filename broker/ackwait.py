"""How long an acknowledgement may wait for others on one connection, and for how many. Pure: the time is an argument.

An acknowledgement of its own wakes a thread and is a segment of TCP; eight that go together cost little more than one.
But a broker that lets only a few packets be open (mosquitto's max_inflight_messages on MQTT 3.1.1; on MQTT 5 the
smaller of its number and ours) sends nothing while these are, and says nowhere how many it lets. So it is watched:
where a packet comes right after acknowledgements that had waited to the end, it may have waited for them, and from then
on no more wait than were ever open at once.
"""

from __future__ import annotations

from broker.mailbox import ACK_WAITS_S, ACKS_AT_ONCE


class AckWait:
    """The acknowledgements of one connection."""

    def __init__(self) -> None:
        self.by: float | None = None
        """Until when acknowledgements are not called for; None: they are."""
        self.at_once = ACKS_AT_ONCE
        """With so many nobody waits any longer."""
        self._n_open = self._most_open = 0
        self._ended_at: float | None = None
        """When a wait has last come to its end with acknowledgements in it."""
        self._is_narrow = False

    def came(self, now: float) -> None:
        """Note that a packet has come which is to be acknowledged when the owner takes it."""
        self._n_open += 1
        self._most_open = max(self._most_open, self._n_open)
        self._is_narrow = self._is_narrow or (self._ended_at is not None and now < self._ended_at + ACK_WAITS_S)
        if self._is_narrow:
            self.at_once = min(ACKS_AT_ONCE, self._most_open)
        if self.by is None:
            self.by = now + ACK_WAITS_S

    def end(self, now: float, n_waiting: int) -> bool:
        """Return whether the wait ends now. n_waiting: acknowledgements in it."""
        if self.by is None or now < self.by:
            return False
        self.by = None
        if n_waiting:
            self._ended_at = now
        return True

    def said(self, n: int) -> None:
        """Note that so many acknowledgements have left."""
        self._n_open = max(0, self._n_open - n)
