"""What a person sees of a real fleet from a terminal: watch, device, events, job show, job plot."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from broker.connection import BrokerSettings
from broker.embedded import start_broker
from fleet.cli import main
from fleet.console import joblines, operator
from fleet.local import stage
from fleet.local.processes import Children
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from models.job import JobSpec, ModelSpec
from runtime.children import environment
from tests.fleet.conftest import JOB, Until, blobs
from tests.terminal import heard

Ask = Callable[..., str]


class Running(NamedTuple):
    """A fleet with a job of forty rounds. config: its aggregator.toml."""

    config: Path
    port: int


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("watched")
    data, spec = blobs(120), JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    with start_broker(folder / "mosquitto", prefer="mosquitto") as broker, Children() as children:
        where = BrokerSettings(port=broker.port, protocol=broker.protocol)
        built = stage.build(folder / "fleet", spec, dealt(data, deal("iid", data.y, 2, 0)), blobs(60, seed=1), where)
        stage.start(children, built)
        give_up_at = time.monotonic() + 60
        while "leads" not in built.aggregator.log.read_text():
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
        job = folder / "blobs.toml"
        job.write_text(JOB.format(name="blobs", max_rounds=40), encoding="utf-8")
        assert main(["job", "submit", str(job), "--config", str(built.aggregator.config)]) == 0
        yield Running(built.aggregator.config, broker.port)
        children.check()


@pytest.fixture
def ask(running: Running, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, "--config", str(running.config)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return ask


def test_one_picture_where_nobody_looks_and_all_of_it_as_json(ask: Ask, until: Until) -> None:
    def is_at_work() -> bool:
        seen: dict[str, Any] = json.loads(ask("watch", "--json"))
        states = [device["state"] for device in seen["devices"].values()]
        return states == ["online", "online"] and [job["name"] for job in seen["jobs"].values()] == ["blobs"]

    until(is_at_work)
    text = ask("watch")
    assert "2 devices: 2 online" in text
    assert re.search(r"^blobs +(running|waiting|finished) +1\.\d+ ", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_devices_are_listed_shown_put_in_quarantine_and_released(ask: Ask) -> None:
    listed = json.loads(ask("device", "list", "--json"))["devices"]
    assert [device["device"] for device in listed] == ["device-00", "device-01"]
    assert re.search(r"^device-01 +online ", ask("device", "list"), re.MULTILINE)

    assert "in quarantine" in ask("device", "quarantine", "device-01", "--why", "loose")
    shown = json.loads(ask("device", "show", "device-01", "--json"))
    assert (shown["device"]["state"], shown["device"]["quarantine"]) == ("quarantined", "loose")
    assert shown["rounds"][0]["name"] == "blobs"
    assert "device.quarantined" in ask("events", "--device", "device-01")
    assert json.loads(ask("device", "release", "device-01", "--json"))["device"] == "device-01"
    assert re.search(r"state +online", ask("device", "show", "device-01"))


def test_events_are_said_the_earliest_first_and_filtered(ask: Ask) -> None:
    rows = [json.loads(line) for line in ask("events", "--json", "--most", "200").splitlines()]
    assert [row["n"] for row in rows] == sorted(row["n"] for row in rows)
    assert {"aggregator.leads", "job.submitted"} <= {row["kind"] for row in rows}
    assert {json.loads(line)["kind"] for line in ask("events", "--json", "--kind", "job.submitted").splitlines()} == {
        "job.submitted"
    }


def test_a_job_is_shown_with_its_curves_and_drawn(ask: Ask, tmp_path: Path, until: Until) -> None:
    until(lambda: len(json.loads(ask("job", "metrics", "blobs", "--json"))["versions"]) > 2)
    assert re.search(r"^ +accuracy +[▁-█]+ +0\.\d+ to ", ask("job", "show", "blobs"), re.MULTILINE)
    out = tmp_path / "blobs.png"
    drawn = json.loads(ask("job", "plot", "blobs", "--out", str(out), "--json"))
    assert {"accuracy", "loss", "participants", "update bytes"} <= set(drawn["curves"])
    assert out.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_is_said_in_a_line(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(running.config)]
    for words, told in (
        (["device", "show", "nobody"], "nothing has been heard of a device nobody"),
        (["job", "plot", "blobs", "--out", "x.pdf"], "ends in .png"),
        (["job", "plot", "blobs", "--out", "/no/where.png"], "cannot be written"),
        (["watch", "--follow"], "--follow goes with --json"),
        (["watch", "--once", "--json"], "choose one of them"),
    ):
        assert main([*words, *config]) != 0
        assert told in capsys.readouterr().err


Follow = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def follow(running: Running) -> Iterator[Follow]:
    """A command whose lines are read as they come; what it has to complain about is known at its end."""
    followed: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "fleet.cli", *words, "--config", str(running.config)]
        with heard(signal.SIGINT):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            followed.append(subprocess.Popen(command, env=environment(), **pipes))  # type: ignore[call-overload]
        return followed[-1]

    yield start
    for process in followed:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    assert process.stderr is not None
    return process.wait(120), process.stderr.read()


def test_a_job_is_followed_as_a_line_of_json_a_change_until_it_ends(ask: Ask, follow: Follow, tmp_path: Path) -> None:
    job = tmp_path / "more.toml"  # which waits for a device that will never be there
    job.write_text(JOB.format(name="more", max_rounds=5) + "min_devices = 3\n", encoding="utf-8")
    ask("job", "submit", str(job))
    one, other = (follow("job", "show", "more", "--follow", "--json") for _ in range(2))
    lines = [line_of(one)]
    assert line_of(other)["job"]["name"] == "more"
    assert other.stdout is not None
    other.stdout.close()  # as `| head -1` does
    ask("job", "pause", "more")
    while lines[-1]["job"]["state"] != "paused":
        lines.append(line_of(one))
    ask("job", "stop", "more")
    lines += [json.loads(line) for line in one.communicate(timeout=120)[0].splitlines()]
    assert (one.returncode, lines[-1]["job"]["state"]) == (0, "stopped")
    assert ended(other) == (0, b"")
    assert all(line != after for line, after in itertools.pairwise(lines))
    ask("job", "delete", "more")


def test_who_follows_a_job_is_not_shown_another_that_takes_its_name(ask: Ask, follow: Follow, tmp_path: Path) -> None:
    job = tmp_path / "again.toml"
    job.write_text(JOB.format(name="again", max_rounds=5) + "min_devices = 3\n", encoding="utf-8")
    first = ask("job", "submit", str(job)).split()[0]
    one = follow("job", "show", "again", "--follow", "--json")
    lines = [line_of(one)]
    one.send_signal(signal.SIGSTOP)  # it looks only now and then
    ask("job", "stop", "again")
    ask("job", "submit", str(job))
    one.send_signal(signal.SIGCONT)
    out, said = one.communicate(timeout=120)
    lines += [json.loads(line) for line in out.splitlines()]
    assert {line["job"]["job"] for line in lines} == {first}
    assert one.returncode == 1
    assert f"{first} was deleted, or replaced by another job again" in said.decode()
    ask("job", "stop", "again")
    for each in ("again", first):
        ask("job", "delete", each)


def test_who_follows_a_job_waits_while_nobody_answers(running: Running) -> None:
    config, told = operator.load_config(running.config), list[str]()
    job = joblines.Followed(config, "blobs", told.append)
    before = job.details
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "PATIENCE_S", 0.5)
        patch.setattr(job, "_config", structs.replace(config, fleet="nobodys"))  # which no aggregator leads
        assert job.look() is before
        assert job.versions() is None
        assert told == [job.away]
        assert "no aggregator of fleet nobodys answers" in job.away
    assert job.look().job.job == before.job.job
    assert job.away == ""
    assert job.versions()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_is_followed_ends_cleanly_with_a_signal(follow: Follow, how: signal.Signals) -> None:
    words = ["events", "--follow", "--json"] if how == signal.SIGINT else ["watch", "--json", "--follow"]
    process = follow(*words)
    assert line_of(process)
    process.send_signal(how)
    assert ended(process) == (0, b"")


def test_what_is_followed_ends_with_its_reader_though_nothing_happens(ask: Ask, follow: Follow, tmp_path: Path) -> None:
    job = tmp_path / "quiet.toml"
    job.write_text(JOB.format(name="quiet", max_rounds=5) + "min_devices = 3\n", encoding="utf-8")
    ask("job", "submit", str(job))
    ask("job", "pause", "quiet")
    process = follow("job", "show", "quiet", "--follow", "--json")
    assert line_of(process)["job"]["state"] == "paused"
    assert process.stdout is not None
    process.stdout.close()  # as `| head -1` does
    assert ended(process) == (0, b"")
    ask("job", "stop", "quiet")
    ask("job", "delete", "quiet")


class Terminal:
    """A program in a terminal of so many columns and rows, that somebody looks at and types in."""

    def __init__(self, command: list[str], columns: int, rows: int) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        with heard(signal.SIGINT):
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment(TERM="xterm"),
                start_new_session=True,
            )
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def look(self, until: Callable[[str], bool], timeout_s: float = 120.0) -> str:
        """Return all that was written, once this holds of it."""
        give_up_at = time.monotonic() + timeout_s
        while not until(self.seen.decode(errors="replace")):
            assert time.monotonic() < give_up_at, self.seen[-3000:]
            if select.select([self.ours], [], [], 0.2)[0]:
                self.seen += os.read(self.ours, 65536)
        return self.seen.decode(errors="replace")

    def end(self) -> None:
        """Wait for its end, and hold that the terminal is as it was."""
        self.look(lambda text: text.endswith("\x1b[?25h\x1b[?1049l"))
        assert self.process.wait(120) == 0
        assert termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(running: Running) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def terminal(*words: str, columns: int = 80, rows: int = 24) -> Terminal:
        command = [sys.executable, "-P", "-m", "fleet.cli", *words, "--config", str(running.config)]
        opened.append(Terminal(command, columns, rows))
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()


def last_screen(text: str) -> list[str]:
    """Return the last whole screen that was drawn, without colours."""
    return re.sub(r"\x1b\[\d*m", "", text.rsplit("\x1b[H", 1)[1]).replace("\x1b[K", "").replace("\r", "").split("\n")


def test_a_watched_fleet_is_drawn_again_in_another_size_and_q_leaves_the_terminal_clean(
    terminal: Callable[..., Terminal],
) -> None:
    one = terminal("watch")
    text = one.look(lambda text: "2 online" in text and "blobs" in text)
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    assert "\x1b[32maggregator online" in text
    one.seen = b""
    one.resize(60, 8)
    one.process.send_signal(signal.SIGWINCH)
    one.look(lambda text: text.count("\x1b[H") >= 2)
    lines = last_screen(one.seen.decode().rsplit("\x1b[J", 1)[0])
    assert 1 < len(lines) <= 8
    assert max(map(len, lines)) <= 60
    os.write(one.ours, b"q")
    one.end()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_clean_too(terminal: Callable[..., Terminal], how: signal.Signals) -> None:
    one = terminal("job", "show", "blobs", "--follow") if how == signal.SIGINT else terminal("watch")
    one.look(lambda text: "blobs" in text)
    one.process.send_signal(how)
    one.end()
