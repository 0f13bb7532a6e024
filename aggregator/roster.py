"""Which devices there are: presence, read with the suspicion that a network deserves.

A device counts its boots and stores the count before it connects; its last will carries it too. So an `offline` of an
older boot says nothing of the newer one, and two boots of one id that speak in turn are two devices: a clone.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from broker.messages import Presence

CLONE_SWAPS = 3
"""Times that an id's boot number may fall back before it is called a clone; one late packet is not yet one."""


class Known(Struct):
    """What is known of one device."""

    presence: Presence
    fallbacks: int = 0
    """Times that a lower boot than the highest one spoke as online."""

    @property
    def cloned(self) -> bool:
        """Tell whether two devices seem to share this id."""
        return self.fallbacks >= CLONE_SWAPS


class Roster:
    """All devices of a fleet."""

    def __init__(self, most: int = 100_000) -> None:
        self.most = most
        self.devices: dict[str, Known] = {}

    def see(self, presence: Presence) -> Literal["news", "stale", "clone", "full"]:
        """Take a presence and say what it was.

        stale: of an older boot, ignored. clone: the same, so often that two devices must share the id.
        """
        known = self.devices.get(presence.device)
        if known is None:
            if len(self.devices) >= self.most:
                return "full"
            self.devices[presence.device] = Known(presence)
            return "news"
        if presence.boot < known.presence.boot:
            if presence.online:
                known.fallbacks += 1
            return "clone" if known.cloned else "stale"
        known.presence = presence
        return "news"

    def part_in(self, job: str, device: str) -> tuple[bool, bool, str]:
        """Say whether a device is online, whether it is ready for a job, and why not."""
        presence = self.devices[device].presence
        return presence.online, job in presence.ready, presence.unready.get(job, "")
