"""How a live source is doing, in words for an operator: what is silent, what is rubbish, what is too much.

Counts alone: which topic (as the settings name it), how many, since when, and of which kind; never anything of what was
sent. The words stay the same while nothing new is to be said, since each change of them travels to the aggregator: they
say since when something is so, and shares in tenths.

    a topic       is thinned beyond max_per_s, by a bucket of its own: what floods one does not silence the others
    a flood       more than FLOOD times max_per_s over FLOOD_S seconds: nothing is listened to for a while
    what nobody   has asked for, and what is retained, is passed over, and counted for all topics together: beyond
    has asked for STRAYS of them in STRAY_S seconds it is a flood as well
    rubbish       is told of from a twentieth of what a topic has said in the last two spans of SPAN_S
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter

from runtime.words import clean

SPAN_S = 300.0
FLOOD, FLOOD_S = 20.0, 5.0
STRAYS, STRAY_S = 60_000, 60.0
"""Retained messages of a large site come once, behind the answer to a subscription."""
FEW = 5
"""Messages that are too few to say anything of."""


class StrayHealth:
    """The count of messages that are no readings: of topics that nobody has asked for, or retained."""

    def __init__(self, now: float) -> None:
        self._began, self._n = now, 0

    @property
    def floods(self) -> bool:
        """Whether more has come than a device should even throw away."""
        return self._n > STRAYS

    def note(self, now: float) -> None:
        """Count a message."""
        if now - self._began >= STRAY_S:
            self._began, self._n = now, 0
        self._n += 1

    def said(self) -> list[str]:
        """Return what there is to say of it."""
        if not self.floods:
            return []
        return [f"the broker sends more than {STRAYS:,} messages a minute that are retained or that nobody asked for"]


class TopicHealth:
    """The counts of one topic. Times are seconds that only go forward, but for `seen_at`, which is of the clock."""

    def __init__(self, max_per_s: float, now: float, wall: float) -> None:
        self._max_per_s = max_per_s
        self._tokens, self._filled_at = max(1.0, max_per_s), now
        self.seen_at, self._seen = wall, now
        self.ever = False
        self._span_at = now
        self._spans = [Counter[str](), Counter[str]()]
        self._burst_at, self._burst = now, 0
        self.floods = False
        """Whether more has come than a device should even throw away."""

    def allows(self, now: float) -> bool:
        """Count a message, and return whether it is to be looked at."""
        self._roll(now)
        self._spans[0]["all"] += 1
        if now - self._burst_at >= FLOOD_S:
            self._burst_at, self._burst = now, 0
        self._burst += 1
        self.floods = self._burst > FLOOD * FLOOD_S * max(1.0, self._max_per_s)
        self._tokens = min(max(1.0, self._max_per_s), self._tokens + (now - self._filled_at) * self._max_per_s)
        self._filled_at = now
        if self._tokens < 1.0:
            self._spans[0]["thinned"] += 1
            return False
        self._tokens -= 1.0
        return True

    def note(self, now: float, wall: float) -> None:
        """Count a reading."""
        self.seen_at, self._seen, self.ever = wall, now, True

    def rubbish(self, why: str) -> None:
        """Count a message that could not be used, and why."""
        self._spans[0][why] += 1

    def silent_s(self, now: float) -> float:
        """Return the seconds since the last reading, or since the beginning."""
        return now - self._seen

    def said(self, topic: str, now: float, stall_s: float) -> list[str]:
        """Return what there is to say of it."""
        self._roll(now)
        name, found = f"topic {clean(topic, 80)}", []
        if self.silent_s(now) >= stall_s:
            found.append(f"no reading from {name} since {clock(self.seen_at)}" + ("" if self.ever else ", or ever"))
        counts = self._spans[0] + self._spans[1]
        n = counts.pop("all", 0)
        thinned = counts.pop("thinned", 0)
        if thinned and n >= FEW:
            found.append(
                f"{name} says more than max_per_s = {self._max_per_s:g} messages a second: {_share(thinned, n)} of them"
                " are passed over"
            )
        looked_at = n - thinned
        if looked_at >= FEW and (bad := sum(counts.values())) >= 0.05 * looked_at:
            why = min(counts, key=lambda kind: (-counts[kind], kind))
            found.append(f"{_share(bad, looked_at)} of the messages of {name} {why}, and are passed over")
        return found

    def _roll(self, now: float) -> None:
        if now - self._span_at >= SPAN_S:
            long_ago = now - self._span_at >= 2 * SPAN_S
            self._spans = [Counter(), Counter() if long_ago else self._spans[0]]
            self._span_at = now


def _share(part: int, whole: int) -> str:
    tenths = math.floor(10 * part / whole + 0.5)
    if part >= whole:
        return "all"
    return "some" if tenths == 0 else "nearly all" if tenths == 10 else f"about {10 * tenths} %"


def clock(wall: float) -> str:
    """Return a time of the clock for people."""
    try:
        return f"{dt.datetime.fromtimestamp(wall, dt.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "a time that this clock cannot mean"
