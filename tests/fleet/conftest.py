"""A small fleet of real processes over a real mosquitto, for tests that need one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from fleet.local import stage
from fleet.local.processes import Children
from fleet.local.stage import Stage
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec

JOB = """
name = "{name}"
data = "blobs"
deploy = "never"
[model]
inputs = 4
hidden = [8]
outputs = 3
[rounds]
quorum = 2
max_rounds = {max_rounds}
"""


Until = Callable[[Callable[[], bool]], None]


class Fleet(NamedTuple):
    """A fleet at work. config: its aggregator.toml."""

    stage: Stage
    config: Path
    children: Children
    folder: Path

    def job(self, name: str = "blobs", max_rounds: int = 100_000) -> Path:
        """Write a job and give its file."""
        path = self.folder / f"{name}.toml"
        path.write_text(JOB.format(name=name, max_rounds=max_rounds), encoding="utf-8")
        return path


def blobs(n: int, seed: int = 0) -> Dataset:
    """Three clouds of points that a small net separates."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return Dataset((2.0 * np.eye(3, 4)[y] + rng.normal(size=(n, 4)) * 0.5).astype(np.float32), y.astype(np.int64))


@pytest.fixture
def two_devices(tmp_path: Path, mosquitto: EmbeddedBroker, until: Until) -> Iterator[Fleet]:
    """An aggregator and two agents, each a process."""
    data, folder = blobs(120), tmp_path / "fleet"
    folder.mkdir()
    spec = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    shares = dealt(data, deal("iid", data.y, 2, 0))
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    built = stage.build(folder, spec, shares, blobs(60, seed=1), where)
    with Children() as children:
        stage.start(children, built)
        until(lambda: "online" in built.aggregator.log.read_text())
        yield Fleet(built, built.aggregator.config, children, tmp_path)
        children.check()


@pytest.fixture
def until() -> Until:
    """Wait until something holds."""

    def wait(holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
        give_up_at = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < give_up_at, "it does not come true"
            time.sleep(0.05)

    return wait
