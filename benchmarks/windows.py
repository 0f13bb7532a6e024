"""Nets on raw windows of people whom nobody has trained on: a fleet of watches and phones beside the pooled net.

    python -m benchmarks.windows --data har_spsw.npz
    python -m benchmarks.windows --data har_spsw.npz --kinds gru --rounds 20 --folds 1

The file has arrays `X` (windows, moments, 6 columns: acceleration in m/s2, turning in rad/s), `y`, `device`, `subject`.
Every fourth person is held out, by turns: with `--folds 4` each of them once. All devices of the others take part in
every round. Devices train by SGD, and the server steps by FedAdam. "pooled" is the same net and start, trained
in one place on all their windows for as many passes, by Adam. Met where the fleet is within two points of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import structs

from fleet.problems.central import together, trained_centrally
from fleet.simulation.simulate import simulate
from models.data.dataset import Dataset
from models.job import AggregateSpec, JobSpec, ModelSpec, RoundsSpec, TrainSpec

SCALE = np.array([0.1, 0.1, 0.1, 1.0, 1.0, 1.0], np.float32)
"""Of each column, to some tens of percent about 0."""
FOLDS = 4
CODINGS = ("off", "strong")
LENGTH, COLUMNS, CLASSES = 50, 6, 5
MODELS = (
    ModelSpec("linear", LENGTH * COLUMNS, (), CLASSES),
    ModelSpec(
        *("cnn1d", LENGTH * COLUMNS, (), CLASSES),
        options={"columns": COLUMNS, "channels": [16, 32], "kernel": 5, "head": "mean"},
    ),
    ModelSpec("gru", LENGTH * COLUMNS, (), CLASSES, options={"columns": COLUMNS, "units": 32}),
)


class People(NamedTuple):
    """Windows of devices that train, and those of people that are held out."""

    shares: list[Dataset]
    test: Dataset


def read(path: Path, fold: int) -> People:
    """Return the windows, with every fourth person held out, beginning with this one."""
    with np.load(path, allow_pickle=False) as file:
        X, y = file["X"].astype(np.float32) * SCALE, file["y"].astype(np.int64)
        device, out = file["device"], file["subject"] % FOLDS == fold

    def part(rows: npt.NDArray[np.bool_]) -> Dataset:
        return Dataset(X[rows].reshape(-1, LENGTH * COLUMNS), y[rows])

    return People([part((device == one) & ~out) for one in np.unique(device[~out])], part(out))


class Asked(NamedTuple):
    """How long, and how fast."""

    rounds: int
    epochs: int
    rate: float


def job(model: ModelSpec, compression: str, asked: Asked) -> JobSpec:
    """Return what is trained."""
    return JobSpec(
        name="windows",
        seed=1,
        model=model,
        compression=compression,  # type: ignore[arg-type]
        deploy="never",
        train=TrainSpec(asked.epochs, 20, asked.rate),
        aggregate=AggregateSpec("fedadam", server_learning_rate=0.02),
        rounds=RoundsSpec(max_rounds=asked.rounds, wait="all"),
    )


def pooled(people: People, model: ModelSpec, asked: Asked) -> float:
    """Return the accuracy of the net trained in one place."""
    alone = structs.replace(job(model, "off", asked), train=TrainSpec(asked.epochs, 20, 0.003, 0.97, "adam"))
    net, params = trained_centrally(alone, together(people.shares), asked.rounds)
    return net.evaluate(params, people.test.X, people.test.y).accuracy or 0.0


def federated(people: People, model: ModelSpec, compression: str, asked: Asked) -> tuple[float, float, float]:
    """Return the accuracy of the fleet's last version, and bytes up and down, a device and round."""
    result = simulate(job(model, compression, asked), people.shares, people.test)
    each = result.devices * len(result.rounds)
    return result.rounds[-1].accuracy or 0.0, result.bytes_up / each, result.bytes_down / each


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    kinds = [model.kind for model in MODELS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="har_spsw.npz")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--folds", type=int, choices=range(1, FOLDS + 1), default=FOLDS)
    asked = parser.parse_args(arguments)
    how = Asked(asked.rounds, asked.epochs, asked.rate)
    folds = [read(asked.data, fold) for fold in range(asked.folds)]
    n_devices, n_test = len(folds[0].shares), sum(len(people.test.y) for people in folds)
    print(f"{n_devices} devices, {asked.rounds} rounds of {asked.epochs} passes; {n_test:,} windows to test on")
    print(f"{'':<8} {'coding':>8} {'fleet':>8} {'pooled':>8} {'points':>8} {'up':>10} {'down':>10}", flush=True)
    for model in (model for model in MODELS if model.kind in asked.kinds):
        central = float(np.mean([pooled(people, model, how) for people in folds]))
        for coding in CODINGS:
            runs = [federated(people, model, coding, how) for people in folds]
            accuracy, up, down = np.mean(runs, axis=0).tolist()
            said = f"{accuracy:>8.4f} {central:>8.4f} {100 * (accuracy - central):>+8.2f}"
            print(f"{model.kind:<8} {coding:>8} {said} {up:>8,.0f} B {down:>8,.0f} B", flush=True)


if __name__ == "__main__":
    main()
