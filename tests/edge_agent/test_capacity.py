"""What a device has no room for it says, with the numbers, before anything of it is made; its other jobs go on."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import structs

from broker.memory import MemoryBroker
from broker.messages import Beacon, Job, Presence, Version
from broker.transport import Packet
from broker.wire import Wire
from edge_agent.capacity import capacity_of
from edge_agent.config import AgentConfig, DeviceLimits, ModelSettings
from edge_agent.home import Home
from edge_agent.jobs import LOOK_AGAIN_S, NO_ROOM_S
from edge_agent.resources import Resources
from edge_agent.service import Agent, will
from models.chain import Chain
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.frozen import Find
from models.job import JobSpec, ModelSpec, TrainSpec
from models.needs import AGENT_BYTES, MB, of_device, together
from models.nets.mlp import Mlp
from models.nets.net import Net
from models.nets.size import of_spec

WIRE = Wire("f")
TOY = JobSpec("toy", ModelSpec("mlp", 4, (8,), 2), deploy="never")
LARGE = JobSpec("large", ModelSpec("mlp", 4, (800, 700), 2), data="toy", deploy="never")
OF_LARGE = of_device(LARGE, of_spec(Mlp(LARGE.model).spec), serves=False)
ENORMOUS = JobSpec("enormous", ModelSpec("mlp", 4, (5000, 4000), 2), data="toy", deploy="never")


class Counting(Resources):
    """Notes for which jobs anything was made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def chain(self, job: str, spec: JobSpec, models: ModelSettings, find: Find | None = None) -> tuple[Net, Chain]:
        self.made.append(job)
        return super().chain(job, spec, models, find)


class Bench:
    """One agent with room of its own."""

    def __init__(self, folder: Path, n_rows: int = 20, memory_bytes: int = 150 * MB) -> None:
        self.now = 0.0
        self.folder = folder
        self.limits = DeviceLimits(memory_bytes=memory_bytes)
        self.n_rows = n_rows
        self.broker = MemoryBroker(lambda: self.now)
        self.hand = self.broker.transport("aggregator")
        self.hand.subscribe("fedge/1/f/#")
        self.hand.open()
        self.said: list[Presence] = []
        self.start()

    def start(self) -> None:
        config = AgentConfig(
            fleet="f",
            state_dir=str(self.folder),
            data={"toy": DataSource("memory")},
            models=ModelSettings(inference=False),
            limits=self.limits,
        )
        rows = Dataset(np.zeros((self.n_rows, 4), np.float32), np.arange(self.n_rows) % 2)
        self.home, self.resources = Home(self.folder, "d"), Counting()
        self.link = self.broker.transport("d", will(WIRE, self.home))
        self.agent = Agent(
            *(config, self.home, self.link, WIRE),
            clock=lambda: self.now,
            open_source=lambda *_, **__: InMemory(rows),
            resources=self.resources,
            capacity=capacity_of(config),
        )
        self.agent.start()
        self.say(Beacon(1, "n", online=True, spread_s=0.0))

    def kill(self) -> None:
        self.link.drop()
        self.home.close()

    def say(self, *messages: Beacon | Job) -> None:
        for message in messages:
            self.hand.publish(WIRE.pack(message))
        self.settle()

    def announce(self, *specs: JobSpec) -> None:
        self.say(*(Job(f"{spec.name}-1", 1, msgspec.to_builtins(spec)) for spec in specs))

    def end(self, spec: JobSpec) -> None:
        self.say(Job(f"{spec.name}-1", 1, msgspec.to_builtins(spec), last=Version(1, 0)))

    def settle(self, seconds: float = 1.0) -> None:
        for pause in (seconds, 0.0):
            while self.agent.step(0.0):
                pass
            self.now += pause
        heard = (WIRE.unpack(event) for event in iter(self.hand.take, None) if isinstance(event, Packet))
        self.said += [message for message in heard if isinstance(message, Presence)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**how: int) -> Bench:
        made.append(Bench(tmp_path, **how))
        return made[0]

    yield make
    for one in made:
        one.agent.stop()
        one.home.close()


