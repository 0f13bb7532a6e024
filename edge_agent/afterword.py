"""What a device says of the version that a job has ended with: nobody trains on it, so no update would say it.

   the job is over, and its last version is here ──▶ rows are read ──▶ scored, in steps ──▶ offered ──▶ a verdict: over

1. Only who has that version anyhow, to deploy it, says what it is worth: nothing is fetched for this.
2. The offer is to the last version, and its body the evaluation alone. It is repeated with growing pauses, and over a
   new connection, until there is a verdict on it; whatever that is, it is the last word.
3. It is kept in memory alone. A device that is started again says it only if it fetches that version again: so one that
   dies between deploying it and the verdict has no say.
4. A job that turns out to go on, as with a restored backup, makes it void.
"""

from __future__ import annotations

import zlib
from concurrent.futures import Future
from typing import TYPE_CHECKING

from broker.messages import Offer, Verdict, Version
from edge_agent.evaluating import Scoring

if TYPE_CHECKING:
    from edge_agent.workspace import Rows

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0


class Afterword:
    """One version that a job has ended with. reading: the rows of this device, asked for."""

    __slots__ = ("_at", "_online", "_part", "_pause_s", "is_over", "offer", "reading", "scoring", "version")

    def __init__(self, device: str, version: Version, reading: Future[Rows], *, online: bool) -> None:
        self.version = version
        self.reading: Future[Rows] | None = reading
        self.scoring: Scoring | None = None
        """Under way."""
        self.offer: Offer | None = None
        """What is offered, until there is a verdict."""
        self.is_over = False
        self._online = online
        self._part = zlib.crc32(device.encode()) / 2**32
        """Where in a window in which all devices speak this one does."""
        self._pause_s = FIRST_PAUSE_S
        self._at = 0.0

    def hold(self, offer: Offer, now: float) -> None:
        """Offer this from now on. All devices deploy at once, so it is spread."""
        self.scoring, self.offer = None, offer
        self._at = now + FIRST_PAUSE_S * self._part

    def give_up(self) -> None:
        """Say nothing."""
        self.reading = self.scoring = self.offer = None
        self.is_over = True

    def connected(self, spread_s: float, now: float) -> None:
        """Offer again: the connection is a new one, of either side."""
        self._online, self._pause_s = True, FIRST_PAUSE_S
        self._at = now + spread_s * self._part

    def disconnected(self) -> None:
        """Offer nothing: it would not arrive."""
        self._online = False

    def settle(self, verdict: Verdict) -> bool:
        """Take a verdict, and return whether it is on this."""
        offer = self.offer
        if offer is None or verdict.base != offer.base or not offer.digest.startswith(verdict.digest):
            return False
        self.give_up()
        return True

    @property
    def deadline(self) -> float | None:
        """When it is offered next."""
        return self._at if self.offer is not None and self._online else None

    def take_due(self, now: float) -> Offer | None:
        """Return what is to be offered now, if anything, and put off the next time."""
        if self.offer is None or not self._online or now < self._at:
            return None
        self._at = now + self._pause_s * (0.75 + 0.5 * self._part)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return self.offer
