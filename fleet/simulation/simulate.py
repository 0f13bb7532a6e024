"""`fedge simulate`: a whole fleet in one process.

The aggregator and the agents are the real ones, on an in-memory broker; only the network, the processes and the clock
are left out. The clock is made up: it stands while anything is to be done and then jumps to the next deadline, so that
nothing ever waits and the same seed gives the same rounds, byte for byte.
"""

from __future__ import annotations

import gc
import math
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, structs

from aggregator.config import AggregatorConfig
from aggregator.config import ServerLimits as AggregatorLimits
from aggregator.convergence import RESTORED
from aggregator.run import Run
from aggregator.service import Aggregator
from aggregator.starting import Given
from aggregator.store import Store
from broker.memory import MemoryBroker, MemoryTransport
from broker.transport import Packet, TransportEvent
from edge_agent.config import AgentConfig, ModelSettings, VitalsSettings
from edge_agent.disk import NoDisk
from edge_agent.home import Home
from edge_agent.live.settings import DeviceSource
from edge_agent.reading import at_once
from edge_agent.service import Agent
from fleet import made_keys, memory
from fleet.problems.problem import device_names, for_all
from fleet.problems.tables import Share
from fleet.simulation.left import Deployed, Left, idle, left_of
from fleet.simulation.shared import SharedResources, SharedWire, Unmarked
from models import frozen
from models.chain import Chain
from models.data.dataset import Dataset
from models.data.source import DataSource, Unchanging
from models.frozen import ENDING, Own
from models.job import JobSpec
from models.measures import table as measures
from models.nets import table as nets
from models.nets.net import Net
from models.nets.size import of_net
from models.params import Params, Spec
from runtime.settings import convert

if TYPE_CHECKING:
    from fleet.console.versions import Weights  # which loads onnx and paho, and nobody here needs those

FLEET = "simulation"
MEMORY_DISK = Path("/dev/shm")  # noqa: S108 -- TemporaryDirectory makes a folder of its own there
HOME = Path("nowhere")
"""What simulated devices call their state directories: they live once, and keep nothing (edge_agent/disk.py)."""
DISK = NoDisk()
SHOWN = (*measures.MEASURES, measures.THRESHOLD)
"""What is told of a version."""
PATIENCE_S = 3600.0
"""Simulated seconds without a new version after which the job is said to stand still."""


class SimulationError(RuntimeError):
    """A simulated job that cannot go on; the message says why."""


class RoundRow(Struct, frozen=True):
    """One version and what it took to get there. Bytes are payloads of MQTT, summed over all devices."""

    round: int
    participants: int
    """0 of a version that is an older one again."""
    bytes_up: int
    bytes_down: int
    body_bytes_up: int
    """Of bytes_up, those of updates: what is left is control."""
    body_bytes_down: int
    """Of bytes_down, those of versions."""
    seconds: float
    """Real ones."""
    accuracy: float | None = None
    loss: float | None = None
    device_loss: float | None = None
    """Mean training loss that the devices reported."""
    buckets: int | None = None
    """How updates to this version were coded, where they were a sketch: into so many buckets,"""
    bits: int | None = None
    """of so many bits each."""
    deployed_accuracy: float | None = None
    """Where the job deploys the mean of the last versions: that of what would be deployed now."""
    deployed_loss: float | None = None
    measures: dict[str, float] = {}
    """All that was measured of it on the test split, by the names that a job's rule to stop has for them."""


class Result(Struct, frozen=True):
    """A simulated job from its first to its last round."""

    job: str
    devices: int
    examples: int
    test_examples: int
    parameters: int
    seed: int
    rounds: list[RoundRow]
    accuracy: float | None
    best_accuracy: float | None
    deployed_accuracy: float | None
    """Of what is deployed in the end, where that is the mean of the last versions."""
    reason: str
    """Why it ended."""
    sha256: str
    """Of the last version."""
    bytes_up: int
    bytes_down: int
    body_bytes_up: int
    body_bytes_down: int
    float32_bytes_up: int
    """The same with float32 bodies: control as it was, 4 bytes a parameter for each update that was counted."""
    float32_bytes_down: int
    """The same with float32 bodies: 4 bytes a parameter for each version that a counted update was trained on, but the
    first, which comes from the seed."""
    seconds: float
    idle: dict[str, str] = {}
    """Devices that did nothing for it in the end, and why: their updates are refused, or their training fails."""
    always: int | None = None
    """The class that the last version is as good as always answering, where it is no better than that."""
    refused: dict[str, str] = {}
    """Those that were left out from the beginning, since their data cannot be used, and why."""


