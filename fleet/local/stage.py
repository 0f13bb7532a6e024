"""A fleet on one machine, as files: a folder for each role with its configuration, its data and its state.

    FOLDER/aggregator/   aggregator.toml  test.npz  state/  log
    FOLDER/device-00/    agent.toml       data.npz  state/  log
    ...

They are what a real fleet has, and stay when the demo is over: its models answer, its logs can be read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from broker.connection import BrokerSettings
from edge_agent.slots import slot_path
from fleet.local.processes import FEDGE, Children
from fleet.problems.problem import device_names
from models.data.dataset import Dataset
from models.job import JobSpec
from models.nets import table as nets
from runtime.settings import SettingsError

FLEET = "demo"
DEVICES = f"{FLEET}-device-"
"""What the client ids of its devices begin with."""
MARK = "made-by-fedge-demo"
"""Stands in the folder, so that the next demo knows that it may remove it."""


class Role(NamedTuple):
    """One process: what it is called, its configuration, its log."""

    name: str
    config: Path
    log: Path


class Stage(NamedTuple):
    """All roles, and where each device keeps the model that it serves."""

    aggregator: Role
    devices: list[Role]
    slots: list[Path]


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
    shares: Sequence[Dataset],
    test: Dataset | None,
    broker: BrokerSettings,
    *,
    inference: bool = True,
) -> Stage:
    """Write everything: each device gets its share of the examples, the aggregator those to test on, if any.

    inference: whether the devices put models into service.
    """
    names = device_names(len(shares))
    models = _models(spec, inference=inference)
    devices = [
        _device(folder / name, name, spec.data_name, share, models, broker)
        for name, share in zip(names, shares, strict=True)
    ]
    slots = [slot_path(folder / name / "state", spec.name) for name in names]
    return Stage(_aggregator(folder / "aggregator", spec, test, broker), devices, slots)


def start(children: Children, stage: Stage) -> None:
    """Start the aggregator and every agent. Raises OSError."""
    for kind, roles in (("aggregator", [stage.aggregator]), ("agent", stage.devices)):
        for role in roles:
            children.start(role.name, [*FEDGE, kind, "run", "--config", str(role.config)], role.log)


def _aggregator(folder: Path, spec: JobSpec, test: Dataset | None, broker: BrokerSettings) -> Role:
    folder.mkdir()
    (folder / "aggregator.toml").write_text(
        f"""\
fleet = "{FLEET}"
state_dir = {_quoted(folder / "state")}
{_broker(broker)}{"" if test is None else _test(folder / "test.npz", spec, test)}{_models(spec, inference=True)}
[limits]
# Devices on one machine need not spread what they send.
spread_s = 0.0
""",
        encoding="utf-8",
    )
    return Role("aggregator", folder / "aggregator.toml", folder / "log")


def _test(path: Path, spec: JobSpec, test: Dataset) -> str:
    np.savez(path, X=test.X, y=test.y)
    return f"""
# Held back from the devices: every version is scored on it.
[tests.{spec.data_name}]
path = {_quoted(path)}
"""


def _device(folder: Path, name: str, data: str, share: Dataset, models: str, broker: BrokerSettings) -> Role:
    folder.mkdir()
    np.savez(folder / "data.npz", X=share.X, y=share.y)
    (folder / "agent.toml").write_text(
        f"""\
fleet = "{FLEET}"
device = "{name}"
state_dir = {_quoted(folder / "state")}
{_broker(broker)}
# This device's share of the examples. It never leaves the device.
[data.{data}]
path = {_quoted(folder / "data.npz")}
{models}""",
        encoding="utf-8",
    )
    return Role(name, folder / "agent.toml", folder / "log")


def _broker(broker: BrokerSettings) -> str:
    return f'[broker]\nhost = "{broker.host}"\nport = {broker.port}\nprotocol = "{broker.protocol}"\n'


def _models(spec: JobSpec, *, inference: bool) -> str:
    """Allow the factory that the job names: whoever gives a job to the demo wants it to run."""
    factories = nets.factories_of(spec.model)
    lines = [f"allow = {json.dumps(factories)}\n"] if factories else []
    lines += [] if inference else ["inference = false\n"]
    return "\n[models]\n" + "".join(lines) if lines else ""


def _quoted(path: Path) -> str:
    """Return a path as a TOML string, absolute."""
    return json.dumps(str(path.resolve()), ensure_ascii=False)
