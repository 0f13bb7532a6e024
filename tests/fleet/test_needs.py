"""What a job is said to take, held against what real processes take: an aggregator and an agent over a real mosquitto.

Never less than the kernel has seen of them, and not much more than twice: who has half as much again is not refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from benchmarks.memory import peak_mb
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from fleet.console import operator
from fleet.local import stage
from fleet.local.processes import Children
from fleet.local.toml import written
from models.data.dataset import Dataset
from models.job import JobSpec
from models.needs import AGENT_BYTES, AGGREGATOR_BYTES, Needs, of_aggregator, of_device
from models.nets.size import of_model
from runtime import machine
from tests.fleet.conftest import Until

TOO_MUCH = 2.2
"""Times the measured peak that an estimate may be."""
TEST_ROWS = 50
BASE = {"name": "sized", "deploy": "never", "rounds": {"max_rounds": 4}, "train": {"learning_rate": 0.01}}
ALL_BUCKETS = {"buckets": 2**26, "bits": 4, "bits_down": 4}
"""So heavy a step that every other version is a snapshot."""

STACK = {
    "inputs": 1000,
    "hidden": [600, 600, 600],
    "outputs": 10,
    "activation": "gelu",
    "options": {"norm": "layer", "dropout": 0.1, "residual": True},
}


class Peaks(NamedTuple):
    """MB of an aggregator, and of an agent; bytes on their disks."""

    aggregator: float
    agent: float
    aggregator_disk: int
    agent_disk: int


def measured(tree: dict[str, Any], folder: Path, mosquitto: EmbeddedBroker, until: Until, rows: int = 200) -> Peaks:
    """Have a fleet of one device do a job, each a process, and look at their peaks."""
    job = msgspec.convert(tree, JobSpec)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, job.model.inputs)).astype(np.float32)
    data = Dataset(X, np.arange(rows) % job.model.outputs)
    test = Dataset(data.X[:TEST_ROWS], data.y[:TEST_ROWS])
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    built = stage.build(folder / "fleet", job, [data], test, where, inference=False)
    (folder / "job.toml").write_text(written(tree, {}))
    with Children() as children:
        stage.start(children, built)
        until(lambda: "online" in built.aggregator.log.read_text())
        config = operator.load_config(built.aggregator.config)
        operator.submit(config, folder / "job.toml")
        _wait(lambda: "job ended" in built.aggregator.log.read_text())
        assert "finished" in built.aggregator.log.read_text()
        aggregator, agent = (peak_mb(child.process.pid) for child in children._children)
        disks = [machine.used_bytes(role.state) for role in built.roles]
    return Peaks(aggregator, agent, *disks)


def _wait(holds: Callable[[], bool]) -> None:
    """Wait longer than `until` does: rounds of millions of parameters take minutes on a machine with other work."""
    give_up_at = time.monotonic() + 600.0
    while not holds():
        assert time.monotonic() < give_up_at, "it does not come true"
        time.sleep(0.1)


def holds(needs: Needs, base: int, peak_mb_: float) -> None:
    said = (base + needs.alone_bytes) / 1e6
    assert peak_mb_ <= said <= TOO_MUCH * peak_mb_, (peak_mb_, said)


@pytest.mark.parametrize("hidden", [[200], pytest.param([600, 600], marks=pytest.mark.long), [1500, 1500]], ids=str)
def test_what_a_job_is_said_to_take_is_what_real_processes_take(
    hidden: list[int], tmp_path: Path, mosquitto: EmbeddedBroker, until: Until
) -> None:
    tree = {**BASE, "model": {"inputs": 1000, "hidden": hidden, "outputs": 10}}
    job = msgspec.convert(tree, JobSpec)
    size = of_model(job.model)
    assert size is not None
    peaks = measured(tree, tmp_path, mosquitto, until)
    server, device = of_aggregator(job, size, rows=TEST_ROWS), of_device(job, size, serves=False, rows=200)
    holds(device, AGENT_BYTES, peaks.agent)
    holds(server, AGGREGATOR_BYTES, peaks.aggregator)
    assert peaks.agent_disk <= device.disk_bytes
    assert peaks.aggregator_disk <= server.disk_bytes


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"compression": "off"}, marks=pytest.mark.long),
        pytest.param({"compression": {"codec": "int8"}}, marks=pytest.mark.long),
        pytest.param({"compression": ALL_BUCKETS}, marks=pytest.mark.long),
        pytest.param({"compression": ALL_BUCKETS, "aggregate": {"server_momentum": 0.9}}, marks=pytest.mark.long),
        {"compression": ALL_BUCKETS, "aggregate": {"strategy": "fedadam", "server_learning_rate": 0.01}},
        pytest.param(
            {"train": {"learning_rate": 0.0001, "momentum": 0.9, "weight_decay": 0.001}}, marks=pytest.mark.long
        ),
        {"model": STACK, "train": {"learning_rate": 0.001, "batch_size": 200}},
    ],
    ids=["float32", "int8", "all buckets", "server momentum", "fedadam", "momentum", "a stack of layers"],
)
def test_so_it_is_for_every_codec_and_for_who_keeps_a_state(
    more: dict[str, Any], tmp_path: Path, mosquitto: EmbeddedBroker, until: Until
) -> None:
    tree = {**BASE, "model": {"inputs": 1000, "hidden": [600, 600], "outputs": 10}, **more}
    job = msgspec.convert(tree, JobSpec)
    size = of_model(job.model)
    assert size is not None
    peaks = measured(tree, tmp_path, mosquitto, until)
    holds(of_device(job, size, serves=False, rows=200), AGENT_BYTES, peaks.agent)
    holds(of_aggregator(job, size, rows=TEST_ROWS), AGGREGATOR_BYTES, peaks.aggregator)
