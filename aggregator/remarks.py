"""What was done to updates that count, in words for operators: behind fates and the end of a round. Pure.

A fate keeps its first words, "counted" and what else there was; a remark follows behind a semicolon.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

NAMED = 3
"""Devices that a sentence names, of many; the fates name all."""
Capped = Mapping[str, tuple[int, int]]
"""Device to what it weighed in the mean, and what it weighs."""
Clamped = Mapping[str, tuple[int, int]]
"""Device to how many examples it claims, and as how many it counts."""


def on_fates(
    fates: Mapping[str, str],
    clipped: Mapping[str, float],
    capped: Capped,
    clamped: Clamped,
    *,
    usual: str = "its peers'",
) -> dict[str, str]:
    """Return fates with what was done to those that count.

    clipped: device to what its update was scaled by. usual: whose norms those were held against.
    """
    found = dict(fates)
    for device, fate in fates.items():
        if fate.startswith("counted"):
            found[device] = "; ".join([fate, *_of(device, clipped, capped, clamped, usual)])
    return found


def _of(device: str, clipped: Mapping[str, float], capped: Capped, clamped: Clamped, usual: str) -> list[str]:
    told = []
    if device in clamped:
        claimed, most = clamped[device]
        told.append(f"its {claimed} examples count as {most}: more than its round's devices said they have")
    if device in clipped:
        told.append(f"scaled to {clipped[device]:.3g} of itself: its norm is far from {usual}")
    if device in capped:
        before, after = capped[device]
        told.append(f"capped: it weighs {after}, not {before}")
    return told


def on_reason(reason: str, share: float, capped: Capped) -> str:
    """Return how a round ended, with who was capped in it."""
    if not capped:
        return reason
    more = f" and {len(capped) - NAMED} more" if len(capped) > NAMED else ""
    return f"{reason}; capped at max_share = {share:g}: {', '.join(islice(capped, NAMED))}{more}"
