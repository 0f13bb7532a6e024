"""Counting what is refused, without letting a flood of it fill the log."""

from __future__ import annotations


class Tally:
    """Counts by kind, and says which occurrences deserve a line: the first ten, then every power of ten."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = _NOTHING

    def count(self, kind: str) -> bool:
        """Count one; True if it is worth a line in the log."""
        if self.counts is _NOTHING:
            self.counts = {}
        n = self.counts[kind] = self.counts.get(kind, 0) + 1
        return n <= 10 or (n % 10 == 0 and set(str(n)) <= {"0", "1"} and str(n).count("1") == 1)


_NOTHING: dict[str, int] = {}
"""What has counted nothing yet has this in common; nobody changes it."""