def simulate(
    spec: JobSpec,
    shares: Sequence[Dataset],
    test: Dataset,
    on_round: Callable[[RoundRow], None] = lambda _: None,
    *,
    keys: bool = False,
    test_file: Share | DataSource | None = None,
    on_end: Callable[[Left], None] | None = None,
    weights: Weights | None = None,
) -> Result:
    """Run a job to its end, one simulated device for each share of the data. on_round: told of each version.

    keys: whether everybody signs, and checks what it hears: each device for itself, as real ones do. test_file: where
    `test` is from, for the aggregator to read by the job's contract; arrays of what a model takes when not given.
    weights: what it starts from (`fleet.console.versions.read_weights`).
    on_end: told of what devices would serve, also where the job does not come to its end, or is interrupted.

    Raises ModelError, DatasetError, SimulationError, or SettingsError for a job that this many devices cannot do.
    """
    spec = for_all(spec, len(shares))
    if weights is not None and weights.base:
        spec = structs.replace(spec, train=structs.replace(spec.train, base=weights.base))
    net = nets.of_job(spec, allow=nets.factories_of(spec.model), find=lambda _, own: own())
    n_parameters = sum(tensor.size for tensor in net.spec)
    memory.check_simulation(spec, of_net(net), len(shares), len(test.y))
    with _workshop(20 * n_parameters * (len(shares) + 10) + 8 * test.X.size) as folder, _no_collections() as go_on:
        simulation = _Simulation(spec, shares, test, folder, keys=keys, test_file=test_file, weights=weights)
        try:
            return simulation.run(n_parameters, on_round, go_on)
        finally:
            try:
                if on_end is not None and (left := simulation.left()) is not None:
                    on_end(left)
            finally:
                simulation.close()


class _Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Link(MemoryTransport):
    """A device's transport that also counts the bytes of bodies. index: which device's.

    It has no last will: no link is ever lost here.
    """

    __slots__ = ("_wire", "body_bytes_down", "body_bytes_up", "index")

    def __init__(self, broker: MemoryBroker, device: str, wire: SharedWire, index: int) -> None:
        super().__init__(broker, device, None)
        self.index = index
        self.body_bytes_up = self.body_bytes_down = 0
        self._wire = wire

    def publish(self, packet: Packet) -> bool:
        taken = super().publish(packet)
        if taken:
            self.body_bytes_up += self._wire.sent_bytes(packet)
        return taken

    def take(self, timeout_s: float | None = 0.0) -> TransportEvent | None:
        event = super().take(timeout_s)
        if event is not None and isinstance(event, Packet):
            self.body_bytes_down += self._wire.heard_bytes(event)
        return event


class _Share:
    """Gives a device its rows, where it would open a file. (A closure over them would weigh five times as much.)"""

    __slots__ = ("_rows",)

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def __call__(self, *_: object, **__: object) -> Unchanging:
        return Unchanging(self._rows)


def _roll() -> int:
    return secrets.randbits(32)


def _bases(weights: Weights | None, folder: Path) -> tuple[str, ...]:
    """Write what is frozen of the net where every device finds it: none fetches it, and it is here once."""
    if weights is None or not weights.base:
        return ()
    file = folder / f"given{ENDING}"
    file.write_bytes(weights.frozen)
    return (str(file),)


class _Traffic(Struct, frozen=True):
    up: int
    down: int
    body_up: int
    body_down: int


