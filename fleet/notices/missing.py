"""Which devices are lost: away for so long, while somebody was there to see it.

    there ──away──▶ counted ──lost_after_s──▶ gathered ──GATHER_S──▶ lost, in one go ──there──▶ back, in one go

1. Only time in which the broker was listened to counts. So neither a broken connection of ours nor a clock that leaps
   makes a device lost, and a start in between loses no more than the time that nobody looked.
2. A fleet goes over a minute or two, as its last wills come: the first one waits for the others.
3. Of a device that nothing lies at the broker of nothing is said, unless it was away or lost before.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet.notices.told import MOST_DEVICES, Told
from fleet.sight.view import DeviceView

AWAY = ("offline", "silent")
GATHER_S = 120.0
"""For so long the first lost device waits for others, and a quarter of lost_after_s at most."""
GATHER_BACK_S = 30.0
SETTLED_S = 60.0
"""After a start it takes this long at most until all devices are seen."""


class Missing:
    """Keeps `away` and `lost` of what was told."""

    def __init__(self, lost_after_s: float, told: Told) -> None:
        self._lost_after_s, self._told = lost_after_s, told
        self._gather_s = min(GATHER_S, lost_after_s / 4)
        self._gather_back_s = min(GATHER_BACK_S, lost_after_s / 4)
        self._seen_s = 0.0
        self._lost_at: float | None = None
        self._back_at: float | None = None

    def look(self, devices: Mapping[str, DeviceView], passed_s: float) -> tuple[list[str], list[str]]:
        """Return which devices are lost now, and which are back. passed_s: since the last look, while connected."""
        self._seen_s += passed_s
        told, found, back = self._told, list[str](), list[str]()
        for device, seen in devices.items():
            if seen.state in AWAY:
                if device in told.lost or (device not in told.away and len(told.away) >= MOST_DEVICES):
                    continue
                told.away[device] = away_s = told.away.get(device, -passed_s) + passed_s
                if away_s >= self._lost_after_s:
                    found.append(device)
            elif seen.state == "online":
                told.away.pop(device, None)
                if device in told.lost:
                    back.append(device)
            elif seen.state == "quarantined":
                told.away.pop(device, None)
                told.lost.pop(device, None)
        if self._seen_s >= SETTLED_S:
            for of in (told.away, told.lost):
                for device in of.keys() - devices.keys():
                    del of[device]
        return self._lost(found), self._back(back)

    def _lost(self, found: list[str]) -> list[str]:
        self._lost_at = self._due(found, self._lost_at, self._gather_s)
        if self._lost_at is None or self._seen_s < self._lost_at:
            return []
        self._lost_at = None
        for device in found:
            del self._told.away[device]
            if len(self._told.lost) < MOST_DEVICES:
                self._told.lost[device] = 0.0
        return found

    def _back(self, back: list[str]) -> list[str]:
        self._back_at = self._due(back, self._back_at, self._gather_back_s)
        if self._back_at is None or self._seen_s < self._back_at:
            return []
        self._back_at = None
        for device in back:
            del self._told.lost[device]
        return back

    def _due(self, found: list[str], due: float | None, gather_s: float) -> float | None:
        if not found:
            return None
        return self._seen_s + gather_s if due is None else due
