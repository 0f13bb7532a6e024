"""The round that is open: whom it drew, for whom it waits, when it ends and when it is announced again. Pure."""

from __future__ import annotations

from msgspec import Struct, structs

from aggregator.effects import Announce, Attempt
from models import draw


class OpenRound(Struct):
    """An attempt under way. Times are seconds on the coordinator's clock."""

    drawn: Attempt
    """The attempt as it was opened or announced last; `attempt` is the one with everybody."""
    opened_at: float
    ends_at: float
    beats_at: float
    """When it is announced again."""
    beat_s: float
    pending: set[str]
    """Devices of the cohort that have neither a verdict nor failed."""
    awaited: set[str]
    """Those of them that the round still waits for."""
    members: set[str]
    joined: list[str] = []
    """Members that came while the round was open."""

    @property
    def attempt(self) -> Attempt:
        """The attempt with everybody who has joined it."""
        if self.joined:
            cohort = (*self.drawn.cohort, *self.joined)
            self.drawn, self.joined = structs.replace(self.drawn, cohort=cohort), []
        return self.drawn

    def has_drawn(self, device: str) -> bool:
        """Return whether a device that is no member was drawn all the same."""
        return device not in self.members and draw.ticket(self.drawn.salt, device) <= self.drawn.threshold

    def join(self, device: str) -> None:
        """Make a device a member that came while the round was open."""
        self.members.add(device)
        self.joined.append(device)
        self.pending.add(device)

    def note(self, device: str, *, settled: bool, given_up: bool) -> None:
        """Note how a device stands. settled: it has a verdict or has failed. given_up: it is not waited for."""
        if settled:
            self.pending.discard(device)
        if device in self.pending and not given_up:
            self.awaited.add(device)
        else:
            self.awaited.discard(device)

    def announce(self, now: float, *, first: bool = False) -> Announce:
        """Return the announcement, and put off the next one: heartbeats come ever less often.

        Whoever has missed the last one has waited for at most as long as the round had been open then.
        """
        if now >= self.beats_at and not first:
            self.beat_s *= 2
        self.beats_at = now + self.beat_s
        return Announce(self.attempt, self.seconds_left(now), first)

    def seconds_left(self, now: float) -> float:
        """Return the time until the deadline."""
        return max(0.0, self.ends_at - now)

    def make_up_for(self, away_s: float, at_least_until: float) -> None:
        """Put the deadline off by an outage, which costs nobody any time."""
        self.ends_at = max(self.ends_at + away_s, at_least_until)

    def check(self) -> None:
        """Raise AssertionError where this contradicts itself; looks at everybody, so for tests."""
        assert self.awaited <= self.pending <= self.members, "waits for who is no member"  # noqa: S101 -- a check
        assert self.members == set(self.attempt.cohort), "its members are not its cohort"  # noqa: S101 -- a check
