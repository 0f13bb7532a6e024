"""What has become of the devices of a round, in words: the coordinator's own truth, read, not repeated. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.absences import ABSENT
from aggregator.effects import Attempt

if TYPE_CHECKING:
    from aggregator.coordinator import Coordinator


def of(core: Coordinator, attempt: Attempt, *, is_open: bool) -> dict[str, str]:
    """Return for everybody whom an attempt drew, or who counts, what has become of it; by name.

    is_open: whether the attempt goes on, so that something may still come.
    """
    return {name: _fate(core, name, is_open=is_open) for name in sorted({*attempt.cohort, *core.ledger.counted})}


def _fate(core: Coordinator, name: str, *, is_open: bool) -> str:
    verdict, member = core.ledger.last_of(name), core.members.get(name)
    if name in core.ledger.counted and verdict is not None and verdict.base != core.base:
        return f"counted late: its update was to version {verdict.base}"
    if verdict is not None and verdict.base == core.base:
        return "counted" if verdict.counted else f"refused: {verdict.refused}"
    if member is not None and member.barred:
        return f"not counted: in quarantine: {member.barred}"
    if core.attendance.has_failed(name) and member is not None:
        return f"not counted: its training failed: {member.failure}"
    if core.rounds.absences.has_dropped(name):
        return f"dropped: absent throughout {ABSENT} attempts"
    if member is None or not member.there:
        return "not counted: it was offline"
    if not member.ready:
        return f"not counted: it could not take part: {member.why}"
    if is_open:
        return "awaited: nothing has arrived yet"
    return "not counted: nothing had arrived when the round ended"
