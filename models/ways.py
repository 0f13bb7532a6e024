"""Which bodies lie at the broker, and which of them a device reads: the shortest path from the version that it holds.

A way leads from one version (`start`) to another (`number`): a step from the version before, a group from eight before,
a snapshot from anywhere, which is version 0 here. What is kept reaches back to the snapshot before the last, so that
who has just missed one goes on along the steps.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from models.chain import SNAPSHOT, SPAN, WHOLE

ENVELOPE_BYTES = 60
"""What a piece of a body costs beside itself: topic, header and acknowledgement."""
SINGLES = 16
"""Steps that stay alone, behind the current version, though they are in a group as well."""


class Way(NamedTuple):
    """A body at the broker."""

    start: int
    number: int
    n_bytes: int


def path(ways: Iterable[Way], held: int, wanted: int) -> list[Way]:
    """Return the cheapest way from `held`, or from nothing at all, to `wanted`; empty where there is none.

    By bytes, envelopes included (Dijkstra 1959).
    """
    leaving: dict[int, list[Way]] = {}
    for way in ways:
        if way.start < way.number <= wanted:
            leaving.setdefault(way.start, []).append(way)
    queue: list[tuple[int, int, tuple[Way, ...]]] = [(0, number, ()) for number in {held, 0}]
    heapq.heapify(queue)
    reached: set[int] = set()
    while queue:
        cost, number, taken = heapq.heappop(queue)
        if number == wanted:
            return list(taken)
        if number in reached:
            continue
        reached.add(number)
        for way in leaving.get(number, ()):
            heapq.heappush(queue, (cost + way.n_bytes + ENVELOPE_BYTES, way.number, (*taken, way)))
    return []


def is_snapshot(body: bytes) -> bool:
    """Return whether a body leads to its version from anywhere."""
    return body[:1] in (bytes((WHOLE,)), bytes((SNAPSHOT,)))


def is_needed(
    way: tuple[int, int], current: int, snapshots: Sequence[int], groups: Container[int], *, whole: bool
) -> bool:
    """Return whether a way (start, number) still leads somebody to the current version.

    snapshots: numbers of those that there are. groups: where those end that there are. whole: whether this one is a
    snapshot.
    """
    start, number = way
    last = max((s for s in snapshots if s <= current), default=0)
    before = max((s for s in snapshots if s < last), default=0)
    if whole:
        return number == last or number >= current - 1
    if number <= before:
        return False
    is_single = number - start == 1
    end = -(-number // SPAN) * SPAN
    from_snapshot = end - SPAN < last <= start  # who begins at the last snapshot is past the start of this group
    return not is_single or end not in groups or from_snapshot or number > current - SINGLES
