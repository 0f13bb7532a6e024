"""Our rounds: mosquitto, an aggregator and every agent as a process, as `fedge` starts them."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.overhead.found import Found
from benchmarks.overhead.meters import Costs
from benchmarks.overhead.noop import LAGS
from benchmarks.overhead.rounds import WARM, look_on
from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.messages import Beacon, Status
from broker.wire import Wire
from fleet.console.observer import over_mqtt
from fleet.console.watch import Watch, WatchError
from fleet.local import stage
from fleet.local.meter import Meter
from fleet.local.processes import Children
from fleet.local.stage import DEVICES, FLEET, Role
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec

ROWS = 64
COMMAND = (sys.executable, "-P", "-m", "benchmarks.overhead.noop")


def spec_of(model: ModelSpec, codec: str, n_agents: int, rounds: int) -> JobSpec:
    """Return the job: every agent in every round, a step each."""
    return JobSpec(
        "overhead",
        model,
        compression=codec,  # type: ignore[arg-type]
        deploy="never",
        train=TrainSpec(epochs=1, batch_size=ROWS, learning_rate=0.05),
        rounds=RoundsSpec(quorum=n_agents, min_devices=n_agents, max_rounds=rounds, deadline_s=120.0),
    )


def measure(
    model: ModelSpec, codec: str, n_agents: int, rounds: int, *, counted: bool = False, say: Callable[[str], None]
) -> Found:
    """Run so many rounds beyond the first few, and return what a round costs.

    counted: behind the proxy that counts bytes, which makes every round slower. Raises WatchError, ChildDiedError or
    StartError.
    """
    shares = [rows_of(model, seed) for seed in range(n_agents)]
    spec = spec_of(model, codec, n_agents, WARM + rounds)
    with tempfile.TemporaryDirectory(prefix="fedge-overhead-") as name, start_broker(Path(name) / "broker") as broker:
        direct = BrokerSettings(port=broker.port, protocol=broker.protocol)
        meter = Meter(broker.host, broker.port) if counted else None
        behind = BrokerSettings(port=meter.start(), protocol=broker.protocol) if meter else direct
        plan = stage.build(Path(name), spec, shares, None, behind, inference=False)
        lags = Path(name) / "lags"
        observer = over_mqtt("watch", direct, Wire(FLEET))
        with Children() as children, Watch(observer, heard=("aggregator", "status")) as watch:
            began = time.perf_counter()
            server = _start(children, "aggregator", plan.aggregator, {LAGS: str(lags)})
            agents = [_start(children, "agent", role, {}) for role in plan.devices]
            costs = Costs({"server": [server], "broker": [broker.pid], "agent": agents})
            bytes_: list[tuple[int, int]] = []

            def count() -> None:
                total = meter.totals(DEVICES) if meter else None
                bytes_.append((total.up.payload_bytes, total.down.payload_bytes) if total else (0, 0))

            seen = look_on(
                *(_versions(spec, watch, children), costs, rounds),
                lambda number: say(f"{codec}, {n_agents} agents: round {number} of {WARM + rounds}"),
                on_edge=count,
            )
        if meter:
            meter.stop()
        every = [float(line) for line in lags.read_text().split()][WARM:]
    up, down = ((there - here) / (rounds * n_agents) for here, there in zip(*bytes_, strict=True))
    return Found(
        f"fedge, {codec}",
        n_agents,
        seen.wall_s,
        seen.cpu_s["server"],
        seen.cpu_s["broker"],
        seen.cpu_s["agent"] / n_agents,
        costs.peak_mb("server"),
        costs.peak_mb("agent"),
        seen.first_at - began,
        up,
        down,
        statistics.median(every),
    )


def rows_of(model: ModelSpec, seed: int) -> Dataset:
    """Return rows of a device: a cloud for each class, the same for all devices."""
    centres = np.random.default_rng(0).random((model.outputs, model.inputs), np.float32)
    rng = np.random.default_rng(seed + 1)
    y = rng.integers(0, model.outputs, ROWS).astype(np.int64)
    return Dataset(centres[y] + 0.3 * rng.standard_normal((ROWS, model.inputs), np.float32), y)


def _start(children: Children, kind: str, role: Role, environment: dict[str, str]) -> int:
    command = [*COMMAND, kind, "run", "--config", str(role.config)]
    return children.start(role.name, command, role.log, environment).process.pid


def _versions(spec: JobSpec, watch: Watch, children: Children) -> Iterator[int]:
    """Return the number of every version as soon as its status is heard, the first that was trained first."""
    asked, number = False, 0
    for heard in watch.hear():
        children.check()
        match heard:
            case Beacon(online=True) if not asked:
                watch.submit(spec)
                asked = True
            case Status() as status:
                if status.state == "resting":
                    raise WatchError(f"the job is at rest: {status.reason}")
                if status.version.number > number:
                    number = status.version.number
                    yield number
                if number == spec.rounds.max_rounds:
                    return
