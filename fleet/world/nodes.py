"""The real services as processes of a made-up world. The one file that knows their constructors and their insides.

    Server    an aggregator with its store (SQLite, unsynced)
    Device    an agent with its state directory (nothing is flushed to a disk: nobody cuts the power of this machine)

What a service passes (`runtime.failpoints.reach`) is heard by `Trail`: it kills whoever is to die there, refuses writes
of full disks, and tells the laws what has become durable. What the laws need to know of a running service they ask
the functions at the end.
"""

from __future__ import annotations

import errno
import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aggregator import generations, notes, restoring
from aggregator.config import AggregatorConfig
from aggregator.config import ServerLimits as ServerLimits
from aggregator.coordinator import COMMITTING, Coordinator
from aggregator.database import DamageError
from aggregator.effects import Attempt, Open
from aggregator.intake import Counted
from aggregator.learner import Learner
from aggregator.refusals import BARRED
from aggregator.run import Run
from aggregator.service import Aggregator
from aggregator.standing import HINT_MARGIN_S
from aggregator.store import ROW_BYTES, Store
from broker import chunks
from broker.messages import Verdict, Version
from broker.wire import Wire, levels
from edge_agent import workspace
from edge_agent.config import AgentConfig, ModelSettings, VitalsSettings
from edge_agent.config import DeviceLimits as DeviceLimits
from edge_agent.effects import Settle
from edge_agent.home import Home, _read_mark
from edge_agent.live.settings import DeviceSource
from edge_agent.resources import Condition, Resources
from edge_agent.service import Agent
from edge_agent.service import will as device_will
from edge_agent.work import Work
from fleet import made_keys
from fleet.world import nets as world_nets
from fleet.world.disk import Disk
from fleet.world.network import WorldBroker
from fleet.world.patches import patching
from fleet.world.process import Process
from fleet.world.process import World as ProcessWorld
from fleet.world.record import SHORT_DIGEST, DeviceRecord, Moment, ServerRecord, Update
from models import draw, sections, statistic
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import JobSpec
from models.nets import table as nets
from runtime import failpoints
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


class Listener(Protocol):
    """Who is told what the services have made durable, and where they are."""

    def passes(self, process: Process, point: str) -> None:
        """Note that a process has come to a point; it may die there."""

    def writes(self, server: Server, what: Verdict | str) -> None:
        """Note that a verdict, or a version of this job, is about to become durable."""

    def has_written(self, server: Server, verdict: Verdict) -> None:
        """Note that a verdict is durable."""

    def makes(self, server: Server) -> None:
        """Note that a version is about to be made."""

    def has_made(self, server: Server, job: str, version: Version, sha256: str) -> None:
        """Note that a version is durable."""

    def bars(self, server: Server, device: str) -> None:
        """Note that a device's quarantine, or its end, is about to become durable."""

    def has_barred(self, server: Server, device: str, why: str) -> None:
        """Note that a device's quarantine is durable; why: "" where it is its end."""

    def draws(self, server: Server, attempt: Attempt) -> None:
        """Note that an attempt is about to become durable."""

    def begins(self, device: Device, job: str, base: Version) -> None:
        """Note that a device begins to train, or goes on where it stood."""

    def has_finished(self, device: Device, job: str, base: Version) -> None:
        """Note that an update is durable."""

    def has_trained(self, device: Device, job: str, base: Version, epoch: int) -> None:
        """Note that an epoch is durable."""

    def settles(self, device: Device, settle: Settle) -> None:
        """Note that a device is about to forget an update, and why."""


