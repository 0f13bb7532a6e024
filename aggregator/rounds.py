"""One attempt after another to leave a base: when one may begin, whom it draws, when and how it ends. Pure.

The coordinator asks, and says when; laws 3, 6 and 7 at the top of coordinator.py are carried out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, structs

from aggregator import cohort, scale
from aggregator.absences import Absences
from aggregator.attendance import Attendance
from aggregator.effects import Attempt, DeviceStatus, Setup
from aggregator.ledger import Ledger
from aggregator.members import Members
from aggregator.pace import Pace
from aggregator.round import OpenRound
from broker.messages import Version


class Ending(Struct, frozen=True):
    """How a round ends."""

    outcome: Literal["committed", "abandoned"]
    reason: str
    missed: Sequence[str] = ()
    """Devices that are there, and that it has waited for to its deadline in vain."""


class Rounds:
    """The attempts to leave the current base."""

    def __init__(self, setup: Setup, members: Members, ledger: Ledger, attendance: Attendance) -> None:
        self._rules = setup.rules
        self._seed = setup.seed
        self._heartbeat_s = setup.heartbeat_s
        self._members = members
        self._ledger = ledger
        self._attendance = attendance
        self._pace = Pace(setup.rules.max_deadline_s)
        self._untrained = setup.untrained
        self.now: OpenRound | None = None
        """The one under way."""
        self.last = setup.last if setup.last is not None and setup.last.base == setup.base else None
        """The last one that has begun on this base."""
        self.absences = Absences(self.last.absences if self.last else {})

    # What can be asked.

    @property
    def awaited(self) -> set[str]:
        """Devices that the round under way waits for."""
        if self.now is None:
            return set()
        return self.now.pending if self._rules.wait == "all" else self.now.awaited

    @property
    def opened(self) -> OpenRound:
        """The one under way, for who knows that there is one."""
        assert self.now is not None, "no round is open"  # noqa: S101 -- else it would be another's fault later
        return self.now

    def next_at(self) -> float:
        """Return when the round under way ends or is announced again; inf where there is none."""
        return math.inf if self.now is None else min(self.now.ends_at, self.now.beats_at)

    def expects_more(self, n_judging: int) -> bool:
        """Return whether the round under way would wait for others, did so many count that are being judged."""
        if self.now is None:
            return False
        target = self.now.drawn.target
        reached = target is not None and len(self._ledger.counted) + n_judging >= target
        return not reached and len(self.awaited) > n_judging

    @property
    def needed(self) -> int:
        """Devices that are present without which no round opens."""
        return self._rules.min_devices or self._rules.quorum

    def may_open(self) -> bool:
        """Return whether a round on this base could come to something."""
        attendance, n_counted, quorum = self._attendance, len(self._ledger.counted), self._rules.quorum
        if self._rules.wait == "all" and self.last is not None and n_counted >= quorum:
            return True  # only the absent are missing: they come, or are dropped after so many attempts
        at_most = n_counted + len(attendance.able) + len(attendance.spent)
        if not (attendance.able or n_counted >= quorum) or at_most < max(self.needed, quorum):
            return False
        return attendance.n_contributing >= quorum and attendance.n_present >= self.needed

    def ending(self, now: float, *, stands_still: bool) -> Ending | None:
        """Return how the round under way ends now, if it does. stands_still: its deadline does not count."""
        round_ = self.opened
        n_counted, target, quorum = len(self._ledger.counted), round_.drawn.target, self._rules.quorum
        any_will_do = self._rules.wait == "target"
        if target is not None and n_counted >= target:
            return Ending("committed", f"its target of {target} updates is reached")
        if n_counted >= quorum and not self.awaited:
            return Ending("committed", "nobody is left to wait for")
        if n_counted < quorum and not round_.pending and self._attendance.fresh and any_will_do:
            return self._abandoned("and nobody that it drew has another to send,")
        if now < round_.ends_at or stands_still:
            return None
        members = ((device, self._members.get(device)) for device in sorted(round_.awaited))
        missed = [device for device, member in members if member is not None and member.there]
        if n_counted >= quorum and any_will_do:
            return Ending("committed", "a quorum at the deadline", missed)
        return self._abandoned("at the deadline", missed)

    def _abandoned(self, when: str, missed: Sequence[str] = ()) -> Ending:
        needed = "every drawn device" if self._rules.wait == "all" else f"a quorum of {self._rules.quorum}"
        return Ending("abandoned", f"{len(self._ledger.counted)} updates {when} where {needed} is needed", missed)

    # What happens.

    def resume(self, attempt: Attempt, now: float) -> None:
        """Go on with an attempt after a start: with the whole of its time, and a grace for its members to come back."""
        for device in attempt.cohort:
            self._members.expect(device, now)
        self.begin(attempt, now)

    def begin(self, attempt: Attempt, now: float) -> None:
        """Begin an attempt."""
        assert attempt.base == self._ledger.base, f"{attempt} leaves another base"  # noqa: S101 -- a fault in the store
        ends_at = now + (attempt.seconds or self._time_for(attempt))
        pending = {
            name for name in attempt.cohort if not (self._attendance.is_settled(name) or self._members.barred(name))
        }
        awaited = {name for name in pending if not self._members.is_given_up(name, now)}
        round_ = OpenRound(attempt, now, ends_at, now, self._heartbeat_s, pending, awaited, set(attempt.cohort))
        self.now, self.last, self.absences = round_, attempt, Absences(attempt.absences)

    def draw(self, now: float) -> Attempt:
        """Draw the cohort of the next attempt: for a new base afresh, for the same base by widening."""
        counted, attendance, again = self._ledger.counted, self._attendance, self.last
        if again is not None and self._rules.wait == "all":
            attempt = cohort.repeat(
                self._rules,
                counted=counted,
                able=attendance.able,
                again=again,
                dropped=self.absences.dropped() | attendance.spent.intersection(again.cohort) | self._barred(again),
                needed=self.needed,
                absences=self.absences.counts,
            )
        else:
            attempt = cohort.widen(
                *(self._rules, self._seed, self._ledger.base), counted=counted, able=attendance.able, again=again
            )
        self._pace.draw(self._ledger.base, attempt.cohort, now)
        return structs.replace(attempt, seconds=self._time_for(attempt), shift=self._shift(attempt))

    def _barred(self, attempt: Attempt) -> set[str]:
        """Return the members of an attempt of whom nothing is counted any more."""
        return {name for name in attempt.cohort if name not in self._ledger.counted and self._members.barred(name)}

    def _shift(self, attempt: Attempt) -> int:
        """Return the shift of an attempt's weights: that of what is in its sum already, where anything may be."""
        if self.last is not None or self._ledger.counted:
            return self._ledger.shift(self.last)
        members = ((device, self._members.get(device)) for device in attempt.cohort)
        return scale.shift_for(self._ledger.believed(device, member.rows) for device, member in members if member)

    def _time_for(self, attempt: Attempt) -> float:
        deadline_s = self._rules.deadline_s
        return self._pace.deadline_s(attempt.cohort) if deadline_s == "learned" else float(deadline_s)

    def hear(self, device: str, base: Version, now: float) -> None:
        """Note that a device has offered an update to a base, by its present name: it has had so long for it."""
        if base.number != self._untrained:
            self._pace.hear(device, base, now)

    def welcome(self, seen: DeviceStatus, now: float) -> None:
        """Let a device join the round under way if it was drawn before it was known: the round may wait for it too."""
        round_ = self.now
        can_join = seen.online and seen.ready and seen.live and not seen.barred
        if round_ is None or self._rules.wait != "target" or not can_join:
            return
        if round_.has_drawn(seen.device):
            round_.join(seen.device)
            self._pace.draw(self._ledger.base, [seen.device], now)

    def refresh(self, device: str, now: float) -> None:
        """Work out anew how a device stands to the base, and whether the round under way waits for it.

        To be called after every change of what is known of a device, before anything is asked of all of them.
        """
        settled = self._attendance.refresh(device)
        if self.now is not None:
            settled = settled or self._members.barred(device) != ""
            self.now.note(device, settled=settled, given_up=self._members.is_given_up(device, now))

    def miss(self, devices: Sequence[str], now: float) -> None:
        """Note that the round under way has waited for these devices to its deadline in vain."""
        for device in devices:
            self._members.miss(device, now, since=self.opened.opened_at)
            self.refresh(device, now)

    def count_absences(self) -> list[str]:
        """Note who was absent throughout the round under way, which is abandoned; return who is dropped, by name."""
        if self._rules.wait == "all":
            self.absences.count(self.opened, self._members)
        return sorted(self.absences.dropped())

    def close(self) -> Attempt:
        """End the round under way, and return it with everybody who has joined."""
        attempt, self.now = self.opened.attempt, None
        return attempt

    def leave_base(self) -> None:
        """Forget the attempts: the base has been left."""
        self.last, self.absences = None, Absences({})

    def check(self) -> None:
        """Raise AssertionError where this contradicts itself; looks at everybody, so for tests."""
        if self.now is not None:
            assert self.last is not None and self.last.number == self.now.drawn.number, "not the last"  # noqa: S101, PT018
            self.now.check()
