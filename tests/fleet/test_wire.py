"""The simulator against processes over a real mosquitto: the same model, and fewer bytes than MQTT really sends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import wire
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from fleet.simulation.simulate import simulate
from models.data.dataset import Dataset
from models.job import JobSpec
from runtime.settings import load

JOB = """
name = "blobs"
deploy = "never"
[model]
inputs = 4
hidden = [16]
outputs = 3
[rounds]
fraction = {fraction}
quorum = 2
max_rounds = 3
wait = "all"
"""


def blobs(n: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return Dataset((2.0 * np.eye(3, 4)[y] + rng.normal(size=(n, 4)) * 0.5).astype(np.float32), y.astype(np.int64))


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_processes_make_the_very_model_of_the_simulator(fraction: float, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(JOB.format(fraction=fraction), encoding="utf-8")
    spec, train, test = load(path, JobSpec), blobs(120, 0), blobs(60, 1)
    shares = dealt(train, deal("iid", train.y, 4, 0))
    simulated, wired = simulate(spec, shares, test), wire.run(spec, shares, test)
    assert simulated.sha256.startswith(wired.sha256)
    assert [row.accuracy for row in wired.rounds] == pytest.approx([row.accuracy for row in simulated.rounds], abs=1e-4)
    assert wired.wire_up > wired.payload_up >= simulated.body_bytes_up
    assert wired.wire_down > wired.payload_down >= simulated.body_bytes_down
    assert wired.words_up["offer"] >= simulated.body_bytes_up
