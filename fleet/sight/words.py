"""How much of what devices say of themselves is kept: a bounded number of bytes, whoever they are and however many.

One device may speak of dozens of jobs, and give a reason for each; a hundred thousand of them would be gigabytes. Who
comes when all of the room is taken is shown, with nothing that takes room: a fleet of honest devices never comes near.
"""

from __future__ import annotations

from msgspec import structs

from fleet.sight.known import NO_LABELS, NO_PARTS, Known

MOST_BYTES = 100_000_000
ENTRY_BYTES = 250
"""Of a part, a label or a version that is served, with what Python needs around it; its words come on top."""


class Words:
    """The room for what devices say. most: bytes, about."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._of: dict[str, int] = {}
        self._taken = 0

    def keep(self, known: Known) -> None:
        """Note what is known of a device by now; where there is no room for it, all of that is forgotten."""
        self.leave(known.device)
        weight = weight_of(known)
        if self._taken + weight > self._most:
            known.labels, known.parts = NO_LABELS, NO_PARTS
            if known.vitals is not None:
                known.vitals = structs.replace(known.vitals, serves={}, why="")
            return
        self._of[known.device] = weight
        self._taken += weight

    def leave(self, device: str) -> None:
        """Note that a device is forgotten."""
        self._taken -= self._of.pop(device, 0)


def weight_of(known: Known) -> int:
    """Return about how many bytes what a device says takes."""
    serves, why = ((), "") if known.vitals is None else (known.vitals.serves, known.vitals.why)
    entries = len(known.labels) + len(known.parts) + len(serves)
    words = sum(len(part.why) + len(part.trouble) for part in known.parts.values())
    return ENTRY_BYTES * entries + 4 * (words + len(why))
