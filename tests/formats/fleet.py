"""The fleet whose files are the fixtures: jobs of all kinds, four devices, and a moment at which all of them stop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from msgspec import structs

from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.run import Run
from aggregator.service import Aggregator
from aggregator.store import Store
from broker.memory import MemoryBroker
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent, will
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import AggregateSpec, JobSpec, ModelSpec, RoundsSpec, TrainSpec
from runtime.faults import Marks

NAME = "f"
WIRE = Wire(NAME)
ROW_BYTES = 64
"""An update of the sketched job lies in its row, one of the plain job beside."""
DEVICES = ("d0", "d1", "d2", "d3")
MODEL = ModelSpec(inputs=4, hidden=(16,), outputs=2)
ROUNDS = RoundsSpec(quorum=4, min_devices=4, max_rounds=6, wait="all", deadline_s=600.0)
TRAIN = TrainSpec(epochs=3, batch_size=5, momentum=0.9, learning_rate=0.02)
SKETCHED = JobSpec(
    *("sketched", MODEL, 7), data="toy", deploy="never", train=TRAIN, rounds=ROUNDS,
    aggregate=AggregateSpec(server_momentum=0.5),
)  # fmt: skip
PLAIN = JobSpec("plain", MODEL, 8, data="toy", compression="off", deploy="never", train=TRAIN, rounds=ROUNDS)
HEAVY = JobSpec(
    *("heavy", MODEL, 9),
    data="toy",
    compression="off",
    deploy="never",
    train=TRAIN,
    rounds=ROUNDS,
    aggregate=AggregateSpec(server_momentum=0.5),
)
"""The server alone has its velocity, so that each version of it is stored whole."""
ADAPTIVE = structs.replace(
    HEAVY, name="adaptive", seed=10, aggregate=AggregateSpec(strategy="fedadam", server_learning_rate=0.01)
)
"""The state of another strategy; the sets of before there was one have no such job."""
SPECS = (SKETCHED, PLAIN, HEAVY, ADAPTIVE)
JOBS = {spec.name: f"{spec.name}-{number:08x}" for number, spec in enumerate(SPECS, 3)}
"""Behind one that was deleted, and one that was stopped."""
KERNEL, SOFTWARE = "a-boot-of-no-machine", "fedge of the fixtures"


def rows(device: str) -> Dataset:
    """Two clouds, a little different on every device."""
    rng = np.random.default_rng(int(device.removeprefix("d")))
    y = np.arange(20) % MODEL.outputs
    X = rng.standard_normal((20, MODEL.inputs)) + 2.0 * y[:, None]
    return Dataset(np.ascontiguousarray(X, np.float32), y)


class Fleet:
    """An aggregator and its devices, each from what is in its folder, over a broker that knows nothing yet."""

    def __init__(self, folder: Path, devices: Collection[str] = DEVICES) -> None:
        self.now = 1000.0
        self.broker = MemoryBroker(lambda: self.now)
        self.folder = folder
        self.store = Store(folder / "aggregator", synced=False, chance=lambda n: n // 2, row_bytes=ROW_BYTES)
        tokens = itertools.count(1)
        limits = ServerLimits(chunk_bytes=1024, heartbeat_s=5.0, spread_s=0.5)
        config = AggregatorConfig(fleet=NAME, state_dir=str(folder / "aggregator"), limits=limits)
        self.aggregator = Aggregator(
            *(config, self.store, self.broker.transport("aggregator"), WIRE),
            nonce="n",
            clock=lambda: self.now,
            token=lambda: f"{next(tokens):08x}",
            marks=marks_of(folder / "aggregator"),
        )
        self.aggregator.start()
        self.agents = {name: self._agent(name) for name in devices}
        self.awake = set(self.agents)
        """Devices that have their turn."""

    def _agent(self, name: str) -> Agent:
        config = AgentConfig(
            *(NAME, name, str(self.folder / name)),
            data={"toy": DataSource("memory")},
            models=ModelSettings(inference=False),
        )
        draws = iter(f"{name[1:]:0>8}")
        home = Home(self.folder / name, name, nonce=f"{name[1:]:0>8}", draw=lambda: "5eed000" + next(draws))
        agent = Agent(
            *(config, home, self.broker.transport(name, will(WIRE, home)), WIRE),
            clock=self.tick,
            open_source=lambda *_, **__: InMemory(rows(name)),
            marks=marks_of(self.folder / name),
        )
        agent.start()
        return agent

    def tick(self) -> float:
        """Return the time, of which a little passes at every look: a slice of training then has its end."""
        self.now += 0.01
        return self.now

    def runs(self) -> dict[str, Run]:
        """Return the jobs that go on, by name."""
        return {run.spec.name: run for run in self.aggregator.runs.values() if not run.coordinator.ended}

    def go_on(self, until: Callable[[], bool], most: int = 20_000) -> None:
        """Give everybody who is awake a turn after the other, one thing each, until something is so."""
        for _ in range(most):
            if until():
                return
            busy = self.aggregator.step(0.0)
            for name in sorted(self.awake):
                busy = self.agents[name].step(0.0) or busy
                if until():
                    return
            if not busy:
                self.now += 0.1
        raise AssertionError(f"nothing came of it: {self.aggregator.doing}; {self.aggregator.jobs.resting}")

    def close(self) -> None:
        """Have everybody stop where it stands."""
        for agent in self.agents.values():
            agent.stop()
            agent.home.close()
        self.aggregator.stop()
        self.store.close()


def marks_of(folder: Path) -> Marks:
    return Marks(folder / "entered", SOFTWARE, KERNEL)
