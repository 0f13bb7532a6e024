"""Two trees are told apart by what they send and by the models that they make, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import same

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("aggregator", "broker", "edge_agent", "fleet", "identity", "models", "runtime")
JOB = """\
name = "toy"
compression = "off"
[model]
inputs = 4
outputs = 2
[rounds]
quorum = 2
max_rounds = 50
stop = { metric = "accuracy", target = 0.1 }
"""


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """What names a fleet of one's own, which is small."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    np.savez(tmp_path / "rows.npz", X=rng.standard_normal((60, 4)).astype(np.float32) + y[:, None], y=y)
    (tmp_path / "job.toml").write_text(JOB)
    names = ["--data", str(tmp_path / "rows.npz"), "--job", str(tmp_path / "job.toml")]
    return [*names, "--devices", "3", "--versions", "3", "--fleets", "--codings", "off"]


def changed(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of this tree with one line changed."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    return folder


def left_by(pid: int) -> list[Path]:
    return [
        path for disk in (same.MEMORY_DISK, Path(tempfile.gettempdir())) for path in disk.glob(f"fedge-same-{pid}-*")
    ]


def test_a_tree_is_the_same_as_itself(own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert same.main([str(ROOT), str(ROOT), "--exact", "--json", str(tmp_path / "found.json"), *own]) == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["versions"], row["same"], row["ratios"]) == (3, 3, [1.0, 1.0]), "the job's own stop rule is set aside"
    assert min(row["up"] + row["down"]) > 0
    told = capsys.readouterr()
    assert "every SHA-256 equal on 1 of 1" in told.out
    assert "[2/2] own off" in told.err
    assert left_by(os.getpid()) == []


def test_another_model_is_told_and_is_a_failure_where_exactness_is_asked_for(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed(
        tmp_path / "other", "models/specs/train.py", "learning_rate: Rate = 0.1\n", "learning_rate: Rate = 0.2\n"
    )
    assert same.main([str(ROOT), str(other), *own]) == 0
    assert same.main([str(ROOT), str(other), "--exact", *own]) == 1
    assert "own off: the first version that differs is 1" in capsys.readouterr().out


@pytest.mark.long
def test_more_bytes_are_a_failure(own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = changed(
        tmp_path / "other",
        "models/specs/compression.py",
        '"off": CompressionSpec(codec="float32")',
        '"off": CompressionSpec(codec="int8")',
    )
    assert same.main([str(ROOT), str(other), *own]) == 1
    assert "more than 2% off" in capsys.readouterr().out


def test_a_tree_that_does_not_run_is_a_failure_that_says_why(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed(tmp_path / "other", "models/training/train.py", "def steps(", "def no_steps(")
    assert same.main([str(ROOT), str(other), *own]) == 1
    assert "did not run: own off on head: " in capsys.readouterr().err


def test_a_revision_is_exported_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    (root / "fleet").mkdir(parents=True)
    (root / "fleet" / "cli.py").write_text("here\n")
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    (root / "fleet" / "cli.py").write_text("changed since\n")
    tree = same._tree("HEAD", tmp_path / "base", root)
    assert tree.name.startswith("HEAD (")
    assert (tree.folder / "fleet" / "cli.py").read_text() == "here\n"
    assert (
        subprocess.run(["git", "-C", str(root), "worktree", "list"], capture_output=True, check=True).stdout.count(
            b"\n"
        )
        == 1
    )
    with pytest.raises(same.SameError, match="nowhere is neither a revision"):
        same._tree("nowhere", tmp_path / "x", root)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere", "."], "nowhere is neither a revision of the repository"),
        (["tests", "."], "tests is a folder without fleet/cli.py"),
        ([".", ".", "--data", "x.npz"], "--data and --job go together"),
        ([".", ".", "--data", "x.npz", "--job", "x.toml"], "x.npz: there is no such file"),
        ([".", ".", "--json", "nowhere/x.json"], "--json nowhere/x.json: there is no such folder"),
    ],
)
def test_bad_input_is_one_line_and_a_code_of_two(
    arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert same.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"same: {why}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_stopped_comparison_leaves_nothing_behind(signum: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.same",
        str(ROOT),
        str(ROOT),
        "--versions",
        "1000",
        "--fleets",
        "iid-10",
    ]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            end = time.monotonic() + 120
            while not any(list(path.glob("runs/*/*/aggregator")) for path in left_by(process.pid)):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.01)
            process.send_signal(signum)
            assert process.wait(120) == same.INTERRUPTED
            assert process.stderr is not None
            assert process.stderr.read() == "stopped: nothing is left behind\n"
        finally:
            process.kill()
    assert left_by(process.pid) == []
