"""How long the devices of a job take, from the attempt that drew them to their offer; and the deadline that follows.

The first round waits for the ceiling. From then on the deadline is SLACK times a high quantile of the paces known among
those drawn: of up to ten devices the slowest one's, so that a slow device is a member and not a failure; of more, the
slowest tenth may be cut. A device that was cut is heard of when its late offer comes: the next deadline then has room
for it. One that is never heard of is not waited for again. Nothing is longer than the ceiling, which the job can set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from broker.messages import Version

SLACK = 2.0
SHORTEST_S = 10.0
QUANTILE = 0.9
BASES_KEPT = 20


class Pace:
    """What is known of the devices' speed. ceiling_s: the longest deadline."""

    def __init__(self, ceiling_s: float = 3600.0) -> None:
        self.ceiling_s = ceiling_s
        self._drawn: dict[Version, dict[str, float]] = {}
        """Base to device to when it could begin to train: at the first attempt that drew it."""
        self._heard: dict[str, tuple[Version, float]] = {}

    def draw(self, base: Version, cohort: Iterable[str], now: float) -> None:
        """Note who can begin to train on this base from now on; who was drawn for it before has begun already."""
        drawn = self._drawn.setdefault(base, {})
        for device in cohort:
            drawn.setdefault(device, now)
        while len(self._drawn) > BASES_KEPT:
            del self._drawn[next(iter(self._drawn))]

    def hear(self, device: str, base: Version, now: float) -> None:
        """Note the first offer of a device to a base; what it offers again says nothing."""
        heard, began = self._heard.get(device), self._drawn.get(base, {}).get(device)
        if began is not None and (heard is None or heard[0] < base):
            self._heard[device] = (base, now - began)

    def deadline_s(self, cohort: Iterable[str]) -> float:
        """Return the time that a round of these devices may take."""
        known = sorted(self._heard[device][1] for device in cohort if device in self._heard)
        if not known:
            return self.ceiling_s
        usual = known[math.ceil(QUANTILE * len(known)) - 1]
        return min(max(SHORTEST_S, SLACK * usual), self.ceiling_s)
