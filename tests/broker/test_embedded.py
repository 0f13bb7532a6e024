from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker import embedded
from broker.embedded import Kind, start_broker
from broker.errors import StartError

PATIENCE_S = 120.0


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, waiting for it (a zombie has)."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_broker_answers_from_its_start_to_its_stop(tmp_path: Path, kind: Kind) -> None:
    with start_broker(tmp_path / "new folder", prefer=kind) as broker:
        assert broker.kind == kind
        assert answers(broker.port)
        pid = broker.pid
    assert not answers(broker.port)
    assert is_gone(pid)


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_killed_broker_starts_again_on_its_port(tmp_path: Path, kind: Kind) -> None:
    with start_broker(tmp_path, prefer=kind) as broker:
        old = broker.pid
        broker.kill()
        broker.kill()
        assert not answers(broker.port)
        broker.stop()
        broker.start()
        assert broker.pid != old
        assert answers(broker.port)


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_the_broker_dies_with_its_parent(tmp_path: Path, kind: Kind, death: signal.Signals) -> None:
    program = (
        "import sys, time; from pathlib import Path; from broker.embedded import start_broker\n"
        "broker = start_broker(Path(sys.argv[1]), prefer=sys.argv[2])\n"
        "print(broker.pid, flush=True); time.sleep(1000)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), kind], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(death)
    assert is_gone(pid)


def test_a_wrong_configuration_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(StartError, match='Unknown configuration variable "nonsense"'):
        start_broker(tmp_path, prefer="mosquitto", config_lines=["nonsense true"])


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with (
        start_broker(tmp_path / "one", prefer="mosquitto") as one,
        pytest.raises(StartError, match="in use"),
    ):
        start_broker(tmp_path / "two", prefer="mosquitto", port=one.port)


def test_config_lines_are_not_for_amqtt(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="mosquitto"):
        start_broker(tmp_path, prefer="amqtt", config_lines=["persistence true"])


def test_without_mosquitto_amqtt_steps_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_mosquitto", lambda: None)
    with start_broker(tmp_path) as broker:
        assert broker.kind == "amqtt"
    with pytest.raises(StartError, match="apt install mosquitto"):
        start_broker(tmp_path, prefer="mosquitto")


def test_without_any_broker_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_mosquitto", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(StartError, match="pip install amqtt"):
        start_broker(tmp_path)


def test_a_broker_that_is_not_running_has_no_process(tmp_path: Path) -> None:
    with start_broker(tmp_path) as broker:
        broker.stop()
        with pytest.raises(StartError, match="not running"):
            _ = broker.pid
