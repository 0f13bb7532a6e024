"""Raw features in a fleet of real processes: they do not train as they are, and do where the fleet agrees first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from edge_agent.slot import open_slot
from fleet.cli import main
from fleet.local import stage
from fleet.local.processes import Children
from fleet.local.stage import Stage
from fleet.simulation.simulate import simulate
from models.contract import ContractSpec
from models.data import source
from models.data.dataset import Dataset, fit
from models.data.source import DataSource
from models.job import JobSpec, ModelSpec, RoundsSpec

Until = Callable[[Callable[[], bool]], None]

FEATURES = ("temp", "vib", "rpm", "flow")
SCALES, OFFSETS = np.array([1e5, 1, 1e-2, 1e4]), np.array([2e5, 0, 0, 1e9])
JOB = """
name = "{name}"
data = "raw"
compression = "strong"
[model]
inputs = 4
hidden = [8]
outputs = 3
[contract]
features = ["temp", "vib", "rpm", "flow"]
label = "y"
classes = ["0", "1", "2"]
normalise = "{normalise}"
[train]
learning_rate = 0.1
[rounds]
quorum = 2
min_devices = 2
max_rounds = 60
deadline_s = 20
[rounds.stop]
target = 0.93
"""


def raw(n: int, seed: int) -> Dataset:
    """Three clouds; what tells them apart is in every feature, as raw as sensors give it."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    z = 2.0 * np.eye(3, 4)[y] + rng.normal(size=(n, 4)) * 0.5
    return Dataset((z * SCALES + OFFSETS).astype(np.float32), y.astype(np.int64))


def as_csv(rows: Dataset, path: Path, order: tuple[int, ...]) -> None:
    names = [FEATURES[at] for at in order]
    lines = [",".join((*names, "y"))]
    lines += [
        ",".join((*(repr(float(row[at])) for at in order), str(label)))
        for row, label in zip(rows.X, rows.y.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Raw(NamedTuple):
    stage: Stage
    folder: Path
    run: Callable[..., Any]


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: EmbeddedBroker, until: Until, capsys: pytest.CaptureFixture[str]) -> Iterator[Raw]:
    """Two devices, which write their columns in different orders."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    spec = JobSpec("raw", ModelSpec(inputs=4, outputs=3))
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    shares = [raw(80, 0), raw(60, 1)]
    built = stage.build(folder, spec, shares, raw(200, 2), where)
    for role, rows, order in (
        (built.devices[0], shares[0], (2, 0, 3, 1)),
        (built.devices[1], shares[1], (0, 1, 2, 3)),
        (built.aggregator, raw(200, 2), (3, 2, 1, 0)),
    ):
        name = "test" if role is built.aggregator else "data"
        as_csv(rows, role.folder / f"{name}.csv", order)
        text = role.config.read_text(encoding="utf-8")
        assert f"{name}.npz" in text
        role.config.write_text(text.replace(f"{name}.npz", f"{name}.csv"), encoding="utf-8")

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        assert main([*map(str, arguments), "--config", str(built.aggregator.config)]) == 0
        return capsys.readouterr().out

    with Children() as children:
        stage.start(children, built)
        until(lambda: "online" in built.aggregator.log.read_text())
        yield Raw(built, tmp_path, run)
        children.check()


def listed(fleet: Raw, name: str) -> dict[str, Any]:
    lines = json.loads(fleet.run("job", "list", "--json"))["jobs"]
    return next((line for line in lines if line["name"] == name), {"state": "", "version": "1.0", "reason": ""})


def submit(fleet: Raw, name: str, normalise: str) -> None:
    path = fleet.folder / f"{name}.toml"
    path.write_text(JOB.format(name=name, normalise=normalise), encoding="utf-8")
    fleet.run("job", "submit", path)


@pytest.mark.slow
def test_raw_features_reach_the_target_and_onnx_takes_them_raw(fleet: Raw, until: Until) -> None:
    submit(fleet, "agreed", "standard")
    until(lambda: listed(fleet, "agreed")["state"] == "finished")
    assert "has reached the target 0.93" in listed(fleet, "agreed")["reason"]

    onnx = fleet.folder / "model.onnx"
    fleet.run("job", "export", "agreed", "--out", onnx)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["features"]) == list(FEATURES)
    assert json.loads(said["normalise"]) == "standard"
    test = raw(300, 9)
    answers = session.run(None, {"input": test.X})[0]
    assert (answers.argmax(axis=1) == test.y).mean() > 0.9
    for path in fleet.stage.slots(JobSpec("agreed", ModelSpec(inputs=4, outputs=3))):
        until(lambda path=path: (path / "model.json").exists())  # type: ignore[misc]
        by_numpy = open_slot(path)
        assert by_numpy.card is not None
        assert by_numpy.card.contract.features == FEATURES
        np.testing.assert_allclose(by_numpy.predict(test.X), answers, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_as_they_are_they_do_not_train(fleet: Raw, until: Until) -> None:
    submit(fleet, "as-they-are", "none")
    until(lambda: fleet.stage.aggregator.log.read_text(encoding="utf-8").count("refused") >= 2)
    assert listed(fleet, "as-they-are")["version"] == "1.0"


def test_pixels_in_an_npz_file_and_in_csv_make_the_same_model(tmp_path: Path) -> None:
    """Bytes are scaled in one place, by the job, and not by how a file writes them."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 4)).astype(np.uint8), rng.integers(0, 3, 60)
    np.savez(tmp_path / "a.npz", X=X, y=y)
    as_csv(Dataset(X.astype(np.float32), y), tmp_path / "a.csv", (0, 1, 2, 3))
    made, answered = set(), set()
    for normalise in ("pixels", "standard"):
        contract = ContractSpec(normalise=normalise)  # type: ignore[arg-type]  # one of them
        rounds = RoundsSpec(quorum=2, max_rounds=3)
        job = JobSpec("raw", ModelSpec(inputs=4, outputs=3), contract=contract, rounds=rounds)
        for name in ("a.npz", "a.csv"):
            rows = fit(source.open(DataSource(str(tmp_path / name), label="y"), contract).snapshot(), job.model)
            assert rows.X.max() > 200
            result = simulate(job, [rows, rows], rows)
            made.add((normalise, result.sha256))
            answered.add((normalise, result.accuracy))
    assert len(made) == len(answered) == 2
