"""What a device does, in a word for people: that of its jobs of which there is most to say. Pure.

training ── reading ── sending ── fetching ── waiting, for its data or for room ── waiting for others ── idle
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Doing = Literal["idle", "reading", "fetching", "training", "sending", "waiting"]

FOR_A_ROUND = "a round that draws it"
FOR_A_LEADER = "the aggregator: none leads"
FOR_A_WORD = "the aggregator's word on its update"
MOST_WHY = 160
"""Characters of why a job waits; all of it stands in the presence."""


class Activity(NamedTuple):
    """What is done, for which job, how far (0 to 1), and what is waited for."""

    doing: Doing = "idle"
    job: str = ""
    progress: float | None = None
    why: str = ""


IDLE = Activity()
_ORDER: tuple[Doing, ...] = ("training", "reading", "sending", "fetching", "waiting", "idle")


def first_of(activities: Iterable[Activity]) -> Activity:
    """Return that of which there is most to say, the first by its job of several; IDLE where there is none.

    Whoever waits for its own device comes before who waits for others: somebody may do something about it.
    """
    return min(activities, key=_rank, default=IDLE)


def _rank(one: Activity) -> tuple[int, bool, str]:
    return _ORDER.index(one.doing), one.why in (FOR_A_ROUND, FOR_A_LEADER, FOR_A_WORD), one.job


def put_off(job: str, why: str) -> Activity:
    """Return what a job waits for that this device cannot take part in now."""
    return Activity("waiting", job, why=why if len(why) <= MOST_WHY else f"{why[: MOST_WHY - 1]}…")
