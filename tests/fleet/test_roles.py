"""The two roles as processes: what they look at before they start, and how they end."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.embedded import EmbeddedBroker
from broker.settings import SettingsError
from fleet import roles
from fleet.cli import main
from fleet.processes import FEDGE

Until = Callable[[Callable[[], bool]], None]


def agent_toml(folder: Path, more: str = "", device: str = "d", port: int = 1) -> Path:
    np.savez(folder / "data.npz", X=np.zeros((3, 2), np.float32), y=np.arange(3))
    path = folder / "agent.toml"
    path.write_text(
        f'fleet = "f"\ndevice = "{device}"\nstate_dir = "{folder}/state"\n[broker]\nport = {port}\n{more}\n',
        encoding="utf-8",
    )
    return path


def aggregator_toml(folder: Path, more: str = "", port: int = 1) -> Path:
    path = folder / "aggregator.toml"
    path.write_text(f'fleet = "f"\nstate_dir = "{folder}/agg"\n[broker]\nport = {port}\n{more}\n', encoding="utf-8")
    return path


def test_a_good_configuration_is_said_to_be_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = agent_toml(tmp_path, f'[data.digits]\npath = "{tmp_path}/data.npz"')
    assert main(["agent", "run", "--config", str(agent), "--check"]) == 0
    aggregator = aggregator_toml(tmp_path)
    assert main(["aggregator", "run", "--config", str(aggregator), "--check"]) == 0
    assert capsys.readouterr().out == f"{agent}: good\n{aggregator}: good\n"
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "agg").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('[data.digits]\npath = "nowhere.npz"', r"\[data.digits\] path: there is no file nowhere.npz"),
        ('password_file = "/nowhere/password"', r"\[broker\]: /nowhere/password cannot be read: No such file"),
        ('ca_file = "/nowhere/ca.crt"', r"\[broker\]: /nowhere/ca.crt cannot be read"),
        ('hots = "x"', r'\[broker\] has no key "hots"; did you mean "host"'),
        ("[limits]\noutbox_bytes = 1", r"\[limits\] outbox_bytes"),
    ],
)
def test_a_bad_agent_toml_names_table_and_key(tmp_path: Path, more: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        roles.load_agent(agent_toml(tmp_path, more))


def test_a_bad_aggregator_toml_names_table_and_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[tests.digits\] path: there is no file"):
        roles.load_aggregator(aggregator_toml(tmp_path, '[tests.digits]\npath = "nowhere.npz"'))


def test_a_device_without_a_name_has_its_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = agent_toml(tmp_path)
    path.write_text('fleet = "f"\n')
    monkeypatch.setattr(socket, "gethostname", lambda: "pi-1.example.org")
    assert roles.device_name(roles.load_agent(path)) == "pi-1"
    monkeypatch.setattr(socket, "gethostname", lambda: "küche")
    with pytest.raises(SettingsError, match='this host is called "küche": set a name of letters, digits'):
        roles.load_agent(path)


def says_online(log: Path) -> bool:
    return "online" in log.read_text()


def start(*arguments: object, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen([*FEDGE, *map(str, arguments)], stdout=output, stderr=output)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["agent", "aggregator"])
def test_a_role_waits_for_its_broker_and_ends_with_0_when_asked(role: str, tmp_path: Path, until: Until) -> None:
    config = (agent_toml if role == "agent" else aggregator_toml)(tmp_path)  # port 1: nobody listens
    process = start(role, "run", "--config", config, log=tmp_path / "log")
    try:
        until(lambda: "offline" in (tmp_path / "log").read_text() or process.poll() is not None)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_second_aggregator_on_the_same_state_ends_with_1_and_the_first_ones_number(
    tmp_path: Path, until: Until, mosquitto: EmbeddedBroker
) -> None:
    config = aggregator_toml(tmp_path, port=mosquitto.port)
    first = start("aggregator", "run", "--config", config, log=tmp_path / "first.log")
    try:
        until(lambda: "online" in (tmp_path / "first.log").read_text())
        second = start("aggregator", "run", "--config", config, log=tmp_path / "second.log")
        assert second.wait(20) == 1
        assert f"is in use by process {first.pid}" in (tmp_path / "second.log").read_text()
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()


@pytest.mark.slow
def test_an_aggregator_on_another_machine_stops_the_older_one_of_the_same_fleet(
    tmp_path: Path, until: Until, mosquitto: EmbeddedBroker
) -> None:
    processes: list[Any] = []
    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            config = aggregator_toml(tmp_path / name, port=mosquitto.port)
            more = ["--take-over"] if name == "b" else []
            processes.append(start("aggregator", "run", "--config", config, *more, log=tmp_path / f"{name}.log"))
            until(partial(says_online, tmp_path / f"{name}.log"))
        assert processes[0].wait(20) == 1
        assert "another aggregator is at work on fleet f" in (tmp_path / "a.log").read_text()
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()
