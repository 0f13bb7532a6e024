"""What a device does, from what it says of itself and what is known of the rounds that are open. Pure."""

from __future__ import annotations

from fleet.sight.course import Open
from fleet.sight.known import Known
from fleet.sight.view import Doing
from runtime.words import clean

_BUSY: dict[str, Doing] = {
    "training": "training",
    "fetching": "fetching",
    "reading": "reading",
    "sending": "offering",
    "waiting": "waiting",
}
_ORDER: dict[Doing, int] = {"drawn": 0, "offering": 1, "refused": 2, "counted": 3}
"""Of several rounds, the one that asks most of a device says what it does."""


def doing_of(known: Known, rounds: list[tuple[str, Open]]) -> tuple[Doing, str, float | None, str]:
    """Return what a device does, for which job, how far that is, and what it waits for or why it is out.

    What it says itself counts, unless the round of that job knows it to be further, or was opened after that.
    """
    device, found, of_round, since = known.device, None, "", 0.0
    for job, round_ in rounds:
        fate = _fate(round_, device)
        if fate is not None and (found is None or _ORDER[fate] < _ORDER[found]):
            found, of_round, since = fate, job, round_.base_at
    vitals = known.vitals
    if vitals is not None and known.state in ("online", "silent") and (busy := _BUSY.get(vitals.doing)) is not None:
        is_past = found != "drawn" or (known.vitals_at is not None and known.vitals_at < since)
        if found is None or vitals.job not in ("", of_round) or not is_past:
            return busy, vitals.job, vitals.progress, clean(vitals.why, 200)
    if found is not None:
        return found, of_round, None, ""
    return "idle", "", None, _out(known)


def _fate(round_: Open, device: str) -> Doing | None:
    if device in round_.counted:
        return "counted"
    if device in round_.refused:
        return "refused"
    if device in round_.offered:
        return "offering"
    return "drawn" if device in round_.drawn else None


def _out(known: Known) -> str:
    """Return why a device takes part in no job; "" where it takes part in one."""
    if not known.parts or any(part.examples is not None for part in known.parts.values()):
        return ""
    return next((part.why for part in known.parts.values() if part.why), "")
