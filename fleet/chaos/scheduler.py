"""Who is killed, where and when.

1. A process is armed when it is started: it carries one plan, a point at which it will die. So a process that is to
   die at a point must first die, or be killed, at some other.
2. Kills keep pace with the job: by version v of n, about v / n of all kills have happened, so that every stage of
   the job sees some, and the job comes to its end.
3. What the plans leave over falls at any moment, on the aggregator, the broker or any device.
4. One point needs help: `Close` comes when a round is given up, so a device is held back until then, from the
   beginning of the round, before it is counted. Meanwhile the broker is left alone.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Sequence

from broker.messages import Version
from fleet.chaos.fleet import RANDOM, Fleet, Member, Plan
from fleet.chaos.lookout import Lookout
from fleet.chaos.points import Point
from fleet.chaos.stage import DEADLINE_S

PLANNED = 0.6
"""Share of the kills that fall at points."""
SPARE = 0.02
"""Share of all kills for which somebody may be armed ahead of the pace."""
PATIENCE_S = 20.0
"""A point that is not reached for this long is put off: its process is killed at any moment instead."""
LONG_PATIENCE_S = 2 * DEADLINE_S + PATIENCE_S
"""For the point that comes after a deadline."""
CLOSE = "aggregator.Close"
AGGREGATOR, BROKER, DEVICE = "aggregator", "broker", "device"
WEIGHTS = {AGGREGATOR: 4, BROKER: 2, DEVICE: 5}


class Scheduler:
    """The kills of one run, of which there are to be `most` by version `n_rounds`; those at points are at these."""

    def __init__(
        self,
        fleet: Fleet,
        lookout: Lookout,
        rng: random.Random,
        points: Sequence[Point],
        most: int,
        n_rounds: int,
    ) -> None:
        self._fleet = fleet
        self._lookout = lookout
        self._rng = rng
        self._most = most
        self._n_rounds = n_rounds
        self._kill_at = 0.0
        self._base: Version | None = None
        """Of the last round that was seen to begin."""
        self.plans = draw(rng, points, round(PLANNED * most))
        self.open = False
        """Whether anybody may be killed now."""

    @property
    def waiting(self) -> list[Point]:
        """Points at which somebody was to die, and nobody has yet."""
        died_at = {kill.point for kill in self._fleet.kills}
        return [plan.point for plan in self.plans if plan.point.name not in died_at]

    def step(self, version: int) -> None:
        """Do what is due now. Raises ProcessError or StartError."""
        for member in self._fleet.look():
            self._fleet.start(member, self._plan_for(member, version))
        self._give_up_waiting()
        if self.open:
            self._help_when_a_round_begins()
        self._release()
        now = time.monotonic()
        if self.open and now >= self._kill_at and self._due(version) > len(self._fleet.kills) + self._n_armed:
            self._kill(version)
            self._kill_at = now + self._rng.random() * 0.7

    def cease(self) -> None:
        """Kill nobody any more, once those who are still to die at a point have died at any moment instead."""
        self.open = False
        for member in self._armed():
            self._put_off(member)
        self._release()

    # Plans.

    def _due(self, version: int) -> int:
        """Return how many kills there may be by now."""
        return int(self._most * min(1.0, (version + 1.5) / self._n_rounds))

    def _armed(self, effect: str = "") -> list[Member]:
        """Return those who are to die at a point, of this effect or of any."""
        plans = ((member, member.plan) for member in self._fleet.members.values() if member.alive)
        return [member for member, plan in plans if plan is not None and effect in ("", plan.point.effect)]

    @property
    def _n_armed(self) -> int:
        return len(self._armed())

    def _plan_for(self, member: Member, version: int) -> Plan | None:
        """Take the first plan that fits, if it is time; those before all others where nobody has died yet."""
        if not self.open or len(self._fleet.kills) + self._n_armed >= min(
            self._due(version) + int(SPARE * self._most), self._most
        ):
            return None
        died_at = {kill.point for kill in self._fleet.kills}
        fitting = (plan for plan in self.plans if self._fits(plan.point, member))
        plan = min(fitting, key=lambda plan: plan.point.name in died_at, default=None)
        if plan is not None:
            self.plans.remove(plan)
        return plan

    def _fits(self, point: Point, member: Member) -> bool:
        serves = member.role is self._fleet.stage.devices[0]
        return point.role == member.role.kind and (serves or not point.of_slot)

    def _put_off(self, member: Member) -> None:
        if member.plan is not None:
            self.plans.append(Plan(member.plan.point, 1))
            self._fleet.kill(member)

    def _give_up_waiting(self) -> None:
        now = time.monotonic()
        for member in self._armed():
            patience = LONG_PATIENCE_S if member in self._armed(CLOSE) else PATIENCE_S
            if now - member.armed_at > patience:
                self._put_off(member)

    # Help.

    def _help_when_a_round_begins(self) -> None:
        round_ = self._lookout.round(self._fleet.stage.steady.name)
        if round_ is None or round_.base == self._base:
            return
        self._base = round_.base
        for member in self._fleet.devices:
            member.held = False  # it was counted before it was held: its round has ended all the same
        unarmed = [m for m in self._fleet.devices if m.alive and m.plan is None]
        if self._armed(CLOSE) and self._fleet.broker_alive and unarmed:
            absent = self._rng.choice(unarmed)
            self._fleet.kill(absent)
            absent.held = True

    def _release(self) -> None:
        """Take back what helped a point that has been reached, or given up."""
        if not self._armed(CLOSE):
            for member in self._fleet.devices:
                member.held = False

    # Kills at any moment.

    def _kill(self, version: int) -> None:
        """Kill somebody, if it is the turn of such kills, or nobody of his kind is on the way to a point."""
        kind = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        at_any_moment = sum(kill.point == RANDOM for kill in self._fleet.kills)
        turn = at_any_moment < (1 - PLANNED) * self._due(version) or not self.plans
        if kind == BROKER and turn and not self._armed(CLOSE):
            self._fleet.kill_broker()
        elif kind == AGGREGATOR and self._fleet.aggregator.plan is None:
            self._fleet.kill(self._fleet.aggregator)
        elif kind == DEVICE and (turn or not any(member.plan for member in self._fleet.devices)):
            unarmed = [member for member in self._fleet.devices if member.alive and member.plan is None]
            if unarmed:
                self._fleet.kill(self._rng.choice(unarmed))


def draw(rng: random.Random, points: Sequence[Point], most: int) -> deque[Plan]:
    """Return so many plans: every point once before any twice, in any order."""
    plans: list[Plan] = []
    while len(plans) < most:
        some = rng.sample(points, min(len(points), most - len(plans)))
        plans += [Plan(point, rng.randint(1, point.most)) for point in some]
    return deque(plans)
