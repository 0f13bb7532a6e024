"""A job with a contract over devices whose tables differ, with real processes over a real broker."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from broker.embedded import EmbeddedBroker
from fleet.local.processes import FEDGE

pytestmark = pytest.mark.slow

Until = Callable[[Callable[[], bool]], None]

JOB = """
name = "vents"
data = "readings"
deploy = "never"
[model]
inputs = 2
hidden = [8]
outputs = 2
[contract]
features = ["temp", "vib"]
label = "state"
classes = ["ok", "fault"]
[rounds]
quorum = 2
max_rounds = 1000
[rounds.stop]
target = 0.95
[train]
epochs = 5
"""
N = 200


def rows(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Return temperatures and vibrations: a fault is warm and does not vibrate, the same columns swapped are not."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return (np.stack([3.0 * y, 3.0 * (1 - y)], axis=1) + rng.normal(size=(n, 2)) * 0.5).astype(np.float32), y


def csv(path: Path, seed: int, header: str = "vib;note;state;temp") -> Path:
    """Write a table as a logger does, with its columns in another order, text beside them, and an empty cell."""
    X, y = rows(seed)
    lines = [f"{vib:.4f};x;{('ok', 'fault')[state]};{temp:.4f}" for (temp, vib), state in zip(X, y, strict=True)]
    lines[3] = ";x;ok;1.0"
    path.write_text("\n".join([header, *lines, ""]))
    return path


@pytest.fixture
def logs(tmp_path: Path, mosquitto: EmbeddedBroker) -> Iterator[Callable[[str], str]]:
    """Start an aggregator with a test split and three devices; return what reads their logs."""
    where = f'[broker]\nhost = "{mosquitto.host}"\nport = {mosquitto.port}\n'
    X, y = rows(1)
    np.savez(tmp_path / "two.npz", X=X, y=y)
    data = {
        "server": f"[tests.readings]\npath = '{csv(tmp_path / 'test.csv', 9)}'\n[limits]\nspread_s = 0.0\n",
        "one": f"[data.readings]\npath = '{csv(tmp_path / 'one.csv', 0)}'\n",
        "two": f"[data.readings]\npath = '{tmp_path / 'two.npz'}'\n",
        "three": f"[data.readings]\npath = '{csv(tmp_path / 'three.csv', 2, 'vib;note;state;tmep')}'\n",
    }
    processes = []
    for name, table in data.items():
        role = "aggregator" if name == "server" else "agent"
        config = tmp_path / f"{name}.toml"
        more = "[models]\ninference = false\n" if role == "agent" else ""
        own = f'device = "{name}"\n' if role == "agent" else ""
        config.write_text(f"fleet = 'f'\nstate_dir = '{tmp_path / name}'\n{own}{where}{table}{more}")
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes.append(subprocess.Popen([*FEDGE, role, "run", "--config", str(config)], stdout=log, stderr=log))
    try:
        yield lambda name: (tmp_path / f"{name}.log").read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fedge(folder: Path, *words: str) -> str:
    command = [*FEDGE, *words, "--config", str(folder / "server.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_devices_match_columns_by_name_and_one_that_cannot_says_why(
    tmp_path: Path, logs: Callable[[str], str], until: Until
) -> None:
    until(lambda: "leads" in logs("server"))
    (tmp_path / "job.toml").write_text(JOB)
    fedge(tmp_path, "job", "submit", str(tmp_path / "job.toml"))
    until(lambda: "takes part" in logs("one") and "takes part" in logs("two") and "cannot take part" in logs("three"))
    until(lambda: "job ended" in logs("server"))
    assert "has reached the target 0.95" in logs("server"), "the columns of both mean the same"
    assert "columns have no names and go by position: temp, vib" in logs("two")
    assert "1 of 200 rows are left out: 1 because 'vib' is empty (line 5)" in logs("one")
    seen = fedge(tmp_path, "job", "show", "vents")
    assert "no column 'temp' (is it 'tmep'?)" in seen
    assert "less than 1 % of the rows are left out, most because 'vib' is empty (line 5)" in seen
