"""Real services over the in-memory broker: whoever deploys a version deploys the same mean, however it came to it."""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.learner import Learner
from aggregator.service import Aggregator
from aggregator.store import Store
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import Version
from broker.transport import Packet, TransportEvent
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent, will
from edge_agent.slots import Install, InstallOutcome, Slots
from fleet.simulation.simulate import _workshop
from models import average
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.lattice import Model

FLEET = "f"
WIRE = Wire(FLEET)
GRACE_S = 10.0
ROUNDS = 46
SPEC = JobSpec(
    "blobs",
    ModelSpec("mlp", 4, (16,), 3),
    deploy="every 1",
    deploy_average=4,
    compression=CompressionSpec(buckets=64),
    rounds=RoundsSpec(quorum=2, target=2, max_rounds=ROUNDS),
)
KINDS = {
    "a sketch": SPEC,
    "a sketch of its own choice": structs.replace(SPEC, compression="strong"),
    "a sketch with momentum": structs.replace(SPEC, aggregate=AggregateSpec(server_momentum=0.5)),
    "a sketch with fedadam": structs.replace(
        SPEC, aggregate=AggregateSpec(strategy="fedadam", server_learning_rate=0.02)
    ),
    "int8": structs.replace(SPEC, compression=CompressionSpec(codec="int8"), deploy_average=16),
}
LONG = {"a sketch of its own choice", "a sketch with momentum"}
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind in LONG)) for kind in KINDS]
)


