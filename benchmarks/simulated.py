"""What simulating a fleet takes, in a process that does nothing else and loads no other benchmark.

python -m benchmarks.simulated 5000
"""

from __future__ import annotations

import json
import logging
import os
import sys

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is loaded: it reads them once

import numpy as np  # noqa: E402
from msgspec import Struct, to_builtins  # noqa: E402

from benchmarks.memory import peak_mb  # noqa: E402
from fleet.simulation.simulate import simulate  # noqa: E402
from models.data.dataset import Dataset  # noqa: E402
from models.job import JobSpec, ModelSpec, RoundsSpec  # noqa: E402

JOB = JobSpec(
    "scale",
    ModelSpec(inputs=20, hidden=(16,), outputs=3),
    deploy="never",
    rounds=RoundsSpec(fraction=0.1, max_rounds=5),
)
"""387 parameters, five rounds that draw a tenth."""
ROWS_EACH = 10
TESTED = 20
"""Shares of rows that versions are scored on."""


class Simulated(Struct, frozen=True):
    """A simulated job, in a process of its own. cpu_s: all of it, imports included. peak_mb: VmHWM."""

    devices: int
    cpu_s: float
    peak_mb: float


def measure(n_devices: int) -> Simulated:
    """Simulate the job among so many devices, and return what this process has taken so far."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 20))
    n = n_devices + TESTED
    y = np.arange(ROWS_EACH * n) % 3
    X = (centres[y] + rng.standard_normal((len(y), 20))).astype(np.float32)
    pairs = zip(np.split(X, n), np.split(y, n), strict=True)
    shares = [Dataset(np.ascontiguousarray(rows), labels) for rows, labels in pairs]
    test = Dataset(
        np.concatenate([one.X for one in shares[:TESTED]]), np.concatenate([one.y for one in shares[:TESTED]])
    )
    simulate(JOB, shares[TESTED:], test)
    times = os.times()
    return Simulated(n_devices, times.user + times.system, peak_mb())


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # what devices are refused, and what jobs wait for, is no news here
    print(json.dumps(to_builtins(measure(int(sys.argv[1])))))
