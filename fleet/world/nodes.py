"""The real services as processes of a made-up world. The one file that knows their constructors.

    Server    an aggregator with its store (SQLite, unsynced)
    Device    an agent with its state directory (nothing is flushed to a disk: nobody cuts the power of this machine)

What a service passes is heard by `trail.py`; what the laws need to know of a running service they ask `insides.py`.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aggregator.config import AggregatorConfig
from aggregator.config import ServerLimits as ServerLimits
from aggregator.service import Aggregator
from aggregator.store import ROW_BYTES, Store
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings, VitalsSettings
from edge_agent.config import DeviceLimits as DeviceLimits
from edge_agent.home import Home
from edge_agent.live.settings import DeviceSource
from edge_agent.resources import Condition, Resources
from edge_agent.service import Agent
from edge_agent.service import will as device_will
from fleet import made_keys
from fleet.world import nets as world_nets
from fleet.world.disk import Disk
from fleet.world.network import WorldBroker
from fleet.world.process import Process
from fleet.world.process import World as ProcessWorld
from fleet.world.record import DeviceRecord, Moment, ServerRecord
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from runtime.faults import Marks

FLEET = "w"
WIRE = Wire(FLEET)
TRUST = made_keys.trust_of(FLEET)
"""What everybody pins in a world with keys."""
SERVER_RESTART_S, DEVICE_RESTART_S = 5.0, 15.0
KERNEL = "world"
"""The machine is never booted anew: every death counts."""
SLICE_S = 0.06
"""What a batch takes on a process's own clock: more than a slice, so that every slice is one batch."""


class World(ProcessWorld, Protocol):
    """What the services need of the world around them."""

    broker: WorldBroker
    keys: bool
    paces: Paces
    tests: dict[str, DataSource]

    def roll(self) -> int:
        """Return 32 random bits."""


class Paces:
    """How often things are said in this world."""

    def __init__(self, *, heartbeat_s: float, spread_s: float, presence_s: float, chunk_bytes: int) -> None:
        self.heartbeat_s = heartbeat_s
        self.spread_s = spread_s
        self.presence_s = presence_s
        self.chunk_bytes = chunk_bytes


SOON = 0.3
"""How likely a version that waits is evaluated at a step."""


