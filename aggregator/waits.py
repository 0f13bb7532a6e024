"""What a job waits for and what would end the wait, in words: the coordinator's own truth, read, not repeated. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from aggregator.members import SILENT
from aggregator.refusals import BARRED
from aggregator.shortlist import Shortlist

if TYPE_CHECKING:
    from aggregator.coordinator import Coordinator

NAMED = 3
"""Devices that a sentence names; the whole list is `devices`."""
MOST_TEXT = 300
EARLY = 2
"""Versions below this: where all who trained on one of them went far from it, that is for how the job is set up."""
NEAR = MOST_TEXT // len("d silent; ") + 2
"""Devices of which something is said; what is said of more would be cut."""


class Waits(Struct, frozen=True):
    """text: what the job waits for; "" where it has ended. ends: what would end the wait."""

    text: str
    ends: str = ""


class Standing(Struct, frozen=True):
    """How a device stands to a job just now."""

    device: str
    state: Literal[
        "counted", "able", "awaited", "refused", "failed", "unready", "offline", "silent", "unheard", "quarantined"
    ]
    why: str = ""
    since_s: float | None = None
    """Seconds since it went offline, as far as this aggregator knows."""

    @property
    def is_fruitless(self) -> bool:
        """Whether it came to nothing on the base."""
        return self.state in ("refused", "failed")


class Amiss:
    """Names of the devices that a wait is about, kept as they change: whoever asks looks at a few of them."""

    def __init__(self, standings_: Iterable[Standing]) -> None:
        listed = [standing_ for standing_ in standings_ if standing_.state not in ("able", "counted")]
        self.all = Shortlist(standing_.device for standing_ in listed)
        """Those that are neither counted nor able."""
        self.fruitless = Shortlist(standing_.device for standing_ in listed if standing_.is_fruitless)
        """Of these, those that came to nothing on the base."""

    def note(self, standing_: Standing) -> None:
        """Note how a device stands now."""
        self.all.hold(standing_.device, wanted=standing_.state not in ("able", "counted"))
        self.fruitless.hold(standing_.device, wanted=standing_.is_fruitless)


class Wait:
    """What the operators of one job were told of its wait, and which devices it is about."""

    def __init__(self, core: Coordinator) -> None:
        self._core = core
        self._told = ""
        """What operators were told last of what the job waits for."""
        self._amiss: Amiss | None = None
        """Kept from when it is asked for until a round opens, the base is left or the connection is a new one."""

    @property
    def amiss(self) -> Amiss:
        """Which devices are not counted and not able, while no round is open."""
        if self._amiss is None:
            self._amiss = Amiss(standings(self._core, 0.0))
        return self._amiss

    def note(self, device: str, now: float) -> None:
        """Note that it may have changed how a device stands."""
        if self._amiss is not None and self._core.members.get(device) is not None:
            self._amiss.note(standing(self._core, device, now))

    def forget(self) -> None:
        """Look at everybody anew, when it is asked for next."""
        self._amiss = None

    def end(self) -> None:
        """Note that a round has opened: of the next wait operators are told again."""
        self._told, self._amiss = "", None

    def news(self, now: float) -> str | None:
        """Return what the job waits for, if that has changed in kind; numbers alone change too often."""
        now_told = kind(self._core)
        if now_told == self._told:
            return None
        self._told = now_told
        return of(self._core, now).text


def kind(core: Coordinator) -> str:
    """Return in one word what a job without a round waits for; cheap, so that it can be asked at every event."""
    if core.paused:
        return "paused"
    if core.attendance.spent:
        return "far" if core.base.number < EARLY and core.attendance.all_are_far else "spent"
    return "few" if len(core.members) else "nobody"


def of(core: Coordinator, now: float) -> Waits:
    """Return what the job waits for."""
    if core.ended:
        return Waits("")
    if core.attempt is not None:
        return _of_round(core, now)
    if core.paused:
        return Waits(f"it is {core.paused}", "fedge job resume, or job stop")
    there, needed = core.attendance.n_present, core.rounds.needed
    if there >= needed:  # and of these too few can still contribute
        there, needed = core.attendance.n_contributing, core.rules.quorum
    text = f"{_number(needed, 'device')} that can take part {_be(needed)} needed, {there} {_be(there)} there"
    match kind(core):
        case "nobody":
            return Waits("no device takes part yet", "a device that has the job's data and labels")
        case "far":
            n = len(core.attendance.far)
            who = "the one device that has" if n == 1 else f"all {n} devices that have"
            first = standing(core, min(core.attendance.far), now)
            why = first.why.replace(f": {core.advice}", "")  # which is said once
            return Waits(
                f"{who} trained on version {core.base} {_be(n)} far from the model: {core.advice} "
                f"({first.device} {first.state}: {why}); {text}",
                "stop the job, and submit it again with that changed",
            )
        case "spent":
            n, named = len(core.wait.amiss.fruitless), core.wait.amiss.fruitless.first(NAMED)
            whose = [standing(core, device, now) for device in named]
            reasons = "; ".join(f"{s.device} {s.state}: {s.why}" for s in whose)
            more = f" and {n - NAMED} more" if n > NAMED else ""
            barred = any(s.state == "refused" and s.why.startswith(BARRED) for s in whose)
            return Waits(
                f"{_number(n, 'device')} came to nothing on version {core.base} ({reasons}{more}); {text}",
                "another device; or stop the job and submit it "
                + ("again --from itself: who was in quarantine is in again then" if barred else "with other settings"),
            )
    near = "; ".join(_sentence(standing(core, device, now)) for device in core.wait.amiss.all.first(NEAR))
    return Waits(text + (f" ({_cut(near)})" if near else ""), "devices that come, or come back")


def _of_round(core: Coordinator, now: float) -> Waits:
    round_ = core.rounds.opened
    attempt, left = round_.attempt, round_.seconds_left(now)
    awaited = sorted(core.awaited)
    names = ", ".join(awaited[:NAMED]) + (f" and {len(awaited) - NAMED} more" if len(awaited) > NAMED else "")
    target = "" if attempt.target is None else f", or {attempt.target} updates"
    return Waits(
        f"attempt {attempt.number} to leave version {attempt.base}: {len(core.ledger.counted)} counted, "
        f"{len(awaited)} of {len(attempt.cohort)} drawn awaited" + (f" ({names})" if names else ""),
        f"their updates{target}; at the latest the deadline in {left:.0f} s",
    )


def standings(core: Coordinator, now: float) -> Iterator[Standing]:
    """Return how every known device stands to the job, by name."""
    for device, _ in sorted(core.members):
        yield standing(core, device, now)


def standing(core: Coordinator, device: str, now: float) -> Standing:
    """Return how a device that is known stands to the job."""
    member, verdict = core.members.get(device), core.ledger.verdict_on(device)
    assert member is not None  # noqa: S101 -- the caller names devices that are known
    if device in core.ledger.counted or (verdict is not None and verdict.counted):
        return Standing(device, "counted")
    if member.barred:
        return Standing(device, "quarantined", member.barred)
    if verdict is not None:
        return Standing(device, "refused", verdict.refused)
    if core.attendance.has_failed(device):
        return Standing(device, "failed", member.failure)
    if not member.there:
        return Standing(device, "offline", since_s=None if member.gone_at is None else max(0.0, now - member.gone_at))
    if not member.ready:
        return Standing(device, "unready", member.why)
    if member.silent >= SILENT:
        return Standing(device, "silent", f"it said nothing through {member.silent} rounds, and was asked")
    if member.passed_over:
        again = _duration(max(0.0, member.back_at - now))
        why = f"it offered nothing through {member.missed} rounds; the next for it comes in {again}"
        return Standing(device, "silent", why)
    if member.until < float("inf"):
        return Standing(device, "unheard", "the broker remembers it, it has not spoken itself yet")
    return Standing(device, "awaited" if device in core.awaited else "able")


def _sentence(standing: Standing) -> str:
    if standing.state == "offline" and standing.since_s is not None:
        return f"{standing.device} offline for {_duration(standing.since_s)}"
    return f"{standing.device} {standing.state}" + (f": {standing.why}" if standing.why else "")


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cut(text: str, most: int = MOST_TEXT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _be(n: int) -> str:
    return "is" if n == 1 else "are"
