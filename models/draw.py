"""Who takes part in a round: a lottery that needs no list of names.

Each device hashes its own id with the round's salt; whoever's ticket is at most the round's threshold is drawn. The
threshold is the k-th smallest ticket of the devices known at opening, so exactly k of them are drawn, and raising it
draws more without dropping any.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence

MAX_TICKET = 2**48 - 1
"""The largest ticket: 48 bits, exact in every JSON reader."""


@functools.lru_cache(maxsize=16)
def salt(seed: int, number: int) -> str:
    """Derive the salt of a base version from the job's seed and the version's number.

    So the salt need not travel, a job that is run again draws the same devices, and so does one that goes on from a
    restored backup, whatever the generation.
    """
    return hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:16]


def ticket(salt: str, device: str) -> int:
    """Return the device's ticket: the first 48 bits of SHA-256(salt, 0, device), big-endian."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{device}".encode()).digest()[:6], "big")


def threshold(salt: str, devices: Iterable[str], k: int) -> int:
    """Return the threshold that draws the k devices with the smallest tickets; all of them when there are fewer."""
    return kth(sorted(ticket(salt, device) for device in devices), k)


def kth(tickets: Sequence[int], k: int) -> int:
    """Return the k-th of sorted tickets, the last one where there are fewer; 0 where there is or is wanted none."""
    return tickets[min(k, len(tickets)) - 1] if tickets and k > 0 else 0
