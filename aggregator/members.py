"""The devices that a job knows: who is there, who can take part, who is waited for. Pure; `now` is the caller's clock.

    heard live ──▶ there ──last will──▶ gone ──grace──▶ given up
                    ▲ │                  ▲
         a hint ────┘ └──hint_s passed───┘      silent through SILENT rounds: given up until it is heard again

1. What the broker has retained is a hint: it may be of a device whose end nobody has told. It counts for hint_s, the
   time that devices have to answer a roll call, and then as a last will would.
2. A device that is there, and says nothing through SILENT rounds that waited for it to their deadlines, is not waited
   for and not drawn until it is heard. Like one of a hint that has passed it is asked for a sign of life, in case that
   its answer was lost: ever less often, and in the end no more.
3. To be alive is not to deliver. Who speaks, and still offers nothing through SILENT such rounds (or through as many
   again, after it was asked), is passed over for FIRST_PAUSE_S, then for twice as long, until it offers. Not where a
   job waits for all: there a device may take several attempts for one training.
4. A training that failed says nothing of the next base.
5. Who is barred is not drawn and not waited for, whatever it says, until it is not barred any more.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from msgspec import Struct

from aggregator.effects import DeviceStatus
from broker.messages import Version

SILENT = 2
"""Rounds to their deadlines without a word, from which on a device is not waited for."""
FIRST_ASK_S = 60.0
LAST_ASK_S = 3600.0
FIRST_PAUSE_S = 60.0
LAST_PAUSE_S = 3600.0
FEWEST_ALARMS = 1024
"""Fewer alarms than this are not looked through for those that say nothing any more."""


class Member(Struct):
    """One device, as a job sees it."""

    ready: bool
    why: str = ""
    """Why it is not ready."""
    there: bool = False
    until: float = math.inf
    """A hint counts until then; inf for who was heard."""
    gone_at: float | None = None
    """When it went offline; None while it is there."""
    failed: Version | None = None
    """The base that its last training failed on."""
    failure: str = ""
    rows: int = 0
    """About how many examples it has, as it said last; 0 where it has not."""
    barred: str = ""
    """Why nothing of it is counted; "" where it may take part."""
    heard_at: float = -math.inf
    silent: int = 0
    """Rounds running that it said nothing in, though they waited for it."""
    missed: int = 0
    """Rounds running that it offered nothing in, whatever it said besides."""
    ask_at: float = math.inf
    ask_s: float = FIRST_ASK_S
    back_at: float = -math.inf
    """It is passed over until then; -inf for who is not."""
    pause_s: float = FIRST_PAUSE_S

    @property
    def passed_over(self) -> bool:
        """Whether rounds do without it for a while, though it is there."""
        return self.back_at > -math.inf

    @property
    def present(self) -> bool:
        """Whether it may be drawn, if it is ready."""
        return self.there and self.silent < SILENT and not self.passed_over and not self.barred


class Members:
    """All devices of a job. hint_s, grace_s: seconds. patient: pass nobody over who is there."""

    def __init__(self, hint_s: float, grace_s: float, *, patient: bool = False) -> None:
        self.hint_s = hint_s
        self.grace_s = grace_s
        self._patient = patient
        self._members: dict[str, Member] = {}
        self._alarms: list[tuple[float, str]] = []
        self._most_alarms = FEWEST_ALARMS
        """So many may wait before those are thrown out that say nothing any more."""

    def __iter__(self) -> Iterator[tuple[str, Member]]:
        return iter(self._members.items())

    def __len__(self) -> int:
        return len(self._members)

    def get(self, device: str) -> Member | None:
        """Return a device, if it is known."""
        return self._members.get(device)

    def barred(self, device: str) -> str:
        """Return why nothing of a device is counted; "" where it may take part."""
        member = self._members.get(device)
        return "" if member is None else member.barred

    def expect(self, device: str, now: float) -> None:
        """Know of a device that was here before this process: it has a grace to come back."""
        self._members[device] = Member(ready=True, gone_at=now, barred=self.barred(device))
        self._alarm(now + self.grace_s, device)

    def see(self, seen: DeviceStatus, now: float) -> None:
        """Take a device's presence."""
        member = self._members.setdefault(seen.device, Member(ready=seen.ready))
        member.ready, member.why = seen.ready, seen.why
        member.failed, member.failure = seen.failed, seen.failure
        member.rows = seen.rows or member.rows
        member.barred = seen.barred
        if not seen.online:
            if member.there or member.gone_at is None:
                self._lose(seen.device, member, now)
        elif seen.live:
            self._meet(member, now)
        elif not member.there:
            member.there, member.gone_at, member.until = True, None, now + self.hint_s
            self._alarm(member.until, seen.device)

    def hear(self, device: str, now: float) -> None:
        """Note that a device is alive: it has offered an update."""
        member = self._members.get(device)
        if member is not None:
            member.heard_at, member.silent, member.missed = now, 0, 0
            member.ask_at = member.until = math.inf
            member.back_at, member.pause_s = -math.inf, FIRST_PAUSE_S

    def doubt(self, now: float) -> None:
        """Hold everybody for a hint: the connection to the broker was lost, and wills with it."""
        for device, member in self._members.items():
            if member.there and member.until > now + self.hint_s:
                member.until = now + self.hint_s
                self._alarm(member.until, device)

    def miss(self, device: str, now: float, *, since: float) -> None:
        """Note that a round has waited to its deadline for a device that offered nothing. since: of the round."""
        member = self._members[device]
        member.missed += 1
        silent = member.heard_at <= since
        member.silent += silent
        if member.silent == SILENT:
            self._ask(device, member, now)
        if member.missed >= (2 * SILENT if silent else SILENT) and not self._patient:
            member.back_at = now + member.pause_s
            member.pause_s = min(2 * member.pause_s, LAST_PAUSE_S)
            self._alarm(member.back_at, device)

    def is_given_up(self, device: str, now: float) -> bool:
        """Return whether a round has stopped waiting for a device."""
        member = self._members.get(device)
        if member is None or not member.ready or member.silent >= SILENT or member.passed_over or member.barred:
            return True
        return member.gone_at is not None and now >= member.gone_at + self.grace_s

    def next_at(self) -> float:
        """Return when something changes by the time alone; inf for never."""
        while self._alarms and not self._is_due(*self._alarms[0]):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else math.inf

    def pass_time(self, now: float) -> tuple[list[str], dict[str, float]]:
        """Return the devices that have changed by now, and those to ask for a sign of life, with when it came last."""
        changed, ask = list[str](), dict[str, float]()
        while self.next_at() <= now:
            _, device = heapq.heappop(self._alarms)
            member = self._members[device]
            if member.ask_at <= now:
                member.ask_at = now + member.ask_s if member.ask_s <= LAST_ASK_S else math.inf
                member.ask_s *= 2
                self._alarm(member.ask_at, device)
                ask[device] = member.heard_at
                continue
            if member.passed_over and member.back_at <= now:
                member.back_at = -math.inf
            if member.there and member.until <= now:
                self._lose(device, member, member.until)
                self._ask(device, member, now)
            changed.append(device)
        return changed, ask

    def _meet(self, member: Member, now: float) -> None:
        member.there, member.until, member.gone_at = True, math.inf, None
        member.heard_at, member.silent, member.ask_at = now, 0, math.inf

    def _lose(self, device: str, member: Member, at: float) -> None:
        member.there, member.until, member.gone_at = False, math.inf, at
        self._alarm(at + self.grace_s, device)

    def _ask(self, device: str, member: Member, now: float) -> None:
        """Ask it for a sign of life from now on."""
        member.ask_at, member.ask_s = now, FIRST_ASK_S
        self._alarm(now, device)

    def _alarm(self, at: float, device: str) -> None:
        if math.isinf(at):
            return
        heapq.heappush(self._alarms, (at, device))
        if len(self._alarms) > self._most_alarms:  # a device that comes and goes leaves one behind each time
            self._alarms = [alarm for alarm in self._alarms if self._is_due(*alarm)]
            heapq.heapify(self._alarms)
            self._most_alarms = max(FEWEST_ALARMS, 2 * len(self._alarms))

    def _is_due(self, at: float, device: str) -> bool:
        """Return whether an alarm still says something; those of what has changed since are passed over."""
        member = self._members[device]
        grace_ends = member.gone_at is not None and member.gone_at + self.grace_s == at
        return grace_ends or (member.there and member.until == at) or at in (member.ask_at, member.back_at)