class _Simulation:
    """The aggregator, the devices and the broker between them, driven from one thread."""

    def __init__(
        self,
        spec: JobSpec,
        shares: Sequence[Dataset],
        test: Dataset,
        folder: Path,
        *,
        keys: bool = False,
        test_file: Share | DataSource | None = None,
        weights: Weights | None = None,
    ) -> None:
        self.spec = spec
        self._weights = weights
        self._trust = made_keys.trust_of(FLEET, operator=False) if keys else None
        self._n_examples = sum(len(share.y) for share in shares)
        self._test = test
        self._clock = _Clock()
        self._broker = MemoryBroker(self._clock)
        self._broker.roused = self._rouse
        self._awake: set[int] = set()
        """Devices that have something to take, or to train."""
        self._store = Store(folder / "aggregator", synced=False)
        self._wire, self._resources, self._marks = SharedWire(FLEET), SharedResources(), Unmarked()
        self._links: list[_Link] = []
        self._config = AgentConfig(
            fleet=FLEET,
            state_dir=str(HOME),
            data={spec.data_name: DeviceSource(path="its share")},
            models=ModelSettings(nets.factories_of(spec.model), inference=False, bases=_bases(weights, folder)),
            vitals=VitalsSettings(every_s=0.0),  # nobody looks on, and what a fleet sends is counted
        )
        named = zip(map(intern, device_names(len(shares))), shares, strict=True)
        self._agents = [self._agent(device, share) for device, share in named]
        self._deadlines = np.full(len(self._agents), -math.inf)
        """When each device has something to do, if it hears nothing before,"""
        self._stirred = set(range(len(self._agents)))
        """but for these, which have done something since."""
        self._run: Run | None = None
        self._deployed: Deployed | None = None
        self._aggregator, self._uplink = self._lead(self._tested(test, test_file, folder), folder)

    def _tested(self, test: Dataset, file: Share | DataSource | None, folder: Path) -> DataSource:
        """Return the source of what versions are scored on."""
        if isinstance(file, DataSource):
            return file
        if file is not None:
            return convert(file.write(folder, "test"), DataSource, "the rows to test on")
        np.savez(folder / "test.npz", X=test.X, y=test.y)
        return DataSource(str(folder / "test.npz"))

    def _lead(self, test: DataSource, folder: Path) -> tuple[Aggregator, MemoryTransport]:
        config = AggregatorConfig(
            fleet=FLEET,
            state_dir=str(folder / "aggregator"),
            tests={self.spec.data_name: test},
            # No device is ever late, so the bodies of outdated versions can go at once.
            limits=AggregatorLimits(body_grace_s=0.0, spread_s=0.0),
        )
        models = structs.replace(config.models, allow=nets.factories_of(self.spec.model))
        config = structs.replace(config, models=models)
        transport = self._broker.transport("aggregator")
        wire = self._wire if self._trust is None else made_keys.wire_of_server(self._trust, _roll)
        leader = Aggregator(config, self._store, transport, wire, nonce="simulation", clock=self._clock)
        return leader, transport

    def _agent(self, device: str, share: Dataset) -> Agent:
        home = Home(HOME, device, nonce="simulation", disk=DISK)
        wire = self._wire if self._trust is None else made_keys.wire_of_device(self._trust, device, _roll)
        link = _Link(self._broker, device, self._wire, len(self._links))
        self._links.append(link)
        return Agent(
            self._config,
            home,
            link,
            wire,
            clock=self._clock,
            open_source=_Share(share),
            start_reading=at_once,
            marks=self._marks,
            resources=self._resources,
        )

    # Driving.

    def run(self, n_parameters: int, on_round: Callable[[RoundRow], None], begun: Callable[[], None]) -> Result:
        """Run the job to its end. begun: called when every device has begun to work on it."""
        began = time.perf_counter()
        self._aggregator.start()
        for agent in self._agents:
            agent.start()
        self._settle()
        self._run = run = self._aggregator.runs[self._aggregator.submit(self.spec, start=self._start())]
        rows: list[RoundRow] = []
        for row in self._rounds(run):
            if not rows:
                begun()
            rows.append(row)
            on_round(row)
        self._settle()
        return self._result(run, rows, n_parameters, time.perf_counter() - began)

    def _start(self) -> Given | None:
        """Return what the job starts from, where that is not its seed."""
        if self._weights is None:
            return None
        return Given(self._weights.said, "the file", begins_with_base=bool(self._weights.base))

    def left(self) -> Left | None:
        """Return what devices would serve now; None before the first version."""
        if self._run is None or self._deployed is None or not self._run.version.number:
            return None
        net, chain = self._chain(self._run)
        return left_of(self._run, self.spec, net, chain, self._deployed.trail)

    def _chain(self, run: Run) -> tuple[Net, Chain]:
        """Return the net and the versions that all devices share."""

        def find(tensors: Spec, own: Own) -> Params:
            given = self._config.models.bases
            return frozen.read(Path(given[0]), tensors) if given else own()

        return self._resources.chain(run.job, self.spec, self._config.models, find)

    def close(self) -> None:
        """End everything. Devices are let go without a goodbye: nobody would hear it, and nobody comes back."""
        self._aggregator.stop()
        self._store.close()

    def _rounds(self, run: Run) -> Iterator[RoundRow]:
        """Return each version as soon as it is there."""
        before, began, since = _Traffic(0, 0, 0, 0), time.perf_counter(), self._clock.now
        shared = self._chain(run)
        number, self._deployed = 0, Deployed(self.spec, self._test, *shared)
        while not run.coordinator.ended:
            if self._clock.now - since > PATIENCE_S:
                raise SimulationError(self._why_it_stands_still(run))
            if not self._work() and not self._let_time_pass():
                raise SimulationError(self._why_it_stands_still(run))
            while (
                run.version.number > number
            ):  # what patience ends with comes right behind the last one that was trained
                number, now, seconds = number + 1, self._traffic(), time.perf_counter()
                is_last = number == run.version.number
                metrics = run.metrics if is_last else self._store.history(run.job)[number]
                row = _row(number, metrics, before, now, seconds - began)
                way = run.step or next((body.data for body in run.bodies() if body.number == number), b"")
                yield structs.replace(row, **(self._deployed.follow(number, way) if is_last else {}))
                before, began, since = now, seconds, self._clock.now

    def _rouse(self, transport: MemoryTransport) -> None:
        if isinstance(transport, _Link):
            self._awake.add(transport.index)

    def _work(self) -> bool:
        """Have everybody who has something to do, do it; False when nobody had."""
        worked = False
        awake = sorted(self._awake)  # what one of them says only the aggregator hears, so nobody joins them meanwhile
        self._awake.clear()
        for index in awake:
            agent, link = self._agents[index], self._links[index]
            while link.waiting or agent.busy:
                worked = agent.step(0.0)
        self._stirred.update(awake)
        while self._uplink.waiting:
            worked = self._aggregator.step(0.0)
        return worked

    def _let_time_pass(self) -> bool:
        """Jump to the next deadline and let those act who wait for it; False when nobody waits for anything."""
        leader = self._aggregator.deadline
        at = min(leader, self._earliest())
        if math.isinf(at):
            return False
        self._clock.now = max(self._clock.now, at)
        for index in np.flatnonzero(self._deadlines <= self._clock.now).tolist():
            self._agents[index].step(0.0)
            self._stirred.add(index)
            self._awake.add(index)  # it may have begun to train
        if leader <= self._clock.now:
            self._aggregator.step(0.0)
        return True

    def _settle(self) -> None:
        """Go on until there is nothing to do but to wait."""
        until = self._clock.now + 2.0
        while self._work() or (min(self._aggregator.deadline, self._earliest()) <= until and self._let_time_pass()):
            pass

    def _earliest(self) -> float:
        """Return the earliest deadline of any device."""
        for index in self._stirred:
            self._deadlines[index] = self._agents[index].deadline
        self._stirred.clear()
        return float(self._deadlines.min())

    # What came of it.

    def _traffic(self) -> _Traffic:
        return _Traffic(
            sum(link.counters.sent_bytes for link in self._links),
            sum(link.counters.received_bytes for link in self._links),
            sum(link.body_bytes_up for link in self._links),
            sum(link.body_bytes_down for link in self._links),
        )

    def _why_it_stands_still(self, run: Run) -> str:
        failed = idle(run, self._agents, self._store)
        if rest := self._aggregator.resting.get(run.job):
            return f"job {self.spec.name} is at rest at version {run.version.number}: {rest.why}"
        named = "; ".join(f"{device}: {why}" for device, why in list(failed.items())[:3])
        return f"job {self.spec.name} stands still at version {run.version.number}: " + (
            f"{len(failed)} of {len(self._agents)} devices cannot take part: {named}"
            if failed
            else run.reason or "no update comes"
        )

    def _result(self, run: Run, rows: list[RoundRow], n_parameters: int, seconds: float) -> Result:
        traffic = self._traffic()
        accuracies = [row.accuracy for row in rows if row.accuracy is not None]
        n_updates = sum(row.participants for row in rows)
        n_fetches = sum(row.participants for row in rows if row.round > 1)
        return Result(
            job=self.spec.name,
            devices=len(self._agents),
            examples=self._n_examples,
            test_examples=len(self._test.y),
            parameters=n_parameters,
            seed=self.spec.seed,
            rounds=rows,
            accuracy=accuracies[-1] if accuracies else None,
            best_accuracy=max(accuracies, default=None),
            deployed_accuracy=rows[-1].deployed_accuracy if rows else None,
            reason=run.reason,
            sha256=run.sha256,
            bytes_up=traffic.up,
            bytes_down=traffic.down,
            body_bytes_up=traffic.body_up,
            body_bytes_down=traffic.body_down,
            float32_bytes_up=traffic.up - traffic.body_up + 4 * n_parameters * n_updates,
            float32_bytes_down=traffic.down - traffic.body_down + 4 * n_parameters * n_fetches,
            seconds=round(seconds, 3),
            always=int(run.metrics["always"]) if "always" in run.metrics else None,
            idle=idle(run, self._agents, self._store),
        )


