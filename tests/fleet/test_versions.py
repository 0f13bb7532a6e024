"""Versions of jobs in a fleet of real processes: the best is served, and operators ask for others."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from edge_agent.slot import Slot
from fleet.cli import main
from fleet.local import stage as stages
from fleet.local.processes import FEDGE, Child, Children
from fleet.local.stage import Stage
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec
from runtime.failpoints import FAILPOINT

Until = Callable[..., None]
PATIENT = """
name = "{name}"
data = "blobs"
deploy = "{deploy}"
seed = {seed}
[model]
inputs = 4
hidden = [{hidden}]
outputs = 3
[rounds]
quorum = 2
max_rounds = {max_rounds}
keep_every = 2
[rounds.stop]
patience = 3
min_delta = {min_delta}
"""


def blobs(n: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return Dataset((2.0 * np.eye(3, 4)[y] + rng.normal(size=(n, 4)) * 0.5).astype(np.float32), y.astype(np.int64))


def built(folder: Path, mosquitto: EmbeddedBroker) -> Stage:
    data = blobs(120)
    spec = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    folder.mkdir()
    return stages.build(folder, spec, dealt(data, deal("iid", data.y, 2, 0)), blobs(60, seed=1), where)


def job(folder: Path, name: str = "blobs", **changes: object) -> Path:
    values = {"name": name, "deploy": "never", "seed": 0, "hidden": 8, "max_rounds": 500, "min_delta": 0.0} | changes
    path = folder / f"{name}.toml"
    path.write_text(PATIENT.format(**values), encoding="utf-8")
    return path


def aggregator(children: Children, stage: Stage, *, dies_at: str = "") -> Child:
    role = stage.aggregator
    command = [*FEDGE, role.kind, "run", "--config", str(role.config)]
    return children.start(role.name, command, role.log, {FAILPOINT: dies_at} if dies_at else {})


def agents(children: Children, stage: Stage) -> None:
    for role in stage.devices:
        children.start(role.name, [*FEDGE, role.kind, "run", "--config", str(role.config)], role.log)


class Console:
    """The command line, on the operator's machine."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys

    def ask(self, *arguments: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main([*map(str, arguments), "--config", str(self._config)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def did(self, *arguments: object) -> str:
        code, out, err = self.ask(*arguments)
        assert code == 0, err
        return out

    def line(self, name: str, *more: str) -> dict[str, Any]:
        lines = json.loads(self.did("job", "list", "--json", *more))["jobs"]
        return next((line for line in lines if name in (line["name"], line["job"])), {})


def versions(stage: Stage, name: str) -> dict[int, str]:
    db = sqlite3.connect(f"file:{stage.aggregator.state / 'aggregator.sqlite'}?mode=ro", uri=True)
    rows = db.execute("SELECT number, sha256 FROM versions WHERE job LIKE ? || '-%'", (name,)).fetchall()
    db.close()
    return dict(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", [pytest.param("aggregator.Restore.before", marks=pytest.mark.long), "aggregator.Restore.after"]
)
def test_an_aggregator_killed_as_it_restores_the_best_version_serves_it_all_the_same(
    mosquitto: EmbeddedBroker, tmp_path: Path, until: Until, capsys: pytest.CaptureFixture[str], point: str
) -> None:
    stage = built(tmp_path / "fleet", mosquitto)
    console = Console(stage.aggregator.config, capsys)
    with Children() as children:
        dying = aggregator(children, stage, dies_at=point)
        agents(children, stage)
        until(lambda: "online" in stage.aggregator.log.read_text())
        console.did("job", "submit", job(tmp_path, deploy="final"))
        until(lambda: dying.process.poll() is not None, timeout_s=120.0)
        assert dying.process.returncode == -signal.SIGKILL
        aggregator(children, stage)
        until(lambda: console.line("blobs").get("state") == "finished", timeout_s=120.0)
        line = console.line("blobs")
        last, found = int(line["version"].partition(".")[2]), versions(stage, "blobs")
        assert line["reason"].startswith("no better accuracy than ")
        best = int(line["reason"].partition(" is version ")[2].partition(" ")[0])
        assert line["reason"].endswith(f": version 1.{last} is version {best} again, the best")
        assert [*found] == [*range(last + 1)]
        assert found[last] == found[best]

        def served() -> list[str]:
            cards = [Slot(slot).card for slot in stage.slots(JobSpec("blobs", ModelSpec())) if slot.exists()]
            return [card.release.sha256 for card in cards if card is not None]

        until(lambda: served() == [found[last]] * 2, timeout_s=120.0)


@pytest.mark.slow
def test_versions_are_exported_restored_and_started_from(
    mosquitto: EmbeddedBroker, tmp_path: Path, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = built(tmp_path / "fleet", mosquitto)
    console = Console(stage.aggregator.config, capsys)
    out, weights = tmp_path / "model.onnx", tmp_path / "weights.npz"

    def number(name: str = "blobs") -> int:
        return int(console.line(name).get("version", "1.0").partition(".")[2])

    with Children() as children:
        aggregator(children, stage)
        until(lambda: "online" in stage.aggregator.log.read_text())
        first = console.did("job", "submit", job(tmp_path, hidden=96)).strip()  # more bytes than a line shows
        code, said, note = console.ask("job", "export", "blobs", "--out", out)
        assert (code, said) == (0, f"{out}: blobs version 1.0\n")
        assert note == "note: it is untrained: version 0 is drawn from the seed of the job\n"
        assert "untrained" in str(onnx.load(out).metadata_props)

        agents(children, stage)
        until(lambda: console.line("blobs")["state"] == "finished", timeout_s=120.0)
        best = console.line("blobs")["reason"].partition(" is version ")[2].partition(" ")[0]
        said = console.did("job", "export", "blobs", "--version", "best", "--out", out)
        assert said == f"{out}: blobs version 1.{best}\n"
        told = json.loads(console.did("job", "export", first, "--version", best, "--out", weights, "--json"))
        assert (told["job"], told["version"]) == (first, [1, int(best)])
        with np.load(weights) as found:
            assert [(name, found[name].shape) for name in found] == [
                *(("0.weight", (96, 4)), ("0.bias", (96,)), ("2.weight", (3, 96)), ("2.bias", (3,))),
            ]
            assert all(found[name].dtype == np.float32 for name in found)
        assert "has ended" in console.ask("job", "pause", "blobs")[2]

        # One that starts from the best version of it, and takes its name.
        code, _, notes = console.ask(
            "job", "submit", job(tmp_path, hidden=96, seed=5, max_rounds=100_000), "--from", f"{first}@best"
        )
        assert code == 0, notes
        assert f"note: it starts from {first}@best: that is version 1, of " in notes
        assert first not in console.did("job", "list")
        line = console.line(first, "--all")
        assert (line["state"], line["name"]) == ("replaced", "blobs")
        assert f"kept: {best} (the best), " in line["reason"]
        console.did("job", "export", first, "--version", "last", "--out", out)
        console.did("job", "delete", first)
        assert "no job has the name" in console.ask("job", "export", first, "--version", "best", "--out", out)[2]

        # One that goes on for ever, paused and rolled back.
        until(lambda: console.line("blobs")["state"] == "finished", timeout_s=120.0)
        endless = job(tmp_path, "endless", hidden=96, max_rounds=100_000)
        endless.write_text(endless.read_text().replace("patience = 3", "patience = 100000"), encoding="utf-8")
        code, _, notes = console.ask("job", "submit", endless, "--from", weights)
        assert (code, "it starts from the weights that were sent: that is version 1, of " in notes) == (0, True), notes
        until(lambda: number("endless") >= 5)
        paused = console.did("job", "pause", "endless")
        assert "is paused by " in paused
        assert console.line("endless")["state"] == "paused"
        at = number("endless")
        code, _, why = console.ask("job", "rollback", "endless", at + 7)
        assert (code, f"there is no version {at + 7}" in why) == (1, True)
        said = json.loads(console.did("job", "rollback", "endless", "2", "--json"))
        assert said["text"].endswith(f": version 1.{at + 1} is version 2 again")
        found = versions(stage, "endless")
        assert found[at + 1] == found[2]
        assert console.line("endless")["state"] == "paused"
        console.did("job", "resume", "endless")
        until(lambda: number("endless") >= at + 4)
        console.did("job", "stop", "endless")
        children.check()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: a.pop("2.bias"), "it has no array '2.bias'; the net of this job has 0.weight, 0.bias,"),
        (lambda a: a.update(more=np.zeros(3)), "it has an array 'more'; the net of this job has 0.weight"),
        (lambda a: a.update({"0.weight": np.zeros((4, 8))}), r"array '0.weight' has shape \(4, 8\), where the net has"),
        (lambda a: a.update({"0.bias": np.zeros(10**6)}), "array '0.bias' has more numbers than the net's"),
        (lambda a: a.update({"0.bias": np.full(8, np.nan)}), "array '0.bias' has numbers that are not finite"),
        (lambda a: a.update({"0.bias": np.full(8, 1e300)}), "exponent .* is outside"),
        (lambda a: a.update({"0.bias": np.full(8, "x")}), "array '0.bias' has no numbers, but"),
        (lambda a: a.update({"0.bias": np.full(8, None)}), "Object arrays cannot be loaded"),
    ],
)
def test_a_file_of_other_arrays_is_no_start(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    from fleet.console.operator import load_job
    from fleet.console.versions import read_weights
    from runtime.settings import SettingsError

    spec = load_job(job(tmp_path))
    arrays: dict[str, Any] = {
        "0.weight": np.ones((8, 4)), "0.bias": np.ones(8), "2.weight": np.ones((3, 8)), "2.bias": np.ones(3),
    }  # fmt: skip
    path = tmp_path / "w.npz"
    np.savez(path, **arrays)
    assert read_weights(path, spec)
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(SettingsError, match=why):
        read_weights(path, spec)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"no zip at all" * 100])
def test_what_is_no_npz_is_no_start(tmp_path: Path, content: bytes) -> None:
    from fleet.console.operator import load_job
    from fleet.console.versions import read_weights
    from runtime.settings import SettingsError

    path = tmp_path / "w.npz"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be read as NPZ"):
        read_weights(path, load_job(job(tmp_path)))
    with pytest.raises(SettingsError, match="cannot be read as NPZ"):
        read_weights(tmp_path / "nowhere.npz", load_job(job(tmp_path)))
