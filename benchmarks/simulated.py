"""What simulating a fleet takes, in a process that does nothing else and loads no other benchmark.

    python -m benchmarks.simulated 5000             # a small net, all of five rounds
    python -m benchmarks.simulated --round strong   # a round of a hundred devices, of which ten are drawn

The second line is of 784-200-200-10, 64 rows a device and one step of training, once rounds are what they stay.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Sequence

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is loaded: it reads them once

import numpy as np  # noqa: E402
from msgspec import Struct, to_builtins  # noqa: E402

from benchmarks.memory import peak_mb  # noqa: E402
from fleet.simulation.simulate import simulate  # noqa: E402
from models.data.dataset import Dataset  # noqa: E402
from models.job import PRESETS, JobSpec, ModelSpec, RoundsSpec, TrainSpec  # noqa: E402
from models.nets import table as nets  # noqa: E402
from models.training import train  # noqa: E402

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


MODEL = ModelSpec(inputs=784, hidden=(200, 200), outputs=10)
DEVICES, DRAWN, ROWS = 100, 0.1, 64
WARM, ROUNDS = 10, 30


def measure_round(compression: str) -> dict[str, object]:
    """Simulate rounds, and return what one takes: CPU seconds, the median, and of these the steps of who is drawn."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((MODEL.outputs, MODEL.inputs)).astype(np.float32)

    def rows(n: int) -> Dataset:
        y = np.arange(n) % MODEL.outputs
        return Dataset(centres[y] + 2 * rng.standard_normal((n, MODEL.inputs), np.float32), y)

    job = JobSpec(
        "round",
        MODEL,
        compression=compression,  # type: ignore[arg-type]
        deploy="never",
        train=TrainSpec(epochs=1, batch_size=ROWS, learning_rate=0.05),
        rounds=RoundsSpec(fraction=DRAWN, max_rounds=WARM + ROUNDS),
    )
    shares, times = [rows(ROWS) for _ in range(DEVICES)], [0.0]
    simulate(job, shares, rows(ROWS), lambda _: times.append(time.process_time()))
    each = np.diff(times)[WARM:].tolist()
    net, began = nets.build(MODEL), time.process_time()
    params = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in net.spec}
    for number in range(ROUNDS):
        for share in shares[: round(DRAWN * DEVICES)]:
            state = train.begin(params, train.seed_for(0, number, ""))
            train.finish(train.steps(net, state, share, job.train, version_number=0), state)
    training_s = (time.process_time() - began) / ROUNDS
    return {"compression": compression, "cpu_s": statistics.median(each), "training_s": training_s}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was asked for, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="?", type=int, help="of the small net")
    parser.add_argument("--round", nargs="+", choices=tuple(PRESETS), help="how updates of the rounds are coded")
    asked = parser.parse_args(arguments)
    if (asked.devices is None) == (asked.round is None) or (asked.devices is not None and asked.devices < 1):
        parser.error("say how many devices, at least one, or --round and how its updates are coded")
    logging.disable(logging.ERROR)  # what devices are refused, and what jobs wait for, is no news here
    found = measure(asked.devices) if asked.round is None else [measure_round(one) for one in asked.round]
    print(json.dumps(to_builtins(found)))


if __name__ == "__main__":
    main()
