"""What an update weighs in the sum of its round: the rows of its device, in units that suit the cohort. Pure.

    weight = rows >> shift, at least 1 and at most MOST

A sum takes weights up to MOST (models/fold.py), and devices may have more rows than that: a sensor has as many after
twelve days at one a second. So the weights of a base have a shift, worked out from what its cohort says when its first
attempt is drawn: the least by which all of them fit. It is durable before that attempt is announced, and the same in
every further one, so that the sum does not show who came when. Whoever has more than fits by then counts as if it had
as many as fit, and that is said.

    shift = 0 wherever nobody has more than MOST, and then weights are rows

A shift rounds the weights of all, so no claim may make it large: it leaves the middle device of the cohort FINEST units
at least. Where fewer than half of a cohort claim absurdly much, the others weigh what they did, to a part in FINEST;
and those who claim it count as MOST units, which is as much as they could claim where shift is 0.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST = 2**20
"""What one update may weigh: `models.fold.MAX_WEIGHT`."""
FINEST = 64
"""Units that the middle device of a cohort has at least, where weights are shifted: rounding costs it 2 % at most."""


def shift_for(rows: Iterable[int]) -> int:
    """Return the shift of a cohort. rows: about how many each of its devices has; 0 where that is not known.

    >>> shift_for([100, 2**20])
    0
    >>> shift_for([3_000_000, 1_000_000])
    2
    >>> shift_for([100, 200, 300, 2**32])
    2
    """
    known = sorted(n for n in rows if n > 0)
    if not known or known[-1] <= MOST:
        return 0
    needed = (known[-1] // (MOST + 1)).bit_length()
    middle = known[len(known) // 2]
    return min(needed, max(0, middle.bit_length() - FINEST.bit_length()))


def weight(rows: int, shift: int) -> int:
    """Return what so many rows weigh."""
    return min(MOST, max(1, rows >> shift))


def is_clamped(rows: int, shift: int) -> bool:
    """Return whether so many rows count as fewer than they are."""
    return rows >> shift > MOST


def clamped(claims: Iterable[tuple[str, int]], shift: int) -> dict[str, tuple[int, int]]:
    """Return the devices whose rows count as fewer than they are: how many those are, and as how many they count.

    claims: devices with the rows that they are believed to have.
    """
    return {device: (rows, MOST << shift) for device, rows in claims if is_clamped(rows, shift)}
