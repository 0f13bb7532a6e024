"""How long the devices of a job take, from the opening of a round to their offer; and the deadline that follows.

The first round waits FIRST_S; from then on the deadline is SLACK times the slowest pace known among those drawn. A
device that was cut is heard of when its late offer comes: the next deadline then has room for it. One that is never
heard of is not waited for again.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.messages import Version

FIRST_S = 3600.0
SLACK = 2.0
SHORTEST_S = 10.0
BASES_KEPT = 100


class Pace:
    """What is known of the devices' speed."""

    def __init__(self) -> None:
        self._opened: dict[Version, float] = {}
        self._heard: dict[str, tuple[Version, float]] = {}

    def open(self, base: Version, now: float) -> None:
        """Note when devices could begin to train on this base."""
        self._opened.setdefault(base, now)
        while len(self._opened) > BASES_KEPT:
            del self._opened[next(iter(self._opened))]

    def hear(self, device: str, base: Version, now: float) -> None:
        """Note the first offer of a device to a base; what it offers again says nothing."""
        heard = self._heard.get(device)
        if base in self._opened and (heard is None or heard[0] < base):
            self._heard[device] = (base, now - self._opened[base])

    def deadline_s(self, cohort: Iterable[str]) -> float:
        """Give the time that a round of these devices may take."""
        known = [self._heard[device][1] for device in cohort if device in self._heard]
        return max(SHORTEST_S, SLACK * max(known)) if known else FIRST_S
