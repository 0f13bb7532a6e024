"""A fleet of real processes whose page is to be looked at: by a browser's tests, and for pictures.

Its devices read their rows slowly, as from a sensor, so that a round takes some seconds and no processor.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from broker.connection import BrokerSettings
from broker.embedded import start_broker
from fleet.cli import main
from fleet.local import stage
from fleet.local.processes import FEDGE, Child, Children
from fleet.local.stage import FLEET, Role, Stage
from fleet.local.toml import written
from fleet.problems.examples import load_split
from fleet.problems.partition import deal
from fleet.problems.problem import dealt, device_names
from fleet.web.users import add_user
from models.data.dataset import Dataset
from models.data.source import DataSource

ROWS = "benchmarks.slow_rows:rows"
NAME, PASSWORD = "anna", "correct horse battery"
"""Who may act at the page."""
PATIENCE_S = 180.0
JOB = """
name = "digits"
deploy = "every 1"
[model]
inputs = 64
hidden = [32]
outputs = 10
[train]
learning_rate = 0.2
batch_size = 10
[rounds]
deadline_s = 60
quorum = 1
grace_s = 1
max_rounds = 100000
"""


class NotSeenError(AssertionError):
    """Something that was to be seen was not, for a long time."""


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds. Raises NotSeenError."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > give_up_at:
            raise NotSeenError(what)
        time.sleep(0.05)


class ShownFleet:
    """A fleet at work. broker: where it is reached. page: its address, with a slash at the end."""

    def __init__(self, folder: Path, broker: BrokerSettings, children: Children, built: Stage, page: str) -> None:
        self.folder, self.broker, self.page, self.stage = folder, broker, page, built
        self._children = children
        self._running: dict[str, Child] = {}

    def start(self, *names: str) -> None:
        """Start these roles, or all that do not run."""
        for role in self.stage.roles:
            if (not names or role.name in names) and role.name not in self._running:
                run = [*FEDGE, role.kind, "run", "--config", str(role.config)]
                self._running[role.name] = self._children.start(role.name, run, role.log)

    def kill(self, name: str) -> None:
        """Kill a role's process, as a power cut does."""
        process = self._running.pop(name).process
        process.kill()
        process.wait()

    def ask(self, path: str) -> Any:
        """Return the JSON at an address of the page; None while nobody answers."""
        try:
            with urllib.request.urlopen(self.page + path, timeout=20) as answer:  # noqa: S310 -- of ours
                return json.load(answer)
        except OSError:
            return None

    @property
    def job(self) -> str:
        """The id of its job; "" while the page knows none."""
        fleet = self.ask("api/fleet")
        return str(fleet["jobs"][0]["job"]) if fleet and fleet["jobs"] else ""

    @property
    def version(self) -> int:
        """The number of the job's last version; -1 while there is none."""
        fleet = self.ask("api/fleet")
        return int(fleet["jobs"][0]["version"][1]) if fleet and fleet["jobs"] else -1

    def submit(self, text: str = JOB) -> str:
        """Hand in a job, wait until the page knows it, and return its id."""
        file = self.folder / "job.toml"
        file.write_text(text, encoding="utf-8")
        log = self.stage.aggregator.log
        until(lambda: log.exists() and "leads" in log.read_text(encoding="utf-8"), "an aggregator that leads")
        if main(["job", "submit", str(file), "--config", str(self.stage.aggregator.config)]) != 0:
            raise NotSeenError("the job was not taken")
        until(lambda: self.job, "a page that knows the job")
        return self.job


@contextmanager
def shown_fleet(
    folder: Path, seconds: Sequence[float], *, n_rows: int | None = None, labels: Sequence[str] = ()
) -> Iterator[ShownFleet]:
    """Start a broker, an aggregator with a page, and a device for each of `seconds`: how long it takes to read rows.

    n_rows: of all devices together; all of the digits when not given. labels: each device's site. Raises OSError,
    StartError.
    """
    page = f"127.0.0.1:{free_port()}"
    split = load_split("digits")
    n = len(split.train.y) if n_rows is None else n_rows
    train = Dataset(split.train.X[:n], split.train.y[:n])
    shares = dealt(train, deal("dirichlet:1", train.y, len(seconds), 3))
    with start_broker(folder / "broker", prefer="mosquitto") as broker, Children() as children:
        where = BrokerSettings(port=broker.port, protocol=broker.protocol)
        names = device_names(len(seconds))
        built = Stage(Role("aggregator", "aggregator", folder / "aggregator"), stage.roles_of(folder, names))
        users, operator = folder / "users.toml", folder / "operator.toml"
        add_user(users, NAME, "operator", PASSWORD)
        reach = {"host": where.host, "port": where.port, "protocol": where.protocol}
        operator.write_text(written({"fleet": FLEET, "broker": reach}), encoding="utf-8")
        web = {"web": {"bind": page, "users_file": str(users)}, "observer": {"config": str(operator)}}
        stage.write(built.aggregator, FLEET, where, {"digits": split.test}, {"limits": {"spread_s": 0.0}, **web})
        for at, (device, share, takes) in enumerate(zip(built.devices, shares, seconds, strict=True)):
            file = folder / f"{device.name}.npz"
            np.savez(file, X=share.X, y=share.y)
            rows = DataSource(ROWS, options={"file": str(file), "seconds": takes})
            site = {"labels": {"site": labels[at % len(labels)]}} if labels else {}
            more = {"models": {"allow": [ROWS]}, "limits": {"presence_s": 1.0}, "vitals": {"every_s": 5.0}, **site}
            stage.write(device, FLEET, where, {"digits": rows}, more)
        yield ShownFleet(folder, where, children, built, f"http://{page}/")


def free_port() -> int:
    """Return a port of loopback that is free by now: one that stays the same when the aggregator starts again."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