class Trail:
    """Stands in the place of `runtime.failpoints.Points`. current: gives who acts now."""

    def __init__(self, listener: Listener, current: Callable[[], Process | None]) -> None:
        self._listener = listener
        self._current = current

    def reach(self, point: str, what: object) -> None:
        """Pass a point: say so, be refused a write, or die."""
        process = self._current()
        if process is None or process.dying:
            return
        if process.disk.full:
            _refuse(point)
        self._tell(process, point, what)
        self._listener.passes(process, point)
        if process.dies_in is not None:
            process.dies_in -= 1
            if process.dies_in < 0:
                raise process.die_here()

    def place(self) -> str:
        """Return where the disk of who acts now lies."""
        process = self._current()
        return str(process.disk.place) if process is not None else ""

    def _tell(self, process: Process, point: str, what: object) -> None:
        listener = self._listener
        match process, point, what:
            case Server(), "store.add_verdict.within", Verdict() as verdict:
                listener.writes(process, verdict)
            case Server(), "store.add_verdict.after", Verdict() as verdict:
                listener.has_written(process, verdict)
            case Server(), "aggregator.Commit.before", _:
                listener.makes(process)
            case Server(), "store.commit.within", str() as job:
                listener.writes(process, job)
            case Server(), "store.commit.after", (str() as job, Version() as version, str() as sha256):
                listener.has_made(process, job, version, sha256)
            case Server(), "store.quarantine.within", (str() as device, str()):
                listener.bars(process, device)
            case Server(), "store.quarantine.after", (str() as device, str() as why):
                listener.has_barred(process, device, why)
            case Server(), "aggregator.Open.before", Open(attempt):
                listener.draws(process, attempt)
            case Device(), "outbox.put.between", (str() as job, Version() as base):
                listener.has_finished(process, job, base)
            case Device(), "training.begin", (str() as job, Version() as base, *_):
                listener.begins(process, job, base)
            case Device(), "training.epoch", (str() as job, Version() as base, int() as epoch):
                listener.has_trained(process, job, base, epoch)
            case Device(), "agent.Settle.before", Settle() as settle:
                listener.settles(process, settle)
            case _:
                pass


