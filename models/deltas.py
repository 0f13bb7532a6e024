"""Which bodies lie at the broker, and which of them a device reads: the shortest path from the version that it holds.

A delta leads from its base, one version (`start`), to a later one (`number`): a step from the version before, a group
from eight before, a snapshot from anywhere, which is version 0 here. What is kept reaches back to the snapshot before
the last, so that who has just missed one goes on along the steps; and where the mean of the last versions is deployed,
to a snapshot from which all of these can be walked.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container, Iterable
from typing import NamedTuple

from models.chain import FROM_NOTHING, SPAN

ENVELOPE_BYTES = 60
"""What a piece of a body costs beside itself: topic, header and acknowledgement."""
SINGLES = 16
"""Steps that stay alone, behind the current version, though they are in a group as well."""


class Delta(NamedTuple):
    """A body at the broker."""

    start: int
    number: int
    n_bytes: int


def path(ways: Iterable[Delta], held: int, wanted: int, since: int | None = None) -> list[Delta]:
    """Return the cheapest deltas from `held`, or from nothing at all, to `wanted`; empty where there is none.

    By bytes, envelopes included (Dijkstra 1959). since: they are to pass every version from this number on, if it is
    given. Then `held` is one that will do to begin at: no later than this, or come to by passing all from this one on.
    """
    leaving: dict[int, list[Delta]] = {}
    for way in ways:
        if way.start < way.number <= wanted and not (since is not None and _jumps(way) and way.number > since):
            leaving.setdefault(way.start, []).append(way)
    queue: list[tuple[int, int, tuple[Delta, ...]]] = [(0, number, ()) for number in {held, 0}]
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


def _jumps(way: Delta) -> bool:
    """Return whether a delta may pass over versions: only a snapshot does, which cannot be told from the first
    group.
    """
    return way.start == 0 and way.number > 1


def is_snapshot(body: bytes) -> bool:
    """Return whether a body leads to its version from anywhere."""
    return body[:1] in FROM_NOTHING


class Needs:
    """Which deltas still lead somebody to the current version.

    snapshots: numbers of those that there are. groups: where those end that there are. since: the first version that
    somebody wants to pass on the way, who may have nothing; None for only the current one. From one version to the next
    it never goes back.

    So that there is a snapshot to begin at, the last one at or before `since` stays; and, for later, one in every eight
    versions after it.
    """

    def __init__(
        self, current: int, snapshots: Collection[int], groups: Container[int], since: int | None = None
    ) -> None:
        self._current = current
        self._groups = groups
        self._last = max((s for s in snapshots if s <= current), default=0)
        self._before = max((s for s in snapshots if s < self._last), default=0)
        self._begin = self._last if since is None else max((s for s in snapshots if s <= since), default=0)
        self._for_later: dict[int, int] = {}
        """Eight versions after the beginning to the first snapshot among them."""
        for snapshot in snapshots:
            if snapshot > self._begin:
                group = snapshot // SPAN
                self._for_later[group] = min(snapshot, self._for_later.get(group, snapshot))

    def include(self, way: tuple[int, int], *, whole: bool) -> bool:
        """Return whether a delta (start, number) is one. whole: whether it is a snapshot."""
        start, number = way
        last, begin = self._last, self._begin
        if whole:
            for_later = number > begin and number == self._for_later.get(number // SPAN, number)
            return number in (last, begin) or number >= self._current - 1 or for_later
        if number <= min(self._before, begin):
            return False
        is_single = number - start == 1
        end = -(-number // SPAN) * SPAN
        # Who begins at one of these snapshots is past the start of this group.
        from_snapshot = any(end - SPAN < snapshot <= start for snapshot in (last, begin))
        return not is_single or end not in self._groups or from_snapshot or number > self._current - SINGLES
