"""What is known of one job by its topics and the store, and the view of it. Pure; `now` is seconds since 1970.

    round ──▶ who is drawn ──offer──▶ offered ──verdict, or the store──▶ counted, or refused
    status, store ──a later version──▶ no round, until the next is heard

Who is drawn says the store, which has the cohort; without it the lottery says so (models/draw.py), of those that can
take part. An observer may hear no offers, and a device is told no verdict where the next version says it: then the
store alone says what counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from msgspec import Struct, field

from broker.messages import Round, Status, Verdict, Version
from fleet.sight.facts import JobFacts
from fleet.sight.view import JobState, JobView, RoundView
from models import draw
from runtime.words import clean

MOST_NAMES = 100_000
"""Devices that a round is told of at most."""
MOST_REASON = 300
NO_VERSION = Version(0, 0)


class Open(Struct):
    """The open round. drawn … refused: as in `RoundView`."""

    base: Version
    attempt: int
    threshold: int
    seen_at: float
    ends_at: float
    drawn: set[str]
    offered: set[str] = field(default_factory=set)
    counted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    names: tuple[Version, ...] = ()
    """All names of the base."""
    base_at: float = 0.0
    """When the first attempt to leave the base was seen."""

    def draws(self, salt: str, device: str) -> bool:
        """Return whether the lottery draws a device. salt: of the base."""
        return self.threshold >= draw.MAX_TICKET or draw.ticket(salt, device) <= self.threshold

    def offer(self, device: str) -> bool:
        """Note that a device has an update; return whether that is new."""
        if device in self.offered or device in self.refused or len(self.offered) >= MOST_NAMES:
            return False
        self.offered.add(device)
        return True

    def judge(self, device: str, refused: str) -> bool:
        """Note the verdict on the update of a device; return whether that is new."""
        if refused:
            if device in self.counted or device in self.refused or len(self.refused) >= MOST_NAMES:
                return False
            self.offered.discard(device)
            self.refused[device] = clean(refused, MOST_REASON)
            return True
        if device in self.counted or len(self.offered) >= MOST_NAMES:
            return False
        self.refused.pop(device, None)
        self.offered.add(device)
        self.counted.add(device)
        return True


class Course(Struct):
    """One job. able: the devices that are there and can take part."""

    job: str
    name: str = ""
    announced: bool = False
    """Its specification lies at the broker."""
    seed: int | None = None
    rounds: Mapping[str, Any] = {}
    """[rounds] of its specification, as anybody may have written it."""
    version: Version = NO_VERSION
    state: JobState = "waiting"
    reason: str = ""
    metrics: Mapping[str, float] = {}
    metrics_of: Version = NO_VERSION
    at: float | None = None
    at_of: Version = NO_VERSION
    facts: JobFacts | None = None
    round: Open | None = None
    able: set[str] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        """Whether it has ended: no round opens any more."""
        return self.state in ("finished", "stopped") or (self.facts is not None and self.facts.ended != "")

    # Topics.

    def specify(self, spec: Mapping[str, Any]) -> bool:
        """Take its specification; return whether its draws are known by it now, and were not."""
        name, seed, rounds = spec.get("name"), spec.get("seed", 0), spec.get("rounds")
        self.name = clean(name, 80) if isinstance(name, str) else self.job.rpartition("-")[0]
        self.rounds = rounds if isinstance(rounds, Mapping) else {}
        self.announced = True
        if isinstance(seed, bool) or not isinstance(seed, int) or seed == self.seed:
            return False
        self.seed = seed
        return True

    def come_to(self, version: Version, now: float | None) -> bool:
        """Note that this version is the current one; return whether a round is over by that. now: None where it is not
        known when it was made.
        """
        if version < self.version:
            return False
        if version > self.version:
            self.version = version
            if now is not None:
                self.at, self.at_of = now, version
        if self.round is not None and self.round.base < version and version not in self.round.names:
            self.round = None
            return True
        return False

    def describe(self, status: Status) -> None:
        """Take how it does, for its current version."""
        if status.version < self.version:
            return
        self.state, self.reason = status.state, clean(status.reason, MOST_REASON)
        self.metrics, self.metrics_of = status.metrics, status.version

    def open(self, said: Round, now: float) -> bool:
        """Take the announcement of a round; return whether it is another attempt than before."""
        names = (said.base, *said.aliases)
        if self.is_over or (said.base < self.version and self.version not in names):
            return False
        self.state = "running"  # one at rest is tried again
        ends_at, last = now + said.seconds_left, self.round
        if last is not None and (last.base, last.attempt, last.threshold) == (said.base, said.attempt, said.threshold):
            last.ends_at = ends_at
            return False
        self.round = Open(said.base, said.attempt, said.threshold, now, ends_at, set(), names=names, base_at=now)
        if last is not None and (last.base in names or said.base in last.names):
            self.round.base_at = last.base_at
            self.round.offered, self.round.counted, self.round.refused = last.offered, last.counted, last.refused
        self.draw_all()
        self.apply()
        return True

    def judge(self, verdict: Verdict) -> bool:
        """Take a verdict; return whether it says something new of the open round."""
        round_ = self.round
        return round_ is not None and verdict.base in round_.names and round_.judge(verdict.device, verdict.refused)

    # Who is drawn.

    def draw_all(self) -> None:
        """Draw among all that can take part."""
        if self.round is not None and self.seed is not None:
            salt, round_ = draw.salt(self.seed, self.round.base.number), self.round
            round_.drawn = {device for device in self.able if round_.draws(salt, device)}

    def join(self, device: str) -> None:
        """Note that a device is there and can take part."""
        if device in self.able:
            return
        self.able.add(device)
        round_ = self.round
        if round_ is None or self.seed is None or (self._has_cohort(round_) and round_.threshold < draw.MAX_TICKET):
            return
        if round_.draws(draw.salt(self.seed, round_.base.number), device):
            round_.drawn.add(device)

    def _has_cohort(self, round_: Open) -> bool:
        attempt = self.facts.attempt if self.facts is not None else None
        return attempt is not None and (attempt.base, attempt.number) == (round_.base, round_.attempt)

    # The store.

    def apply(self) -> None:
        """Put what the store says of the open round into it."""
        facts, round_ = self.facts, self.round
        if facts is None or round_ is None:
            return
        if self._has_cohort(round_) and facts.attempt is not None:
            drawn = set(facts.attempt.cohort)
            round_.drawn = drawn | round_.drawn if round_.threshold >= draw.MAX_TICKET else drawn
        if facts.version in round_.names:
            for device in facts.counted:
                round_.judge(device, "")
            for device, why in facts.refused.items():
                round_.judge(device, why or "for a reason that is not told")

    # The view.

    def view(self) -> JobView:
        """Return the view of it."""
        facts = self.facts
        metrics = self.metrics if self.metrics_of == self.version else {}
        at = self.at if self.at_of == self.version else None
        if facts is not None and facts.version == self.version:
            metrics, at = metrics or facts.metrics, facts.at or at
        state, reason = self._state()
        return JobView(
            *(self.job, self.name or self.job, state, self.version, reason, metrics),
            *(facts.best if facts is not None else None, at, self._round(), len(self.able)),
        )

    def _state(self) -> tuple[JobState, str]:
        facts = self.facts
        if facts is not None and facts.ended in get_args(JobState):
            return facts.ended, facts.reason or self.reason  # type: ignore[return-value]  # it is one of them
        if self.state in ("finished", "stopped", "resting"):
            return self.state, self.reason
        if facts is not None and facts.paused:
            return "paused", facts.paused
        reason = (facts.reason if facts is not None else "") or self.reason
        return ("running" if self.round is not None else "waiting"), reason

    def _round(self) -> RoundView | None:
        round_ = self.round
        if round_ is None:
            return None
        return RoundView(
            *(round_.base, round_.attempt, round_.seen_at, round_.ends_at, frozenset(round_.drawn)),
            *(frozenset(round_.offered), frozenset(round_.counted), dict(round_.refused), self._target(round_)),
        )

    def _target(self, round_: Open) -> int | None:
        """Return how many updates end the round early: as the store says, else as its specification is to be read."""
        attempt = self.facts.attempt if self.facts is not None and self._has_cohort(round_) else None
        if attempt is not None:
            return attempt.target
        target, fraction = self.rounds.get("target"), self.rounds.get("fraction", 1.0)
        if self.rounds.get("wait") == "all":
            return None
        if isinstance(target, int) and not isinstance(target, bool):
            return target
        if isinstance(fraction, int | float) and 0 < fraction < 1:
            return math.ceil(fraction * len(self.able) - 1e-9)
        return None
