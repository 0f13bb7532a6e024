"""What has come of models in int8 on the devices of a job, as each says it, and of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

MOST_SHOWN = 3
"""Reasons that a person is shown: the most frequent ones."""


class InInt8(Struct, frozen=True):
    """What a device has said last of its model in int8."""

    version: str
    lost: float
    """Of accuracy or R2, on rows of the device."""
    speedup: float
    """How many times as fast it answers a row; 0 where nothing was measured."""
    why: str = ""
    """Why float32 is served; empty where int8 is."""


class OfFleet(Struct, frozen=True):
    """What has come of int8 on all devices that have said it."""

    devices: int
    """That serve int8."""
    most_lost: float | None
    """By the one that loses most; None where none serves int8, and so with the next."""
    least_speedup: float | None
    """By the one that gains least."""
    float32: dict[str, int]
    """Why others serve float32, and how many of them; the most frequent reason first."""


def of_fleet(said: Iterable[InInt8 | None]) -> OfFleet | None:
    """Return what devices say of int8 in one; None where none says anything."""
    told = [one for one in said if one is not None]
    if not told:
        return None
    served = [one for one in told if not one.why]
    lost = max((one.lost for one in served), default=None)
    speedup = min((one.speedup for one in served), default=None)
    return OfFleet(len(served), lost, speedup, dict(Counter(one.why for one in told if one.why).most_common()))


def lines(told: OfFleet | None) -> list[str]:
    """Return the same as lines for people; none where nothing is told."""
    if told is None:
        return []
    found = []
    if told.most_lost is not None:
        found.append(
            f"int8 on {_devices(told.devices)}, loss at most {told.most_lost:.4f}, at least {told.least_speedup:.2f}x "
            "as fast"
        )
    for why, n in list(told.float32.items())[:MOST_SHOWN]:
        found.append(f"{_devices(n)} kept float32: {why}")
    if len(told.float32) > MOST_SHOWN:
        others = sum(list(told.float32.values())[MOST_SHOWN:])
        found.append(f"{_devices(others)} kept float32 for other reasons (--json has them)")
    return found


def _devices(n: int) -> str:
    return "1 device" if n == 1 else f"{n} devices"
