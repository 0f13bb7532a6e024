"""A fleet on one machine, as files: a folder for each role with its configuration, its data and its state.

    FOLDER/aggregator/   aggregator.toml  test.npz  state/  log
    FOLDER/device-00/    agent.toml       data.npz  state/  log
    ...

They are what a real fleet has, and stay when a demo is over: its models answer, its logs can be read. The demo, the
benchmarks and `fedge chaos` all begin with one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from broker.connection import BrokerSettings
from edge_agent.config import LEAST_EVERY_S
from edge_agent.slots import slot_path
from fleet.local.processes import FEDGE, Child, Children
from fleet.local.toml import written
from fleet.problems.problem import device_names
from fleet.problems.tables import Share
from models.data.dataset import Dataset
from models.data.source import DataSource
from models.job import JobSpec
from models.nets import table as nets
from runtime.settings import SettingsError

FLEET = "demo"
DEVICES = f"{FLEET}-device-"
"""What the client ids of its devices begin with."""
MARK = "made-by-fedge-demo"
"""Stands in the folder, so that the next demo knows that it may remove it."""
COMMENTS = {
    "tests": "Held back from the devices: every version is scored on it.",
    "data": "This device's share of the examples. It never leaves the device.",
    "limits.spread_s": "Devices on one machine need not spread what they send.",
}


class Role(NamedTuple):
    """One process: what it is called, what it is, and its folder."""

    name: str
    kind: Literal["aggregator", "agent"]
    folder: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / f"{self.kind}.toml"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"

    @property
    def trace(self) -> Path:
        """The failpoints that it passes, where it is asked to write them down (runtime/failpoints.py)."""
        return self.folder / "trace"

    @property
    def state(self) -> Path:
        """What it must not forget."""
        return self.folder / "state"


class Keys(Protocol):
    """Where the keys of everybody lie, as the tables [identity] of each process say it."""

    def of_device(self, device: str) -> dict[str, str]:
        """Return the table of a device."""

    @property
    def of_aggregator(self) -> dict[str, str]:
        """The table of the aggregator."""


class Stage(NamedTuple):
    """All roles."""

    aggregator: Role
    devices: list[Role]

    @property
    def roles(self) -> list[Role]:
        """Everybody, the aggregator first."""
        return [self.aggregator, *self.devices]

    def slots(self, spec: JobSpec) -> list[Path]:
        """Return where each device keeps the model of a job that it serves."""
        return [slot_path(device.state, spec.name) for device in self.devices]


def clear(folder: Path) -> None:
    """Make an empty folder, in place of an earlier demo's. Raises SettingsError if it is somebody else's."""
    if folder.exists():
        if not (folder / MARK).exists():
            raise SettingsError(f"{folder} was not made by a demo: remove it, or choose another folder with --out")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
        (folder / MARK).touch()
    except OSError as error:
        raise SettingsError(f"{folder} cannot be made: {error.strerror}; choose another with --out") from error


def build(
    folder: Path,
    spec: JobSpec,
    shares: Sequence[Dataset | Share],
    test: Dataset | Share | DataSource | None,
    broker: BrokerSettings | Callable[[str], BrokerSettings],
    *,
    inference: bool = True,
    keys: Keys | None = None,
    page: str = "",
    vitals: bool = True,
) -> Stage:
    """Write everything: each device gets its share of the examples, the aggregator those to test on, if any.

    broker: how everybody reaches it, or a role of this name. inference: whether the devices put models into service.
    keys: of everybody, where they sign what they say. page: HOST:PORT of the page of the fleet; "" for none. vitals:
    whether devices say how they are.
    """
    reach = broker if callable(broker) else lambda _name: broker
    folder = folder.resolve()
    names = device_names(len(shares))
    stage = Stage(Role("aggregator", "aggregator", folder / "aggregator"), roles_of(folder, names))
    factories = nets.factories_of(spec.model)
    allowed = {"allow": list(factories)} if factories else {}  # who gives a job wants it to run
    tests = {} if test is None else {spec.data_name: test}
    more: dict[str, Mapping[str, str]] = {} if keys is None else {"identity": keys.of_aggregator}
    more |= {"web": {"bind": page}} if page else {}
    write(
        stage.aggregator,
        FLEET,
        reach(stage.aggregator.name),
        tests,
        {"models": allowed, "limits": {"spread_s": 0.0}, **more},
    )
    models = allowed if inference else allowed | {"inference": False}
    for device, share in zip(stage.devices, shares, strict=True):
        more = {} if keys is None else {"identity": keys.of_device(device.name)}
        told = {"vitals": {"every_s": LEAST_EVERY_S if vitals else 0.0}} if page or not vitals else {}
        write(device, FLEET, reach(device.name), {spec.data_name: share}, {"models": models, **more, **told})
    return stage


def roles_of(folder: Path, names: Sequence[str]) -> list[Role]:
    """Return the devices of these names."""
    return [Role(name, "agent", folder / name) for name in names]


def write(
    role: Role,
    fleet: str,
    broker: BrokerSettings,
    data: Mapping[str, Dataset | Share | DataSource],
    more: Mapping[str, object],
) -> None:
    """Make the folder of a role, with its configuration and its data. Raises OSError.

    data: by the name of their source: what a device trains on, or what the aggregator tests on: arrays, rows of a
    table, or a file that is there. more: other keys.
    """
    role.folder.mkdir(parents=True)
    is_device = role.kind == "agent"
    sources = {}
    for name, rows in data.items():
        sources[name] = _source_of(rows, role.folder, "data" if is_device else "test")
    tree = {
        "fleet": fleet,
        "device": role.name if is_device else None,
        "state_dir": str(role.state),
        **{key: value for key, value in more.items() if not isinstance(value, Mapping)},
        "broker": {"host": broker.host, "port": broker.port, "protocol": broker.protocol} | _unusual(broker),
        "data" if is_device else "tests": sources,
        **{key: value for key, value in more.items() if isinstance(value, Mapping)},
    }
    role.config.write_text(written(tree, COMMENTS), encoding="utf-8")


def _source_of(rows: Dataset | Share | DataSource, folder: Path, stem: str) -> dict[str, object]:
    """Write rows where they are to be read, unless they are there; return the keys of their source."""
    if isinstance(rows, Share):
        return rows.write(folder, stem)
    if isinstance(rows, DataSource):
        usual, plain = msgspec.to_builtins(DataSource(rows.path)), msgspec.to_builtins(rows)
        return {"path": rows.path} | {key: value for key, value in plain.items() if value != usual[key]}
    path = folder / f"{stem}.npz"
    np.savez(path, X=rows.X, y=rows.y)
    return {"path": str(path)}


def _unusual(broker: BrokerSettings) -> dict[str, object]:
    """Return the settings that are not the usual ones: who we are, and by which certificates."""
    usual, plain = msgspec.to_builtins(BrokerSettings()), msgspec.to_builtins(broker)
    return {name: value for name, value in plain.items() if value != usual[name]}


def start(children: Children, stage: Stage) -> list[Child]:
    """Start the aggregator and every agent, and return them in this order. Raises OSError."""
    return [
        children.start(role.name, [*FEDGE, role.kind, "run", "--config", str(role.config)], role.log)
        for role in stage.roles
    ]
