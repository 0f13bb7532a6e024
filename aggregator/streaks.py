"""How often in a row a device was refused: once a base at most, and anew after it was counted. Pure.

A device that is refused again and again is broken, or hostile, or of another release: whatever it is, somebody has to
look at it, and nobody looks at single refusals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

MANY = 5
"""Refusals in a row after which a device is named."""
MOST = 256
"""Devices of which it is remembered: those that were refused most often, by name where they are even."""


def now(before: Mapping[str, int], refused: Collection[str], counted: Collection[str]) -> dict[str, int]:
    """Return how often each device was refused in a row, the most first.

    before: the same before this base. refused, counted: who was, on this base. Who was neither keeps what he has.
    """
    after = {device: n for device, n in before.items() if device not in counted}
    for device in refused:
        if device not in counted:
            after[device] = after.get(device, 0) + 1
    ordered = sorted(after.items(), key=lambda one: (-one[1], one[0]))
    return dict(ordered[:MOST])


def named(streaks: Mapping[str, int]) -> dict[str, int]:
    """Return those who were refused MANY times in a row or more."""
    return {device: n for device, n in streaks.items() if n >= MANY}
