"""What local training costs on the 784-200-200-10 net at batch 10: time against eager Torch, and memory.

And what it costs that rows and classes may have weights: `steps` without them against a loop of net and SGD alone, and
with them against without, each by its fastest epoch.

    python -m benchmarks.training [--json FILE]

All time measurements are taken in one process on one thread, in turns, so that a busy machine slows both. Memory
is the peak (VmHWM) of a fresh process that trains 600 samples in NumPy for an epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy is loaded: it reads them once

import numpy as np  # noqa: E402

from models.data.dataset import Dataset  # noqa: E402
from models.job import ModelSpec, TrainSpec  # noqa: E402
from models.nets.table import build  # noqa: E402
from models.params import Params, Spec  # noqa: E402
from models.training.order import order_of  # noqa: E402
from models.training.train import begin, finish, seed_for, steps  # noqa: E402
from models.training.weights import Weights  # noqa: E402

MODEL = ModelSpec(inputs=784, hidden=(200, 200), outputs=10)
TRAIN = TrainSpec(epochs=1, batch_size=10, learning_rate=0.1)
N_SAMPLES = 600
TURNS = 9


def make_data() -> Dataset:
    generator = np.random.default_rng(0)
    X = generator.random((N_SAMPLES, MODEL.inputs), np.float32)
    return Dataset(X, generator.integers(0, MODEL.outputs, N_SAMPLES))


def make_params(spec: Spec) -> Params:
    generator = np.random.default_rng(1)
    return {t.name: (0.05 * generator.standard_normal(t.shape)).astype(np.float32) for t in spec}


def time_epoch_numpy(params: Params, data: Dataset, weights: Weights | None = None) -> float:
    net = build(MODEL)
    start = time.perf_counter()
    state = begin(params, seed_for(0, 0, "bench"))
    finish(steps(net, state, data, TRAIN, version_number=0, weights=weights), state)
    return time.perf_counter() - start


def time_epoch_weighed(params: Params, data: Dataset) -> float:
    rows = np.ones(N_SAMPLES, np.float32)
    return time_epoch_numpy(params, data, Weights(rows, np.ones(MODEL.outputs, np.float32), 1.0))


def time_epoch_bare(params: Params, data: Dataset) -> float:
    """The net and SGD alone: no state, no position, no weights."""
    net = build(MODEL)
    start = time.perf_counter()
    params = {name: value.copy() for name, value in params.items()}
    changes = {name: np.empty_like(value) for name, value in params.items()}
    order = order_of(seed_for(0, 0, "bench"), 0, N_SAMPLES)
    for at in range(0, N_SAMPLES, TRAIN.batch_size):
        rows = order[at : at + TRAIN.batch_size]
        _, changes = net.loss_and_gradients(params, data.X[rows], data.y[rows], scale=TRAIN.learning_rate, out=changes)
        for name, value in params.items():
            value -= changes[name]
    return time.perf_counter() - start


def time_epoch_torch(params: Params, data: Dataset) -> float:
    """Plain eager Torch, as its own tutorial writes it: nn.Sequential, backward, torch.optim.SGD."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layers = (nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
    module = nn.Sequential(*layers)
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in params.items()})
    optimizer = torch.optim.SGD(module.parameters(), lr=TRAIN.learning_rate)
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    start = time.perf_counter()
    for rows in torch.split(torch.randperm(len(X)), TRAIN.batch_size):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(X[rows]), y[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        loss.item()
    return time.perf_counter() - start


def measure_time() -> dict[str, float]:
    data, params = make_data(), make_params(build(MODEL).spec)
    each = (time_epoch_numpy, time_epoch_torch, time_epoch_bare, time_epoch_weighed)
    turns = [[time_one(params, data) for time_one in each] for _ in range(TURNS + 2)][2:]
    again = [[time_one(params, data) for time_one in (*each[2:], each[0])] for _ in range(4 * TURNS)]
    bare, weighed, ours = (min(turn[k] for turn in again) for k in range(3))
    return {
        "numpy_ms_per_step": statistics.median(turn[0] for turn in turns) / (N_SAMPLES / 10) * 1e3,
        "torch_ms_per_step": statistics.median(turn[1] for turn in turns) / (N_SAMPLES / 10) * 1e3,
        "torch_over_numpy": statistics.median(turn[1] / turn[0] for turn in turns),
        "numpy_over_bare": ours / bare,
        "weighed_over_numpy": weighed / ours,
    }


def print_peak() -> None:
    """Train once and print this process's peak RSS in MB."""
    time_epoch_numpy(make_params(build(MODEL).spec), make_data())
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measure_memory() -> float:
    command = [sys.executable, "-m", "benchmarks.training", "--peak"]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak()
        return
    figures = measure_time() | {"numpy_peak_rss_mb": measure_memory()}
    for key, value in figures.items():
        print(f"{key:20} {value:8.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
