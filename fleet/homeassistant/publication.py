"""Which packets go to Home Assistant, and when: a fleet's devices, made known once and kept up to date. Pure.

    View ──look──▶ new: config, state     changed: state, each device's STATE_S apart     gone for GONE_S: cleared
                                                        └──────────── due ──────────────▶ packets

1. What was published is remembered by whoever owns this, before it is: `devices` says which, so that it is cleared
   though nobody has seen its device since.
2. Nothing that was handed over has surely arrived: at each connection, and when Home Assistant has started, all of it
   goes out again; what is cleared is cleared twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from broker.transport import Packet
from fleet.homeassistant.discovery import IS_LEVEL, config, config_topic, state, state_topic
from fleet.sight.view import DeviceView, JobView, View

STATE_S = 10.0
"""Between two states of one device, at least."""
GONE_S = 900.0
"""A device that is in no view for so long, while the broker is listened to, is gone for good."""
AGAIN_S = 30.0
"""From the first time that something is cleared to the second, and from one time that all is said to the next."""
LONGEST_STEP_S = 60.0


class Publication:
    """See the law above. devices: those that were made known before. now: of a clock that only goes forward."""

    def __init__(self, prefix: str, fleet: str, software: str, devices: set[str]) -> None:
        self._prefix, self._fleet, self._software = prefix, fleet, software
        self.devices = devices
        self._seen: dict[str, DeviceView] = {}
        self._jobs: Mapping[str, JobView] = {}
        """What states were made of last."""
        self._states: dict[str, bytes] = {}
        """What each is to be told, or was."""
        self._unknown: dict[str, None] = {}
        """Whose config is to be sent, in this order."""
        self._changed: dict[str, None] = {}
        """Whose state is to be sent."""
        self._said_at: dict[str, float] = {}
        self._absent_s: dict[str, float] = {}
        self._clear_at: dict[str, float] = {}
        """When what is gone is cleared the second time."""
        self._to_clear: dict[str, None] = {}
        self._looked_at: float | None = None
        self._all_at = -AGAIN_S

    def again(self, now: float, *, is_urgent: bool = True) -> None:
        """Have all of it said again. is_urgent: also where that was just done."""
        if not is_urgent and now < self._all_at + AGAIN_S:
            return
        self._all_at = now
        self._unknown = dict.fromkeys(self._states)
        self._changed = dict.fromkeys(self._states)
        self._said_at.clear()
        self._to_clear.update(dict.fromkeys(self._clear_at))

    def look(self, view: View, now: float) -> None:
        """Take what is the case now."""
        passed_s = 0.0 if self._looked_at is None else min(LONGEST_STEP_S, now - self._looked_at)
        self._looked_at = now
        is_same, self._jobs = view.jobs is self._jobs, view.jobs
        for device, seen in view.devices.items():
            if IS_LEVEL.match(device) and not (is_same and self._seen.get(device) is seen):
                self._take(view, seen)
        absent = self.devices - view.devices.keys() - self._clear_at.keys()
        self._absent_s = {one: self._absent_s.get(one, 0.0) + passed_s * view.connected for one in absent}
        for device in [one for one, seconds in self._absent_s.items() if seconds >= GONE_S]:
            self._leave(device, now)
        for device in [one for one, at in self._clear_at.items() if now >= at]:
            del self._clear_at[device]
            self._to_clear[device] = None
            self.devices.discard(device)

    def _take(self, view: View, seen: DeviceView) -> None:
        device, said = seen.device, state(view, seen)
        self._seen[device] = seen
        if device not in self._states:
            self.devices.add(device)
            self._clear_at.pop(device, None)
            self._to_clear.pop(device, None)
            self._unknown[device] = None
        if self._states.get(device) != said:
            self._states[device] = said
            self._changed[device] = None

    def _leave(self, device: str, now: float) -> None:
        known: tuple[MutableMapping[str, Any], ...] = (self._seen, self._states, self._unknown, self._changed)
        for of in (*known, self._said_at, self._absent_s):
            of.pop(device, None)
        self._clear_at[device] = now + AGAIN_S
        self._to_clear[device] = None

    def due(self, now: float, room: int) -> Iterator[Packet]:
        """Give the packets that are to be sent now, so many at most; each is taken for sent."""
        while room > 1 and self._to_clear:
            device = next(iter(self._to_clear))
            del self._to_clear[device]
            yield from cleared(self._prefix, self._fleet, device)
            room -= 2
        while room > 0 and self._unknown:
            device = next(iter(self._unknown))
            del self._unknown[device]
            said = config(self._prefix, self._fleet, device, self._software)
            yield Packet(config_topic(self._prefix, self._fleet, device), said, retain=True)
            room -= 1
        for device in list(self._changed):
            if room <= 0:
                return
            if now < self._said_at.get(device, -STATE_S) + STATE_S:
                continue
            del self._changed[device]
            self._said_at[device] = now
            yield Packet(state_topic(self._prefix, self._fleet, device), self._states[device], retain=True)
            room -= 1


def cleared(prefix: str, fleet: str, device: str) -> tuple[Packet, Packet]:
    """Return what takes a device from Home Assistant."""
    topics = config_topic(prefix, fleet, device), state_topic(prefix, fleet, device)
    return Packet(topics[0], b"", retain=True), Packet(topics[1], b"", retain=True)
