"""The two roles as processes: what they look at before they start, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.embedded import EmbeddedBroker
from edge_agent.vitals import DAILY_BYTES
from fleet import roles
from fleet.cli import main
from fleet.local.meter import Meter
from fleet.local.processes import FEDGE
from runtime.settings import SettingsError

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
    assert capsys.readouterr().out.splitlines()[-1] == f"{agent}: good"
    aggregator = aggregator_toml(tmp_path)
    assert main(["aggregator", "run", "--config", str(aggregator), "--check"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{aggregator}: good"
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "agg").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('password_file = "/nowhere/password"', r"\[broker\]: /nowhere/password cannot be read: No such file"),
        ('ca_file = "/nowhere/ca.crt"', r"\[broker\]: /nowhere/ca.crt cannot be read"),
        ('host = "tcp://x:1883"', r'\[broker\] host: "tcp://x:1883" is none'),
        (f'host = "{"ü" * 63}"', r"\[broker\] host: ü+ is no name of a host"),
        ('[data.digits]\npath = "agent.toml"', r"\[data.digits\] path: agent.toml is none of .npz, .csv"),
        ('certificate_file = "agent.toml"', r"\[broker\] certificate_file: without a ca_file the conn"),
        ('key_file = "agent.toml"', r"\[broker\] key_file: a key is of no use"),
        ('password_file = "agent.toml"', r"\[broker\] password_file: no password is sent without a username"),
        ('hots = "x"', r'\[broker\] has no key "hots"; did you mean "host"'),
        ("[limits]\noutbox_bytes = 1", r"\[limits\] outbox_bytes"),
    ],
)
def test_a_bad_agent_toml_names_table_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=why):
        roles.load_agent(agent_toml(tmp_path, more))


def test_a_bad_aggregator_toml_names_table_and_key(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"\[tests.digits\] path: nowhere.xls: is a workbook of a spreadsheet: save its table as CSV",
    ):
        roles.load_aggregator(aggregator_toml(tmp_path, '[tests.digits]\npath = "nowhere.xls"'))


@pytest.mark.parametrize("name", ["nowhere.npz", f"{'x' * 300}.csv"])
def test_a_file_that_is_not_there_now_is_no_reason_not_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It may be on a disk that is mounted late; and other jobs do not need it."""
    agent = roles.load_agent(agent_toml(tmp_path, f'[data.digits]\npath = "{name}"'))
    aggregator = roles.load_aggregator(aggregator_toml(tmp_path, f'[tests.digits]\npath = "{name}"'))
    roles._miss("data", agent.data)
    roles._miss("tests", aggregator.tests)
    assert f"[data.digits] path: there is no file {name}" in caplog.text
    assert f"[tests.digits] path: there is no file {name}" in caplog.text


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
def test_who_asks_a_second_time_does_not_wait_for_a_job_that_hangs(
    tmp_path: Path, until: Until, mosquitto: EmbeddedBroker
) -> None:
    hangs = tmp_path / "hanging"
    (tmp_path / "hangs.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(hangs)!r}).write_text(str(os.getpid()))\ntime.sleep(1000)\n"
    )
    config = aggregator_toml(tmp_path, '[models]\nallow = ["hangs:net"]', port=mosquitto.port)
    job = tmp_path / "job.toml"
    job.write_text('name = "hangs"\n[model]\nkind = "hangs:net"\ninputs = 2\noutputs = 2\n')
    with (tmp_path / "log").open("wb") as output:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = [*FEDGE, "aggregator", "run", "--config", str(config)]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    operator = None
    try:
        until(lambda: "leads" in (tmp_path / "log").read_text())
        operator = start("job", "submit", job, "--config", config, log=tmp_path / "said")
        until(lambda: hangs.exists() and hangs.read_text() != "")
        process.send_signal(signal.SIGTERM)
        time.sleep(roles.AGAIN_S + 0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
        until(lambda: not Path(f"/proc/{hangs.read_text()}").exists())
    finally:
        for one in filter(None, (process, operator)):
            one.kill()
            one.wait()


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
def test_an_aggregator_that_is_replaced_stands_by_or_exits_with_3_as_it_was_told(
    tmp_path: Path, until: Until, mosquitto: EmbeddedBroker
) -> None:
    processes: list[Any] = []

    def begin(name: str, *more: str) -> Path:
        (tmp_path / name).mkdir()
        config, log = aggregator_toml(tmp_path / name, port=mosquitto.port), tmp_path / f"{name}.log"
        processes.append(start("aggregator", "run", "--config", config, *more, log=log))
        return log

    def says(log: Path, words: str) -> bool:
        return words in log.read_text()

    try:
        first = begin("a")
        until(partial(says, first, "leads fleet=f term=1"))
        second = begin("b")
        until(partial(says, second, "stands by"))
        begin("c", "--exit-when-replaced")
        assert processes[2].wait(20) == 3
        last = begin("d", "--take-over")
        until(partial(says, last, "leads fleet=f term=2"))
        until(partial(says, first, "stands by"))
        assert [process.poll() for process in processes] == [None, None, 3, None]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_an_idle_device_costs_less_than_20_kb_a_day(tmp_path: Path, until: Until, mosquitto: EmbeddedBroker) -> None:
    """Counted by a proxy from ping to ping, at a keepalive of 5 s: at the default of 60 s a day has 1,440 of them."""
    meter = Meter(mosquitto.host, mosquitto.port)
    port = meter.start()
    job = tmp_path / "job.toml"
    job.write_text(
        'name = "j"\ndata = "j"\n[model]\nkind = "mlp"\ninputs = 2\noutputs = 3\n[rounds]\nmin_devices = 2\n'
    )
    (tmp_path / "agg").mkdir()
    server = aggregator_toml(tmp_path / "agg", port=mosquitto.port)
    device = agent_toml(tmp_path, f'keepalive_s = 5\n[data.j]\npath = "{tmp_path}/data.npz"', port=port)
    processes = [
        start("aggregator", "run", "--config", server, log=tmp_path / "aggregator.log"),
        start("agent", "run", "--config", device, log=tmp_path / "agent.log"),
    ]

    def pings() -> int:
        return meter.totals().down.packets["PINGRESP"]

    try:
        until(lambda: "online" in (tmp_path / "agent.log").read_text())
        submit = start("job", "submit", job, "--config", server, log=tmp_path / "submit.log")
        assert submit.wait(20) == 0, (tmp_path / "submit.log").read_text()
        until(lambda: "takes part" in (tmp_path / "agent.log").read_text())
        until(
            lambda: "2 devices that can take part are needed, 1 is there" in (tmp_path / "aggregator.log").read_text()
        )
        until(lambda: meter.totals().up.words["vitals"] > 0)  # it has said how it is, for the next quarter of an hour
        seen = pings()
        until(lambda: pings() > seen)  # whatever followed from the job has been said by then
        first, before = pings(), meter.totals()
        until(lambda: pings() > first)
        after = meter.totals()
    finally:
        for process in processes:
            process.kill()
            process.wait()
        meter.stop()
    said = after.up.packets["PUBLISH"] + after.down.packets["PUBLISH"]
    assert said == before.up.packets["PUBLISH"] + before.down.packets["PUBLISH"], "it is not idle"
    spent = after.up.wire_bytes + after.down.wire_bytes - before.up.wire_bytes - before.down.wire_bytes
    assert spent >= 2 + 2, "a ping there, and one back"
    assert spent * 1440 + DAILY_BYTES + before.up.wire_bytes + before.down.wire_bytes < 20_000
