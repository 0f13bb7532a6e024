"""Real connections: a mosquitto, an aggregator process, and many devices in a few processes.

Every device is an `Agent` with a state directory and an MQTT connection of its own; only the process is shared, with
some hundred others. They train on twenty rows each, so that what is measured is what a fleet costs its aggregator.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec import Struct

from benchmarks.memory import cpu_s, peak_mb
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.messages import Presence
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent, will
from fleet.console.observer import over_mqtt
from fleet.console.watch import Sights, Watch, WatchError
from fleet.local.processes import Children
from fleet.local.stage import FLEET
from fleet.problems.problem import device_names
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import JobSpec, ModelSpec, RoundsSpec

EACH = 250
"""Devices in one process."""
DRAWN = 10
"""Devices in a round, however many there are."""
ROUNDS = 20
CALM_S = 0.02
"""How long a process of devices rests when none of them has anything to do."""
FILES_EACH = 8
"""Descriptors that a connection takes, generously."""
SETTLED_S = 300.0
MODEL = ModelSpec(inputs=20, hidden=(16,), outputs=3)


class Load(Struct, frozen=True):
    """What a fleet of so many connected devices costs its aggregator: CPU seconds, and MB of VmHWM."""

    devices: int
    connect_s: float
    """Wall time until all of them were there."""
    connect_cpu_s: float
    """The aggregator's, for all of them to come."""
    ready_cpu_s: float
    """The same for all of them to take up a job."""
    round_cpu_ms: float
    """The aggregator's for one round that draws ten of them, the first one left out."""
    round_s: float
    peak_mb: float
    devices_peak_mb: float
    """Of the largest process of devices: up to 250 of them."""


def measure(n_devices: int, say: Callable[[str], None] = lambda _: None) -> Load:
    """Connect so many devices and run a job. say: told how far it is.

    Raises StartError without a broker, ChildDiedError when a process ends early, WatchError when the fleet is silent or
    does not come together.
    """
    limit_files(FILES_EACH * max(n_devices, EACH))
    with tempfile.TemporaryDirectory(prefix="fedge-scale-") as name:
        folder = Path(name)
        with start_broker(folder / "broker") as broker, Children() as children:
            settings = BrokerSettings(port=broker.port, protocol=broker.protocol)
            with Watch(over_mqtt("watch", settings, Wire(FLEET))) as watch:
                leader = children.start("aggregator", _aggregator(folder, settings), folder / "aggregator.log")
                fleet = _Fleet(folder, children, watch, leader.process.pid, say)
                return fleet.run(n_devices, settings)


