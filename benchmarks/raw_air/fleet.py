"""One fleet of the benchmark: mosquitto, an aggregator and a device for each station, every one a process.

Two jobs go on at once, one of levels and one of values. The devices have the stations' hours as loggers write them, or
as somebody has prepared them; the aggregator tests on the hours held back, in the same shape.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct, structs

from benchmarks.raw_air import tables
from benchmarks.raw_air.tables import DUST, LEVEL, LEVELS, LOGGERS, TIME, Air, Logger, Station
from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.errors import StartError
from broker.messages import Beacon, Presence, Reply, Status
from broker.wire import Wire
from fleet.console.observer import over_mqtt
from fleet.console.watch import Watch, WatchError, out_for
from fleet.local.meter import Meter
from fleet.local.processes import FEDGE, Children
from fleet.local.toml import written
from models.contract import ContractSpec
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec, TrainSpec

FLEET = "air"
HIDDEN = (32,)
FAST = {"max_per_s": 10_000.0, "sync_s": 1.0}
"""Years come within a minute."""
ALL_ROUNDS = StopSpec(patience=1000)
STARTING_S = 120.0
PUBLISHED_S = 120.0
PIECE, PAUSE_S = 250, 0.15
"""Messages that are published at once, and the seconds between."""
"""What listeners may take until they have written down what was published."""


class Outcome(NamedTuple):
    """What a fleet came to. Bytes are MQTT payload of all devices."""

    levels: dict[str, float]
    """Measures of the last version of the job of levels,"""
    values: dict[str, float]
    """and of that of values."""
    bytes_up: int
    bytes_down: int
    devices: int
    seconds: float


class Plan(Struct, frozen=True):
    """What differs between fleets."""

    name: str
    raw: bool
    rounds: int
    seed: int


def jobs(plan: Plan, names: Sequence[str]) -> list[JobSpec]:
    """Return the job of levels and that of values. names: of the readings."""
    rounds = RoundsSpec(
        max_rounds=plan.rounds,
        min_devices=12,
        quorum=12,
        deadline_s=600.0,
        wait="all",
        stop=ALL_ROUNDS,
    )
    train = TrainSpec(epochs=1, batch_size=32, learning_rate=0.05)
    levels = JobSpec(
        "levels",
        ModelSpec(inputs=len(names), hidden=HIDDEN, outputs=len(LEVELS)),
        seed=plan.seed,
        data="air",
        compression="strong",
        train=train,
        rounds=rounds,
    )
    values = structs.replace(
        levels,
        name="values",
        data="dust",
        model=ModelSpec(inputs=len(names), hidden=HIDDEN, outputs=1, loss="mse", activation="tanh"),
        rounds=structs.replace(rounds, stop=StopSpec(metric="r2", patience=1000)),
        train=structs.replace(train, learning_rate=0.0002, batch_size=16),
    )
    if not plan.raw:
        return [levels, values]
    features = tuple(names)
    of_levels = ContractSpec(features=features, label=LEVEL, classes=LEVELS, normalise="standard")
    of_values = ContractSpec(features=features, label=DUST, normalise="standard")
    # The first round of a job that normalises agrees on how, and nobody trains in it.
    more = structs.replace(rounds, max_rounds=plan.rounds + 1)
    return [
        structs.replace(levels, contract=of_levels, rounds=more),
        structs.replace(values, contract=of_values, rounds=structs.replace(more, stop=values.rounds.stop), data="air"),
    ]


def run(plan: Plan, air: Air, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run the jobs of a plan to their ends. Raises StartError, ChildDiedError, WatchError, OSError."""
    began = time.monotonic()
    rng = np.random.default_rng(plan.seed)
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(folder / "broker"))
        if broker.kind != "mosquitto":
            raise StartError("mosquitto is needed: `apt install mosquitto` brings it")
        site = stack.enter_context(start_broker(folder / "site"))
        meter = Meter(broker.host, broker.port)
        port = meter.start()
        stack.callback(meter.stop)
        children = stack.enter_context(Children())
        settings = _raw(air, folder, site.port, rng) if plan.raw else _prepared(air, folder)
        watch = stack.enter_context(Watch(over_mqtt("watch", _reach(broker.port), Wire(FLEET)), heard=HEARD))
        for name, tree in settings.items():
            kind = "aggregator" if name == "aggregator" else "agent"
            path = folder / name / f"{kind}.toml"
            broker_table = {"host": broker.host, "port": broker.port if kind == "aggregator" else port}
            path.write_text(written(tree | {"broker": broker_table}), encoding="utf-8")
            children.start(name, [*FEDGE, kind, "run", "--config", str(path)], folder / name / "log")
        if plan.raw:
            _publish(air, folder, site.port, say)
        specs = jobs(plan, air.names)
        _until_all_are_there(watch, children, len(air.train))
        ends = _until_the_end(watch, children, specs, say)
        total = meter.totals()
        return Outcome(
            *(ends[spec.name].metrics for spec in specs),
            total.up.payload_bytes,
            total.down.payload_bytes,
            len(air.train),
            time.monotonic() - began,
        )


