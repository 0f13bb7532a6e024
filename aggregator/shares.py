"""What one device may weigh in a mean, at most: `max_share` of it. Pure, and in whole numbers.

    cap = the largest whole c with  c <= share * sum_k min(w_k, c),      w_k' = min(w_k, cap)

Where fewer than 1 / share devices are there nothing does that, and all weigh as much as the lightest. Who is capped
holds `share` of the mean or a hair less, so that fewer than 1 / share devices are. (With fewer devices than that, all
but the lightest are: as few.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

USUAL = 0.5
"""max_share where the rows of devices are stated, and the job says nothing."""
DOMINATES = 0.5
"""A device that holds more than this share of a mean is named where there is no limit."""


def cap_for(weights: Iterable[int], share: float) -> int:
    """Return the most that one may weigh; what the heaviest does where that is little enough.

    Raises ValueError for no weights.

    >>> cap_for([10, 10, 10, 100], 0.25)
    10
    >>> cap_for([10, 10, 10, 100], 0.4)
    20
    >>> cap_for([5, 7], 0.1)
    5
    """
    ordered = sorted(weights, reverse=True)
    if not ordered:
        raise ValueError("nobody weighs anything")
    rest, part = sum(ordered), Fraction(share)
    for n_capped, weight in enumerate(ordered):
        left = 1 - part * n_capped
        if left <= 0:
            break
        cap = part * rest / left
        if weight <= cap:
            return int(cap) if n_capped else weight
        rest -= weight
    return ordered[-1]


def lightened(weights: Mapping[str, list[int]], share: float) -> dict[str, list[int]]:
    """Return what the updates of those devices weigh that are over their share; each keeps 1 at least.

    weights: of every device's updates: it may have several in a sum, where late ones count.
    """
    totals = {device: sum(of_one) for device, of_one in weights.items()}
    cap = cap_for(totals.values(), share)
    return {
        device: [max(1, weight * cap // totals[device]) for weight in of_one]
        for device, of_one in weights.items()
        if totals[device] > cap
    }


def heaviest(weights: Mapping[str, list[int]]) -> tuple[str, float]:
    """Return who holds most of a mean, the first by name of several, and how much; nobody holds nothing."""
    totals = {device: sum(of_one) for device, of_one in weights.items()}
    if not totals:
        return "", 0.0
    device = min(totals, key=lambda name: (-totals[name], name))
    return device, totals[device] / sum(totals.values())
