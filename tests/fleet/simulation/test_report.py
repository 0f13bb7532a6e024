"""`fedge simulate` as its user has it: a table as a logger writes it, what is said of the run, and what it leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fleet.cli import main
from fleet.problems.examples import JOBS
from fleet.simulation import report
from models.serving import inference
from tests.terminal import heard

PNG = b"\x89PNG"


def table(folder: Path, n: int = 240, *, unusable: str = "") -> Path:
    """A table with semicolons, decimal commas, words for labels, holes, and a column of sites."""
    rng = np.random.default_rng(5)
    lines = ["Zeit;Temp °C;Vibration [mm/s];Werk;Zustand"]
    for k in range(n):
        fault, site = rng.random() < 0.4, ("Nord", "Süd", "West")[k % 3]
        cells = [f"{60 + 9 * fault + rng.normal():.2f}", f"{2 + 2 * fault + rng.normal() / 3:.3f}"]
        if k % 13 == 2 or site == unusable:
            cells[1] = ""
        lines.append(
            ";".join((f"01.03.2024 {k // 60:02}:{k % 60:02}", *(c.replace(".", ",") for c in cells), site))
            + (";defekt" if fault else ";gut")
        )
    path = folder / "werk.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def drafted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """A job file as `fedge job draft` writes it, and its table."""
    data = table(tmp_path)
    assert main(["job", "draft", str(data)]) == 0
    (tmp_path / "job.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    return str(tmp_path / "job.toml"), str(data)


def test_a_strangers_table_trains_at_the_first_try(
    drafted: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, data = drafted
    out = tmp_path / "out"
    arguments = ["simulate", job, "--data", data, "--partition", "column:Werk", "--rounds", "12", "--out", str(out)]
    assert main([*arguments, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["devices"], found["accuracy"] > 0.9) == (3, True)
    said = capsys.readouterr().out
    assert "the file: delimiter semicolon; decimal comma" in said
    assert "of the rows are left out, most because 'Vibration [mm/s]' is empty" in said
    assert "were refused" not in said

    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["version"] for row in rows] == [f"1.{n}" for n in range(1, 13)]
    assert float(rows[-1]["recall:defekt"]) > 0.8
    assert float(rows[-1]["accuracy"]) == found["accuracy"]
    assert int(rows[-1]["bytes_up"]) == round(found["bytes_up"] / 3), "of a device, so far"
    assert (out / "accuracy-by-round.png").read_bytes().startswith(PNG)
    assert (out / "accuracy-by-bytes.png").read_bytes().startswith(PNG)
    answers = inference.run(inference.open_model(str(out / "model.onnx")), np.array([[69, 4], [60, 2]], np.float32))
    assert answers.argmax(axis=1).tolist() == [0, 1], "it takes raw rows: defekt, gut"


def test_a_table_of_values_trains_at_the_first_try_however_large_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    flow = rng.random(400) * 50
    lines = [f"{f:.3f},{300 * f + 4000 + rng.normal() * 100:.2f}" for f in flow]
    (tmp_path / "x.csv").write_text("flow,power\n" + "\n".join(lines) + "\n")
    assert main(["job", "draft", str(tmp_path / "x.csv"), "--label", "power"]) == 0
    (tmp_path / "job.toml").write_text(capsys.readouterr().out)
    found = tmp_path / "found.json"
    arguments = ["simulate", str(tmp_path / "job.toml"), "--data", str(tmp_path / "x.csv"), "--devices", "3"]
    assert main([*arguments, "--target", "r2=0.9", "--json", str(found)]) == 0
    result = json.loads(found.read_text())
    assert result["accuracy"] is None
    assert "r2" in result["reason"]
    assert result["rounds"][-1]["measures"]["r2"] > 0.9
    header = next(line for line in capsys.readouterr().out.splitlines() if "updates" in line)
    assert "r2" in header
    assert "accuracy" not in header


def test_devices_that_did_nothing_are_named_before_all_else(
    drafted: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, _ = drafted
    data = table(tmp_path, unusable="Süd")
    found = tmp_path / "found.json"
    arguments = ["simulate", job, "--data", str(data), "--partition", "column:Werk", "--rounds", "3"]
    assert main([*arguments, "--json", str(found)]) == 0
    lines = capsys.readouterr().out.splitlines()
    ended = next(n for n, line in enumerate(lines) if line.startswith("ended after 3 rounds"))
    assert lines[ended - 1].startswith("1 of 3 devices were refused: device-01 (Werk Süd): ")
    assert list(json.loads(found.read_text())["refused"]) == ["device-01 (Werk Süd)"]


FAR = """
name = "far"
[model]
inputs = 2
hidden = [8]
outputs = 2
[train]
learning_rate = 0.1
[rounds]
max_rounds = 5
deadline_s = 5
"""


def test_devices_whose_updates_are_refused_are_named_and_a_quorum_of_one_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 2)).astype(np.float32)
    y, user = (X[:, 0] > 0).astype(np.int64), np.arange(400) % 8
    X[user == 3] *= 1e4
    np.savez(tmp_path / "x.npz", X=X, y=y, user=user)
    (tmp_path / "job.toml").write_text(FAR)
    arguments = ["simulate", str(tmp_path / "job.toml"), "--data", str(tmp_path / "x.npz")]
    assert main([*arguments, "--partition", "column:user", "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert "note: quorum = 1: where the other 7 devices are refused or late, one device alone makes a version" in said
    assert "1 of 8 devices were refused: device-03: " in said
    assert list(json.loads((tmp_path / "found.json").read_text())["idle"]) == ["device-03"]


def test_a_model_that_answers_one_class_alone_is_named_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    np.savez(tmp_path / "x.npz", X=X, y=(np.arange(200) % 10 == 0).astype(np.int64))
    (tmp_path / "job.toml").write_text(FAR)
    assert main(["simulate", str(tmp_path / "job.toml"), "--data", str(tmp_path / "x.npz"), "--devices", "2"]) == 0
    assert "as good as always answering '0'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("rmse=4", 'a model with loss = "cross_entropy" has no rmse'),
        ("recall:broken=0.9", "there is no such class"),
        ("recall=1.5", "target = 1.5 is no recall"),
        ("acuracy=0.9", 'did you mean "accuracy"'),
        ("much", "write a number, or a measure and a number"),
    ],
)
def test_a_target_that_does_not_fit_is_refused_with_a_sentence(
    drafted: tuple[str, str], capsys: pytest.CaptureFixture[str], target: str, why: str
) -> None:
    job, data = drafted
    assert main(["simulate", job, "--data", data, "--target", target]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fedge: --target {target}: ")
    assert why in said


def test_a_target_may_be_on_any_measure(drafted: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    job, data = drafted
    assert main(["simulate", job, "--data", data, "--devices", "3", "--target", "f1:defekt=0.8"]) == 0
    assert "f1:defekt" in capsys.readouterr().out
    assert main(["simulate", job, "--data", data, "--devices", "3", "--target", "0.9"]) == 0
    assert "has reached the target 0.9" in (said := capsys.readouterr().out)
    assert "s: accuracy " in said, "a bare number is no loss, whatever the job stops by"


def test_an_interrupted_run_leaves_what_there_is(drafted: tuple[str, str], tmp_path: Path) -> None:
    job, data = drafted
    text = Path(job).read_text(encoding="utf-8").replace("patience = 8", "patience = 100000")
    Path(job).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "fleet.cli", "simulate", job, "--data", data, "--devices", "3"]
    with heard(signal.SIGINT):
        process = subprocess.Popen(
            [*command, "--rounds", "1000000", "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
        )
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[:1] == ["3"]:
            break
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "not at its end: version " in said
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 100
    with (tmp_path / "out" / "metrics.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) >= 3
    assert (tmp_path / "out" / "accuracy-by-round.png").read_bytes().startswith(PNG)


def test_a_job_that_stands_still_leaves_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    flow, temp = rng.random(900) * 50, 20 + rng.normal(size=900) * 5
    lines = [f"{f:.3f},{t:.3f},{3 * f + t / 2:.3f}" for f, t in zip(flow, temp, strict=True)]
    (tmp_path / "x.csv").write_text("flow,temp,kwh\n" + "\n".join(lines) + "\n")
    assert main(["job", "draft", str(tmp_path / "x.csv"), "--label", "kwh"]) == 0
    drafted = capsys.readouterr().out
    assert "learning_rate = 0.001" in drafted
    (tmp_path / "job.toml").write_text(drafted.replace("learning_rate = 0.001", "learning_rate = 0.05"))
    arguments = ["simulate", str(tmp_path / "job.toml"), "--data", str(tmp_path / "x.csv"), "--devices", "3"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "3 of 3 devices cannot take part: device-00: training diverged" in told.err
    assert "not at its end: version 1 is in " in told.out
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 100


def test_without_onnx_the_model_is_left_as_npz(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: None)
    arguments = ["simulate", str(JOBS / "digits.toml"), "--data", "digits", "--rounds", "1", "--devices", "5"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "model.npz") as found:
        assert found.files
    assert "model.npz" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    arguments = ["simulate", "digits", "--data", "digits", "--out", str(tmp_path / "file" / "out")]
    assert main(arguments) == 2
    assert "--out " in capsys.readouterr().err
