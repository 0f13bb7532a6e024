"""A demo of the user's own job on the user's own table: real processes, each with a file of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from fleet.cli import main
from tests.terminal import heard

Until = Callable[[Callable[[], bool]], None]


UNUSABLE = "device-02 (Werk Ost)"


def drafted(folder: Path, capsys: pytest.CaptureFixture[str], label: str, *changes: tuple[str, str]) -> tuple[str, str]:
    """Write a table with semicolons, decimal commas, holes and sites, and the job that is drafted from it."""
    rng = np.random.default_rng(3)
    lines = ["Temp;Vib;Werk;Zustand;kWh"]
    for k in range(180):
        bad = rng.random() < 0.4
        temp, vib = 60 + 9 * bad + rng.normal(), 2 + 2 * bad + rng.normal() / 3
        hole = "" if k % 15 == 4 else f"{vib:.3f}"
        cells = (f"{temp:.2f}", hole, ("Nord", "Nord2")[k % 2], ("gut", "defekt")[bad], f"{temp / 10 + vib:.3f}")
        lines.append(";".join(cell.replace(".", ",") for cell in cells))
    lines += ["60,1;;Ost;gut;7"] * 9
    data = folder / "werk.csv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["job", "draft", str(data), "--label", label]) == 0
    text = capsys.readouterr().out
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "job.toml").write_text(text, encoding="utf-8")
    return str(folder / "job.toml"), str(data)


@pytest.mark.slow
def test_a_job_of_classes_runs_on_a_table_and_its_devices_answer_that_very_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, data = drafted(tmp_path, capsys, "Zustand", ("max_rounds = 50", "max_rounds = 12"))
    out = tmp_path / "out"
    before = set(psutil.Process().children(recursive=True))
    assert main(["demo", "--job", job, "--data", data, "--partition", "column:Werk", "--out", str(out), "--json"]) == 0
    assert set(psutil.Process().children(recursive=True)) <= before
    summary = json.loads(capsys.readouterr().out)
    assert (summary["devices"], summary["measure"], list(summary["refused"])) == (2, "accuracy", [UNUSABLE])
    assert summary["value"] > 0.9
    assert summary["onnx_value"] == pytest.approx(summary["accuracy"], abs=1e-3)
    assert abs(summary["central_value"] - summary["value"]) < 0.1
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["version"] for row in rows] == [f"1.{n}" for n in range(13)]
    assert float(rows[-1]["recall:defekt"]) > 0.8
    assert [Path(path).name for path in summary["plots"]] == ["accuracy-by-round.png", "accuracy-by-bytes.png"]
    header = (out / "fleet" / "device-01" / "data.csv").read_text(encoding="utf-8").partition("\n")[0].strip()
    assert "Werk" not in header, "who a row belongs to is no feature"

    agent = str(out / "fleet" / "device-00" / "agent.toml")
    for path in (data, str(out / "rows.csv")):
        assert main(["agent", "predict", "--config", agent, "--input", path]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[0] == "class,probability"
        assert {line.partition(",")[0] for line in told[1:]} <= {"gut", "defekt", ""}
    assert main(["agent", "predict", "--config", agent, "--input", data]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 190, "one answer a row"


@pytest.mark.long
@pytest.mark.slow
def test_a_job_of_values_runs_and_its_measure_is_r2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, data = drafted(tmp_path, capsys, "kWh", ("learning_rate = 0.01", "learning_rate = 0.03"))
    out = tmp_path / "out"
    assert main(["demo", "--job", job, "--data", data, "--devices", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["accuracy"], summary["central_accuracy"], summary["onnx_accuracy"]) == (None, None, None)
    assert summary["measure"] == "r2"
    assert summary["value"] > 0.8
    assert summary["onnx_value"] == pytest.approx(summary["value"], abs=1e-3)
    assert f"r2         {summary['value']:.4f}; the same net trained in one place has" in said
    assert [Path(path).name for path in summary["plots"]] == ["r2-by-round.png", "r2-by-bytes.png"]


@pytest.mark.slow
def test_an_interrupted_demo_leaves_what_there_is_and_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], until: Until
) -> None:
    job, data = drafted(
        tmp_path, capsys, "Zustand", ("max_rounds = 50", "max_rounds = 100000"), ("patience = 8", "patience = 100000")
    )
    command = [sys.executable, "-m", "fleet.cli", "demo", "--job", job, "--data", data, "--devices", "2"]
    with heard(signal.SIGINT):
        process = subprocess.Popen([*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[:1] == ["3"]:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "not at its end: what there is at version " in said
    out = tmp_path / "out"
    assert (out / "model.onnx").stat().st_size > 100
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) >= 3
    assert (out / "accuracy-by-round.png").read_bytes().startswith(b"\x89PNG")
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))


def test_options_of_a_file_want_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--label", "x", "--out", str(tmp_path)]) == 2
    assert "--source are of a file: name it with --data" in capsys.readouterr().err
