"""Where all are waited for: for how many attempts running each member has been absent, and who is dropped. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from aggregator.members import SILENT, Members
from aggregator.round import OpenRound

ABSENT = 3
"""Attempts running that a member of a fixed membership may be absent throughout."""
STUCK = 20
"""Attempts running that it may be there without anything coming of it: from then on it is as good as absent."""


class Absences:
    """Device to how many attempts running to leave the base it has been absent throughout."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)

    def count(self, round_: OpenRound, members: Members) -> None:
        """Note who was absent throughout this round: offline, unable to take part, or silent for long."""
        for name in round_.attempt.cohort:
            member = members.get(name)
            absent = name in round_.pending and (
                member is None
                or not member.ready
                or member.silent >= SILENT
                or member.missed >= STUCK
                or (member.gone_at is not None and member.gone_at <= round_.opened_at)
            )
            self.counts[name] = self.counts.get(name, 0) + 1 if absent else 0

    def has_dropped(self, name: str) -> bool:
        """Return whether nobody waits for a device any more."""
        return self.counts.get(name, 0) >= ABSENT

    def dropped(self) -> set[str]:
        """Return the members that were absent for so long that nobody waits for them any more."""
        return {name for name, n in self.counts.items() if n >= ABSENT}