def test_a_job_that_does_not_fit_is_told_with_the_numbers_and_nothing_of_it_is_made(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    one.announce(ENORMOUS, TOY)
    assert one.resources.made == ["toy-1"]
    assert set(one.agent.works) == {"toy-1"}
    one.settle(60.0)
    why = one.said[-1].unready["enormous-1"]
    assert one.said[-1].ready == {"toy-1": 20}
    assert "its net of 20,037,002 parameters takes about " in why
    assert "where there are 150 MB (memory_bytes in [limits])" in why


def test_a_restart_makes_nothing_of_it_either(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.announce(ENORMOUS)
    for _ in range(3):
        one.kill()
        one.start()
        one.announce(ENORMOUS)
        assert one.resources.made == []
        assert "does not fit here" in one.agent.jobs.unready["enormous-1"]
    one.settle(NO_ROOM_S)
    one.settle()
    assert one.resources.made == []


def test_one_of_too_many_parameters_is_told_too(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.kill()
    one.limits = DeviceLimits(model_parameters=50)
    one.start()
    one.announce(TOY)
    assert "has 58 parameters, where model_parameters = 50 in [limits]" in one.agent.jobs.unready["toy-1"]


def test_two_that_fit_alone_but_not_together_take_turns_by_who_came_first(bench: Callable[..., Bench]) -> None:
    one = bench(memory_bytes=AGENT_BYTES + together([OF_LARGE, OF_LARGE]) - MB)
    other = structs.replace(LARGE, name="later")
    one.announce(LARGE, other)
    assert set(one.agent.works) == {"large-1"}
    assert "does not fit beside large-1" in one.agent.jobs.unready["later-1"]
    assert one.resources.made == ["large-1"]
    one.settle(LOOK_AGAIN_S)
    one.settle()
    assert set(one.agent.works) == {"large-1"}
    one.say(Job("large-1", 1))
    one.settle(LOOK_AGAIN_S)
    one.settle()
    assert set(one.agent.works) == {"later-1"}
    assert one.agent.jobs.unready == {}


def test_one_that_has_ended_leaves_the_room_that_its_training_took(bench: Callable[..., Bench]) -> None:
    one = bench(memory_bytes=AGENT_BYTES + together([OF_LARGE], [OF_LARGE]) + MB)
    first, second = (structs.replace(LARGE, name=name) for name in ("first", "second"))
    one.announce(first, second)
    assert "does not fit beside first-1" in one.agent.jobs.unready["second-1"]
    one.end(first)
    one.settle(LOOK_AGAIN_S)
    one.settle()
    assert set(one.agent.works) == {"first-1", "second-1"}


def test_a_batch_of_all_rows_is_weighed_when_they_have_been_counted(bench: Callable[..., Bench]) -> None:
    one = bench(n_rows=50_000)
    wide = JobSpec("toy", ModelSpec("mlp", 4, (3000,), 2), deploy="never", train=TrainSpec(batch_size=2**31 - 1))
    one.announce(wide)
    assert one.agent.works == {}
    assert "does not fit here" in one.agent.jobs.unready["toy-1"]


@pytest.mark.parametrize("hidden", [[100_000, 100_000], [2**31, 2**31], [2**62] * 64, [100_000] * 64])
def test_a_forged_job_of_any_size_is_refused_by_what_it_says(bench: Callable[..., Bench], hidden: list[int]) -> None:
    one = bench()
    forged = {"name": "forged", "data": "toy", "model": {"inputs": 4, "hidden": hidden, "outputs": 2}}
    tracemalloc.start()
    one.say(Job("forged-1", 1, forged))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "does not understand the job" in one.agent.jobs.unready["forged-1"]
    assert one.resources.made == []
    assert most < 2**20


def test_a_small_job_that_serves_its_model_fits_a_small_container_where_no_process_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = JobSpec("digits", ModelSpec("mlp", 64, (32,), 10))
    config = AgentConfig(
        fleet="f",
        state_dir=str(tmp_path),
        data={"digits": DataSource("memory")},
        limits=DeviceLimits(memory_bytes=96 * 2**20),
    )
    assert "about 138 MB of memory" in capacity_of(config).weigh("digits-1", digits).why
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # as where they are not installed
    assert capacity_of(config).weigh("digits-1", digits).why == ""