def _row(number: int, metrics: dict[str, float], before: _Traffic, now: _Traffic, seconds: float) -> RoundRow:
    return RoundRow(
        round=number,
        participants=0 if RESTORED in metrics else int(metrics.get("participants", 0)),
        bytes_up=now.up - before.up,
        bytes_down=now.down - before.down,
        body_bytes_up=now.body_up - before.body_up,
        body_bytes_down=now.body_down - before.body_down,
        seconds=round(seconds, 4),
        accuracy=metrics.get("accuracy"),
        loss=metrics.get("loss"),
        device_loss=metrics.get("device_loss"),
        buckets=int(metrics["buckets"]) if "buckets" in metrics else None,
        bits=int(metrics["bits"]) if "bits" in metrics else None,
        measures={name: value for name, value in metrics.items() if measures.split(name)[0] in SHOWN},
    )


@contextmanager
def _no_collections() -> Iterator[Callable[[], None]]:
    """Have Python's garbage collector rest until the returned function is called, and then pass over what is there.

    What a simulation is made of lasts as long as it does: going through it again and again, as there comes to be more
    of it, takes a tenth of the time and finds nothing.
    """
    was_on, n_frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()

    def go_on() -> None:
        gc.freeze()
        if was_on:
            gc.enable()

    try:
        yield go_on
    finally:
        if not n_frozen:
            gc.unfreeze()
        if was_on:
            gc.enable()


@contextmanager
def _workshop(need_bytes: int) -> Iterator[Path]:
    """Return a folder for the length of a block, in memory where there is room: there a sync costs nothing."""
    try:
        roomy = shutil.disk_usage(MEMORY_DISK).free > need_bytes + 2**26
    except OSError:
        roomy = False
    with tempfile.TemporaryDirectory(prefix="fedge-simulate-", dir=MEMORY_DISK if roomy else None) as folder:
        yield Path(folder)
