"""An autoencoder on the series of the Numenta Anomaly Benchmark: a fleet of one device a series beside the pooled net.

    python -m benchmarks.anomaly --data nab.npz

The file has arrays `value`, `y` (1 within an anomaly window) and `offsets` (where each series begins). A device trains
on the windows of the first half of its series without a label, as it is (anomalies too); versions are scored on the
second halves, where a window is an anomaly if its last row is. Each device scales its series by what it has trained on,
since these count from 0.04 to 10^7. "pooled" is the same net from the same start, trained in one place on all rows
together for as many passes. The threshold is that of the fleet, by what its devices' rows score, or of the pooled rows
alike.
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
from fleet.simulation.left import Left
from fleet.simulation.simulate import simulate
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec
from models.measures import anomalies
from models.nets import table as nets
from models.params import Float32

LENGTH, HOP = 64, 4
FARTHEST = 8.0
"""Standard deviations: what lies further counts as this far, or one spike would be all that is learned."""
JOB = JobSpec(
    name="nab",
    model=ModelSpec("autoencoder", inputs=LENGTH, hidden=(32, 8), activation="tanh", options={"normal_share": 0.99}),
    contract=ContractSpec(),
    train=TrainSpec(epochs=1, batch_size=32, learning_rate=0.2, momentum=0.9),
    rounds=RoundsSpec(max_rounds=40, wait="all"),
)


class Series(NamedTuple):
    """One device: what it trains on, and what it is tested on."""

    train: Dataset
    test: Dataset


class Row(NamedTuple):
    """A line of the table. each: the mean over the series that have both kinds of windows."""

    name: str
    auc: float
    each: float
    average_precision: float
    recall: float
    false_alarms: float
    bytes_up: float


def read(path: Path) -> list[Series]:
    """Return the series of the file that change at all in their first half."""
    with np.load(path, allow_pickle=False) as file:
        value, y, offsets = file["value"].astype(np.float64), file["y"].astype(np.int64), file["offsets"]
    found = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        half = (stop - start) // 2
        mean, spread = value[start : start + half].mean(), value[start : start + half].std()
        if spread > 0:
            scaled = np.clip((value[start:stop] - mean) / spread, -FARTHEST, FARTHEST).astype(np.float32)
            labels = y[start:stop]
            known = np.zeros(half, np.int64)  # nobody has told the device
            found.append(Series(windows(scaled[:half], known), windows(scaled[half:], labels[half:])))
    return found


def windows(values: Float32, y: npt.NDArray[np.int64]) -> Dataset:
    """Return the windows of a series, each with the label of its last row."""
    X = np.lib.stride_tricks.sliding_window_view(values, LENGTH)[::HOP]
    return Dataset(np.ascontiguousarray(X), y[LENGTH - 1 :: HOP])


def measured(name: str, scores: Sequence[Float32], series: Sequence[Series], threshold: float, n_bytes: float) -> Row:
    """Return a line: scores are (n,) of each series' windows to test on."""
    labels = [one.test.y for one in series]
    whole, y = np.concatenate(scores), np.concatenate(labels)
    found = anomalies.exact_curves(whole, y) | anomalies.at_threshold(anomalies.histogram(whole, y), threshold)
    each = [anomalies.exact_curves(s, one).get("auc") for s, one in zip(scores, labels, strict=True)]
    mean = float(np.mean([value for value in each if value is not None]))
    keys = ("average_precision", "recall", "false_alarms")
    return Row(name, found["auc"], mean, *(found[key] for key in keys), n_bytes)


def federated(series: Sequence[Series], compression: str) -> Row:
    """Return how a fleet does."""
    left: list[Left] = []
    spec = structs.replace(JOB, compression=compression)
    test = together([one.test for one in series])
    result = simulate(spec, [one.train for one in series], test, on_end=left.append)
    net = nets.of_job(spec)
    scores = [net.predict(left[0].params, one.test.X)[:, 0] for one in series]
    threshold = float(left[0].about["threshold"])
    n_bytes = result.bytes_up / result.devices / len(result.rounds)
    return measured(f"federated, {compression}", scores, series, threshold, n_bytes)


def pooled(series: Sequence[Series]) -> Row:
    """Return how the same net does in one place."""
    data = together([one.train for one in series])
    net, params = trained_centrally(JOB, data, JOB.rounds.max_rounds)
    counts = anomalies.histogram(net.predict(params, data.X)[:, 0], data.y)
    threshold = anomalies.threshold_of(counts[0], nets.normal_share_of(JOB.model) or 0.0)
    scores = [net.predict(params, one.test.X)[:, 0] for one in series]
    return measured("pooled", scores, series, threshold, 0.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="nab.npz")
    arguments = parser.parse_args()
    series = read(arguments.data)
    n, n_test = (sum(len(part.y) for part in parts) for parts in zip(*series, strict=True))
    n_bad = sum(int(one.test.y.sum()) for one in series)
    print(f"{len(series)} series, a device each; {n:,} windows of {LENGTH} to train on, without labels")
    print(f"tested on {n_test:,} windows, {n_bad:,} of them anomalies; {JOB.rounds.max_rounds} rounds of one pass")
    print(f"{'':<20} {'AUC':>7} {'a series':>9} {'AP':>7} {'recall':>7} {'false alarms':>13} {'up, a round':>12}")
    rows = [pooled(series), *(federated(series, one) for one in ("off", "strong"))]
    for row in rows:
        sent = f"{row.bytes_up:,.0f} B" if row.bytes_up else "-"
        print(
            f"{row.name:<20} {row.auc:>7.4f} {row.each:>9.4f} {row.average_precision:>7.4f} {row.recall:>7.3f} "
            f"{row.false_alarms:>13.4f} {sent:>12}"
        )


if __name__ == "__main__":
    main()
