from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import notify


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[socket.socket]:
    """The socket that systemd would listen on, in both of its forms."""
    name = f"@fedge-{secrets.token_hex(8)}" if request.param == "abstract" else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        listener.settimeout(5.0)
        yield listener


def heard(supervisor: socket.socket) -> list[str]:
    return supervisor.recv(4096).decode().split("\n")


def test_ready_says_so_with_what_it_is_doing(supervisor: socket.socket) -> None:
    assert notify.ready("waiting for a job")
    assert heard(supervisor) == ["READY=1", "STATUS=waiting for a job"]


def test_ready_alone_is_one_line(supervisor: socket.socket) -> None:
    assert notify.ready()
    assert heard(supervisor) == ["READY=1"]


def test_each_word_is_a_datagram_of_its_own(supervisor: socket.socket) -> None:
    assert notify.alive()
    assert notify.status("training digits")
    assert notify.stopping()
    assert [heard(supervisor) for _ in range(3)] == [
        ["WATCHDOG=1"],
        ["STATUS=training digits"],
        ["STOPPING=1"],
    ]


def test_a_line_break_in_a_status_cannot_smuggle_another_assignment(supervisor: socket.socket) -> None:
    notify.status("job a\nMAINPID=1\r\nFDSTORE=1")
    assert heard(supervisor) == ["STATUS=job a MAINPID=1 FDSTORE=1"]


def test_an_endless_status_is_cut(supervisor: socket.socket) -> None:
    notify.status("x" * 100_000)
    assert len(heard(supervisor)[0]) == len("STATUS=") + notify.MAX_STATUS_CHARACTERS


@pytest.mark.parametrize("name", ["", "relative/path", "vsock:2:1234"])
def test_nobody_to_tell_is_no_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify.ready()


def test_without_the_variable_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.alive()


@pytest.mark.parametrize("name", ["gone", "x" * 200])
def test_a_supervisor_that_cannot_be_reached_is_logged_and_survived(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))
    assert not notify.ready("hello")
    assert "event=notify_failed" in caplog.text


def test_the_watchdog_is_fed_twice_per_timeout() -> None:
    mine = {"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": str(os.getpid())}
    assert notify.watchdog_interval_s(mine) == 90.0
    assert notify.watchdog_interval_s({"WATCHDOG_USEC": "5000000"}) == 2.5


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "me"},
        {"WATCHDOG_USEC": "9" * 400},
    ],
)
def test_an_unwatched_process_has_no_interval(environment: dict[str, str]) -> None:
    assert notify.watchdog_interval_s(environment) is None


def test_the_interval_comes_from_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notify.watchdog_interval_s() == 2.0
