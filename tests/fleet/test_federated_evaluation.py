"""Three devices score what they train on; the aggregator has no test data, and is killed in the middle of a round."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.embedded import EmbeddedBroker
from fleet.cli import main
from fleet.local.processes import FEDGE

pytestmark = pytest.mark.slow

Until = Callable[..., None]
DEVICES = ("d0", "d1", "d2")
JOB = """
name = "pumps"
[model]
inputs = 2
hidden = [8]
outputs = 2
[contract]
features = ["temp", "vib"]
label = "state"
classes = ["ok", "fault"]
validation = 0.2
[train]
epochs = 300
learning_rate = 0.0002
[rounds]
quorum = 3
min_devices = 3
wait = "all"
deadline_s = 600
max_rounds = 100
max_share = 0.4
[rounds.stop]
metric = "balanced_accuracy"
target = 0.93
"""


class Pumps:
    """An aggregator and three agents, each a process; every agent has a CSV, its columns in an order of its own."""

    def __init__(self, folder: Path, broker: EmbeddedBroker) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        where = f'[broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
        head = f'fleet = "f"\nstate_dir = "{folder}/{{name}}"\n{{more}}{where}'
        (folder / "aggregator.toml").write_text(
            head.format(name="aggregator", more="") + "[limits]\nspread_s = 0.0\nheartbeat_s = 1.0\n"
        )
        for seed, device in enumerate(DEVICES):
            rng = np.random.default_rng(seed)
            faults = rng.random(120) < 0.4
            vib, temp = rng.normal(2.0 * faults, 0.6), rng.normal(1.0 * faults, 0.6)
            columns = {"temp": temp, "vib": vib, "state": np.where(faults, "fault", "ok")}
            names = list(columns)[seed:] + list(columns)[:seed]
            lines = [",".join(names), *(",".join(str(columns[name][i]) for name in names) for i in range(120))]
            (folder / f"{device}.csv").write_text("\n".join(lines) + "\n")
            source = f'[data.pumps]\npath = "{folder / device}.csv"\n'
            (folder / f"{device}.toml").write_text(head.format(name=device, more=f'device = "{device}"\n') + source)
        (folder / "job.toml").write_text(JOB)

    def start(self, *names: str) -> None:
        for name in names:
            role = "aggregator" if name == "aggregator" else "agent"
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [*FEDGE, role, "run", "--config", str(self.folder / f"{name}.toml")]
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def pumps(tmp_path: Path, mosquitto: EmbeddedBroker) -> Iterator[Pumps]:
    with contextlib.closing(Pumps(tmp_path, mosquitto)) as fleet:
        fleet.start("aggregator", *DEVICES)
        yield fleet


def test_a_job_is_stopped_and_its_last_version_scored_by_devices_alone(
    pumps: Pumps, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ("--config", str(pumps.folder / "aggregator.toml"))

    def ask(*words: str) -> str:
        capsys.readouterr()
        assert main(["job", *words, *config]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    def line() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask("list", "--json"))["jobs"][0]
        return found

    def devices() -> list[dict[str, Any]]:
        return brought(ask)

    ask("submit", str(pumps.folder / "job.toml"))
    until(lambda: int(line()["version"][2:]) >= 1, 60.0)

    # One device is held up in mid-round; what the others have said outlives the aggregator.
    pumps.processes["d2"].send_signal(signal.SIGSTOP)
    until(lambda: sum(one.get("counted", False) for one in devices()) % 3 == 2, 60.0)
    said = [one for one in devices() if one.get("counted")][-2:]
    pumps.kill("aggregator")
    pumps.start("aggregator")
    pumps.processes["d2"].send_signal(signal.SIGCONT)
    until(lambda: line()["state"] == "finished", 120.0)
    assert all(one["scores"]["n"] > 5 for one in said)
    kept = {(one["version"], one["device"]): one for one in devices()}
    for one in said:
        assert kept[one["version"], one["device"]]["scores"] == one["scores"]
        assert kept[one["version"], one["device"]]["fate"] == "counted"

    # By no other word than the devices'.
    last = int(line()["version"][2:])
    assert line()["reason"].startswith("balanced_accuracy 0.9")
    assert ", by its devices: 3 of them, on rows that they hold back" in line()["reason"]

    def by_devices() -> tuple[int, int]:
        told = json.loads(ask("show", "pumps", "--json"))["federated"]
        return told["version"], told["devices"]

    until(lambda: by_devices() == (last, 3), 60.0)
    versions = json.loads(ask("metrics", "pumps", "--json"))["versions"]
    unscored = versions.pop(last - 1)  # made by the round in which devices said that the one before is good enough
    assert "balanced_accuracy" not in unscored["metrics"]
    assert versions[last - 2]["metrics"]["balanced_accuracy"] >= 0.93
    assert all(one["metrics"]["balanced_accuracy"] < 0.93 for one in versions[: last - 2])
    assert all(one["federated"]["devices"] == 3 for one in versions)
    assert f"version 1.{last} is version {last - 2} again" in line()["reason"]
    shown = ask("show", "pumps")
    assert f"version {last} by 3 devices, on " in shown
    assert "fault " in shown

    # What it costs a device, each round.
    costs = [one["body_bytes"] for one in devices() if one["version"] == 0]
    assert all(cost < 100 for cost in costs)  # 16 bytes of the frame, some 25 of the scoring, and the sketch


def test_who_is_away_at_the_end_says_it_when_it_is_back(
    pumps: Pumps, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ("--config", str(pumps.folder / "aggregator.toml"))

    def ask(*words: str) -> str:
        capsys.readouterr()
        assert main(["job", *words, *config]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    def show() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask("show", "pumps", "--json"))
        return found

    ask("submit", str(pumps.folder / "job.toml"))
    until(lambda: int(show()["job"]["version"][2:]) >= 2, 60.0)
    pumps.kill("d1")
    until(lambda: sum(one.get("counted", False) for one in brought(ask)) % 3 == 2, 60.0)
    ask("stop", "pumps")
    last = int(show()["job"]["version"][2:])
    until(lambda: (show()["federated"]["version"], show()["federated"]["devices"]) == (last, 2), 60.0)
    pumps.kill("aggregator")
    pumps.start("aggregator", "d1")
    until(lambda: (show()["federated"]["version"], show()["federated"]["devices"]) == (last, 3), 60.0)
    assert show()["job"]["state"] == "stopped"
    assert {one["device"] for one in brought(ask) if one["version"] == last and one["scores"]["n"]} == set(DEVICES)


def brought(ask: Callable[..., str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ask("metrics", "pumps", "--devices", "--json"))["devices"]
    return found
