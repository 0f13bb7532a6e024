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
        self._heard: set[str] = set()
        self._n_far = 0

    @property
    def usual(self) -> list[float]:
        """The norms from before this base."""
        return [peer.norm for peer in self._before]

    @property
    def n_heard(self) -> int:
        """Norms that were sent to this base."""
        return len(self._now)

    @property
    def n_far(self) -> int:
        """How many of them were far from what is usual."""
        return self._n_far

    def usual_by_now(self, norm: float, device: str) -> list[float]:
        """Return the norms with those of this base in their places, and with one that has just come."""
        now = [*self._now, Peer(norm, device, self._number)]
        return [peer.norm for peer in _following(self._before, now, self._number)]

    def most_are_far(self) -> bool:
        """Return whether not one device is far from what is usual, but most of those heard on this base are."""
        return self._n_far >= MIN_PEERS - 1 and 2 * self._n_far > len(self._now)

    def note(self, norm: float, device: str, *, far: bool) -> None:
        """Note the norm of an update, whatever becomes of it; of a device with several, the last."""
        if device and device in self._heard:
            self._now = [peer for peer in self._now if peer.device != device]
        self._heard.add(device)
        self._now.append(Peer(norm, device, self._number))
        self._n_far += far

    def following(self) -> tuple[Peer, ...]:
        """Return the norms that are usual on the next base: those of this one first, by size."""
        return _following(self._before, self._now, self._number)


def _following(before: Sequence[Peer], now: Sequence[Peer], number: int) -> tuple[Peer, ...]:
    latest = sorted(now, key=lambda peer: (peer.norm, peer.device))
    again = {peer.device for peer in latest}
    older = [
        peer for peer in before if peer.number > number - LOOKS_BACK and (not peer.device or peer.device not in again)
    ]
    if sum(bool(peer.device) for peer in (*latest, *older)) >= MIN_PEERS:
        older = [peer for peer in older if peer.device]  # who knows how often one of the others is there
    first = _evenly(latest, MOST)
    return (*first, *_evenly(older, MOST - len(first)))


def _evenly(peers: Sequence[Peer], most: int) -> list[Peer]:
    """Return so many at most, from everywhere in their order: the smallest alone would say too little."""
    if len(peers) <= most:
        return list(peers)
    return [peers[(2 * i + 1) * len(peers) // (2 * most)] for i in range(most)]