class Later(Executor):
    """Does what is submitted when it is told to: as a thread would, at some time while its process goes on."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        future: Future[Any] = Future()
        self._waiting.append((future, functools.partial(fn, *args, **kwargs)))
        return future

    @property
    def waits(self) -> bool:
        """Whether anything waits to be done."""
        return bool(self._waiting)

    def work(self) -> None:
        """Do what has waited longest."""
        future, act = self._waiting.popleft()
        try:
            future.set_result(act())
        except Exception as error:  # noqa: BLE001 -- whatever is thrown is the future's, as with every executor
            future.set_exception(error)


class Server(Process):
    """An aggregator."""

    world: World

    def __init__(self, world: World, name: str, disk: Disk) -> None:
        super().__init__(world, name, disk, SERVER_RESTART_S)
        self.take_over = False
        """Whether the next start is with --take-over."""
        self.service: Aggregator | None = None
        self.store: Store | None = None
        self.later = Later()
        """Where its versions are evaluated: between its steps."""
        self.n_steps = 0

    @property
    def record(self) -> ServerRecord:
        """What the laws know of its store."""
        assert isinstance(self.disk.record, ServerRecord)  # noqa: S101 -- a server's disk has a server's record
        return self.disk.record

    @property
    def moment(self) -> Moment:
        """Which step this is."""
        return self.name, self.life, self.n_steps

    def build(self) -> None:
        """See `Process.build`: what fleet/roles.py does for `fedge aggregator run`."""
        paces = self.world.paces
        row_bytes = 0 if self.world.seed % 2 else ROW_BYTES
        self.store = Store(self.disk.folder, synced=False, chance=self._chance, row_bytes=row_bytes)
        take_over, self.take_over = self.take_over, False
        nonce = f"{self.name}-{self.life}"
        transport = self.world.broker.transport(f"{FLEET}-aggregator-{nonce}")
        self.connect(transport)
        config = AggregatorConfig(
            fleet=FLEET,
            state_dir=str(self.disk.folder),
            tests=self.world.tests,
            limits=ServerLimits(
                heartbeat_s=paces.heartbeat_s,
                spread_s=paces.spread_s,
                chunk_bytes=paces.chunk_bytes,
                body_grace_s=20.0,
            ),
        )
        self.service = Aggregator(
            config,
            self.store,
            transport,
            made_keys.wire_of_server(TRUST, self.world.roll) if self.world.keys else WIRE,
            nonce=nonce,
            take_over=take_over,
            clock=self.clock,
            token=self._token,
            marks=Marks(self.disk.folder / "entered", kernel=KERNEL),
            executor=self.later,
        )
        self.service.start()

    def _token(self) -> str:
        return f"{self.world.roll():08x}"

    def _chance(self, n: int) -> int:
        return (self.world.roll() << 32 | self.world.roll()) % n

    def step(self) -> None:
        """See `Process.step`."""
        self.n_steps += 1
        if self.later.waits and self.rng.random() < SOON:
            self.later.work()
        if self.service is not None:
            self.service.step(0.0)

    def leave(self) -> None:
        """See `Process.leave`."""
        if self.service is not None:
            self.service.stop()
        if self.store is not None:
            self.store.close()

    def release(self) -> None:
        """See `Process.release`."""
        if self.store is not None:
            self.store.close()
        self.service = self.store = None
        self.later = Later()

    @property
    def busy(self) -> bool:
        """See `Process.busy`."""
        return self.later.waits

    @property
    def deadline(self) -> float:
        """See `Process.deadline`."""
        return self.service.deadline if self.service is not None else math.inf


class Device(Process):
    """An agent."""

    world: World

    def __init__(self, world: World, name: str, device: str, disk: Disk, rows: dict[str, Dataset]) -> None:
        super().__init__(world, name, disk, DEVICE_RESTART_S)
        self.since = world.agenda.now
        """When the machine came into the world."""
        self.device = device
        """Its id; `name` is its own even when it is a clone."""
        self.rows = rows
        """What it can train on, by the name of the data."""
        self.diverges = 0
        """How many of its trainings, from now on, diverge."""
        self.lies = False
        """Whether its updates are absurdly large."""
        self.vitals_s = VITALS_S
        """How often it says how it is; 0 for never."""
        self.service: Agent | None = None
        self.home: Home | None = None

    @property
    def record(self) -> DeviceRecord:
        """What the laws know of its disk."""
        assert isinstance(self.disk.record, DeviceRecord)  # noqa: S101 -- a device's disk has a device's record
        return self.disk.record

    def build(self) -> None:
        """See `Process.build`: what fleet/roles.py does for `fedge agent run`."""
        self.home = Home(self.disk.folder, self.device, draw=self._draw)
        wire = made_keys.wire_of_device(TRUST, self.device, self.world.roll) if self.world.keys else WIRE
        transport = self.world.broker.transport(f"{FLEET}-{self.device}", device_will(wire, self.home))
        self.connect(transport)
        config = AgentConfig(
            fleet=FLEET,
            device=self.device,
            state_dir=str(self.disk.folder),
            data={name: DeviceSource(path=name) for name in self.rows},
            models=ModelSettings(inference=False),
            limits=DeviceLimits(checkpoint_s=0.0, presence_s=self.world.paces.presence_s),
            vitals=VitalsSettings(self.vitals_s),
        )
        self.service = Agent(
            config,
            self.home,
            transport,
            wire,
            clock=self.clock,
            open_source=self._open,
            marks=Marks(self.disk.folder / "entered", kernel=KERNEL),
            resources=_Made(self.clock),
        )
        self.service.most_at_once = 1  # so that anything may happen between any two
        self.service.start()

    def _draw(self) -> str:
        return f"{self.world.roll():08x}"

    def _open(self, settings: DataSource, *_: object, **__: object) -> InMemory:
        return InMemory(self.rows[settings.path])

    def step(self) -> None:
        """See `Process.step`."""
        if self.service is not None:
            self.service.step(0.0)

    def leave(self) -> None:
        """See `Process.leave`."""
        if self.service is not None:
            self.service.stop()

    def release(self) -> None:
        """See `Process.release`."""
        if self.home is not None:
            self.home.close()
        self.service = self.home = None

    @property
    def busy(self) -> bool:
        """See `Process.busy`."""
        return self.service is not None and self.service.busy

    @property
    def deadline(self) -> float:
        """See `Process.deadline`."""
        return self.service.deadline if self.service is not None else math.inf

    def trains(self) -> float:
        """Spend the time of a batch, and give what its gradients are multiplied by."""
        self.clock.spend(SLICE_S)
        if self.diverges:
            self.diverges -= 1
            return math.nan
        return 1e6 if self.lies else 1.0


VITALS_S = 0.0
"""How often devices say how they are where nobody says otherwise: a schedule stays what its seed was found for."""


class _Made(Resources):
    """What a device reads of itself follows from its clock: it swings, so that there is something to say."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def condition(self, folder: Path) -> Condition:  # noqa: ARG002 -- of a law
        """See `Resources`."""
        swing = math.sin(self._clock() / 300.0)
        return Condition(round(10**9 * (2.0 + swing)), 50.0 + 10.0 * swing, 0.5)

    def wall_clock(self) -> float:
        """See `Resources`."""
        return 1e9 + self._clock()


FEWEST = 8
"""Rows of which a device says something: some of this world have fewer."""


def rows_of(device: str, n: int) -> Dataset:
    """Return a device's data: two clouds, a little different everywhere. Jobs that ask for it score on some of them."""
    rng = np.random.default_rng(list(device.encode()))
    y = np.arange(n) % world_nets.OUTPUTS
    X = rng.standard_normal((n, world_nets.INPUTS)) + 2.0 * y[:, None]
    rows = Dataset(np.ascontiguousarray(X, np.float32), y)
    return rows._replace(held_out=Dataset(rows.X[::3], y[::3]))


# What passes.
