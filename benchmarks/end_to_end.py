"""A job end to end, in several codings and in float32 at the same server learning rate: rounds, bytes, ratios.

    python -m benchmarks.end_to_end
    python -m benchmarks.end_to_end job.toml --data train.npz --test test.npz --devices 100 --target 0.95 --wire
    python -m benchmarks.end_to_end job.toml --data activity.npz --features F --partition column:device --wire
    python -m benchmarks.end_to_end job.toml --data train.npz --codings light strong extreme --curve curve.png

Without arguments the digits of scikit-learn on ten devices. Every seed deals the data out, starts the net and draws the
devices alike for all codings. With --target a run ends when the test accuracy first reaches it.

Without --wire all is computed in one process (`fleet.simulation.simulate`) and bytes are payloads of MQTT. With it
every device is a process, mosquitto stands between them, and a proxy before it counts every byte that MQTT sends to and
from devices: headers, acknowledgements, subscriptions, pings, resends. Payloads alone are shown beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec import structs

from benchmarks import wire
from benchmarks.wire import Wired
from fleet.console.display import n_bytes
from fleet.demo import plots
from fleet.problems.problem import Problem, read_problem
from fleet.simulation.simulate import Result, simulate
from models.job import PRESETS

FLOAT32 = "off"
HEADER = (
    f"{'partition':<14} {'seed':>4} {'coding':<8} {'rounds':>6} {'accuracy':>8} {'up':>9} {'down':>9} "
    f"{'payload up':>10} {'and down':>9} {'seconds':>8}"
)


class Point(NamedTuple):
    """A version: its accuracy, and what all devices had sent and received when it was there."""

    accuracy: float
    up: int
    down: int


class Measured(NamedTuple):
    """One job from its first to its last round. Bytes: of MQTT with --wire, else of payload, as the payload is."""

    partition: str
    seed: int
    coding: str
    points: list[Point]
    up: int
    down: int
    payload_up: int
    payload_down: int
    seconds: float
    sha256: str

    def to(self, accuracy: float) -> tuple[int, Point] | None:
        """Return the first round that reaches an accuracy, and where it stood then; None: none did."""
        return next(((n, point) for n, point in enumerate(self.points, start=1) if point.accuracy >= accuracy), None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print it, then what each coding comes to beside float32."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.seeds < 1:
        parser.error(f"--seeds {asked.seeds}: there is nothing to compare without a seed")
    codings = [*dict.fromkeys(asked.codings or [_own]), FLOAT32]
    print(
        f"bytes are {'all that MQTT sends' if asked.wire else 'payloads of MQTT'}, of all devices together\n\n{HEADER}"
    )
    runs = []
    for partition, seed in itertools.product(asked.partition, range(asked.seeds)):
        problem = _problem(asked, partition, seed)
        for coding in codings:
            runs.append(_run(problem, partition, seed, coding, over_wire=asked.wire))
            _print(runs[-1])
    for partition, coding in itertools.product(asked.partition, codings[:-1]):
        _compare([run for run in runs if run.partition == partition], coding, asked)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"runs": [_plain(run) for run in runs]}, indent=1) + "\n", encoding="utf-8")
    if asked.curve is not None:
        _draw(runs, asked.curve)


_own = "as the job says"


def _problem(asked: argparse.Namespace, partition: str, seed: int) -> Problem:
    return read_problem(
        asked.job,
        asked.data,
        how=partition,
        n_devices=asked.devices,
        test=asked.test,
        features=asked.features,
        seed=seed,
        rounds=asked.rounds,
        target=asked.target,
    )


def _run(problem: Problem, partition: str, seed: int, coding: str, *, over_wire: bool) -> Measured:
    spec = problem.spec if coding == _own else structs.replace(problem.spec, compression=coding)  # type: ignore[arg-type]
    name = spec.coding.codec if coding == _own else coding
    if over_wire:
        return _wired(partition, seed, name, wire.run(spec, problem.shares, problem.test))
    return _simulated(partition, seed, name, simulate(spec, problem.shares, problem.test))


def _wired(partition: str, seed: int, coding: str, found: Wired) -> Measured:
    points = [Point(row.accuracy or 0.0, row.wire_up, row.wire_down) for row in found.rounds]
    payload = found.payload_up, found.payload_down
    return Measured(
        partition, seed, coding, points, found.wire_up, found.wire_down, *payload, found.seconds, found.sha256
    )


def _simulated(partition: str, seed: int, coding: str, found: Result) -> Measured:
    sums = zip(
        itertools.accumulate(row.bytes_up for row in found.rounds),
        itertools.accumulate(row.bytes_down for row in found.rounds),
        strict=True,
    )
    points = [Point(row.accuracy or 0.0, *so_far) for row, so_far in zip(found.rounds, sums, strict=True)]
    payload = found.bytes_up, found.bytes_down
    return Measured(partition, seed, coding, points, *payload, *payload, found.seconds, found.sha256)


def _print(run: Measured) -> None:
    print(
        f"{run.partition:<14} {run.seed:>4} {run.coding:<8} {len(run.points):>6} {run.points[-1].accuracy:>8.4f} "
        f"{n_bytes(run.up):>9} {n_bytes(run.down):>9} {n_bytes(run.payload_up):>10} {n_bytes(run.payload_down):>9} "
        f"{run.seconds:>8.1f}",
        flush=True,
    )


# Beside float32.


def _compare(runs: Sequence[Measured], coding: str, asked: argparse.Namespace) -> None:
    """Say by how much a coding needed less than float32: to every level on the way, and to the end."""
    plain = [run for run in runs if run.coding == FLOAT32]
    coded = [run for run in runs if run.coding != FLOAT32 and coding in (_own, run.coding)]
    pairs = list(zip(coded, plain, strict=True))
    print(f"\n{plain[0].partition}, {coded[0].coding} beside float32, {len(pairs)} seeds: mean, and the worst seed")
    print(f"{'to':>8} {'rounds':>16} {'times':>14} {'fewer bytes up':>18} {'and down':>16}")
    for level in asked.at or _levels(plain):
        there = [(ours, theirs) for one, other in pairs if (ours := one.to(level)) and (theirs := other.to(level))]
        if there:
            missing = "" if len(there) == len(pairs) else f"   {len(there)} seeds got there in both"
            print(f"{level:>8.4g} {_ratios(there)}{missing}")
    print(f"{'the end':>8} {_ratios([((len(one.points), one), (len(other.points), other)) for one, other in pairs])}")
    up = np.mean([other.payload_up / one.payload_up for one, other in pairs])
    down = np.mean([other.payload_down / one.payload_down for one, other in pairs])
    gap = np.mean([one.points[-1].accuracy - other.points[-1].accuracy for one, other in pairs])
    print(f"{'':>8} payload alone: {up:.1f}x fewer up, {down:.1f}x fewer down; accuracy {100 * gap:+.2f} points")


def _levels(plain: Sequence[Measured]) -> list[float]:
    """Choose accuracies on the way to what every float32 run reached, by the share of errors that is left."""
    reached = min(max(point.accuracy for point in run.points) for run in plain)
    return [round(1 - factor * (1 - reached), 4) for factor in (2.0, 1.5, 1.2, 1.0)]


def _ratios(pairs: Sequence[tuple[tuple[int, Measured | Point], tuple[int, Measured | Point]]]) -> str:
    """Return rounds of both and their ratio, and the ratios of bytes; (round, where it stood) of ours and of theirs."""
    ours, theirs = (np.mean([side[0] for side in sides]) for sides in zip(*pairs, strict=True))
    worst = max(one / other for (one, _), (other, _) in pairs)
    up = np.array([other.up / one.up for (_, one), (_, other) in pairs])
    down = np.array([other.down / one.down for (_, one), (_, other) in pairs])
    return (
        f"{ours:>7.1f} / {theirs:<6.1f} {ours / theirs:>7.2f} {worst:>6.2f} "
        f"{up.mean():>10.1f}x {up.min():>6.1f} {down.mean():>8.1f}x {down.min():>6.1f}"
    )


def _plain(run: Measured) -> dict[str, object]:
    return run._asdict() | {"points": [point._asdict() for point in run.points]}


def _draw(runs: Sequence[Measured], path: Path) -> None:
    """Draw accuracy over bytes, a line a run."""
    lines = [
        (run.coding, [point.up + point.down for point in run.points], [point.accuracy for point in run.points])
        for run in runs
    ]
    plots.accuracy_by_bytes_of(lines, runs[0].partition, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", type=Path, default=Path("digits"), metavar="JOB.toml")
    parser.add_argument("--data", default="digits", metavar="FILE.npz|digits")
    parser.add_argument("--test", type=Path, metavar="FILE.npz", help="a test split; else a fifth of the data")
    parser.add_argument("--features", metavar="NAME", help="the array of features in the NPZ files (X)")
    parser.add_argument("--devices", type=int, default=10, metavar="N")
    parser.add_argument("--partition", nargs="+", default=["iid", "shards:2"], metavar="HOW")
    parser.add_argument("--codings", nargs="+", choices=[level for level in PRESETS if level != FLOAT32])
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--rounds", type=int, metavar="R", help="instead of the job's max_rounds")
    parser.add_argument("--target", type=float, metavar="ACC", help="stop at this accuracy")
    parser.add_argument("--at", type=float, nargs="+", metavar="ACC", help="compare at these accuracies")
    parser.add_argument("--wire", action="store_true", help="every device a process, every byte of MQTT counted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    parser.add_argument("--curve", type=Path, metavar="FILE.png", help="draw accuracy over bytes there")
    return parser


if __name__ == "__main__":
    main()
