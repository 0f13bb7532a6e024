"""What an operator does to a fleet of real processes: submit, list, stop, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.embedded import EmbeddedBroker
from fleet.cli import main
from fleet.console import operator
from models.serving import inference

Until = Callable[[Callable[[], bool]], None]


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command here; give its exit code and what it said on both streams."""
    capsys.readouterr()
    code = main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.slow
def test_a_job_is_submitted_listed_exported_stopped_and_replaced(
    two_devices: Any, until: Until, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, job = two_devices.config, two_devices.job()

    def line() -> dict[str, Any]:
        lines = json.loads(ask(capsys, "job", "list", "--config", config, "--json")[1])["jobs"]
        return next((line for line in lines if line["name"] == "blobs"), {})

    def number() -> int:
        return int(line().get("version", "1.0").partition(".")[2])

    assert ask(capsys, "job", "submit", job, "--config", config)[0] == 0
    until(lambda: number() >= 3)
    assert line()["devices_ready"] == 2
    assert line()["state"] == "running"
    assert {"accuracy", "loss"} <= set(line()["metrics"])
    assert "running" in ask(capsys, "job", "list", "--config", config)[1]

    code, _, said = ask(capsys, "job", "submit", job, "--config", config)
    assert (code, "is running: stop it first" in said) == (1, True)

    onnx = tmp_path / "model.onnx"
    code, out, _ = ask(capsys, "job", "export", "blobs", "--out", onnx, "--config", config)
    assert code == 0
    assert f"{onnx}: blobs version 1." in out
    answers = inference.run(inference.open_model(str(onnx)), np.zeros((2, 4), np.float32))
    assert answers.shape == (2, 3)
    assert answers.sum(axis=1) == pytest.approx(1.0)

    assert ask(capsys, "job", "stop", "blobs", "--config", config)[0] == 0
    until(lambda: line()["state"] == "stopped")
    assert "an operator stopped it" in line()["reason"]
    assert ask(capsys, "job", "export", "blobs", "--out", onnx, "--config", config)[0] == 0

    assert ask(capsys, "job", "submit", two_devices.job(max_rounds=2), "--config", config)[0] == 0
    until(lambda: line()["state"] == "finished")
    assert number() == 2


@pytest.mark.slow
def test_the_mean_of_the_last_versions_is_exported_where_the_job_deploys_it(
    two_devices: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, until: Until
) -> None:
    config, job, path = two_devices.config, two_devices.job(max_rounds=25), tmp_path / "model.onnx"
    job.write_text("deploy_average = 3\n" + job.read_text(), encoding="utf-8")
    assert ask(capsys, "job", "submit", job, "--config", config)[0] == 0
    until(lambda: "finished" in ask(capsys, "job", "list", "--config", config)[1])
    code, out, _ = ask(capsys, "job", "export", "blobs", "--out", path, "--config", config)
    assert (code, out) == (0, f"{path}: blobs version 1.25, the mean of versions 23 to 25\n")
    model = inference.open_model(str(path))
    assert model.get_modelmeta().custom_metadata_map["averaged_since"] == "23"
    assert inference.run(model, np.zeros((2, 4), np.float32)).shape == (2, 3)


@pytest.mark.slow
def test_a_name_that_nobody_has_is_an_error_that_names_those_there_are(
    two_devices: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = two_devices.config
    assert ask(capsys, "job", "submit", two_devices.job(max_rounds=1), "--config", config)[0] == 0
    code, _, said = ask(capsys, "job", "stop", "blops", "--config", config)
    assert (code, "no running job has the name blops" in said) == (1, True)
    code, _, said = ask(capsys, "job", "export", "blops", "--out", "x.onnx", "--config", config)
    assert (code, "there is no job blops; there is blobs" in said) == (1, True)


def write_config(folder: Path, port: int) -> Path:
    path = folder / "operator.toml"
    path.write_text(f'fleet = "f"\n[broker]\nport = {port}\n', encoding="utf-8")
    return path


def test_a_fleet_without_an_aggregator_is_said_to_be_one(
    mosquitto: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "PATIENCE_S", 5.0)  # a busy machine connects within it
    code, _, said = ask(capsys, "job", "stop", "blobs", "--config", write_config(tmp_path, mosquitto.port))
    assert (code, "no aggregator of fleet f answers" in said) == (1, True)


def test_an_empty_fleet_has_no_jobs(
    mosquitto: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, mosquitto.port)
    assert json.loads(ask(capsys, "job", "list", "--config", config, "--json")[1]) == {"jobs": []}


def test_a_broker_that_is_not_there_is_named(
    mosquitto: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "PATIENCE_S", 0.5)
    mosquitto.stop()
    code, _, said = ask(capsys, "job", "list", "--config", write_config(tmp_path, mosquitto.port))
    assert (code, f"the broker at 127.0.0.1:{mosquitto.port} cannot be reached" in said) == (1, True)


def test_a_missing_configuration_says_what_to_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = ask(capsys, "job", "list", "--config", tmp_path / "none.toml")
    assert (code, "name the aggregator.toml of the fleet with --config" in said) == (2, True)