class _Fleet:
    def __init__(self, folder: Path, children: Children, watch: Watch, leader: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._children = children
        self._watch = watch
        self._leader = leader
        self._say = say
        self._there: set[str] = set()
        self._sights = Sights()
        self._began_at: dict[int, tuple[float, float]] = {}
        """Version to when it was there, and to what the aggregator had used by then."""

    def run(self, n_devices: int, broker: BrokerSettings) -> Load:
        self._until(lambda: self._sights.led, "the aggregator does not lead")
        began, cpu = time.monotonic(), cpu_s(self._leader)
        processes = []
        for first in range(0, n_devices, EACH):
            n = min(EACH, n_devices - first)
            command = [sys.executable, "-m", "benchmarks.connections", str(self._folder), str(broker.port)]
            more = [broker.protocol, str(first), str(n), str(n_devices)]
            child = self._children.start(f"devices {first}..", [*command, *more], self._folder / f"devices-{first}.log")
            processes.append(child.process.pid)
        self._until(lambda: len(self._there) == n_devices, f"of {n_devices} devices only some came")
        connect_s, connected = time.monotonic() - began, cpu_s(self._leader)
        self._say(f"{n_devices} are connected after {connect_s:.1f} s")
        self._watch.submit(_job(n_devices))
        self._until(lambda: 1 in self._began_at, "no version comes")
        ready = self._began_at[1][1] - connected
        self._until(lambda: self._sights.ended is not None, "the job does not end")
        (at, used), (end, all_) = self._began_at[1], self._began_at[ROUNDS]
        return Load(
            devices=n_devices,
            connect_s=connect_s,
            connect_cpu_s=connected - cpu,
            ready_cpu_s=ready,
            round_cpu_ms=1000 * (all_ - used) / (ROUNDS - 1),
            round_s=(end - at) / (ROUNDS - 1),
            peak_mb=peak_mb(self._leader),
            devices_peak_mb=max(map(peak_mb, processes)),
        )

    def _until(self, done: Callable[[], bool], else_: str) -> None:
        until, said_at = time.monotonic() + SETTLED_S, time.monotonic()
        for heard in self._watch.hear():
            self._children.check()
            if heard is not None:
                if isinstance(heard, Presence) and heard.online:
                    self._there.add(heard.device)
                if self._sights.see(heard):
                    self._began_at[max(self._sights.statuses)] = time.monotonic(), cpu_s(self._leader)
            if done():
                return
            if time.monotonic() > until:
                raise WatchError(f"{else_} within {SETTLED_S:g} s; the log is in {self._folder}")
            if time.monotonic() - said_at > 2.0:
                said_at = time.monotonic()
                self._say(f"{len(self._there)} there, version {max(self._sights.statuses, default='-')} of {ROUNDS}")


def _job(n_devices: int) -> JobSpec:
    rounds = RoundsSpec(
        target=min(DRAWN, n_devices), quorum=min(DRAWN, n_devices), min_devices=n_devices, max_rounds=ROUNDS
    )
    return JobSpec("scale", MODEL, deploy="never", rounds=rounds)


def _aggregator(folder: Path, broker: BrokerSettings) -> list[str]:
    path = folder / "aggregator.toml"
    path.write_text(
        f'fleet = "{FLEET}"\nstate_dir = "{folder / "aggregator"}"\n[broker]\nhost = "{broker.host}"\n'
        f'port = {broker.port}\nprotocol = "{broker.protocol}"\n[limits]\nspread_s = 0.0\n'
    )
    return [sys.executable, "-P", "-m", "fleet.cli", "aggregator", "run", "--config", str(path)]


def limit_files(n: int) -> None:
    """Let this process and its children have so many files open. Raises OSError where the machine does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < n:
        if hard != resource.RLIM_INFINITY and hard < n:
            raise OSError(f"{n} files have to be open at once, and the limit is {hard}: raise it with ulimit -n {n}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))


# A process of devices.


def drive(folder: Path, broker: BrokerSettings, names: list[str]) -> None:
    """Be these devices until the process is ended."""
    wire = Wire(FLEET)
    agents = [_agent(folder, broker, wire, name) for name in names]
    for agent in agents:
        agent.start()
    parent = os.getppid()
    while os.getppid() == parent:
        worked = False
        for agent in agents:
            worked |= agent.step(0.0)
        if not worked:
            time.sleep(CALM_S)


def _agent(folder: Path, broker: BrokerSettings, wire: Wire, name: str) -> Agent:
    config = AgentConfig(
        fleet=FLEET,
        device=name,
        state_dir=str(folder / name),
        broker=broker,
        data={"scale": DataSource(name)},
        models=ModelSettings(inference=False),
    )
    home = Home(folder / name, name)
    transport = MqttTransport(broker, f"{FLEET}-{name}", will(wire, home))
    rng = np.random.default_rng(int(name.rpartition("-")[2]))
    y = np.arange(20) % MODEL.outputs
    rows = Dataset((rng.standard_normal((20, MODEL.inputs)) + y[:, None]).astype(np.float32), y)
    return Agent(config, home, transport, wire, open_source=lambda *_, **__: InMemory(rows))


if __name__ == "__main__":
    _folder, _port, _protocol, *_counts = sys.argv[1:]
    _first, _n, _all = map(int, _counts)
    _broker = BrokerSettings(port=int(_port), protocol=_protocol)  # type: ignore[arg-type]  # as it was written
    drive(Path(_folder), _broker, device_names(_all)[_first : _first + _n])
