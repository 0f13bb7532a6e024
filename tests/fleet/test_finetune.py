"""A fleet of real processes that trains a part of a net: what is frozen is given once, and never travels again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from edge_agent.slot import Slot
from fleet.cli import main
from fleet.local import stage as stages
from fleet.local.meter import Meter
from fleet.local.processes import FEDGE, Child, Children
from fleet.local.stage import Role, Stage
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec
from models.nets import table as nets
from runtime.failpoints import FAILPOINT

Until = Callable[..., None]
INPUTS, HIDDEN = 500, 4000
MODEL = ModelSpec("mlp", INPUTS, (HIDDEN,), 3)
N_FROZEN = INPUTS * HIDDEN + HIDDEN
JOB = """
name = "part"
deploy = "final"
compression = "off"
[model]
inputs = 500
hidden = [4000]
outputs = 3
[train]
freeze = ["0"]
learning_rate = 0.01
[rounds]
quorum = 2
max_rounds = 2
"""


def rows(n: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    X = rng.normal(size=(n, INPUTS)).astype(np.float32)
    X[:, :3] += 4.0 * np.eye(3, dtype=np.float32)[y]
    return Dataset(X, y)


def started(children: Children, role: Role, dies_at: str = "") -> Child:
    command = [*FEDGE, role.kind, "run", "--config", str(role.config)]
    return children.start(role.name, command, role.log, {FAILPOINT: dies_at} if dies_at else {})


def weights(file: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    found = {t.name: rng.normal(size=t.shape, scale=0.05).astype(np.float32) for t in nets.build(MODEL).spec}
    np.savez(file, **found)  # type: ignore[arg-type]
    return found


def served(stage: Stage) -> list[Path]:
    return [slot for slot in stage.slots(JobSpec("part", MODEL)) if slot.exists() and Slot(slot).card is not None]


def test_what_is_frozen_is_fetched_once_whatever_dies_and_what_is_served_is_the_whole_net(
    mosquitto: EmbeddedBroker, tmp_path: Path, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    given = weights(tmp_path / "net.npz")
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    meter = Meter(mosquitto.host, mosquitto.port)
    where = BrokerSettings(port=meter.start(), protocol=mosquitto.protocol)
    stage = stages.build(tmp_path / "fleet", JobSpec("part", MODEL), [rows(40, 1), rows(40, 2)], rows(20, 3), where)
    first, second = stage.devices

    def down(role: Role) -> int:
        return meter.totals(f"demo-{role.name}").down.wire_bytes

    with Children() as children:
        started(children, stage.aggregator)
        until(lambda: "online" in stage.aggregator.log.read_text())
        submit = ["job", "submit", tmp_path / "job.toml", "--base", tmp_path / "net.npz"]
        assert main([*map(str, submit), "--config", str(stage.aggregator.config)]) == 0, capsys.readouterr().err
        dying = started(children, first, "bases.piece.after:30")
        started(children, second)
        until(lambda: dying.process.poll() is not None, timeout_s=120.0)
        assert dying.process.returncode == -signal.SIGKILL
        dying = started(children, first, "bases.name.before")
        until(lambda: dying.process.poll() is not None, timeout_s=120.0)
        last = started(children, first)
        until(lambda: "finished" in stage.aggregator.log.read_text(), timeout_s=120.0)
        until(lambda: len(served(stage)) == 2, timeout_s=120.0)
        n_bytes = 4 * N_FROZEN
        for role in stage.devices:  # what was on its way as one died comes again: 20 pieces at most
            assert n_bytes <= down(role) <= 1.3 * n_bytes + 3 * 2**20
            up = meter.totals(f"demo-{role.name}").up.wire_bytes
            assert up <= 2 * 4 * (3 * HIDDEN + 3) + 40_000
        before = down(first)
        last.process.send_signal(signal.SIGKILL)
        last.process.wait()
        started(children, first)
        until(lambda: first.log.read_text().count("takes part job=part") >= 2, timeout_s=120.0)
        assert down(first) - before <= 200_000
        out = tmp_path / "out.npz"
        export = ["job", "export", "part", "--config", str(stage.aggregator.config), "--out"]
        assert main([*export, str(out)]) == 0
        assert main([*export, str(tmp_path / "best.onnx"), "--version", "last"]) == 0
    meter.stop()
    found = np.load(out)
    for name in ("0.weight", "0.bias"):
        np.testing.assert_array_equal(found[name], given[name])
    assert not np.array_equal(found["2.weight"], given["2.weight"])
    assert np.abs(found["2.weight"] - given["2.weight"]).max() < 0.2  # it began with what the file has of it
    for slot in served(stage):
        with np.load(slot / "model.npz") as there:
            assert there.files == list(given)
            np.testing.assert_array_equal(there["0.weight"], given["0.weight"])
            np.testing.assert_array_equal(there["2.weight"], found["2.weight"])
    card = json.loads((served(stage)[0] / "model.json").read_text())
    assert "model.onnx" in card["files"]
