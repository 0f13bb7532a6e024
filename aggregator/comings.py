"""Which devices came and went, told as events: what each says live is held against what it said before.

A device that is away for less than AWAY_S has not gone: it was asked, or its link was made anew. What the broker has
retained is told of by nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aggregator.events import Events, Kind
from aggregator.roster import Sight
from broker.messages import Presence

if TYPE_CHECKING:
    from aggregator.run import Run

AWAY_S = 5.0
AGAIN_S = {"device.clone": 3600.0}
"""The same of the same device is told again after this long at the earliest ..."""
USUALLY_AGAIN_S = 60.0
"""... or after this."""
MOST = 4096
"""Devices that are remembered for that."""


class Comings:
    """Those of one fleet. events: where they are told."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._went: dict[str, float] = {}
        """Device to when it went, the earliest first: of those of whom it is not told yet."""
        self._told: dict[tuple[str, str], float] = {}
        """Kind and device to when that was told last."""

    @property
    def deadline(self) -> float:
        """When `tick` has something to do; inf for never."""
        return next(iter(self._went.values()), math.inf) + AWAY_S

    def hear(self, before: Presence | None, said: Presence, sight: Sight, now: float, runs: Mapping[str, Run]) -> None:
        """Note what a device has said live. before: what it said last. runs: the jobs at work."""
        device = said.device
        if sight.kind != "news":
            return
        if sight.told:
            self._tell("device.clone" if sight.alarm else "device.card", device, sight.told, now)
        if not said.online:
            if before is not None and before.online:
                self._went.setdefault(device, now)
            return
        if before is None or not (before.boot or before.nonce or before.incarnation):
            self._tell("device.new", device, "it came for the first time since this aggregator was started", now)
        elif self._went.pop(device, None) is None and not before.online:
            self._tell("device.back", device, "it came back", now)
        for job in runs.keys() & said.unready.keys():
            if before is None or job not in before.unready:
                why = f"it cannot take part in {runs[job].spec.name}: {said.unready[job]}"
                self._tell("device.out", device, why, now, job)
        for job in runs.keys() & said.failed.keys():
            failed = said.failed[job]
            if before is None or job not in before.failed or before.failed[job].base != failed.base:
                why = f"its training on version {failed.base} of {runs[job].spec.name} failed: {failed.why}"
                self._tell("device.failed", device, why, now, job)

    def tick(self, now: float) -> None:
        """Tell of those who have been away for long enough."""
        while now >= self.deadline:
            device = next(iter(self._went))
            del self._went[device]
            self._tell("device.gone", device, "it went away", now)

    def forget(self) -> None:
        """Forget who went: another aggregator leads, and tells of it."""
        self._went.clear()

    def _tell(self, kind: Kind, device: str, what: str, now: float, job: str = "") -> None:
        key, again_s = (kind, device), AGAIN_S.get(kind, USUALLY_AGAIN_S)
        if now - self._told.get(key, -math.inf) < again_s:
            return
        if len(self._told) >= MOST:
            self._told.clear()
        self._told[key] = now
        self._events.note(kind, f"{device}: {what}", job=job, device=device)
