"""A fleet of real processes that can be killed and started again, one by one."""

from __future__ import annotations

import logging
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from fleet.chaos import stage as chaos_stage
from fleet.chaos.points import Point
from fleet.chaos.stage import ChaosStage
from fleet.chaos.trace import Trace
from fleet.local.processes import FEDGE, Child, Children, tail
from fleet.local.stage import Role
from runtime.failpoints import FAILPOINT, TRACE

log = logging.getLogger(__name__)

BROKER = "broker"
RANDOM = "any moment"
"""The point of a kill from outside."""
LONGEST_PAUSE_S = 0.8
"""A dead process is started again after a random time up to this."""


class ProcessError(RuntimeError):
    """A process has ended that nobody killed; the message has the end of its log."""


class Plan(NamedTuple):
    """A process is to die at this point, when it comes there for the n-th time."""

    point: Point
    nth: int


class Kill(Struct):
    """One death. Times are time.monotonic's."""

    who: str
    point: str
    at: float
    restarted_at: float | None = None


class Member:
    """One process, through all its lives. plan: where the present one is to end, if it is armed."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.trace = Trace(role.trace)
        self.child: Child | None = None
        self.plan: Plan | None = None
        self.armed_at = 0.0
        self.restart_at = 0.0
        self.held = False
        """Not to be started again for now."""
        self.last_kill: Kill | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as we know."""
        return self.child is not None


class Fleet:
    """All processes of one run. command: what starts a role; another one for a sabotaged fleet."""

    def __init__(
        self,
        stage: ChaosStage,
        broker: EmbeddedBroker,
        children: Children,
        rng: random.Random,
        command: Sequence[str],
    ) -> None:
        self.stage = stage
        self.kills: list[Kill] = []
        self.members = {role.name: Member(role) for role in stage.processes.roles}
        self._broker = broker
        self._children = children
        self._rng = rng
        self._command = tuple(command)
        self._broker_kill: Kill | None = None
        self._broker_at = 0.0

    @property
    def aggregator(self) -> Member:
        """The one that leads."""
        return self.members[self.stage.aggregator.name]

    @property
    def devices(self) -> list[Member]:
        """All others."""
        return [self.members[role.name] for role in self.stage.devices]

    @property
    def broker_alive(self) -> bool:
        """Whether the broker runs."""
        return self._broker_kill is None

    def start(self, member: Member, plan: Plan | None = None) -> None:
        """Start a process, armed or not."""
        role = member.role
        environment = {TRACE: str(role.trace), "FEDGE_LOG": "info"}
        if plan is not None:
            environment[FAILPOINT] = f"{plan.point.name}:{plan.nth}"
        command = [*self._command, role.kind, "run", "--config", str(role.config)]
        member.child = self._children.start(role.name, command, role.log, environment)
        member.plan, member.armed_at = plan, time.monotonic()
        if member.last_kill is not None:
            member.last_kill.restarted_at, member.last_kill = member.armed_at, None

    def kill(self, member: Member) -> None:
        """End a process as by kill -9, at whatever it is doing."""
        if member.child is not None:
            member.child.process.send_signal(signal.SIGKILL)
            member.child.process.wait()
            self._bury(member, RANDOM)

    def kill_broker(self) -> None:
        """End the broker as by kill -9."""
        if self._broker_kill is None:
            self._broker.kill()
            self._broker_kill = Kill(BROKER, RANDOM, time.monotonic())
            self.kills.append(self._broker_kill)
            self._broker_at = self._broker_kill.at + self._rng.random() * LONGEST_PAUSE_S

    def look(self) -> list[Member]:
        """Read the traces, bury who has died at his point, start the broker again; give who is to be started.

        Raises ProcessError for a process that has ended otherwise, StartError for a broker that does not come up.
        """
        for member in self.members.values():
            member.trace.read()
            child = member.child
            if child is not None and (code := child.process.poll()) is not None:
                member.trace.read()
                if code != -signal.SIGKILL or member.plan is None:
                    raise ProcessError(f"{child.name} ended with exit code {code}; its log ends:\n{tail(child.log)}")
                self._bury(member, member.plan.point.name)
        now = time.monotonic()
        if self._broker_kill is not None and now >= self._broker_at:
            self._broker.start()
            self._broker_kill.restarted_at, self._broker_kill = time.monotonic(), None
        return [m for m in self.members.values() if not m.alive and not m.held and now >= m.restart_at]

    def _bury(self, member: Member, point: str) -> None:
        now = time.monotonic()
        member.last_kill = Kill(member.role.name, point, now)
        self.kills.append(member.last_kill)
        member.child, member.plan = None, None
        member.restart_at = now + self._rng.random() * LONGEST_PAUSE_S
        log.info("killed who=%s point=%s", member.role.name, point)


@contextmanager
def running(
    folder: Path,
    n_devices: int,
    n_rounds: int,
    rng: random.Random,
    command: Sequence[str] = FEDGE,
    *,
    executor: str = "threads",
    keys: bool = False,
) -> Iterator[Fleet]:
    """Return a fleet whose processes all run, for the length of a block.

    Raises StartError without mosquitto, SettingsError without scikit-learn, OSError for a folder that cannot be used.
    """
    with start_broker(folder / BROKER, prefer="mosquitto") as broker, Children() as children:
        settings = BrokerSettings(port=broker.port, protocol=broker.protocol)
        stage = chaos_stage.build(folder, n_devices, n_rounds, settings, executor=executor, keys=keys)
        fleet = Fleet(stage, broker, children, rng, command)
        for member in fleet.members.values():
            fleet.start(member)
        yield fleet


def sabotaged(how: str) -> tuple[str, ...]:
    """Return the command that starts a role with a part of it taken out (`fleet/chaos/sabotaged.py`)."""
    return (sys.executable, "-P", "-m", "fleet.chaos.sabotaged", how)
