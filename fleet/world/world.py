"""One made-up world: the real aggregator and the real agents, from their first start to the end of bad weather, and on
until the fleet has recovered.

    0 ─── processes start, jobs are submitted ─── misfortunes ───▶ bad_s ─── all is put right ─── recovery ──▶ done

`run(seed)` is a pure function of its seed: no clock, no random number and no order in memory from outside gets in.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from broker.transport import Packet
from broker.wire import levels
from fleet.world import calm, jobs, misfortunes, nets, nodes, trail, weather
from fleet.world.agenda import Agenda
from fleet.world.disk import Disk, shelf
from fleet.world.laws import Laws, Violation
from fleet.world.network import WorldBroker, WorldTransport
from fleet.world.nodes import Device, Paces, Server
from fleet.world.patches import silence
from fleet.world.process import Process
from fleet.world.record import DeviceRecord, ServerRecord
from models.data.source import DataSource
from models.job import JobSpec

MOST_EVENTS, MOST_PACKETS, MOST_A_SECOND = 40_000, 20_000, 10
"""A world in which more happens than this, and so much for each second on top, has somebody in it who spins."""
LONG = 100.0
"""How much longer everything takes in a world of hours."""
LOOK_EVERY_S = 1.0
SURELY = ("job", "aggregator")
"""Words of the topic table that the broker never loses while a connection lasts."""
DATES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
"""The store dates what people read, by the clock of this machine."""
PROMPTLY = ("device", "reply")
"""Words whose copies never come after what was sent later: nobody sends these again of himself."""


class WorldReport(NamedTuple):
    """What one schedule came to."""

    seed: int
    profile: str
    events: int
    versions: int
    made_up_s: float
    violations: tuple[Violation, ...]
    sha256: str
    """Of all that happened, in its order."""


Tell = Callable[[str], None]
T = TypeVar("T")
W = TypeVar("W", bound="World")
SILENCED = ("aggregator", "edge_agent", "broker", "models")
VITALS_S = (0.0, 20.0, 60.0)
"""How often a device says how it is, where some do; 0 for never."""


class World:
    """A broker, processes, weather, and the laws that watch. rich, quarantine: see `run`."""

    def __init__(
        self,
        seed: int,
        profile: str | None,
        folder: Path,
        tell: Tell | None,
        *,
        rich: bool = False,
        quarantine: bool = False,
    ) -> None:
        self.seed = seed
        self._rich = rich
        self._dice = random.Random(f"{seed}/quarantine") if quarantine else None  # noqa: S311 -- as below
        """For what is drawn beside, so that the weather of a seed stays what it is."""
        self.rng = random.Random(seed)  # noqa: S311 -- a world is a pure function of its seed
        self.sky = sky = weather.draw_sky(self.rng, profile)
        if self._dice is not None:
            self.sky = weather.draw_barring(self._dice, sky)
        self._profile = weather.PROFILES[sky.profile]
        self.scale = LONG if self._profile.long else 1.0
        self.keys = self._profile.keys
        """Whether everybody signs, and believes signed words alone."""
        self._folder = folder
        self._tell = tell
        self._hash = hashlib.sha256()
        self.agenda = Agenda()
        self.acting: Process | None = None
        self.laws = Laws(self)
        self.broker = WorldBroker(self.agenda, self.heard)
        self.broker.delays = self._copies
        self._loss, self._double = sky.loss, sky.double
        self.n_devices = self.rng.randint(1, 3 if self._profile.small else 5)
        self.paces = self._draw_paces()
        self.tests = self._draw_tests()
        self._n_servers = self._n_clones = self._n_jobs = 0
        self.servers: list[Server] = []
        self.devices: list[Device] = []
        self.clones: list[Device] = []
        self.new_server(self.new_disk("aggregator", ServerRecord()))
        self.devices += [self._new_device(f"d{n}") for n in range(self.n_devices)]
        self.operator = jobs.Operator(self)
        self.misfortunes = misfortunes.Misfortunes(self)
        self._waiting: list[tuple[str, str]] = []
        """Moments, and the misfortunes that wait for them."""
        self._leadership = calm.Leadership(self)
        self._recovery: calm.Recovery | None = None
        self._whole_since: float | None = None
        self._looked_at = 0.0
        self._n_heard = 0

    # Making.

    def _draw_paces(self) -> Paces:
        chunk_bytes = self.rng.choice((100_000, 100_000, 40))
        if self._profile.long:
            return Paces(heartbeat_s=300.0, spread_s=2.0, presence_s=30.0, chunk_bytes=chunk_bytes)
        return Paces(
            heartbeat_s=self.rng.choice((5.0, 30.0)),
            spread_s=self.rng.choice((0.0, 2.0)),
            presence_s=self.rng.choice((5.0, 30.0)),
            chunk_bytes=chunk_bytes,
        )

    def _draw_tests(self) -> dict[str, DataSource]:
        if not self._profile.poisoned and self.rng.random() < 0.8:
            return {}
        path = self._folder / "test.npz"
        rows = nodes.rows_of("test", 6)
        np.savez(path, X=rows.X, y=rows.y)
        return {"toy": DataSource(str(path))}

    def _new_device(self, name: str) -> Device:
        n = self.rng.choice((4, 8, 12))
        device = Device(self, name, name, self.new_disk(name, DeviceRecord()), {"toy": nodes.rows_of(name, n)})
        device.step_s = self.scale * self.rng.choice((0.1, 0.5, 1.0, 3.0))
        if self._dice is not None:
            device.vitals_s = self._dice.choice(VITALS_S)
        return device

    def new_disk(self, name: str, record: ServerRecord | DeviceRecord) -> Disk:
        """Return an empty disk."""
        return Disk(self._folder / f"{name}-{self.roll():08x}", record)

    def new_server(self, disk: Disk) -> Server:
        """Return another aggregator, not started."""
        self._n_servers += 1
        server = Server(self, f"aggregator{self._n_servers}", disk)
        self.servers.append(server)
        return server

    def new_clone(self, device: Device, disk: Disk, called: str = "") -> Device:
        """Return another device, not started; of the same id, or called otherwise."""
        self._n_clones += 1
        clone = Device(self, f"{device.device}-clone{self._n_clones}", called or device.device, disk, device.rows)
        self.clones.append(clone)
        return clone

    def new_job(self, name: str | None) -> JobSpec:
        """Draw a job. name: of the one that it replaces; a new one when not given."""
        self._n_jobs += 1
        poison = self.rng.choice(jobs.POISONS) if self._profile.poisoned and name is None and self._n_jobs == 2 else ""
        spare = 1 if "lie" in self._profile.kinds and self.n_devices > 1 else 0
        pace = jobs.Pace(20.0, 4.0, self._profile.learned, (3, 20, 60, 200))
        if self._profile.small:
            pace = jobs.Pace(15.0, 4.0, 0.0, (3, 10))
        if self._profile.long:
            pace = jobs.Pace(3600.0, 60.0, 0.0, (50, 200))
        spec = jobs.draw_job(self.rng, name or f"job{self._n_jobs}", self.n_devices, pace, poison=poison, spare=spare)
        return jobs.enriched(self.rng, spec) if self._rich else spec

    # What processes ask of the world.

    def roll(self) -> int:
        """Return 32 random bits."""
        return self.rng.getrandbits(32)

    def stepping(self, process: Process | None) -> Process | None:
        """Note which process acts now, and give the one before it."""
        before, self.acting = self.acting, process
        return before

    def started(self, process: Process) -> None:
        """Note that a process is up."""
        self.note(process.name, f"starts, life {process.life}")
        before, self.acting = self.acting, None
        self.laws.started(process)
        self.acting = before

    def stopped(self, process: Process, error: Exception | None, why: str) -> None:
        """Note that a process is down."""
        self.note(process.name, f"ends: {why}")
        self.laws.stopped(process, error)

    def acted(self, process: Process) -> None:
        """Note that a process has done something."""
        self.laws.acted(process)
        if self.agenda.now >= self._looked_at + LOOK_EVERY_S:
            self._look()

    def computes(self, place: str, poison: str) -> float:
        """Let the time pass that a net takes, or throw what its job is poisoned with."""
        process = self.acting
        if process is None:
            return 1.0
        where, _, how = poison.partition(":")
        if where == place and not (place == "build" and isinstance(process, Server) and process.life == 1):
            process.tasted = poison
            if how == "raise":
                raise nets.PoisonError(f"the job's own code fails in {place}")
            if how == "kill":
                self.laws.was_killed(process, poison)
                raise process.die_here()
        return process.trains() if place == "train" and isinstance(process, Device) else 1.0

    def passes(self, process: Process, point: str) -> None:
        """Note that a process has come to a point: a misfortune may have waited for that."""
        for n, (moment, kind) in enumerate(self._waiting):
            if moment == point:
                del self._waiting[n]
                self.note(process.name, f"passes {point}")
                if kind == weather.DIE_HERE:
                    process.dies_in = 0
                else:
                    self.agenda.later(0.0, self.misfortunes.happen, kind, process)
                return

    # The network.

    def _copies(self, _client: WorldTransport, packet: Packet) -> tuple[float, ...]:
        word = levels(packet.topic)[0]
        if word in SURELY or not (self._loss or self._double):
            return (0.0,)
        first = (0.0,) if self.rng.random() >= self._loss else ()
        if self.rng.random() >= self._double:
            return first
        return (*first, 0.0 if word in PROMPTLY or self.rng.random() < 0.5 else self.rng.uniform(0.0, 10.0))

    def heard(self, packet: Packet) -> None:
        """Note what the broker takes."""
        self._n_heard += 1
        who = self.acting.name if self.acting is not None else "broker"
        words, _, blob = packet.payload.replace(bytes(self._folder), b"disk").partition(b"\n")
        if not words.startswith(b"{"):
            words, blob = b"", packet.payload
        topic = "/".join(levels(packet.topic))
        bytes_ = f"+{len(blob)}:{zlib.crc32(blob):08x}" if blob else ""
        said = DATES.sub("(then)", words.decode(errors="replace"))  # a piece of a body may begin with a brace
        self._note(f"{who} -> {topic} {said}{bytes_}{' (retained)' * packet.retain}")
        self.laws.heard(packet)

    # The trace.

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self._note(f"{who}: {what}".replace(str(self._folder), "disk"))

    def _note(self, line: str) -> None:
        line = f"{self.agenda.now:10.3f} {line}"
        self._hash.update(line.encode())
        if self._tell is not None:
            self._tell(line[:400])

    # Running.

    def run(self) -> WorldReport:
        """Let the weather rage, put all right, and see whether the fleet recovers."""
        self.note("weather", f"{self.sky.profile}, loss {self._loss}, {self.n_devices} devices, {self.sky.bad_s:.0f} s")
        for process in (*self.servers, *self.devices):
            self.agenda.later(self.rng.uniform(0.0, 3.0), process.start)
        n_jobs = 2 if self._profile.poisoned else 1 if self._profile.small else self.rng.choice((1, 1, 2, 3))
        for n in range(n_jobs):
            at = self.rng.uniform(0.5, 5.0) if n == 0 else self.rng.uniform(1.0, 40.0)
            self.agenda.later(at, self._submit)
        for at, moment, kind in self.sky.misfortunes:
            self.agenda.later(at, self._happen, moment, kind)
        self.agenda.run(self.sky.bad_s, self._is_over)
        self._clear_up()
        self._recover()
        self._end()
        versions = sum(self.laws.made.values())
        return WorldReport(
            *(self.seed, self.sky.profile, self.agenda.n_done, versions, round(self.agenda.now, 3)),
            tuple(self.laws.violations),
            self._hash.hexdigest(),
        )

    def _submit(self) -> None:
        self.operator.submit(self.new_job(None))

    def _happen(self, moment: str, kind: str) -> None:
        if moment:
            self._waiting.append((moment, kind))
        else:
            self.misfortunes.happen(kind)

    def _is_over(self) -> bool:
        more = self.agenda.now * MOST_A_SECOND
        if self.agenda.n_done > MOST_EVENTS + more or self._n_heard > MOST_PACKETS + more:
            self.laws.broken(7, "somebody spins", f"{self.agenda.n_done} events, {self._n_heard} packets")
            return True
        return False

    def _clear_up(self) -> None:
        self.note("weather", "the sky clears")
        self._waiting.clear()
        self._loss = self._double = 0.0
        self.misfortunes.put_right()
        self._whole_since = self.agenda.now

    def _recover(self) -> None:
        versions = 6 if self.operator.barred else self.rng.choice((1, 1, 6))
        self._recovery = recovery = calm.Recovery(self, versions)
        while not recovery.done() and self.agenda.now < recovery.until and not self._is_over():
            self.agenda.run(self.agenda.now + 5.0, self._is_over)
            self._look()
        recovery.judge()
        recovery.tidy()

    def _look(self) -> None:
        self._looked_at = self.agenda.now
        before, self.acting = self.acting, None
        self.laws.inspect()
        if self._whole_since is not None:
            self.misfortunes.mend()
        self._leadership.inspect(self._whole_since)
        if self._recovery is not None:
            self._recovery.inspect()
        self.acting = before

    def _end(self) -> None:
        self.acting = None
        for server in self.servers:
            if server.up:
                self.laws.started(server)  # the same comparison as at a start
        for process in (*self.servers, *self.devices, *self.clones):
            process.switch_off("never")


def run(
    seed: int,
    profile: str | None = None,
    tell: Tell | None = None,
    *,
    rich: bool = False,
    quarantine: bool = False,
) -> WorldReport:
    """Run one schedule. profile: its weather, drawn when not given. tell: is given the trace, line by line. rich: its
    jobs ask for all there is. quarantine: devices are put in it and released, and some say how they are.
    """
    return run_in(functools.partial(World, rich=rich, quarantine=quarantine), World.run, seed, profile, tell)


def run_in(
    kind: Callable[[int, str | None, Path, Tell | None], W],
    act: Callable[[W], T],
    seed: int,
    profile: str | None,
    tell: Tell | None,
) -> T:
    """Make a world of this kind, and return what acting in it comes to."""
    try:
        with silence(*SILENCED), shelf() as folder:
            world = kind(seed, profile, folder, tell)
            heard = trail.Trail(_Ears(world), lambda: world.acting)
            with nets.surrounded_by(world), trail.installed(heard, world.paces.chunk_bytes):
                return act(world)
    except Exception as error:
        error.add_note(f"in the world of seed {seed}")
        raise


class _Ears:
    """Tells the laws and the weather what the services pass."""

    def __init__(self, world: World) -> None:
        laws = world.laws
        self.passes = world.passes
        self.writes = laws.writes
        self.has_written = laws.has_written
        self.makes = laws.makes
        self.has_made = laws.has_made
        self.bars = laws.bars.writes
        self.has_barred = laws.bars.has_written
        self.draws = laws.bars.draws
        self.begins = laws.begins
        self.has_finished = laws.has_finished
        self.has_trained = laws.has_trained
        self.settles = laws.settles