def blobs(n: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return Dataset((2.0 * np.eye(3, 4)[y] + rng.normal(size=(n, 4)) * 0.5).astype(np.float32), y.astype(np.int64))


class Link(MemoryTransport):
    """A transport that counts what came of each topic."""

    came: Counter[str]

    def take(self, timeout_s: float | None = 0.0) -> TransportEvent | None:
        event = super().take(timeout_s)
        if isinstance(event, Packet) and event.payload and "/body/" in event.topic:
            self.came[event.topic] += 1
        return event


class Shelf(Slots):
    """A model slot that takes everything at once, and outlives its process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ())
        self.installs: list[Install] = []
        self.outcomes: list[InstallOutcome] = []

    def put(self, install: Install) -> None:
        self.installs.append(install)
        self.outcomes.append(InstallOutcome(install.name, install.release))

    def finished(self) -> list[InstallOutcome]:
        found, self.outcomes = self.outcomes, []
        return found

    def deployed(self, job: str, name: str) -> Version | None:  # noqa: ARG002 -- there is one job
        last = self.installs[-1].release if self.installs else None
        return Version(last.generation, last.number) if last is not None and last.job == job else None

    def sweep(self, at_work: Collection[str]) -> None:
        pass


class World:
    """An aggregator and its devices, driven from one thread by a made-up clock."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.now = 0.0
        self.folder = folder
        self.broker = MemoryBroker(lambda: self.now)
        self.agents: dict[str, Agent] = {}
        self.links: dict[str, Link] = {}
        self.homes: list[Home] = []
        self.shelves: dict[str, Shelf] = {}
        self.models: dict[int, Model] = {}
        """Every version that there was."""
        self.lead("aggregator")
        self.spec = spec

    def lead(self, name: str) -> None:
        self.store = Store(self.folder / name, synced=False)
        limits = ServerLimits(body_grace_s=GRACE_S, spread_s=0.0)
        config = AggregatorConfig(fleet=FLEET, state_dir=str(self.folder / name), limits=limits)
        self.link = self.broker.transport(f"aggregator-{name}")
        self.aggregator = Aggregator(config, self.store, self.link, WIRE, nonce=name, clock=lambda: self.now)
        self.aggregator.start()

    def restore_a_backup(self) -> None:
        """Go on with a copy of the state, as from another machine."""
        self.aggregator.stop()
        self.store.close()
        shutil.copytree(self.folder / "aggregator", self.folder / "restored")
        self.lead("restored")

    def submit(self) -> None:
        self.settle(5.0)
        self.job = self.aggregator.submit(self.spec)

    def start(self, device: str, *, serves: bool = True) -> Shelf:
        config = AgentConfig(
            fleet=FLEET,
            device=device,
            state_dir=str(self.folder / device),
            data={"blobs": DataSource(device)},
            models=ModelSettings(inference=serves),
        )
        self.homes.append(Home(self.folder / device, device))
        rows = blobs(40, len(self.homes))
        link = Link(self.broker, device, will(WIRE, self.homes[-1]))
        link.came = Counter()
        agent = Agent(
            *(config, self.homes[-1], link, WIRE),
            clock=lambda: self.now,
            open_source=lambda *_, **__: InMemory(rows),
        )
        shelf = self.shelves.setdefault(device, Shelf(self.folder / device))
        if serves:
            agent.jobs.slots = shelf
        agent.start()
        self.agents[device], self.links[device] = agent, link
        return shelf

    def kill(self, device: str) -> None:
        self.links.pop(device).drop()
        self.agents.pop(device)
        for home in self.homes:
            home.close()

    def step(self) -> bool:
        worked = False
        for device, agent in self.agents.items():
            while self.links[device].waiting or agent.busy or self.shelves[device].outcomes:
                worked = True
                agent.step(0.0)
        while self.link.waiting:
            worked = True
            self.aggregator.step(0.0)
            self.note()
        return worked

    def note(self) -> None:
        for run in self.aggregator.runs.values():
            self.models.setdefault(run.version.number, run._learner.now.model)

    def pass_time(self, until: float) -> bool:
        at = min(self.aggregator.deadline, *(agent.deadline for agent in self.agents.values()))
        if math.isinf(at) or at > until:
            return False
        self.now = max(self.now, at)
        for agent in self.agents.values():
            agent.step(0.0)
        self.aggregator.step(0.0)
        self.note()
        return True

    def settle(self, seconds: float = 2.0) -> None:
        until = self.now + seconds
        while self.step() or self.pass_time(until):
            pass
        self.now = until

    def run_to(self, number: int) -> None:
        for _ in range(100_000):
            if max(self.models, default=0) >= number:
                return
            assert self.step() or self.pass_time(self.now + 600.0), "it stands still"
        raise AssertionError(f"no version {number} comes")

    def right(self, number: int) -> str:
        first = self.spec.averaged_from(number)
        return average.mean(self.models[n] for n in range(first, number + 1)).sha256()

    def check(self, installs: Collection[Install]) -> None:
        assert installs
        for install in installs:
            release = install.release
            first = self.spec.averaged_from(release.number)
            assert release.averaged_since == (None if first == release.number else first)
            assert release.sha256 == self.right(release.number)


Begin = Callable[[JobSpec], World]


@pytest.fixture
def begin() -> Iterator[Begin]:
    worlds: list[World] = []
    with _workshop(2**26) as folder:  # in memory: each update is synced

        def make(spec: JobSpec) -> World:
            world = World(folder, spec)
            worlds.append(world)
            for device in ("one", "other"):
                world.start(device, serves=device == "one")
            world.submit()
            return world

        yield make
        for world in worlds:
            for agent in world.agents.values():
                agent.stop()
            for home in world.homes:
                home.close()
            world.store.close()


@every_kind
def test_who_follows_every_version_and_who_comes_late_deploy_the_same(begin: Begin, kind: str) -> None:
    world = begin(KINDS[kind])
    world.run_to(ROUNDS)
    world.settle()
    follows = world.shelves["one"].installs
    assert [install.release.number for install in follows] == list(range(1, ROUNDS + 1))
    world.check(follows)
    assert max(world.links["one"].came.values(), default=0) <= 1, "no body is fetched twice"
    world.settle(3 * GRACE_S)  # what nobody needs is cleared
    late = world.start("late")
    world.settle(5.0)
    assert [install.release for install in late.installs] == [follows[-1].release]
    assert late.installs[0].release.averaged_since == world.spec.averaged_from(ROUNDS) < ROUNDS


@every_kind
def test_who_comes_at_any_version_deploys_what_everybody_does(begin: Begin, kind: str) -> None:
    world = begin(KINDS[kind])
    names = itertools.count()
    for number in range(15, ROUNDS, 3):
        world.run_to(number)
        world.settle(3 * GRACE_S if number % 2 else 0.0)
        world.start(f"guest-{next(names)}")
    world.run_to(ROUNDS)
    world.settle()
    for device, shelf in world.shelves.items():
        if device != "other":
            world.check(shelf.installs)


@every_kind
def test_who_starts_again_goes_on_deploying_the_same(begin: Begin, kind: str) -> None:
    world = begin(KINDS[kind])
    for number in (5, 18, 33):
        world.run_to(number)
        world.kill("one")
        world.start("one")
    world.run_to(ROUNDS)
    world.settle()
    numbers = [install.release.number for install in world.shelves["one"].installs]
    assert numbers == sorted(set(numbers)), "nothing is deployed twice"
    assert numbers[-1] == ROUNDS
    world.check(world.shelves["one"].installs)


def test_a_snapshot_that_is_needed_again_stays(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one at every version: which of them is to begin at changes with each, within the grace of the others."""
    monkeypatch.setattr(Learner, "_is_due", lambda self, *_: self._now.held.number > 0)
    world = begin(KINDS["int8"])
    world.run_to(ROUNDS)
    world.settle(3 * GRACE_S)
    late = world.start("late")
    world.settle(5.0)
    world.check(late.installs)
    (run,) = world.aggregator.runs.values()
    lying = {row.name for row in run.bodies()}
    assert {f"1-{way.number}-{way.start}" for way in run.ways} == lying
    assert len(lying) < 24


def test_who_only_trains_keeps_nothing_to_walk_by(begin: Begin) -> None:
    world = begin(SPEC)
    world.run_to(ROUNDS - 1)
    one, other = (world.agents[device].works[world.job]._trail for device in ("one", "other"))
    assert one is not None
    assert other is not None
    assert (one.since, one.n_bytes > 0) == (world.spec.averaged_from(one.now.number), True)
    assert other._base is other.now, "nor a second model"


def test_where_the_bodies_are_gone_the_version_is_deployed_by_itself(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    world = begin(structs.replace(KINDS["int8"], deploy="final"))
    world.run_to(ROUNDS)
    world.settle(3 * GRACE_S)
    hand = world.broker.transport("hand")
    hand.subscribe(f"fedge/1/{FLEET}/body/#")
    hand.open()
    for packet in [event for event in iter(hand.take, None) if isinstance(event, Packet)]:
        if f"/1-{ROUNDS}-0/" not in packet.topic:  # what is left is the last snapshot
            hand.publish(structs.replace(packet, payload=b"", retain=True))
    late = world.start("late")
    caplog.set_level(logging.WARNING)
    world.settle(600.0)
    assert [install.release.sha256 for install in late.installs] == [world.models[ROUNDS].sha256()]
    assert late.installs[0].release.averaged_since is None
    told = [record.message for record in caplog.records if "by itself, not averaged" in record.message]
    assert len(told) == 1


def test_after_a_restored_backup_the_same_is_deployed_under_the_new_name(begin: Begin) -> None:
    world = begin(SPEC)
    world.run_to(25)
    world.restore_a_backup()
    world.run_to(ROUNDS)
    world.settle()
    installs = world.shelves["one"].installs
    assert len({install.release.generation for install in installs}) == 2
    assert installs[-1].release.number == ROUNDS
    world.check(installs)
