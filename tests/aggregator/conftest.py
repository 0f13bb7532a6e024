"""A whole fleet in one process, over the in-memory broker, on a clock that is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.run import Run
from aggregator.service import Aggregator
from aggregator.store import Store
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import Message
from broker.transport import Packet
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent, will
from models.budget import Capacity
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec

FLEET = "f"
WIRE = Wire(FLEET)
INPUTS, OUTPUTS = 4, 2


def rows(seed: int) -> Dataset:
    """Two clouds, a little different on every device."""
    rng = np.random.default_rng(seed)
    y = np.arange(20) % OUTPUTS
    X = rng.standard_normal((20, INPUTS)) + 2.0 * y[:, None]
    return Dataset(np.ascontiguousarray(X, np.float32), y)


HOMES: list[Home] = []
"""What a test has opened."""


class Fleet:
    """One aggregator and some agents; each can be killed and started again from what is on its disk."""

    def __init__(self, folder: Path, n_agents: int) -> None:
        self.now = 1000.0
        self.broker = MemoryBroker(lambda: self.now)
        self.folder = folder
        self.limits = ServerLimits(chunk_bytes=1024, heartbeat_s=5.0, spread_s=0.5)
        self.tests: dict[str, DataSource] = {}
        self.executor: Executor | None = None
        self.capacity: Capacity | None = None
        self.starts = 0
        self.store: Store
        self.link: MemoryTransport
        self.start_aggregator()
        self.agents = {f"d{n}": self.start_agent(f"d{n}") for n in range(n_agents)}

    def start_aggregator(self, **how: Any) -> Aggregator:
        self.starts += 1
        self.store = Store(self.folder / "aggregator", synced=False)  # no power is cut here
        self.link = self.broker.transport(f"aggregator-{self.starts}")
        config = AggregatorConfig(
            fleet=FLEET, state_dir=str(self.folder / "aggregator"), tests=self.tests, limits=self.limits
        )
        self.aggregator = Aggregator(
            *(config, self.store, self.link, WIRE),
            nonce=f"n{self.starts}",
            clock=lambda: self.now,
            executor=self.executor,
            capacity=self.capacity,
            **how,
        )
        self.aggregator.start()
        return self.aggregator

    def kill_aggregator(self) -> None:
        """As by kill -9: no goodbye, and nothing is left but the disk."""
        self.link.drop()
        self.store.close()

    def start_agent(self, name: str) -> Agent:
        config = AgentConfig(
            fleet=FLEET,
            state_dir=str(self.folder / name),
            data={"toy": DataSource("memory")},
            models=ModelSettings(inference=False),
        )
        home = Home(self.folder / name, name, nonce=f"{len(HOMES):08x}")
        HOMES.append(home)
        transport = self.broker.transport(name, will(WIRE, home))
        seed = int(name.removeprefix("d"))
        agent = Agent(
            *(config, home, transport, WIRE),
            clock=lambda: self.now,
            open_source=lambda *_, **__: InMemory(rows(seed)),
        )
        agent.start()
        return agent

    def step(self, seconds: float = 0.1) -> None:
        """Let everybody do what there is to do, then let time pass."""
        for _ in range(200):
            busy = [self.aggregator.step(0.0), *(agent.step(0.0) for agent in self.agents.values())]
            if not any(busy):
                break
        self.now += seconds

    def run(self, until: Callable[[], bool], most_s: float = 600.0) -> None:
        end = self.now + most_s
        while not until():
            assert self.now < end, f"nothing came of it: {self.aggregator.doing}"
            self.step()

    def lead(self) -> None:
        """Go on until the aggregator leads and has said everything."""
        self.run(lambda: self.aggregator.leads)
        for _ in range(10):
            self.step(0.1)

    def kill_agent(self, name: str) -> None:
        """As by kill -9: no goodbye, and nothing is left but the disk."""
        self.agents[name]._transport.drop()  # type: ignore[attr-defined]  # it is one of memory
        self.agents[name].home.close()

    def submit(self, spec: JobSpec) -> str:
        self.run(lambda: self.aggregator.leads and len(self.aggregator.roster.devices) == len(self.agents))
        return self.aggregator.submit(spec)

    def job(self) -> Run:
        return next(iter(self.aggregator.runs.values()))

    def finish(self) -> Run:
        self.run(lambda: bool(self.aggregator.runs) and bool(self.job().coordinator.ended))
        return self.job()

    def say(self, *messages: Message | Packet) -> None:
        """Publish something under another name."""
        transport = self.broker.transport("stranger")
        transport.open()
        for message in messages:
            transport.publish(message if isinstance(message, Packet) else WIRE.pack(message))
        transport.close()


def toy(**changes: object) -> JobSpec:
    rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=3, wait="all", deadline_s=30.0)
    fields: dict[str, object] = {
        "compression": "light",
        "deploy": "never",
        "rounds": rounds,
        "train": TrainSpec(epochs=1, batch_size=5),
    }
    model = ModelSpec(inputs=INPUTS, hidden=(16,), outputs=OUTPUTS)
    return JobSpec("toy", model, **(fields | changes))  # type: ignore[arg-type]  # the tests know the fields


@pytest.fixture
def spec() -> Callable[..., JobSpec]:
    return toy


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


@pytest.fixture(autouse=True)
def _one_thing_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let agents take one event a step, so that a death may come between any two."""
    monkeypatch.setattr("edge_agent.service.Agent.most_at_once", 1)


@pytest.fixture(autouse=True)
def _homes_are_closed() -> Iterator[None]:
    yield
    while HOMES:
        HOMES.pop().close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    whole = Fleet(tmp_path, 3)
    whole.lead()
    yield whole
    whole.store.close()


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[JobSpec], str]:
    """What a fleet comes to with a job, where nobody is disturbed."""

    def finish(job: JobSpec) -> str:
        calm = Fleet(tmp_path / "calm", 3)
        calm.submit(job)
        sha256 = calm.finish().sha256
        calm.store.close()
        return sha256

    return finish


@pytest.fixture
def final_sha256(undisturbed: Callable[[JobSpec], str]) -> str:
    """What an undisturbed fleet comes to with the toy job."""
    return undisturbed(toy())
