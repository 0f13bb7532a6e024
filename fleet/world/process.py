"""A supervised process on a made-up machine: it starts, acts when it has reason to, dies, and comes back by itself.

    down ──start──▶ up ──step, step, …──▶ dies (kill -9, at any point)        ──RestartSec──▶ up again
                     │                    ends by an exception of its own     ──RestartSec──▶ up again
                     └── switched off ──▶ down until it is switched on

 1. It acts when its transport has events, its deadline is due or it is busy: a little later, sometimes much later.
 2. Whatever exception leaves a step ends the process, as it would the real one; that is written down. It comes back
    after RestartSec, as under Restart=always.
 3. A death needs no goodbye: what is on the disk at that moment is all that is left, and nothing that the ruins do on
    the way out has any effect. The broker learns of it now, late or never.
 4. Every start has a clock of its own.

What a process *is* stands in nodes.py; here is only how it lives.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Protocol

from fleet.world.agenda import Agenda, Clock
from fleet.world.disk import Disk
from fleet.world.network import WillMode, WorldTransport

QUICK_S = 0.05
"""A process that has reason to act does so within this, on a machine that is not slow."""
FIRST_IDLE_S, LAST_IDLE_S = 1.0, 60.0
"""The real loops step at least once a second. A process with nothing to do is stepped ever less often."""
FULL_DISK_S = 6.0
"""What could not be written is tried again so long after."""
KEEPALIVE_S = 60.0
"""The broker gives up a silent client after one and a half of these."""


class Died(BaseException):
    """The process is killed here: no error, and nothing may catch it."""


class World(Protocol):
    """What a process needs to know of the world around it."""

    seed: int
    agenda: Agenda

    def stepping(self, process: Process | None) -> Process | None:
        """Note which process acts now, and give the one before it."""

    def started(self, process: Process) -> None:
        """Note that a process is up."""

    def stopped(self, process: Process, error: Exception | None, why: str) -> None:
        """Note that a process is down: killed, stopped, or ended by an exception of its own."""

    def acted(self, process: Process) -> None:
        """Note that a process has done something."""


class Process:
    """One process and its machine. restart_s: RestartSec of its unit."""

    def __init__(self, world: World, name: str, disk: Disk, restart_s: float) -> None:
        self.world = world
        self.name = name
        self.disk = disk
        self.restart_s = restart_s
        self.rng = random.Random(f"{world.seed}/{name}")  # noqa: S311 -- a world is a pure function of its seed
        self.clock = Clock(world.agenda, 0.0)
        self.transport: WorldTransport | None = None
        self.up = False
        self.life = 0
        """How many times it was started."""
        self.switched_on = True
        self.cable = True
        """Whether its machine has a network."""
        self.slow_s = 0.0
        """Mean of what a slow machine takes on top before it acts."""
        self.excused_until = 0.0
        """Until when it may be late: its machine was slow, or its disk was full."""
        self.step_s = 0.1
        """What a batch of training takes here."""
        self.dies_in: int | None = None
        """Points that it still passes before it is killed."""
        self.will: WillMode = "now"
        """How the broker learns of its death."""
        self.exits: list[tuple[float, str]] = []
        """When and why it ended by itself."""
        self.dying = False
        self.tasted = ""
        """The poison of a job whose own code failed in what the process does now."""
        self._wake_at = math.inf
        self._slice_at = math.inf
        self._idle_s = FIRST_IDLE_S

    # What a process is.

    def build(self) -> None:
        """Make the service from the disk and start it."""
        raise NotImplementedError

    def step(self) -> None:
        """Let the service do one thing."""
        raise NotImplementedError

    def leave(self) -> None:
        """Stop the service as its command does when it is asked to, or when an exception ends it."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of files and locks, as the end of a process does."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether the service computes when nothing is to be heard."""
        raise NotImplementedError

    @property
    def deadline(self) -> float:
        """When the service wants to be called, on its own clock; inf for never."""
        raise NotImplementedError

    # Life and death.

    def start(self, life: int | None = None) -> None:
        """Start it, unless it runs or is switched off. life: the one that this start was planned in."""
        if self.up or not self.switched_on or (life is not None and life != self.life):
            return
        self.life += 1
        self.clock = Clock(self.world.agenda, self.rng.uniform(0.0, 1e5))
        self._wake_at = self._slice_at = math.inf
        self.up = True
        if self._attempt(self.build, running=False):
            self.world.started(self)
            self._plan()

    def kill(self, will: WillMode | None = None) -> None:
        """Kill it between two steps, if it runs."""
        if self.up:
            self.will = will or self.will
            self._bury("killed")

    def stop(self) -> None:
        """Ask it to stop, as systemd does; it comes back as after any end."""
        if self.up and self._attempt(self.leave, running=False):
            self._down(None, "stopped")

    def switch_off(self, will: WillMode = "late") -> None:
        """Cut the power: it stays off until it is switched on."""
        self.kill(will)
        self.switched_on = False

    def switch_on(self) -> None:
        """Let it be started again."""
        if not self.switched_on:
            self.switched_on = True
            self.start()

    def die_here(self) -> Died:
        """Return what to raise where the process is killed within a step."""
        self.dying = True
        self.dies_in = None
        self.disk.freeze()
        if self.transport is not None:
            self.transport.muted = True
        return Died(self.name)

    def slow_down(self, mean_s: float, for_s: float) -> None:
        """Have a slow machine for a while."""
        now = self.world.agenda.now
        self.slow_s, self.excused_until = mean_s, max(self.excused_until, now + for_s)
        self.world.agenda.later(for_s, self.speed_up)

    def speed_up(self) -> None:
        """Have a machine that is not slow."""
        self.slow_s = 0.0
        self.poke()

    def fill_disk(self, for_s: float) -> None:
        """Have a full disk for a while."""
        now = self.world.agenda.now
        self.disk.full, self.excused_until = True, max(self.excused_until, now + for_s + FULL_DISK_S)
        self.world.agenda.later(for_s, self.free_disk)

    def free_disk(self) -> None:
        """Have room on the disk again."""
        self.disk.full = False

    # The network.

    def connect(self, transport: WorldTransport) -> None:
        """Plug a new transport in, before it is opened."""
        self.transport = transport
        transport.poke = self.poke
        transport._cable = self.cable

    def unplug(self, will: WillMode, *, knows: bool) -> None:
        """Lose the network. knows: the client notices at once."""
        self.cable = False
        if self.transport is not None:
            self.transport.part(will, "the cable was pulled", client_knows=knows)

    def notice(self) -> None:
        """Let the client find out that its connection is dead."""
        if self.transport is not None:
            self.transport.notice("nothing was heard for too long")

    def plug_in(self) -> None:
        """Have a network again: the next attempt to connect succeeds."""
        self.cable = True
        self.notice()
        if self.transport is not None:
            self.transport.restore()

    @property
    def connected(self) -> bool:
        """Whether it is up, and its connection is whole on both sides."""
        transport = self.transport
        return self.up and transport is not None and transport.world_broker.connected(transport)

    # Acting.

    def poke(self) -> None:
        """Have it act soon: there is something to take."""
        self._wake(self.world.agenda.now + self._lag())

    def _lag(self) -> float:
        lag = self.rng.random() * QUICK_S + 1e-4
        return lag + (self.rng.expovariate(1.0 / self.slow_s) if self.slow_s else 0.0)

    def _wake(self, at: float) -> None:
        if self.up and at < self._wake_at:
            self._wake_at = at
            self.world.agenda.at(at, self._act, at, self.life)

    def _act(self, at: float, life: int) -> None:
        if not self.up or life != self.life or at != self._wake_at:
            return
        self._wake_at = math.inf
        now = self.world.agenda.now
        had_reason = self._waiting or self.busy or self._due() <= now
        if self.busy and not self._waiting:
            self._slice_at = now + self.step_s
        for _ in range(self.rng.choice((1, 3, 30, 300))):
            if not self._attempt(self.step):
                return
            if not self._waiting:
                break
        self._idle_s = FIRST_IDLE_S if had_reason else min(2 * self._idle_s, LAST_IDLE_S)
        self.world.acted(self)
        if self.up:
            self._plan()

    @property
    def _waiting(self) -> int:
        return self.transport.waiting if self.transport is not None else 0

    def _due(self) -> float:
        return self.clock.in_the_world(self.deadline)

    def _plan(self) -> None:
        now, lag = self.world.agenda.now, self._lag()
        times = [now + (lag if self._waiting else self._idle_s), max(self._due(), now) + lag]
        if not self.busy:
            self._slice_at = math.inf
        elif math.isinf(self._slice_at):
            self._slice_at = now + self.step_s
        times.append(max(self._slice_at, now) + 1e-4)
        self._wake(min(times) + self.clock.settle())

    def _attempt(self, act: Callable[[], None], *, running: bool = True) -> bool:
        """Let the process act; False when that was its end. running: an exception still has it say goodbye."""
        before, self.tasted = self.world.stepping(self), ""
        try:
            act()
        except Died:
            self._bury("killed")
            return False
        except Exception as error:  # noqa: BLE001 -- whatever leaves a step ends the process, and is written down
            if running:
                self._say_goodbye()
            if self.up:
                why = f"{type(error).__name__}: {error}"
                if not self.disk.full:  # who cannot write may well end
                    self.exits.append((self.world.agenda.now, why))
                self._down(error, why)
            return False
        finally:
            self.world.stepping(before)
        return True

    def _say_goodbye(self) -> None:
        try:
            self.leave()
        except Died:
            self._bury("killed")
        except Exception:  # noqa: BLE001, S110 -- the process ends anyway, by the exception before this one
            pass

    def _bury(self, why: str) -> None:
        self._down(None, why)

    def _down(self, error: Exception | None, why: str) -> None:
        self.up = False
        if self.transport is not None:
            will: WillMode = "late" if self.transport.deaf else self.will
            self.transport.part(will, "its process is gone", client_knows=False)
            self.transport.muted = True
            if will == "late":
                wait_s = self.rng.uniform(0.2, 1.5) * KEEPALIVE_S
                self.world.agenda.later(wait_s, self.transport.world_broker.lapse, self.transport.client_id)
        self.release()
        self.transport = None
        self.disk.thaw()
        self.dying = False
        self.will = "now"
        self.world.stopped(self, error, why)
        self.world.agenda.later(self.restart_s * self.rng.uniform(1.0, 1.3), self.start, self.life)
