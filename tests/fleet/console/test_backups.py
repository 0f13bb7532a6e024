"""Backups as an operator makes them: of an aggregator that runs, with a fleet that does not wait for them."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from aggregator.store import Store
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, on_leash
from fleet.cli import main
from fleet.console import backups
from fleet.local import stage
from fleet.local.processes import FEDGE, Children
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec

JOB = """
name = "blobs"
deploy = "never"
[model]
inputs = 4
hidden = [8]
outputs = 3
[rounds]
quorum = 2
max_rounds = 100_000
"""
Until = Callable[[Callable[[], bool]], None]
SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))


def config_of(folder: Path) -> Path:
    path = folder / "aggregator.toml"
    path.write_text(f'fleet = "f"\nstate_dir = "{folder}/state"\n', encoding="utf-8")
    return path


def a_store(folder: Path) -> Store:
    store = Store(folder / "state", synced=False)
    store.add_job("digits-1", SPEC, "0" * 64, zlib.crc32(b"state").to_bytes(4, "little") + b"state", {})
    return store


def fedge(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of its own."""
    return subprocess.run([*FEDGE, *map(str, arguments)], input=stdin, capture_output=True, check=False, timeout=120)


# What is said, and how it ends.


def test_one_line_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path)
    a_store(tmp_path).close()
    file = tmp_path / "b"
    assert main(["aggregator", "backup", str(file), "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{file}: a backup of ")
    assert said.out.endswith("checked: digits-1 at version 1.0\n")
    assert (said.out.count("\n"), said.err) == (1, "")
    assert main(["aggregator", "restore", str(file), "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path}/state: restored from {file} (")
    assert f"digits-1 at version 1.0; the store before is {tmp_path}/state/aggregator.sqlite.before-restore" in said.out
    assert (said.out.count("\n"), said.err) == (1, "")


def test_the_same_is_said_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = config_of(tmp_path), tmp_path / "b"
    a_store(tmp_path).close()
    held = [{"job": "digits-1", "name": "digits", "version": "1.0", "ended": "", "damage": "", "without": []}]
    assert main(["aggregator", "backup", str(file), "--config", str(config), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"file": str(file), "n_bytes": file.stat().st_size, "jobs": held, "kept": None}
    assert main(["aggregator", "restore", str(file), "--config", str(config), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["file"], done["jobs"]) == (str(file), held)
    assert done["kept"] == f"{tmp_path}/state/aggregator.sqlite.before-restore"


def test_a_backup_goes_through_pipes_both_ways(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    a_store(tmp_path).close()
    made = fedge("aggregator", "backup", "-", "--config", config)
    assert made.returncode == 0
    assert made.stdout.startswith(b"SQLite format 3\0")
    assert b"-: a backup of " in made.stderr
    done = fedge("aggregator", "restore", "-", "--config", config, stdin=made.stdout)
    assert done.returncode == 0
    assert b"restored from standard input" in done.stdout
    store = Store(tmp_path / "state")
    assert (store.moved, [row.job for row in store.jobs()]) == (True, ["digits-1"])
    store.close()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["backup", "b"], "is state_dir right?"),
        (["restore", "none"], "none cannot be read: No such file or directory"),
        (["restore", "."], ". is a folder: name the file"),
        (["restore", "text"], "text cannot be used: file is not a database"),
        (["restore", "empty"], "empty is empty: it is no backup"),
        (["restore", "live"], "live has a live-wal beside it, so it is no backup but a store"),
        (["backup", "b", "--config", "other.toml"], 'has no key "state_dri"; did you mean "state_dir"?'),
        (["backup", "b", "--config", "none.toml"], "none.toml: cannot be read"),
    ],
    ids=" ".join,
)
def test_a_bad_configuration_and_a_file_that_is_no_backup_end_with_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    config_of(tmp_path)
    (tmp_path / "text").write_text("this is no database at all, not even nearly one" * 9)
    (tmp_path / "other.toml").write_text('fleet = "f"\nstate_dri = "x"\n')
    for name in ("empty", "live"):
        (tmp_path / name).touch()
    (tmp_path / "live-wal").write_bytes(b"x")
    assert main(["aggregator", *arguments]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert (said.err.count("\n"), said.out) == (1, "")


def test_a_file_that_is_no_backup_is_not_written_over_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path)
    a_store(tmp_path).close()
    (tmp_path / "thesis").write_text("mine")
    assert main(["aggregator", "backup", str(tmp_path / "thesis"), "--config", str(config)]) == 2
    assert "thesis is there and is no backup: remove it, or choose another name" in capsys.readouterr().err
    assert (tmp_path / "thesis").read_text() == "mine"


def test_a_store_that_is_damaged_or_open_elsewhere_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path)
    store = a_store(tmp_path)
    assert main(["aggregator", "backup", str(tmp_path / "b"), "--config", str(config)]) == 0
    assert main(["aggregator", "restore", str(tmp_path / "b"), "--config", str(config)]) == 1
    assert "is in use by process" in capsys.readouterr().err
    store.close()
    (tmp_path / "state" / "aggregator.sqlite").write_bytes(b"garbage" * 99)
    assert main(["aggregator", "backup", str(tmp_path / "b"), "--config", str(config)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fedge: ")
    assert "cannot be used: file is not a database: restore a backup" in said


def test_what_takes_long_says_how_long_it_still_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, shown = [0.0], []
    monkeypatch.setattr(backups.time, "monotonic", lambda: now[0])
    progress = backups._Progress("copied")
    monkeypatch.setattr(progress._display, "status", shown.append)
    for seconds, done in ((1.0, 100), (2.5, 250), (5.0, 500), (10.0, 1000)):
        now[0] = seconds
        progress(done * 10**6, 10**9)
    assert shown == [
        "250 MB of 1 GB copied, about 8 s left",
        "500 MB of 1 GB copied, about 5 s left",
        "1 GB of 1 GB copied, about 0 s left",
        "",
    ]


# With a fleet.


def blobs(n: int, seed: int) -> Dataset:
    """Three clouds of points that a small net separates."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return Dataset((2.0 * np.eye(3, 4)[y] + rng.normal(size=(n, 4)) * 0.5).astype(np.float32), y.astype(np.int64))


class Fleet(NamedTuple):
    """Two agents at work, and an aggregator that can be stopped and started again."""

    config: Path
    state: Path
    job: Path
    log: Path
    running: list[subprocess.Popen[bytes]]

    def start(self) -> None:
        with self.log.open("ab") as output:
            command = on_leash([*FEDGE, "aggregator", "run", "--config", str(self.config)])
            self.running.append(subprocess.Popen(command, stdout=output, stderr=output))

    def stop(self) -> None:
        process = self.running.pop()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0

    def line(self) -> dict[str, Any]:
        """Return what `fedge job list` says of the job."""
        said = fedge("job", "list", "--config", self.config, "--json")
        lines = json.loads(said.stdout)["jobs"] if said.returncode == 0 else []
        return next((line for line in lines if line["name"] == "blobs"), {"version": "0.0", "state": ""})

    def version(self) -> tuple[int, int]:
        generation, _, number = str(self.line()["version"]).partition(".")
        return int(generation), int(number)


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: EmbeddedBroker, until: Until) -> Iterator[Fleet]:
    data, folder = blobs(120, 0), tmp_path / "fleet"
    folder.mkdir()
    spec = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    built = stage.build(folder, spec, dealt(data, deal("iid", data.y, 2, 0)), blobs(60, 1), where)
    job = tmp_path / "blobs.toml"
    job.write_text(JOB, encoding="utf-8")
    state = built.aggregator.config.parent / "state"
    made = Fleet(built.aggregator.config, state, job, built.aggregator.log, [])
    with Children() as agents:
        made.start()
        try:
            until(lambda: "online" in made.log.read_text())
            for role in built.devices:
                agents.start(role.name, [*FEDGE, "agent", "run", "--config", str(role.config)], role.log)
            yield made
            agents.check()
        finally:
            for process in made.running:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_an_aggregator_is_backed_up_while_it_writes_and_goes_on_from_what_is_restored(
    fleet: Fleet, tmp_path: Path, until: Until
) -> None:
    assert fedge("job", "submit", fleet.job, "--config", fleet.config).returncode == 0
    until(lambda: fleet.version() >= (1, 3))

    # Backups, one after the other, while versions are made.
    file, numbers = tmp_path / "fleet.backup", []
    for _ in range(3):
        made = fedge("aggregator", "backup", file, "--config", fleet.config, "--json")
        assert made.returncode == 0, made.stderr
        (held,) = json.loads(made.stdout)["jobs"]
        assert (held["name"], held["ended"], held["damage"]) == ("blobs", "", "")
        numbers.append(int(held["version"].removeprefix("1.")))
        assert_whole(file, numbers[-1])
    assert numbers == sorted(numbers)
    assert numbers[-1] > numbers[0] >= 3
    until(lambda: fleet.version() >= (1, numbers[-1] + 3))
    assert [path.name for path in fleet.state.iterdir() if "backup" in path.name] == []

    # An aggregator that runs is not restored over.
    refused = fedge("aggregator", "restore", file, "--config", fleet.config)
    assert refused.returncode == 1
    assert f"is in use by process {fleet.running[0].pid}: stop that aggregator first" in refused.stderr.decode()

    # Devices hold later versions than what is restored, and go on with it.
    fleet.stop()
    done = fedge("aggregator", "restore", file, "--config", fleet.config)
    assert done.returncode == 0, done.stderr
    assert f"at version 1.{numbers[-1]}" in done.stdout.decode()
    fleet.start()
    until(lambda: fleet.version() > (2, numbers[-1] + 3))
    generation, number = fleet.version()
    assert generation > 1
    fleet.stop()
    store = Store(fleet.state)
    assert (store.moved, store.note("restored")) in ((False, "yes"), (False, ""))
    (row,) = store.jobs()
    made_of = [version for version, _ in store.versions(row.job)]
    assert [version.number for version in made_of] == list(range(len(made_of)))
    assert {version.generation for version in made_of[: numbers[-1]]} == {1}
    assert {version.generation for version in made_of[numbers[-1] :]} == {generation}
    assert made_of[-1].number >= number
    store.close()


def assert_whole(file: Path, number: int) -> None:
    """Look at a backup with other eyes than those that have made it."""
    db = sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = db.execute(
        "SELECT number, state IS NOT NULL, step IS NOT NULL, record IS NOT NULL FROM versions ORDER BY number"
    ).fetchall()
    db.close()
    (at,) = [n for n, has_state, *_ in rows if has_state]  # from there on each version is a step behind the last
    beside = number > at or bool(rows[-1][-1])  # a state of its own may hold what else lies beside
    assert rows == [(n, n == at, n > at, beside and n == number) for n in range(number + 1)]
