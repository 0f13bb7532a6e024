"""Counting what is refused, without letting a flood of it fill the log."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Counts by kind, and says which occurrences deserve a line: the first ten, then every power of ten."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, kind: str) -> bool:
        """Count one; True if it is worth a line in the log."""
        self.counts[kind] += 1
        n = self.counts[kind]
        return n <= 10 or (n % 10 == 0 and set(str(n)) <= {"0", "1"} and str(n).count("1") == 1)
