"""A device that trains on a live topic of its site's broker, with real processes and two real brokers."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from broker.messages import Presence
from broker.transport import Packet
from broker.wire import Wire
from fleet.local.processes import FEDGE
from models.data import ring_file
from models.data.ring_file import is_whole, segments

pytestmark = pytest.mark.slow

Until = Callable[[Callable[[], bool]], None]
JOB = """
name = "j"
data = "hall"
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
epochs = 1
"""


class Site:
    """An aggregator and one agent, each a process; the site's broker, and a sensor there that speaks for ever."""

    def __init__(self, folder: Path, fleet: EmbeddedBroker, site: EmbeddedBroker) -> None:
        self.folder, self.ring = folder, folder / "agent" / "live" / "hall.ring"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        where = f'[broker]\nhost = "{fleet.host}"\nport = {fleet.port}\n'
        (folder / "aggregator.toml").write_text(
            f'fleet = "f"\nstate_dir = "{folder / "aggregator"}"\n{where}[limits]\nspread_s = 0.0\n'
        )
        self.agent = (
            f'fleet = "f"\nstate_dir = "{folder / "agent"}"\ndevice = "d"\n{where}[models]\ninference = false\n'
        )
        self.configure(site.port)
        self._sensor = MqttTransport(BrokerSettings(port=site.port), "sensor")
        self._sensor.open()
        self._quiet = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def configure(self, port: int) -> None:
        (self.folder / "agent.toml").write_text(
            f"{self.agent}[limits]\npresence_s = 0.1\n[data.hall.mqtt]\nport = {port}\nsync_s = 0.05\nperiod_s = 0.02\n"
            'tolerance_s = 1.0\nstall_s = 2.0\ntopics = ["hall/state", "hall/v"]\nfields = ["t", "v", "y"]\n'
        )

    def _speak(self) -> None:
        for i in itertools.count():
            if self._ended.wait(0.01):
                return
            self._sensor.take(0.0)
            if not self._quiet.is_set():
                state = json.dumps({"t": i % 7, "y": i % 2}).encode()
                self._sensor.publish(Packet("hall/state", state))
                self._sensor.publish(Packet("hall/v", json.dumps({"v": i % 5}).encode()))

    def be_quiet(self) -> None:
        self._quiet.set()

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text()

    def start(self, *roles: str) -> None:
        for role in roles:
            with (self.folder / f"{role}.log").open("ab") as log:
                command = [*FEDGE, role, "run", "--config", str(self.folder / f"{role}.toml")]
                self.processes[role] = subprocess.Popen(command, stdout=log, stderr=log)

    def fedge(self, *words: str, config: str = "aggregator.toml") -> subprocess.CompletedProcess[str]:
        command = [*FEDGE, *words, "--config", str(self.folder / config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def submit(self) -> None:
        (self.folder / "job.toml").write_text(JOB)
        done = self.fedge("job", "submit", str(self.folder / "job.toml"))
        assert done.returncode == 0, done.stderr

    def rows(self) -> list[dict[str, ring_file.Value]]:
        if not segments(self.ring):
            return []
        ring = ring_file.Ring(str(self.ring))
        try:
            return list(ring.rows())
        finally:
            ring.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._sensor.close()
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def hall(tmp_path: Path, mosquitto: EmbeddedBroker) -> Iterator[Site]:
    with (
        start_broker(tmp_path / "site", prefer="mosquitto") as broker,
        contextlib.closing(Site(tmp_path, mosquitto, broker)) as site,
    ):
        yield site


def examples(site: Site) -> list[int]:
    """Return how many rows each training was on."""
    return [int(n) for n in re.findall(r"training job=\S+ base=\S+ examples=(\d+)", site.log("agent"))]


def test_a_device_trains_on_what_it_hears_and_a_kill_while_readings_come_leaves_a_whole_ring(
    hall: Site, until: Until
) -> None:
    hall.start("aggregator", "agent")
    until(lambda: "leads" in hall.log("aggregator"))
    until(lambda: sum(len(row) == 4 for row in hall.rows()) > 30)
    hall.submit()
    until(lambda: len(examples(hall)) >= 2 and examples(hall)[-1] > examples(hall)[0])

    def grows_beyond(rows: list[dict[str, ring_file.Value]]) -> None:
        until(lambda: len(hall.rows()) > len(rows) + 20)

    for _ in range(3):
        before = hall.rows()
        grows_beyond(before)
        hall.processes["agent"].kill()
        hall.processes["agent"].wait()
        kept = hall.rows()
        assert kept[: len(before)] == before
        hall.start("agent")
        grows_beyond(kept)
        assert hall.rows()[: len(kept)] == kept
    for path in segments(hall.ring):
        assert all(is_whole(line) for line in path.read_bytes().splitlines())
    hall.processes["agent"].send_signal(signal.SIGINT)
    assert hall.processes["agent"].wait(120) == 0


def test_an_operator_is_told_on_the_job_of_a_stalled_topic_and_the_command_says_what_was_kept(
    hall: Site, until: Until, mosquitto: EmbeddedBroker
) -> None:
    hall.start("aggregator", "agent")
    until(lambda: "leads" in hall.log("aggregator"))
    until(lambda: sum(len(row) == 4 for row in hall.rows()) > 30)
    hall.submit()
    until(lambda: len(examples(hall)) >= 1)
    hall.be_quiet()
    listener = MqttTransport(BrokerSettings(port=mosquitto.port), "listener")
    listener.subscribe(Wire("f").filter_for("device"))
    listener.open()
    said: list[str] = []

    def told() -> bool:
        event = listener.take(0.1)
        if isinstance(event, Packet) and isinstance(message := Wire("f").unpack(event), Presence):
            said.extend(message.trouble.values())
        return any("its data: no reading from topic hall/state since" in text for text in said)

    try:
        until(told)
    finally:
        listener.close()
    shown = json.loads(hall.fedge("agent", "source", "hall", "--json", config="agent.toml").stdout)
    assert shown["rows"] == len(hall.rows())
    assert shown["rows_per_s"] > 1
    assert shown["age_s"] >= 2
    assert shown["written_bytes_per_day"] > shown["disk_bytes"] > 0
    text = hall.fedge("agent", "source", "hall", config="agent.toml").stdout
    assert f"{shown['rows']:,} rows" in text
    assert "MB a day to the card" in text
    unknown = hall.fedge("agent", "source", "cellar", config="agent.toml")
    assert unknown.returncode == 2
    assert "[data.cellar] is no source with a table mqtt; there is hall" in unknown.stderr
    checked = hall.fedge("agent", "run", "--check", "--json", config="agent.toml")
    assert checked.returncode == 0, checked.stdout
    assert "listens to hall/state, hall/v at 127.0.0.1" in checked.stdout


def test_the_fleets_broker_as_a_source_is_a_mistake_that_ends_the_start(hall: Site, mosquitto: EmbeddedBroker) -> None:
    hall.configure(mosquitto.port)
    for more in ((), ("--check",)):
        done = hall.fedge("agent", "run", *more, config="agent.toml")
        assert done.returncode == 2
        assert "[data.hall.mqtt]: 127.0.0.1" in done.stderr
        assert "is the broker of the fleet itself" in done.stderr
    assert not hall.ring.exists()
