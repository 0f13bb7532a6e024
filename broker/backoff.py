"""How long to wait before trying again, so that a fleet that lost its broker does not come back all at once."""

from __future__ import annotations


def backoff_s(failures: int, first_s: float, cap_s: float, chance: float) -> float:
    """Return the wait in seconds after this many failures in a row (from 1): exponential, with full jitter.

    chance: uniform in [0, 1), the caller's own randomness. The whole range down to zero is used: that spreads a
    crowd best (M. Brooker, "Exponential Backoff And Jitter", 2015).
    """
    doublings = min(max(failures - 1, 0), 60)  # 2.0 ** 1024 would overflow
    return min(cap_s, first_s * 2.0**doublings) * chance
