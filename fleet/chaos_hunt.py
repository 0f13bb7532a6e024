"""Who is killed, where and when.

1. A process is armed when it is started: it carries one plan, a point at which it will die. So a process that is to
   die at a point must first die, or be killed, at some other.
2. Kills keep pace with the job: by version v of n, about v / n of all kills have happened, so that every stage of
   the job sees some, and the job comes to its end.
3. Whatever the plans do not use up falls at any moment, on the aggregator, the broker or any device.
4. Two points need help. `Close` comes when a round is given up, so a device is held back until then; `Look` when a
   head was lost, so the head is taken from the broker just before.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Sequence

from fleet.chaos_fleet import Fleet, Member, Plan
from fleet.chaos_lookout import Lookout
from fleet.chaos_points import Point
from fleet.chaos_stage import DEADLINE_S

PLANNED = 0.6
"""Share of the kills that fall at points, as far as they are needed there."""
PATIENCE_S = 20.0
"""A point that is not reached for this long is put off: its process is killed at any moment instead."""
LONG_PATIENCE_S = 2 * DEADLINE_S + PATIENCE_S
"""For the point that comes after a deadline, which a restart of the aggregator begins anew."""
WEIGHTS = {"aggregator": 3, "broker": 1, "device": 5}


class Hunt:
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
        self._strike_at = 0.0
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
            plan = self._plan_for(member, version)
            if not member.held:
                self._fleet.start(member, plan)
        self._give_up_waiting()
        now = time.monotonic()
        if self.open and now >= self._strike_at and self._room(version) > 0:
            self._strike()
            self._strike_at = now + self._rng.random() * 0.7

    def cease(self) -> None:
        """Kill nobody any more, once those who are still to die at a point have died at any moment instead."""
        self.open = False
        for member in self._fleet.members.values():
            if member.plan is not None and member.alive:
                self.plans.append(member.plan)
                self._fleet.kill(member)
        self._relent()

    # Plans.

    def _room(self, version: int) -> int:
        """Say how many more kills there may be by now, counting those that are on their way."""
        due = self._most * min(1.0, (version + 1) / max(1, self._n_rounds - 1))
        armed = sum(member.plan is not None for member in self._fleet.members.values())
        return int(due) - len(self._fleet.kills) - armed

    def _plan_for(self, member: Member, version: int) -> Plan | None:
        if not self.open or self._room(version) <= 0:
            return None
        for plan in self.plans:
            if self._fits(plan.point, member):
                self.plans.remove(plan)
                self._help(plan.point)
                return plan
        return None

    def _fits(self, point: Point, member: Member) -> bool:
        serves = member.seat is self._fleet.stage.devices[0]
        return point.role == member.seat.role and (serves or not point.of_slot)

    def _help(self, point: Point) -> None:
        if point.effect == "agent.Look":
            self._lookout.hide(self._fleet.stage.steady.name)
        if point.effect == "aggregator.Close":
            absent = self._rng.choice([m for m in self._fleet.devices if m.plan is None] or self._fleet.devices)
            self._fleet.kill(absent)
            absent.held = True

    def _relent(self) -> None:
        """Take back what helped a point that has been reached, or given up."""
        wanted = {member.plan.point.effect for member in self._fleet.members.values() if member.plan}
        if "agent.Look" not in wanted:
            self._lookout.give_back()
        if "aggregator.Close" not in wanted:
            for member in self._fleet.devices:
                member.held = False

    def _give_up_waiting(self) -> None:
        now = time.monotonic()
        for member in self._fleet.members.values():
            plan = member.plan
            if plan is None or not member.alive:
                continue
            patience = LONG_PATIENCE_S if plan.point.effect == "aggregator.Close" else PATIENCE_S
            if now - member.armed_at > patience:
                self.plans.append(Plan(plan.point, 1))
                self._fleet.kill(member)
        self._relent()

    # Kills at any moment.

    def _strike(self) -> None:
        kind = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "broker":
            self._fleet.kill_broker()
            return
        candidates = [self._fleet.aggregator] if kind == "aggregator" else self._fleet.devices
        unarmed = [member for member in candidates if member.alive and member.plan is None]
        if unarmed:
            self._fleet.kill(self._rng.choice(unarmed))


def draw(rng: random.Random, points: Sequence[Point], most: int) -> deque[Plan]:
    """Give so many plans: every point once before any twice, in any order."""
    plans: list[Plan] = []
    while len(plans) < most:
        some = rng.sample(points, min(len(points), most - len(plans)))
        plans += [Plan(point, rng.randint(1, point.most)) for point in some]
    return deque(plans)
