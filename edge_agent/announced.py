"""What has been announced of one job, as far as this device has heard it: its head, its round, its end. Pure.

Laws 1, 4 and 9 at the top of participant.py are read off here: whether a base has been left, and which names it has.

What is announced may be forged, and whoever has done it gone. So no word is believed for good; the leader's counts:

    said under a higher term than the leader's     forgotten as soon as anything is said under the leader's own, which
                                                   its beacon says (`led`)
    a version further than FAR above the leader's  ends nothing here, and is forgotten at the leader's next word
    any other that is later than the leader's      is told to the leader (`ahead`), who raises its own above it; where
                                                   it repeats its word after INSISTS_S instead, that is believed
    the end of a job whose rounds go on            forgotten likewise
"""

from __future__ import annotations

from collections.abc import Collection

from broker import ceilings
from broker.messages import Head, Round, Version
from edge_agent.effects import JobEnded
from models import draw
from models.job import JobSpec

ENDED = ("finished", "stopped")
FAR = 2 * ceilings.FAR
"""A leader may raise its generation so far above what this device knows, and half of it because of what others say."""
INSISTS_S = 20.0
"""What was overtaken on its way comes late by a few seconds: who says it again after this long means it."""


NO_NAMES: frozenset[Version] = frozenset()
"""What most bases have: an empty set weighs 216 bytes, and each `frozenset()` is another."""


