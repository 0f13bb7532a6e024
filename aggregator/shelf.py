"""Which bodies of a job lie at the broker, which of them lead to the current version, and when the others go.

A pure core over what is known of bodies without their bytes: it is asked at every round, and bodies are long.

    made ──▶ lies, and leads somebody here ──a later one replaces it──▶ lies for its grace ──▶ forgotten
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aggregator.rows import BodyRow
from broker.messages import Version, body_name
from models import deltas as ways
from models.chain import AGREEMENT, SPAN, STEP, kind_of
from models.deltas import Delta


class Lying(NamedTuple):
    """A body at the broker. number: of the version that it leads to; start: of the one that it leads from."""

    name: str
    start: int
    number: int
    n_bytes: int
    is_snapshot: bool


def lying(row: BodyRow) -> Lying:
    """Return what is known of a body without its bytes."""
    return Lying(row.name, row.start, row.number, len(row.data), ways.is_snapshot(row.data))


def needed(bodies: Sequence[Lying], version: Version, since: int | None = None) -> set[str]:
    """Return the names of the bodies that still lead somebody to this version.

    since: number of the first version that is wanted on the way, as it is averaged with; None for only this one.
    """
    ours = [body for body in bodies if _is_of(body, version)]
    snapshots = [body.number for body in ours if body.is_snapshot]
    groups = {body.number for body in ours if body.start + SPAN == body.number and not body.is_snapshot}
    needs = ways.Needs(version.number, snapshots, groups, since)
    return {
        body.name
        for body in ours
        if body.number <= version.number and needs.include((body.start, body.number), whole=body.is_snapshot)
    }


class Shelf:
    """The bodies of one job.

    rows: what lies there. averaged_from: for the number of a version that of the first one it is averaged with.
    grace_s: how long a body stays that leads nobody here any more.
    """

    def __init__(
        self,
        rows: Sequence[BodyRow],
        version: Version,
        now: float,
        *,
        averaged_from: Callable[[int], int],
        grace_s: float,
    ) -> None:
        self._bodies = [lying(row) for row in rows]
        self._averaged_from = averaged_from
        self._grace_s = grace_s
        self._retire_at: dict[str, float] = {}
        self.retires_at = math.inf
        """When the next body goes; inf for never."""
        self.ways: list[Delta] = []
        """What leads to the current version."""
        self.step = b""
        """The body that leads there from the version before; empty where there is none."""
        self._turn_to(rows, version, now)

    def add(self, rows: Sequence[BodyRow], version: Version, now: float) -> None:
        """Put the bodies there that lead to a new version."""
        self._bodies = sorted((*self._bodies, *map(lying, rows)))  # as a start finds them in the store
        self._turn_to(rows, version, now)

    def take_due(self, now: float) -> list[str]:
        """Return the names of the bodies that go now."""
        if now < self.retires_at:
            return []
        due = {name for name, at in self._retire_at.items() if now >= at}
        for name in due:
            del self._retire_at[name]
        self._bodies = [body for body in self._bodies if body.name not in due]
        self.retires_at = min(self._retire_at.values(), default=math.inf)
        return sorted(due)

    def _turn_to(self, rows: Sequence[BodyRow], version: Version, now: float) -> None:
        names = needed(self._bodies, version, self._averaged_from(version.number))
        self.ways = [Delta(body.start, body.number, body.n_bytes) for body in self._bodies if body.name in names]
        for body in self._bodies:
            if body.name in names:  # again, maybe: as the last snapshot before those that a version is averaged with
                self._retire_at.pop(body.name, None)
            else:
                self._retire_at.setdefault(body.name, now + self._grace_s)
        self.retires_at = min(self._retire_at.values(), default=math.inf)
        self.step = _step(rows, version)


def _is_of(body: Lying, version: Version) -> bool:
    return body.name == body_name(Version(version.generation, body.number), body.start)


def _step(rows: Sequence[BodyRow], version: Version) -> bytes:
    """Return the step among these bodies that leads to a version from the one before."""
    name = body_name(version, version.number - 1)
    steps = (row.data for row in rows if version.number and row.name == name and kind_of(row.data) in (STEP, AGREEMENT))
    return next(steps, b"")
