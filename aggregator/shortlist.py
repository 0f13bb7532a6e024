"""A set of names of which the first few, in their order, are had without looking at the others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class Shortlist:
    """Names that come and go. To hold one, or no longer, and to name k of n takes O(log n) and O(k log n)."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = set(names)
        self._heap = list(self._names)
        """Every name, once each, and some that are not held any more."""
        self._listed = set(self._names)
        """What is in the heap."""
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._names)

    def hold(self, name: str, *, wanted: bool) -> None:
        """Hold a name, or no longer."""
        if not wanted:
            self._names.discard(name)
            return
        self._names.add(name)
        if name not in self._listed:
            self._listed.add(name)
            heapq.heappush(self._heap, name)

    def first(self, k: int) -> list[str]:
        """Return the first k names, or all where there are fewer, in their order."""
        found: list[str] = []
        while self._heap and len(found) < k:
            name = heapq.heappop(self._heap)
            if name in self._names:
                found.append(name)
            else:
                self._listed.discard(name)
        for name in found:
            heapq.heappush(self._heap, name)
        return found