class Announced:
    """What the aggregator has said last. names: former names of the base that is trained on or offered to."""

    __slots__ = (
        "_behind_since",
        "_device",
        "_over_term",
        "_rounds_since",
        "_spec",
        "ahead",
        "head",
        "led",
        "names",
        "over",
        "round",
        "round_ends_at",
        "term",
    )

    def __init__(self, device: str, spec: JobSpec, names: Collection[Version]) -> None:
        self._device = device
        self._spec = spec
        self.names = frozenset(names) or NO_NAMES
        self.term = 0
        """The one that was spoken under last."""
        self.led = 0
        """That of the leader, as its beacon says; 0 while none was heard."""
        self.head: Head | None = None
        self.round: Round | None = None
        self.round_ends_at = 0.0
        self.over: Version | None = None
        """The last version of the job, if that has ended."""
        self.ahead: Version | None = None
        """A later version than the one that was spoken of last: who has lost it should know."""
        self._over_term = 0
        """The term that the end of the job was said under."""
        self._behind_since: float | None = None
        """Since when the leader speaks of an earlier version than the one known."""
        self._rounds_since: float | None = None
        """Since when the leader announces rounds of a job that has ended, or of an earlier version than the head's."""

    def hear(self, event: Head | Round | JobEnded, now: float) -> bool:
        """Take what is said, and return whether it is news: neither of a replaced aggregator nor overtaken."""
        if event.term < self.term:
            if not self.led or event.term != self.led:
                return False
            self._forget_above(event.term)
        match event:
            case Round(base=base, seconds_left=seconds_left):
                if self._is_overtaken(_said(self.round), (event.term, base), now):
                    return False
                self._follow(event.term, base)
                self._go_by_rounds(base, now)
                self.round, self.round_ends_at, self.ahead = event, now + seconds_left, None
            case Head(version=version):
                if self._is_overtaken(_said(self.head), (event.term, version), now):
                    return False
                self._follow(event.term, version)
                self.head = event
                if event.state in ENDED:
                    self._end(version)
            case JobEnded(last, term):
                self._follow(term, last)
                self._end(last)
        return True

    def _is_overtaken(self, known: tuple[int, Version] | None, said: tuple[int, Version], now: float) -> bool:
        """Return whether what is said is older than what is known, by one who does not insist on it."""
        if known is None or said >= known:
            self._behind_since = None
            return False
        version = said[1]
        insists = self._behind_since is not None and now >= self._behind_since + INSISTS_S
        if known[1].is_far_above(version, FAR) or insists:
            self._forget_later(version)
            return False
        self.ahead = known[1]
        self._behind_since = now if self._behind_since is None else self._behind_since
        return True

    def _go_by_rounds(self, base: Version, now: float) -> None:
        """Forget the end of the job, and the head of a later version, where the rounds of this one go on."""
        head = None if self.head is None or self.head.version <= base else self.head.version
        if self.over is None and head is None:
            self._rounds_since = None
            return
        since = self._rounds_since = now if self._rounds_since is None else self._rounds_since
        insists = now >= since + INSISTS_S
        if self.over is not None and (insists or self.over.is_far_above(base, FAR)):
            self.over = None
        if head is not None and (insists or head.is_far_above(base, FAR)):
            self.head = None

    def _forget_above(self, term: int) -> None:
        """Forget what was said under higher terms than this: nobody leads under them."""
        self.term = term
        if self.round is not None and self.round.term > term:
            self.round = None
        if self.head is not None and self.head.term > term:
            self.head = None
        if self.over is not None and self._over_term > term:
            self.over = None
        self.ahead = self._behind_since = None

    def _forget_later(self, version: Version) -> None:
        """Forget what was said of later versions than this."""
        if self.round is not None and self.round.base > version:
            self.round = None
        if self.head is not None and self.head.version > version:
            self.head = None
        if self.over is not None and self.over > version:
            self.over = None
        self.ahead = self._behind_since = None

    def _end(self, last: Version) -> None:
        self.over, self._over_term, self._rounds_since = last, self.term, None

    def _follow(self, term: int, version: Version) -> None:
        """Go by words of this term on this version. What had ended may have been brought back by a backup."""
        if self.over is not None and (term > self.term or version > self.over):
            self.over = None
        self.term = term

    def latest(self) -> Version | None:
        """Return the newest version heard of."""
        latest = self.over
        if self.head is not None and (latest is None or self.head.version > latest):
            latest = self.head.version
        if self.round is not None and (latest is None or self.round.base > latest):
            latest = self.round.base
        return latest

    # The round.

    def has_drawn(self) -> bool:
        """Return whether the last round announced drew this device."""
        round_ = self.round
        if round_ is None:
            return False
        return draw.ticket(draw.salt(self._spec.seed, round_.base.number), self._device) <= round_.threshold

    def calls_for(self, version: Version, now: float) -> bool:
        """Return whether a live round wants this device to train on a version."""
        round_ = self.round
        return (
            self.over is None
            and round_ is not None
            and round_.base == version
            and now < self.round_ends_at
            and self.has_drawn()
            and self._device not in round_.settled
        )

    def left_s(self, now: float) -> float:
        """Return the time until the deadline of the last round announced."""
        return max(0.0, self.round_ends_at - now)

    def follows_up(self, before: Round | None, base: Version) -> bool:
        """Return whether the round is a further attempt to leave this base, and draws this device. before: the last."""
        round_ = self.round
        if before is None or round_ is None:
            return False
        goes_on = base in (round_.base, *round_.aliases) and before.base in (round_.base, *round_.aliases)
        return goes_on and round_.attempt > before.attempt and self.has_drawn()

    # Names.

    def aliases(self, version: Version) -> tuple[Version, ...]:
        """Return the former names of a version, as far as its round tells them."""
        return self.round.aliases if self.round is not None and self.round.base == version else ()

    def is_renamed(self, base: Version) -> bool:
        """Return whether the base at hand goes on under another name: by any that it has had it is the present one."""
        round_, latest = self.round, self.latest()
        if round_ is None or self.over is not None or round_.base != latest or latest == base:
            return False
        if latest.number != base.number:
            return False
        return not {base, *self.names}.isdisjoint((latest, *round_.aliases))

    def may_be(self, base: Version, latest: Version) -> bool:
        """Return whether the newest version may be the base at hand under another name, until its round says it."""
        if latest.number != base.number:
            return False
        told = self.round is not None and self.round.base == latest
        return not told or self.is_renamed(base)

    def leaders_name(self, base: Version) -> Version | None:
        """Return the leader's name for the base at hand, where the leader cannot know the one that it has here."""
        round_ = self.round
        if round_ is None or round_.base < base or base in round_.aliases or not self.is_renamed(base):
            return None
        return round_.base

    # What it means for a base.

    def is_left(self, base: Version) -> bool:
        """Return whether what is announced shows that this base has been left for good, or the job is over."""
        latest = self.latest()
        if latest is None or latest < base or latest.is_far_above(base, FAR):
            return False
        if self.over is not None and self.over >= base:
            return True
        return latest != base and not self.may_be(base, latest)

    def may_be_folded(self, base: Version) -> bool:
        """Return whether an update may count though its base was left: nobody says so but its verdict.

        What is not older than the present version, and of another generation, nobody can fold into that.
        """
        latest = self.latest()
        if self._spec.rounds.late != "fold" or latest is None:
            return self._spec.rounds.late == "fold"
        return base.generation == latest.generation or base.number < latest.number

    def is_too_late(self, base: Version) -> bool:
        """Return whether an update to this base would be refused."""
        latest = self.latest()
        if latest is not None and latest.is_far_above(base, FAR):
            return False
        if self.over or latest is None or latest == base or (latest > base and self.may_be(base, latest)):
            return self.over is not None
        staleness = latest.number - base.number
        may_be_late = self._spec.rounds.late == "fold" and 0 < staleness <= self._spec.rounds.max_staleness
        return not may_be_late or latest.generation != base.generation


def _said(known: Head | Round | None) -> tuple[int, Version] | None:
    """Return the term and the version of what is known, in the order in which words follow on each other."""
    match known:
        case Head(term=term, version=version) | Round(term=term, base=version):
            return term, version
    return None
