"""A demo of real processes over a real mosquitto: what it leaves behind, and what it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fleet.cli import main
from fleet.problems.examples import DATA, find_job, load_split
from models.serving import inference
from tests.terminal import heard

Until = Callable[[Callable[[], bool]], None]

JOB = """
name = "tumours"
data = "breast_cancer"
deploy = "{deploy}"
[model]
inputs = 30
hidden = [16]
outputs = 2
[train]
epochs = 2
learning_rate = 0.05
[rounds]
max_rounds = {max_rounds}
"""


def job(folder: Path, max_rounds: int, deploy: str = "final") -> Path:
    path = folder / "tumours.toml"
    path.write_text(JOB.format(max_rounds=max_rounds, deploy=deploy), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_demo_leaves_a_model_figures_and_pictures_and_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = set(psutil.Process().children(recursive=True))
    assert main(["demo", "--devices", "3", "--job", str(job(tmp_path, 5)), "--out", str(out), "--json"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out) == summary
    assert set(psutil.Process().children(recursive=True)) <= before

    assert (summary["rounds"], summary["devices"], summary["broker"]) == (5, 3, "mosquitto")
    assert summary["accuracy"] > 0.9
    assert abs(summary["accuracy"] - summary["central_accuracy"]) < 0.05
    assert summary["onnx_accuracy"] == pytest.approx(summary["accuracy"], abs=1e-3)
    test = load_split("breast_cancer").test
    answers = inference.run(inference.open_model(summary["onnx"]), test.X)
    assert (answers.argmax(axis=1) == test.y).mean() == pytest.approx(summary["onnx_accuracy"], abs=1e-3)
    assert [version["round"] for version in summary["history"]] == [0, 1, 2, 3, 4, 5]
    assert all(version["participants"] == 3 for version in summary["history"][1:])
    for way in ("up", "down"):
        assert 0 < summary[f"body_bytes_{way}_per_device"] < summary[f"bytes_{way}_per_device"]
        assert summary[f"bytes_{way}_per_device"] < summary[f"float32_bytes_{way}_per_device"]
    # Five updates of 530 float32 parameters, and the control that goes with them.
    assert 5 * 4 * summary["parameters"] < summary["float32_bytes_up_per_device"] < 6 * 4 * summary["parameters"]
    for picture in summary["plots"]:
        assert Path(picture).read_bytes().startswith(b"\x89PNG")

    agent = out / "fleet" / "device-00" / "agent.toml"
    assert main(["agent", "predict", "--config", str(agent), "--input", str(out / "rows.csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.slow
def test_what_is_frozen_of_a_net_comes_of_a_file_and_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, file = job(tmp_path, 2), tmp_path / "out", tmp_path / "net.npz"
    rng = np.random.default_rng(1)
    weight, bias = (rng.standard_normal(shape).astype(np.float32) / 4 for shape in ((16, 30), (16,)))
    np.savez(file, **{"0.weight": weight, "0.bias": bias})
    words = ["demo", "--devices", "2", "--job", str(path), "--base", str(file), "--out", str(out), "--json"]
    assert refused(capsys, *words[1:]).endswith(
        "nothing of the net is frozen: say freeze, only or adapter in [train]\n"
    )
    path.write_text(path.read_text().replace("epochs = 2", 'epochs = 2\nfreeze = ["0"]'))
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rounds"], summary["parameters"]) == (2, 16 * 2 + 2)
    assert summary["onnx_accuracy"] == pytest.approx(summary["accuracy"], abs=1e-3)
    assert abs(summary["central_accuracy"] - summary["accuracy"]) < 0.1
    for device in ("device-00", "device-01"):
        served = np.load(out / "fleet" / device / "state" / "models" / "tumours" / "model.npz")
        np.testing.assert_array_equal(served["0.weight"], weight)
        np.testing.assert_array_equal(served["0.bias"], bias)


def tree(pid: int) -> set[psutil.Process]:
    return set(psutil.Process(pid).children(recursive=True))


@pytest.fixture
def endless(tmp_path: Path, until: Until) -> Iterator[tuple[subprocess.Popen[str], set[psutil.Process]]]:
    """A demo in the middle of its rounds, and all its processes."""
    command = [sys.executable, "-m", "fleet.cli", "demo", "--devices", "2", "--out", str(tmp_path / "out")]
    with heard(signal.SIGINT, signal.SIGHUP):
        process = subprocess.Popen(
            [*command, "--job", str(job(tmp_path, 100_000, "every 1"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    children: set[psutil.Process] = set()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[:1] == ["3"]:
                break
        # A broker, an aggregator, two agents, and their children that hold a model.
        until(lambda: len(tree(process.pid)) >= 6)
        children = tree(process.pid)
        yield process, children
    finally:
        process.kill()
        process.communicate()
        for child in children:
            if child.is_running():
                child.kill()


def gone(children: set[psutil.Process]) -> bool:
    return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [  # that these two are heard as a Ctrl-C is shown by tests/fleet/local/test_processes.py
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 130, marks=pytest.mark.long),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_however_a_demo_is_ended_no_process_stays(
    endless: tuple[subprocess.Popen[str], set[psutil.Process]], until: Until, number: int, code: int
) -> None:
    process, children = endless
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert said == ""
    until(lambda: gone(children))


@pytest.mark.slow
def test_a_device_that_dies_is_named_with_the_end_of_its_log(
    endless: tuple[subprocess.Popen[str], set[psutil.Process]], until: Until
) -> None:
    process, children = endless
    victim = next(child for child in children if any("device-01/agent.toml" in word for word in child.cmdline()))
    victim.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "fedge: device-01 died of SIGKILL; the end of " in said
    assert " job=tumours-" in said
    until(lambda: gone(children))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a demo that cannot be; give what it says."""
    assert main(["demo", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_an_unknown_job_names_those_that_come_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--job", "digit", "--out", tmp_path)
    assert "no job of that name comes along: breast_cancer, classification, digits do" in said


def test_unknown_data_names_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = job(tmp_path, 1)
    path.write_text(path.read_text().replace("breast_cancer", "faces"))
    said = refused(capsys, "--job", path, "--out", tmp_path)
    assert "there is no example data set faces: there are digits, classification, breast_cancer" in said


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "precious").touch()
    said = refused(capsys, "--job", job(tmp_path, 1), "--out", tmp_path)
    assert "was not made by a demo" in said
    assert (tmp_path / "fleet" / "precious").exists()


@pytest.mark.parametrize("option", ["--test", "--partition", "--source"])
def test_what_is_of_a_file_wants_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    said = refused(capsys, "--out", tmp_path, option, "rows.csv")
    assert "are of a file: name it with --data" in said


def test_a_file_to_test_on_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("a,y\n" + "1,0\n2,1\n" * 9, encoding="utf-8")
    path = tmp_path / "job.toml"
    path.write_text('name = "j"\n[model]\ninputs = 1\noutputs = 2\n', encoding="utf-8")
    words = ["demo", "--job", path, "--data", tmp_path / "rows.csv", "--test", tmp_path / "others.csv"]
    assert main([*map(str, words), "--devices", "2", "--out", str(tmp_path / "out")]) == 1
    assert "others.csv: cannot be read as CSV: No such file" in capsys.readouterr().err


def test_more_devices_than_examples_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--job", job(tmp_path, 1), "--out", tmp_path, "--devices", 1000)
    assert "1000 devices are more than the" in said


@pytest.mark.parametrize("name", DATA)
def test_every_data_set_has_its_job_and_a_fifth_to_test_on(name: str) -> None:
    split: Any = load_split(name)
    assert find_job(Path(name)).is_file()
    assert len(split.test.y) == pytest.approx(len(split.train.y) / 4, abs=5)
    assert set(split.test.y) == set(split.train.y)


def test_a_job_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").touch()
    assert find_job(Path("digits")) == Path("digits")
