"""A fleet that this machine has no memory for is refused before anything of it is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fleet import memory
from fleet.simulation import simulate as simulation
from models.budget import Budget
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec
from models.needs import MB
from models.nets.size import of_model
from runtime.settings import SettingsError

JOB = JobSpec("j", ModelSpec("mlp", 1000, (1000, 1000), 10), deploy="never")
ROWS = Dataset(np.zeros((10, 1000), np.float32), np.zeros(10, np.int64))


@pytest.fixture
def a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Budget(memory_bytes=400 * MB, memory_from="3/4 of the machine's 533 MB")
    monkeypatch.setattr(memory.budget, "found", lambda *_: there)


def test_a_simulation_that_does_not_fit_says_so_with_the_numbers(
    a_small_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "_workshop", None)
    with pytest.raises(
        SettingsError, match=r"3 simulated devices with a net of 2,012,010 parameters take about .* 400 MB"
    ):
        simulation.simulate(JOB, [ROWS] * 3, ROWS)


def test_a_demo_that_does_not_fit_says_so_with_the_numbers(a_small_machine: None) -> None:
    size = of_model(JOB.model)
    assert size is not None
    memory.check_demo(JOB, size, 1)
    for n in (2, 8):
        message = rf"an aggregator and {n} devices .* there are 400 MB \(3/4 of the machine's"
        with pytest.raises(SettingsError, match=message):
            memory.check_demo(JOB, size, n)


def test_a_small_job_fits_a_small_machine(a_small_machine: None, tmp_path: Path) -> None:
    small = JobSpec("j", ModelSpec("mlp", 64, (128,), 10))
    size = of_model(small.model)
    assert size is not None
    memory.check_simulation(small, size, 1000, 100)
    memory.check_demo(small, size, 8)
