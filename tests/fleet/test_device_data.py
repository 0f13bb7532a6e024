"""What a device trains on, with real processes over a real broker: its files change, it is killed, a file hangs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.messages import Presence
from broker.transport import Packet
from broker.wire import Wire
from edge_agent import files
from edge_agent.jobs import READING
from edge_agent.outbox import _Checkpoint
from fleet.local.processes import FEDGE
from models.job import ModelSpec
from models.nets import table as nets
from models.training.checkpoint import from_bytes

pytestmark = pytest.mark.slow

Until = Callable[[Callable[[], bool]], None]

MODEL = ModelSpec(inputs=2, hidden=(8,), outputs=2)
JOB = """
name = "j"
data = "readings"
deploy = "never"
[model]
inputs = 2
hidden = [8]
outputs = 2
[rounds]
max_rounds = 100000
deadline_s = 3600
[train]
batch_size = 10
epochs = {epochs}
"""


class Two:
    """An aggregator and one agent, each a process."""

    def __init__(self, folder: Path, broker: EmbeddedBroker, source: str, models: str = "") -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        where = f'[broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
        for role, more in (
            ("aggregator", ""),
            ("agent", f"[data.readings]\n{source}\n[models]\ninference = false\n{models}"),
        ):
            (folder / f"{role}.toml").write_text(
                f'fleet = "f"\nstate_dir = "{folder / role}"\n'
                + ('device = "d"\n' if role == "agent" else "")
                + f"{where}{more}"
                + ("[limits]\ncheckpoint_s = 0.0\n" if role == "agent" else "[limits]\nspread_s = 0.0\n")
            )

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text()

    def start(self, *roles: str) -> None:
        for role in roles:
            with (self.folder / f"{role}.log").open("ab") as log:
                command = [*FEDGE, role, "run", "--config", str(self.folder / f"{role}.toml")]
                self.processes[role] = subprocess.Popen(command, stdout=log, stderr=log)

    def submit(self, epochs: int) -> None:
        (self.folder / "job.toml").write_text(JOB.format(epochs=epochs))
        command = [
            *FEDGE,
            "job",
            "submit",
            str(self.folder / "job.toml"),
            "--config",
            str(self.folder / "aggregator.toml"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        self.processes["agent"].kill()
        self.processes["agent"].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def fleet(folder: Path, broker: EmbeddedBroker, source: str, models: str = "") -> Iterator[Two]:
    two = Two(folder, broker, source, models)
    try:
        yield two
    finally:
        two.close()


def make(path: Path, n: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS readings (t, v, y)")
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", [(i % 7, i % 5, i % 2) for i in range(n)])
        connection.commit()


QUERY = 'query = "SELECT t, v, y FROM readings"'


def examples(two: Two) -> list[int]:
    """Return how many rows each training was on."""
    return [int(n) for n in re.findall(r"training job=\S+ base=\S+ examples=(\d+)", two.log("agent"))]


def test_rows_that_an_application_writes_between_two_rounds_are_trained_on_in_the_next(
    tmp_path: Path, mosquitto: EmbeddedBroker, until: Until
) -> None:
    db = tmp_path / "readings.db"
    make(db, 40)
    with fleet(tmp_path, mosquitto, f'path = "{db}"\n{QUERY}') as two:
        two.start("aggregator", "agent")
        until(lambda: "leads" in two.log("aggregator"))
        two.submit(epochs=1)
        until(lambda: len(examples(two)) >= 3)
        make(db, 25)
        until(lambda: examples(two)[-1] == 65)
        assert set(examples(two)) == {40, 65}


def checkpoint(two: Two) -> tuple[bytes, int]:
    """Return the checkpoint on the device's disk, and the epoch that it stands in; -1 where there is none."""
    for path in (two.folder / "agent" / "jobs").glob("*/checkpoint.bin"):
        if content := files.unseal(path):
            found = msgspec.msgpack.decode(content, type=_Checkpoint)
            return content, from_bytes(found.training, nets.build(MODEL).spec).epoch
    return b"", -1


@pytest.mark.parametrize("rows", ["the same rows", "other rows"])
def test_a_device_that_is_killed_in_a_training_goes_on_where_it_stood_on_the_same_rows_and_begins_anew_on_others(
    tmp_path: Path, mosquitto: EmbeddedBroker, until: Until, rows: str
) -> None:
    db = tmp_path / "readings.db"
    make(db, 40)
    with fleet(tmp_path, mosquitto, f'path = "{db}"\n{QUERY}') as two:
        two.start("aggregator", "agent")
        until(lambda: "leads" in two.log("aggregator"))
        two.submit(epochs=1_000_000)
        until(lambda: checkpoint(two)[1] >= 200)
        two.kill()
        before, epoch = checkpoint(two)
        if rows == "other rows":
            with contextlib.closing(sqlite3.connect(db)) as connection:
                connection.execute("UPDATE readings SET t = t + 1 WHERE rowid = 7")
                connection.commit()
        two.start("agent")
        until(lambda: checkpoint(two)[0] not in (b"", before))
        two.kill()
        assert (checkpoint(two)[1] >= epoch) == (rows == "the same rows")


def test_a_file_that_does_not_answer_holds_up_nothing_else(
    tmp_path: Path, mosquitto: EmbeddedBroker, until: Until
) -> None:
    """A pipe that nobody writes to. The device says that its data are being read, and ends when it is asked to."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = f'path = "{pipe}"\nformat = "os:open"\noptions = {{ path = "{pipe}", flags = 0 }}'
    listener = MqttTransport(BrokerSettings(host=mosquitto.host, port=mosquitto.port), "listener")
    listener.subscribe(Wire("f").filter_for("device"))
    listener.open()
    said: list[Presence] = []

    def told() -> bool:
        event = listener.take(0.1)
        if isinstance(event, Packet) and isinstance(message := Wire("f").unpack(event), Presence):
            said.append(message)
        return bool(said) and READING in said[-1].unready.values()

    try:
        with fleet(tmp_path, mosquitto, source, 'allow = ["os:open"]\n') as two:
            two.start("aggregator", "agent")
            until(lambda: "leads" in two.log("aggregator"))
            two.submit(epochs=1)
            until(told)
            two.processes["agent"].send_signal(signal.SIGTERM)
            assert two.processes["agent"].wait(120) == 0
            assert list((tmp_path / "agent" / "entered").iterdir()) == []
    finally:
        listener.close()
