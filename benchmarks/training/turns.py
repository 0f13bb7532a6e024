"""Steps in turn with what they are held against, in one process on one thread: a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.training import products
from benchmarks.training.rows import Row
from models.data.dataset import Dataset
from models.job import TrainSpec
from models.lattice import initial
from models.nets.table import build
from models.training.train import begin, seed_for, steps

RATE = 0.01
WARM = 10
BATCHES_AN_EPOCH = 60
"""As of a device with 600 rows at batch 10: what is done once an epoch counts among steps by so much."""
RUNNING = 5
FEWEST, MOST = 15, 1000
"""Pairs that are timed, of so many steps each."""


class Timed(NamedTuple):
    """Medians of pairs: ms of a step, of what it is held against, and of their ratio."""

    row: Row
    batch: int
    ours_ms: float
    other_ms: float
    ratio: float
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio <= self.row.goal


def timed(row: Row, batch: int, seconds: float) -> Timed:
    """Take the times of pairs for about so long."""
    ours, other = ours_of(row, batch), _other_of(row, batch)
    for _ in range(WARM):
        ours()
        other()
    pairs: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(pairs) < FEWEST or (len(pairs) < MOST and time.perf_counter() < until):
        pairs.append((_seconds(ours), _seconds(other)))
    mine, their = (1e3 * statistics.median(pair[k] for pair in pairs) for k in range(2))
    return Timed(row, batch, mine, their, statistics.median(a / b for a, b in pairs), len(pairs))


def ours_of(row: Row, batch: int) -> Callable[[], object]:
    """Return what takes a step as a device does: the net, SGD, and the state that a checkpoint would hold."""
    net, generator = build(row.model), np.random.default_rng(0)
    X = generator.random((BATCHES_AN_EPOCH * batch, row.model.inputs), np.float32)
    data = Dataset(X, generator.integers(0, row.model.outputs, BATCHES_AN_EPOCH * batch))
    train = TrainSpec(epochs=1_000_000, batch_size=batch, learning_rate=RATE)
    state = begin(initial(net.spec, 0).params(net.spec), seed_for(0, 0, "bench"))
    run = steps(net, state, data, train, version_number=0)
    return lambda: next(run)


def _other_of(row: Row, batch: int) -> Callable[[], object]:
    if row.against == "products":
        return products.stepper(row.model, batch)
    if row.against == "pieces":
        return products.stepper_in_pieces(row.model, batch)
    from benchmarks.training import eager  # here alone: it loads torch

    return eager.stepper(row, batch, RATE)


def _seconds(step: Callable[[], object]) -> float:
    """Return the CPU time of a step, of several running: its numbers are in the cache then, as where it runs alone."""
    start = time.process_time()
    for _ in range(RUNNING):
        step()
    return (time.process_time() - start) / RUNNING