def _refuse(point: str) -> None:
    """Refuse a write of a process whose disk is full."""
    if point in ("store.statement.before", "files.replace.before"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def installed(trail: Trail, device_chunk_bytes: int) -> Iterator[None]:
    """Have all services of this process pass this trail, and sync nothing, for the length of a block."""
    with patching() as patches:
        patches.set(failpoints, "_points", trail)
        patches.set(os, "fsync", lambda _fd: None)
        patches.set(workspace, "CHUNK_BYTES", device_chunk_bytes)
        patches.set(statistic, "FEWEST", FEWEST)
        patches.set(generations, "place", lambda _file: trail.place())
        yield


# What can be asked of a running aggregator.


def leads(server: Server) -> bool:
    """Return whether it believes that it leads: it answers offers."""
    service = server.service
    return service is not None and service.leads and service._out.online and math.isinf(service._settled_at)


def stands_by_for_good(server: Server) -> bool:
    """Return whether it has been replaced, and leads no more until an operator says so."""
    return server.service is not None and server.service.leadership.stays


def was_replaced(server: Server) -> bool:
    """Return whether it stands by because one with jobs leads in its place."""
    leadership = server.service.leadership if server.service is not None else None
    return leadership is not None and leadership.state == "standby" and leadership.me.replaced != ""


def doing(process: Server | Device) -> str:
    """Return what a process says of itself and of its jobs, for people."""
    if process.service is None:
        return "is down"
    if isinstance(process, Server):
        jobs = [f"{job} at {run.version}: {reason(process, job)}" for job, run in runs(process).items()]
    else:
        parts = {job: work.participant for job, work in process.service.works.items()}
        jobs = [f"{job}: done with {part.done}, knows {part.announced.latest()}" for job, part in parts.items()]
        jobs += [f"{job}: {why}" for job, why in process.service.jobs.unready.items()]
    return f"({process.service.doing}; {'; '.join(jobs)})"


def nonce(server: Server) -> str:
    """Return the nonce of its beacon."""
    return server.service.nonce if server.service is not None else ""


def runs(server: Server) -> dict[str, Run]:
    """Return the jobs that it runs."""
    return server.service.runs if server.service is not None else {}


def resting(server: Server) -> set[str]:
    """Return the jobs of its store that it does not run now, and has not deleted."""
    return set(server.service.resting) if server.service is not None else set()


def rest_for_deaths(servers: Iterable[Server]) -> set[str]:
    """Return the jobs that rest since processes died while they were at it, but for those whose own code kills."""
    found = set()
    for server in servers:
        rests = server.service.resting if server.service is not None else {}
        specs = jobs_in_store(server) if rests else {}
        deadly = {job for job, (spec, _) in specs.items() if spec.model.options.get("poison")}
        found |= {job for job, rest in rests.items() if DEATHS in rest.why} - deadly
    return found


def reason(server: Server, job: str) -> str:
    """Return why a job waits or rests, as an operator can read it; "" where nothing says it."""
    service = server.service
    if service is None:
        return ""
    if job in service.resting:
        return service.resting[job].why
    run = service.runs.get(job)
    return "" if run is None else notes.waits_of(run, service.roster, service.clock()).text


def knows_a_broker(server: Server) -> bool:
    """Return whether the service holds its connection for a live one."""
    return server.service is not None and server.service._out.online


def connections(server: Server) -> int:
    """Return how often the service has been connected."""
    return server.service._roll if server.service is not None else 0


def hint_s(server: Server) -> float:
    """Return how long devices may take to answer its roll call."""
    return HINT_MARGIN_S + (server.service.config.limits.spread_s if server.service is not None else 0.0)


def open_rounds(server: Server) -> list[tuple[str, tuple[Coordinator, Version, int], float | None]]:
    """Return the open rounds: job, what tells one round of one run from another, and the deadline that the job sets."""
    found = []
    for job, run in runs(server).items():
        attempt = run.coordinator.attempt
        if attempt is not None:
            set_ = run.spec.rounds.deadline_s
            key = (run.coordinator, attempt.base, attempt.number)
            found.append((job, key, None if set_ == "learned" else float(set_)))
    return found


def committing(server: Server) -> list[str]:
    """Return the jobs whose sum is being turned into a version now."""
    return [job for job, run in runs(server).items() if run.coordinator._state is COMMITTING]


def expected_sha256(server: Server, job: str) -> str:
    """Return the version that a start from the store would make of what is counted there."""
    run, store = runs(server)[job], server.store
    assert store is not None  # noqa: S101 -- a running server has one
    last = store.last_version(job)
    version, net = last.version, nets.of_job(run.spec)
    learner = Learner(*(net, run.spec, last.state, version.number, last.sha256), steps=last.steps, record=last.record)
    for update in store.updates(job):
        number = None if update.number == version.number else update.number
        learner.restore(update.body, Counted(update.weight, update.norm, update.report, number, update.device))
    return learner.next().sha256


def n_participants(server: Server, job: str) -> int:
    """Return how many updates the last version of a job says that it was made of."""
    return int(server.store.history(job)[-1].get("participants", 0)) if server.store is not None else 0


def is_again(server: Server, job: str) -> int | None:
    """Return the number of the version that the last one of a job is again; None where it is one of its own."""
    return restoring.is_again(server.store.history(job)) if server.store is not None else None


def sha256_in_store(server: Server, job: str, number: int) -> str | None:
    """Return what the version of this number goes by."""
    found = server.store.versions(job) if server.store is not None else []
    return next((sha256 for version, sha256 in found if version.number == number), None)


def has_scored(server: Server, verdict: Verdict) -> bool:
    """Return whether a verdict is on what its device says of a version, and that is durable."""
    if server.store is None:
        return False
    said = server.store.evaluations(verdict.job, verdict.base, verdict.device)
    bodies = (sections.join({sections.EVALUATION: one.content}) for one in said)
    return any(chunks.digest(body, len(verdict.digest)) == verdict.digest for body in bodies)


def sum_in_store(server: Server, job: str) -> list[str]:
    """Return the devices whose updates are in the sum that will make the next version, once for each update."""
    return sorted(update.device for update in server.store.updates(job)) if server.store is not None else []


def version_in_store(server: Server, job: str) -> Version:
    """Return the last version of a job."""
    assert server.store is not None  # noqa: S101 -- a running server has one
    return server.store.last_version(job).version


def last_name_in_store(server: Server, job: str) -> Version | None:
    """Return the name of the last version of a job, read on the quick; None where there is no such job."""
    try:
        return generations.current(server.store._db, job) if server.store is not None else None
    except DamageError:
        return None


def are_one(server: Server, job: str, one: Version, other: Version) -> bool:
    """Return whether two names are of one version, as a store has renamed it."""
    renames = server.store.renames(job) if server.store is not None else {}
    return renames.get(one, one) == renames.get(other, other)


def knows(server: Server, job: str, version: Version) -> bool:
    """Return whether a store has had a version of this name, or is alone in giving out names of its generation."""
    current = last_name_in_store(server, job)
    if server.store is None or current is None:
        return False
    names = [name for pair in server.store.renames(job).items() for name in pair]
    former = any(name.generation == version.generation and name.number >= version.number for name in names)
    return former or version.generation == current.generation


def verdicts_in_store(server: Server, job: str) -> list[Verdict]:
    """Return the last verdict of every device."""
    return server.store.verdicts(job) if server.store is not None else []


def jobs_in_store(server: Server) -> dict[str, tuple[JobSpec, str]]:
    """Return every job there is, with how it ended."""
    rows = server.store.jobs() if server.store is not None else []
    return {row.job: (row.spec, row.ended) for row in rows if row.spec is not None}


def rows_of_deleted_jobs(server: Server) -> int:
    """Count what the store still holds of jobs that were deleted, beside that there was such a job."""
    store = server.store
    if store is None:
        return 0
    return sum(len(store.verdicts(job)) + len(store.bodies(job)) for job in deleted(server))


def deleted(server: Server) -> list[str]:
    """Return the jobs that the store knows to be deleted."""
    return server.store.deleted(1000) if server.store is not None else []


def bodies_in_store(server: Server) -> set[tuple[str, str]]:
    """Return the bodies that its store knows of: those that should lie at the broker, and those that still may."""
    store = server.store
    if store is None:
        return set()
    named = {(job, row.name) for job in jobs_in_store(server) for row in store.bodies(job)}
    return named | {(row.job, row.name) for row in store.litter()}


def is_online(process: Process) -> bool:
    """Return whether a process is connected, or has not been told yet that it is not."""
    service = process.service if isinstance(process, Server | Device) else None
    told = service is not None and service._out.online
    return told or (process.transport is not None and process.transport.online)


def n_queued(process: Process) -> int:
    """Return how many packets wait within a service, not yet taken by its transport."""
    service = process.service if isinstance(process, Server | Device) else None
    return len(service._out) if service is not None else 0


DEATHS = "processes running have died"
"""Of the reason why a job rests."""


def quarantined(server: Server) -> set[str]:
    """Return the devices in quarantine that it goes by."""
    return set(server.service.roster.quarantined) if server.service is not None else set()


def quarantined_in_store(server: Server) -> dict[str, str]:
    """Return the devices in quarantine, and why."""
    return server.store.quarantined() if server.store is not None else {}


def refused_for_quarantine(server: Server, job: str) -> set[str]:
    """Return the devices whose updates to the current version were refused for that: they are in with the next one."""
    base = version_in_store(server, job)
    return {one.device for one in verdicts_in_store(server, job) if one.base == base and one.refused.startswith(BARRED)}


def awaited(server: Server) -> dict[str, set[str]]:
    """Return the devices that open rounds wait for, by job."""
    return {job: run.coordinator.awaited for job, run in runs(server).items() if run.coordinator.attempt is not None}


def counted_in(server: Server, attempt: Attempt) -> set[str]:
    """Return the devices that have contributed to leave the base of the last attempt of a job."""
    cores = (run.coordinator for run in runs(server).values())
    return next((core.ledger.counted for core in cores if core.rounds.last is attempt), set())


def scored_by(server: Server, device: str) -> set[tuple[str, Version]]:
    """Return the jobs of whose last version a device has said how good it is, with that version."""
    store = server.store
    if store is None:
        return set()
    last = {(job, version_in_store(server, job)) for job, (_, ended) in jobs_in_store(server).items() if ended}
    return {(job, version) for job, version in last if store.evaluations(job, version, device)}


def n_assemblies(server: Server) -> int:
    """Return how many updates are being put together from chunks."""
    return len(server.service.jobs.inbox._waiting) if server.service is not None else 0


def named_clones(server: Server) -> list[str]:
    """Return the ids of which the operator was told that two devices share them."""
    known = server.service.roster.devices if server.service is not None else {}
    return [device for device, one in known.items() if one.alarm]


# What can be asked of a running agent.


def held(device: Device) -> dict[str, Update]:
    """Return the updates that are offered, by job."""
    works = device.service.works if device.service is not None else {}
    offers = {job: one.participant.offer for job, one in works.items()}
    return {job: Update(o.device, o.base.number, o.digest[:SHORT_DIGEST]) for job, o in offers.items() if o is not None}


def offered(device: Device, job: str) -> Update | None:
    """Return the update of a job that is on the disk to be offered."""
    one = device.service.works.get(job) if device.service is not None else None
    offer = one._outbox.offer if one is not None else None
    return None if offer is None else Update(offer.device, offer.base.number, offer.digest[:SHORT_DIGEST])


def folds_late(device: Device, job: str) -> bool:
    """Return whether a job folds late updates, as a device knows it."""
    one = device.service.works.get(job) if device.service is not None else None
    return one is not None and one.spec.rounds.late == "fold"


def idle_though_drawn(device: Device) -> list[str]:
    """Return the jobs whose live round has drawn this device, and on which it does nothing."""
    service = device.service
    if service is None:
        return []
    now = device.clock()
    return [job for job, one in service.works.items() if _should_train(one, now) and not one.participant.doing]


def _should_train(one: Work, now: float) -> bool:
    core, told = one.participant, one.participant.announced
    round_, trained = told.round, core.trained
    return (
        round_ is not None
        and not core.why
        and told.over is None
        and now + 1.0 < told.round_ends_at
        and draw.ticket(draw.salt(one.spec.seed, round_.base.number), core.device) <= round_.threshold
        and (trained is None or trained < round_.base)
        and core.device not in round_.settled
        and round_.base >= (told.latest() or round_.base)
    )


def failed_on(device: Device, job: str) -> Version | None:
    """Return the base on which the last training of a job failed here; it need not be tried again."""
    one = device.service.works.get(job) if device.service is not None else None
    return one.participant.trained if one is not None and one.failure else None


def owner(device: Device) -> str:
    """Return the device that a state directory is marked with; "" where there is no mark."""
    mark = _read_mark(device.disk.folder)
    return mark.device if mark is not None else ""


def job_folders(device: Device) -> list[str]:
    """Return the jobs of which something is on a device's disk."""
    folder = device.disk.folder / "jobs"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def works_on(device: Device) -> list[str]:
    """Return the jobs that a device takes part in."""
    return list(device.service.works) if device.service is not None else []


def n_filters(process: Process) -> int:
    """Return how many topics a process listens to."""
    return len(process.transport.filters) if process.transport is not None else 0


OF_A_JOB = ("head", "round", "body")
"""Words of the topics that a device listens to for one job."""


def jobs_listened_to(process: Process) -> set[str]:
    """Return the jobs that a process's subscriptions name."""
    filters = process.transport.filters if process.transport is not None else []
    found = (levels(name) for name in filters)
    return {job for word, job, *_ in (level for level in found if len(level) > 1) if word in OF_A_JOB and job != "+"}
