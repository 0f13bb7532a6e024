"""Every place where chaos kills: before and after each effect of both state machines, and inside the durable steps.

The effects are taken from the machines' own unions, so that a new one is killed at without a word here. A durable step
is a `reach("...")` in the code; a test holds the list below against the code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from aggregator import effects as aggregator_effects
from edge_agent import effects as agent_effects

Role = Literal["aggregator", "agent"]

AGGREGATOR_STEPS = {
    "aggregator.published": 40,
    "store.add_verdict.after": 6,
    "store.add_verdict.within": 6,
    "store.commit.after": 1,
    "store.commit.within": 1,
    "store.statement.after": 60,
    "store.statement.before": 60,
}
AGENT_STEPS = {
    "agent.published": 4,
    "files.overwrite.after": 2,
    "files.overwrite.before": 2,
    "files.replace.after": 30,
    "files.replace.before": 30,
    "outbox.put.between": 2,
    "outbox.flush.between": 1,
    "slot.switch.after": 1,
    "slot.switch.before": 1,
    "training.begin": 2,
    "training.epoch": 30,
}
"""The durable steps, and how often each may be passed before the kill: one is drawn up to this."""

WORDS = ("agent.Drop", "aggregator.AskDevices", "aggregator.Tell")
"""Effects from which nothing durable follows, of a fleet that waits or is overtaken: fleet/world has such weather."""

ELSEWHERE = ("aggregator.Restore",)
"""Effects of jobs that chaos does not run: that an operator rolls back, or whose patience ends. Tests of their own kill
there (tests/fleet/test_versions.py)."""

OFTEN = {
    "aggregator.Announce": 3,
    "aggregator.SendVerdict": 2,
    "aggregator.Collect": 8,
    "agent.RequestHead": 2,
    "agent.Send": 2,
}
"""The same for effects; the others are too rare to be passed before the kill."""


class Point(NamedTuple):
    """A place to die. most: how many times it may be passed before."""

    role: Role
    name: str
    most: int

    @property
    def effect(self) -> str:
        """The name without its side."""
        return self.name.rpartition(".")[0]

    @property
    def of_slot(self) -> bool:
        """Whether only a device that serves a model comes here."""
        return self.name.startswith("slot.") or self.effect == "agent.Deploy"


def points() -> list[Point]:
    """Return every place there is."""
    both: list[tuple[Role, object, dict[str, int]]] = [
        ("aggregator", aggregator_effects.Effect, AGGREGATOR_STEPS),
        ("agent", agent_effects.Effect, AGENT_STEPS),
    ]
    return [point for role, union, steps in both for point in (*_around(role, union), *_inside(role, steps))]


def _around(role: Role, union: object) -> list[Point]:
    names = sorted({f"{role}.{kind.__name__}" for kind in get_args(union)}.difference(WORDS, ELSEWHERE))
    return [Point(role, f"{name}.{side}", OFTEN.get(name, 1)) for name in names for side in _SIDES]


def _inside(role: Role, steps: dict[str, int]) -> list[Point]:
    return [Point(role, name, most) for name, most in steps.items()]


_SIDES = ("before", "after")
