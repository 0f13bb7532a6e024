"""What it costs that rows and classes may have weights, on the 784-200-200-10 net at batch 10; memory of a process.

`steps` without weights against a loop of net and SGD alone, and with them against without, each by its fastest epoch.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from benchmarks.memory import peak_mb
from benchmarks.training.rows import MLP as MODEL
from models.data.dataset import Dataset
from models.job import TrainSpec
from models.nets.table import build
from models.params import Params, Spec
from models.training.order import order_of
from models.training.train import begin, finish, seed_for, steps
from models.training.weights import Weights

TRAIN = TrainSpec(epochs=1, batch_size=10, learning_rate=0.1)
N_SAMPLES = 600
TURNS = 36


def make_data() -> Dataset:
    generator = np.random.default_rng(0)
    X = generator.random((N_SAMPLES, MODEL.inputs), np.float32)
    return Dataset(X, generator.integers(0, MODEL.outputs, N_SAMPLES))


def make_params(spec: Spec) -> Params:
    generator = np.random.default_rng(1)
    return {t.name: (0.05 * generator.standard_normal(t.shape)).astype(np.float32) for t in spec}


def time_epoch_numpy(params: Params, data: Dataset, weights: Weights | None = None) -> float:
    net = build(MODEL)
    start = time.process_time()
    state = begin(params, seed_for(0, 0, "bench"))
    finish(steps(net, state, data, TRAIN, version_number=0, weights=weights), state)
    return time.process_time() - start


def time_epoch_weighed(params: Params, data: Dataset) -> float:
    rows = np.ones(N_SAMPLES, np.float32)
    return time_epoch_numpy(params, data, Weights(rows, np.ones(MODEL.outputs, np.float32), 1.0))


def time_epoch_bare(params: Params, data: Dataset) -> float:
    """The net and SGD alone: no state, no position, no weights."""
    net = build(MODEL)
    start = time.process_time()
    params = {name: value.copy() for name, value in params.items()}
    changes = {name: np.empty_like(value) for name, value in params.items()}
    order = order_of(seed_for(0, 0, "bench"), 0, N_SAMPLES)
    for at in range(0, N_SAMPLES, TRAIN.batch_size):
        rows = order[at : at + TRAIN.batch_size]
        _, changes = net.loss_and_gradients(params, data.X[rows], data.y[rows], scale=TRAIN.learning_rate, out=changes)
        for name, value in params.items():
            value -= changes[name]
    return time.process_time() - start


def measured() -> dict[str, float]:
    """Return the ratios of the fastest epochs, and the peak of a process."""
    data, params = make_data(), make_params(build(MODEL).spec)
    each = (time_epoch_bare, time_epoch_weighed, time_epoch_numpy)
    turns = [[time_one(params, data) for time_one in each] for _ in range(TURNS + 2)][2:]
    bare, weighed, ours = (min(turn[k] for turn in turns) for k in range(3))
    return {"numpy_over_bare": ours / bare, "weighed_over_numpy": weighed / ours, "numpy_peak_rss_mb": _peak()}


def print_peak() -> None:
    """Train once and print this process's peak RSS in MB."""
    time_epoch_numpy(make_params(build(MODEL).spec), make_data())
    print(peak_mb())


def _peak() -> float:
    command = [sys.executable, "-m", "benchmarks.training", "--peak"]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