HEARD = ("aggregator", "device", "status")


def _reach(port: int) -> BrokerSettings:
    return BrokerSettings(port=port)


# What devices have.


def _prepared(air: Air, folder: Path) -> dict[str, dict[str, Any]]:
    train, test = tables.prepared(air)
    trees: dict[str, dict[str, Any]] = {}
    for number, station in enumerate(train):
        trees[_device(number)] = _agent(folder, number, _npz(station, folder / _device(number)))
    together = Station(
        "all",
        np.concatenate([one.time for one in test]),
        np.concatenate([one.readings for one in test]),
        np.concatenate([one.dust for one in test]),
    )
    trees["aggregator"] = _aggregator(folder, _npz(together, folder / "aggregator"))
    return trees


def _npz(station: Station, folder: Path) -> dict[str, dict[str, Any]]:
    folder.mkdir(parents=True)
    path = folder / "data.npz"
    np.savez(path, **tables.as_arrays(station))
    return {"air": {"path": str(path)}, "dust": {"path": str(path), "label": "dust"}}


def _raw(air: Air, folder: Path, site_port: int, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    trees: dict[str, dict[str, Any]] = {}
    for number, station in enumerate(air.train):
        place = folder / _device(number)
        place.mkdir(parents=True)
        if number < len(LOGGERS):
            path = tables.write(air, station, LOGGERS[number], place, rng)
            source: dict[str, Any] = {"path": str(path)}
        else:
            fields = tables.columns_of(air, rng)
            fields.remove(TIME)
            source = {
                "mqtt": {"port": site_port, "topics": [_topic(station)], "fields": fields} | FAST,
            }
        trees[_device(number)] = _agent(folder, number, {"air": source})
    place = folder / "aggregator"
    place.mkdir(parents=True)
    together = Station(
        "all",
        np.concatenate([one.time for one in air.test]),
        np.concatenate([one.readings for one in air.test]),
        np.concatenate([one.dust for one in air.test]),
    )
    path = tables.write(air, together, Logger("test.csv", ";", ","), place, rng)
    trees["aggregator"] = _aggregator(folder, {"air": {"path": str(path)}})
    return trees


def _agent(folder: Path, number: int, sources: Mapping[str, Any]) -> dict[str, Any]:
    name = _device(number)
    return {
        "fleet": FLEET,
        "device": name,
        "state_dir": str(folder / name / "state"),
        "models": {"inference": False},
        "data": sources,
    }


def _aggregator(folder: Path, tests: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fleet": FLEET,
        "state_dir": str(folder / "aggregator" / "state"),
        "limits": {"spread_s": 0.0},
        "tests": tests,
    }


def _device(number: int) -> str:
    return f"station-{number:02d}"


def _topic(station: Station) -> str:
    return f"site/{station.name}/hour"


def _publish(air: Air, folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Publish the hours of the last stations, once their devices listen. Raises StartError."""
    program = shutil.which("mosquitto_pub")
    if program is None:
        raise StartError("mosquitto_pub is needed: `apt install mosquitto-clients` brings it")
    for number, station in enumerate(air.train[len(LOGGERS) :], len(LOGGERS)):
        log = folder / _device(number) / "log"
        _until(lambda log=log: "rows are kept" in log.read_text(encoding="utf-8"), STARTING_S, f"{log}: nobody listens")
        names = [*air.names, LEVEL, DUST, "battery"]
        lines = tables.json_lines(tables.rows_of(air, station, names, "ms"))
        say(f"{_device(number)} hears {len(station.time):,} hours from its site's broker")
        command = [program, "-p", str(port), "-t", _topic(station), "-q", "1", "-l"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            for n, line in enumerate(lines):
                client.stdin.write(line)
                if n % PIECE == 0:  # else the broker drops what nobody has taken yet
                    client.stdin.flush()
                    time.sleep(PAUSE_S)
        _until(partial(_has_rows, folder, number, len(station.time)), PUBLISHED_S, f"{log}: rows are missing")


def _has_rows(folder: Path, number: int, n: int) -> bool:
    """Return whether a device has written down as many rows: a line each, and one for what each file of them is."""
    ring = folder / _device(number) / "state" / "live" / "air.ring"
    return sum(file.read_bytes().count(b"\n") - 1 for file in ring.glob("*.jsonl")) >= n


def _until(is_so: Callable[[], bool], within_s: float, what: str) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > until:
            raise StartError(f"{what} after {within_s:g} s")
        time.sleep(0.1)


# Looking on.


def _until_all_are_there(watch: Watch, children: Children, n_devices: int) -> None:
    here: set[str] = set()
    led, until = False, time.monotonic() + STARTING_S
    for heard in watch.hear():
        children.check()
        if isinstance(heard, Presence):
            (here.add if heard.online else here.discard)(heard.device)
        elif isinstance(heard, Beacon):
            led = heard.online
        if led and len(here) == n_devices:
            return
        if time.monotonic() > until:
            raise WatchError(f"{len(here)} of {n_devices} devices are there after {STARTING_S:g} s")


def _submit(watch: Watch, spec: JobSpec) -> None:
    watch.submit(spec, spec.name)


def _until_the_end(
    watch: Watch, children: Children, specs: Sequence[JobSpec], say: Callable[[str], None]
) -> dict[str, Status]:
    """Submit the jobs, one after the other is answered, and look on until all have ended."""
    ends: dict[str, Status] = {}
    by_job: dict[str, Status] = {}
    waiting = list(specs)
    _submit(watch, waiting.pop(0))
    for heard in watch.hear():
        children.check()
        if isinstance(heard, Presence) and (why := out_for(heard)):
            raise WatchError(f"{heard.device} cannot take part: {why}")
        if isinstance(heard, Reply) and not heard.ok:
            raise WatchError(f"the aggregator refuses: {heard.text}")
        if isinstance(heard, Reply) and waiting:
            _submit(watch, waiting.pop(0))
        if not isinstance(heard, Status):
            continue
        name = next((spec.name for spec in specs if heard.job.startswith(spec.name)), heard.job)
        if heard.state == "resting":
            raise WatchError(f"job {name} is at rest: {heard.reason}")
        if by_job.get(name) is None or by_job[name].version != heard.version:
            by_job[name] = heard
            told = " ".join(f"{key}={value:g}" for key, value in heard.metrics.items())
            say(f"{name} version {heard.version.number}: {told}")
        if heard.state in ("finished", "stopped"):
            ends[name] = heard
            if len(ends) == len(specs):
                return ends
    raise AssertionError("one hears for ever")
