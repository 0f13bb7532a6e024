"""When a connection is left, and how, so that the broker publishes no will: for good, or for another will.

    owner's thread     close ─┐                 renew ─┐
    network thread            └─> what was taken is sent, until a time ─> DISCONNECT ─> the broker hangs up

1. A will goes with a connection, from its CONNECT on. So a connection is left when the will has changed since, even one
   that the broker has not let in yet: it may know the will already, so it must hear a goodbye.
2. Nobody waits for a renewal, so it can wait for the broker to hang up: a CONNECT that overtakes our DISCONNECT takes
   the old connection over, and sets the old will off. Who closes waits for us, so that is done in a hurry, as is a
   renewal that is to get rid of what the broker still has for us.
"""

from __future__ import annotations

import time
from typing import Any

from broker.sockets import linger
from broker.transport import Packet

RENEW_S = 2.0
"""How long what was taken may still be sent before a connection is left for another will."""

_HURRY_S, _HANG_UP_S = 0.05, 0.5  # how long the broker may take to hang up after our DISCONNECT when we close
_RENEWED_HANG_UP_S = 5.0  # and when another connection is to follow


class Goodbye:
    """What makes a transport leave its connection: told by the owner's thread. Times are those of time.monotonic."""

    def __init__(self, will: Packet | None) -> None:
        self.will = will
        """What the next CONNECT carries."""
        self.n_wills = 0
        """How often that was changed. Read it before `will`: who has an old number leaves once too often."""
        self.renew_by = 0.0
        self.hurry = False
        self.closing_at: float | None = None

    def renew(self, will: Packet | None, now: float, *, hurry: bool = False) -> None:
        """Change the will: a connection that was made before is to be left. hurry: with what was taken unsent."""
        self.renew_by, self.will, self.hurry = now + (0.0 if hurry else RENEW_S), will, hurry
        self.n_wills += 1  # last

    def close(self, until: float) -> None:
        """Leave for good; what was taken may be sent until then. The first call counts."""
        if self.closing_at is None:
            self.closing_at = until

    @property
    def closing(self) -> bool:
        """Whether this is for good."""
        return self.closing_at is not None


class Departure:
    """Whether and when one connection is to be left: asked by the network thread.

    bare: it was made to ask for the version only, so it carries no will and is left as soon as that is answered.
    """

    def __init__(self, goodbye: Goodbye, *, bare: bool) -> None:
        self._goodbye, self._bare = goodbye, bare
        self._n_wills = goodbye.n_wills
        self.will = None if bare else goodbye.will
        """What the CONNECT of this connection carries."""

    def by(self, *, welcome: bool) -> float | None:
        """Until when what was taken may still be sent; None: this connection is to stay. welcome: it was let in."""
        goodbye = self._goodbye
        if goodbye.closing_at is not None:
            return goodbye.closing_at
        if not welcome:
            return None  # it must hear our goodbye
        if self._bare:
            return 0.0
        return goodbye.renew_by if goodbye.n_wills != self._n_wills else None

    def may_leave(self, now: float, by: float, *, waiting: bool, half_written: bool) -> bool:
        """Whether it is time. waiting: something was taken that is not acknowledged. half_written: a packet is.

        A DISCONNECT cannot pass a packet that is half written. Who closes waits for us; otherwise there is time.
        """
        if self._goodbye.closing:
            return now >= by or not (waiting or half_written)
        return not half_written and (now >= by or not waiting)

    @property
    def renews(self) -> bool:
        """Whether another connection, with another will, is to follow."""
        return not self._goodbye.closing and not self._bare

    def linger(self, sock: Any) -> None:
        """After our DISCONNECT, wait a while for the broker to hang up."""
        began_at = time.monotonic()
        if not self._bare:
            linger(sock, lambda: self._hung_up_by(began_at) - time.monotonic())

    def _hung_up_by(self, began_at: float) -> float:
        closing_at = self._goodbye.closing_at
        if closing_at is None:
            return began_at + (_HANG_UP_S if self._goodbye.hurry else _RENEWED_HANG_UP_S)
        return min(max(closing_at, began_at + _HURRY_S), began_at + _HANG_UP_S)
