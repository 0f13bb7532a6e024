"""What norms a gate holds usual: those that many devices sent, each one's last, whatever became of their updates.

One norm a device, so that who sends often says no more than who sends seldom, and fewer than half of the devices, with
whatever they send, move the median no further than to another honest one. Those of refused and clipped updates are
among them, as they came: if the norms of an honest fleet grow, so does what is usual, as soon as half of it has grown.
A norm counts for LOOKS_BACK versions, so that devices that are gone do not hold back those that stayed.

While a base is open what is usual stays what it was when the base was reached: else the limit would depend on who came
first. The norms of its own updates are gathered, and count from the next version on. Only where an update would be
refused are they asked before (`usual_by_now`): a base that everybody is refused on is never left, and never gets peers.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

from aggregator.gates import MIN_PEERS

MOST = 100
"""Norms that are remembered."""
LOOKS_BACK = 20
"""Versions that a device's norm counts for."""


class Peer(NamedTuple):
    """A norm, whose it is ("" where that is not known, as from before it was kept), and the base it was sent to."""

    norm: float
    device: str
    number: int


class Peers:
    """The norms of one base: those that are usual, and those that came since. Mutable: `note` alone changes it."""

    def __init__(self, before: Sequence[Peer], number: int) -> None:
        """number: of the base."""
        self._before = tuple(before)
        self._number = number
        self._now: list[Peer] = []
        """Those that were sent to this base, by size."""
        self._heard: set[str] = set()
        self.n_far = 0
        """How many of them are far from what is usual."""

    @property
    def usual(self) -> list[float]:
        """The norms from before this base."""
        return [peer.norm for peer in self._before]

    @property
    def n_heard(self) -> int:
        """Devices that have sent a norm to this base."""
        return len(self._now)

    def most_are_far(self) -> bool:
        """Return whether not one device is far from what is usual, but most of those heard on this base are."""
        return self.n_far >= MIN_PEERS - 1 and 2 * self.n_far > len(self._now)

    def note(self, norm: float, device: str, *, far: bool) -> None:
        """Note the norm of an update, whatever becomes of it; of a device with several, as with late ones, the last."""
        if device and device in self._heard:
            self._now = [peer for peer in self._now if peer.device != device]
        else:
            self.n_far += far
        self._heard.add(device)
        insort(self._now, Peer(norm, device, self._number))

    def usual_by_now(self, norm: float, device: str) -> list[float]:
        """Return the norms with those of this base in their places, and with one that has just come."""
        now = self._now.copy()
        insort(now, Peer(norm, device, self._number))
        return [peer.norm for peer in self._following(now, device)]

    def following(self) -> tuple[Peer, ...]:
        """Return the norms that are usual on the next base: those of this one first, by size."""
        return self._following(self._now)

    def _following(self, now: Sequence[Peer], also: str = "") -> tuple[Peer, ...]:
        older = [peer for peer in self._before if peer.number > self._number - LOOKS_BACK]
        older = [peer for peer in older if not peer.device or not (peer.device == also or peer.device in self._heard)]
        latest = _evenly(now, MOST)
        if sum(bool(peer.device) for peer in (*latest, *older)) >= MIN_PEERS:
            older = [peer for peer in older if peer.device]  # who knows how often one of the others is there
        return (*latest, *_evenly(older, MOST - len(latest)))


def _evenly(peers: Sequence[Peer], most: int) -> Sequence[Peer]:
    """Return so many at most, from everywhere in their order: the smallest alone would say too little."""
    if len(peers) <= most:
        return peers
    return [peers[(2 * i + 1) * len(peers) // (2 * most)] for i in range(most)]
