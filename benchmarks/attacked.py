"""The fleet that benchmarks.attackers attacks: what its aggregator is told, its job, and a process of its devices."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.reading import threads
from edge_agent.service import Agent, will
from fleet.local.stage import FLEET
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec

PACE_S = 1.0
"""How long a device takes to read its rows: a round is no shorter."""
ROOM_BYTES = 2**20
"""For unassembled updates: one at a time, as in a fleet whose updates are large beside its server."""
ROWS = 64
CALM_S = 0.01
MODEL = ModelSpec(inputs=784, hidden=(200, 200), outputs=10)
JOB = JobSpec(
    "attacked",
    MODEL,
    compression="off",
    deploy="never",
    train=TrainSpec(epochs=1, batch_size=ROWS, learning_rate=0.05),
    rounds=RoundsSpec(target=4, quorum=4, min_devices=4, over_selection=10.0, max_rounds=10_000, deadline_s=300.0),
)
"""Four updates make a version, whoever else is there."""


def aggregator_toml(folder: Path, broker: BrokerSettings) -> str:
    """Return what aggregator.toml says."""
    return (
        f'fleet = "{FLEET}"\nstate_dir = "{folder / "aggregator"}"\n[broker]\nport = {broker.port}\n'
        f'username = "{broker.username}"\npassword_file = "{broker.password_file}"\n'
        f"[limits]\nspread_s = 0.0\nunassembled_bytes = {ROOM_BYTES}\n"
    )


class Paced(InMemory):
    """Rows that take a while to be read, beside the loop of their device."""

    def snapshot(self) -> Dataset:
        """Return them, late."""
        time.sleep(PACE_S)
        return super().snapshot()


def drive(folder: Path, port: int, names: list[str]) -> None:
    """Be these devices until the process is ended."""
    agents = [_agent(folder, port, name) for name in names]
    for agent in agents:
        agent.start()
    parent = os.getppid()
    while os.getppid() == parent:
        worked = False
        for agent in agents:
            worked |= agent.step(0.0)
        if not worked:
            time.sleep(CALM_S)


def _agent(folder: Path, port: int, name: str) -> Agent:
    broker = BrokerSettings(port=port, username=name, password_file=str(folder / f"{name}.password"))
    config = AgentConfig(
        fleet=FLEET,
        device=name,
        state_dir=str(folder / name),
        broker=broker,
        data={JOB.data_name: DataSource(name)},
        models=ModelSettings(inference=False),
    )
    wire, home = Wire(FLEET), Home(folder / name, name)
    transport = MqttTransport(broker, f"{FLEET}-{name}", will(wire, home))
    rng = np.random.default_rng(int(name.rpartition("-")[2]))
    y = np.arange(ROWS) % MODEL.outputs
    rows = Dataset((0.1 * rng.standard_normal((ROWS, MODEL.inputs)) + 0.01 * y[:, None]).astype(np.float32), y)
    return Agent(
        *(config, home, transport, wire),
        open_source=lambda *_, **__: Paced(rows),
        start_reading=threads(transport.wake),
    )


if __name__ == "__main__":
    _folder, _port, *_names = sys.argv[1:]
    drive(Path(_folder), int(_port), _names)
