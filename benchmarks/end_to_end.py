"""A job end to end, compressed as it says against float32 at the same server learning rate: rounds, bytes, ratios.

    python -m benchmarks.end_to_end
    python -m benchmarks.end_to_end job.toml --data train.npz --test test.npz --devices 100 --target 0.95
    python -m benchmarks.end_to_end job.toml --data activity.npz --features F --partition column:subject --seeds 1

Without arguments the digits of scikit-learn on ten devices. Aggregator, agents and messages are the real ones, in one
process (`fleet.simulate`); bytes are MQTT payloads of all devices, control included. Every seed deals the data out,
starts the net and draws the devices alike for both. With --target a run ends when the test accuracy first reaches it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import structs

from fleet.display import n_bytes
from fleet.problem import read_problem
from fleet.simulate import Result, simulate

HEADER = (
    f"{'partition':<16} {'seed':>4} {'coding':<9} {'rounds':>6} {'accuracy':>9} {'up':>9} {'down':>9} {'seconds':>8}"
)


class Pair(NamedTuple):
    """The same job twice: as it says, and in float32."""

    partition: str
    seed: int
    coded: Result
    float32: Result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every pair and print it, then what each partition comes to."""
    asked = _parser().parse_args(arguments)
    print(HEADER)
    pairs = [_run(asked, partition, seed) for partition in asked.partition for seed in range(asked.seeds)]
    print()
    for partition in asked.partition:
        _sum_up(partition, [pair for pair in pairs if pair.partition == partition], asked.target)
    if asked.json is not None:
        asked.json.write_text(
            json.dumps({"pairs": [_plain(pair) for pair in pairs]}, indent=1) + "\n", encoding="utf-8"
        )


def _run(asked: argparse.Namespace, partition: str, seed: int) -> Pair:
    problem = read_problem(
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
    results = []
    for spec in (problem.spec, structs.replace(problem.spec, compression="off")):
        result = simulate(spec, problem.shares, problem.test)
        results.append(result)
        print(
            f"{partition:<16} {seed:>4} {spec.coding.codec:<9} {len(result.rounds):>6} {result.accuracy or 0.0:>9.4f} "
            f"{n_bytes(result.bytes_up):>9} {n_bytes(result.bytes_down):>9} {result.seconds:>8.1f}",
            flush=True,
        )
    return Pair(partition, seed, *results)


def _sum_up(partition: str, pairs: Sequence[Pair], target: float | None) -> None:
    """Say by how much the coded runs needed less, in the mean and at worst."""
    up = np.array([pair.float32.bytes_up / pair.coded.bytes_up for pair in pairs])
    down = np.array([pair.float32.bytes_down / pair.coded.bytes_down for pair in pairs])
    rounds = np.array([len(pair.coded.rounds) / len(pair.float32.rounds) for pair in pairs])
    gap = np.array([(pair.coded.accuracy or 0.0) - (pair.float32.accuracy or 0.0) for pair in pairs])
    print(
        f"{partition}: {up.mean():.0f}x fewer bytes up (worst {up.min():.0f}x), {down.mean():.1f}x fewer down "
        f"(worst {down.min():.1f}x), {rounds.mean():.2f}x the rounds (worst {rounds.max():.2f}x), "
        f"accuracy {100 * gap.mean():+.1f} points"
    )
    for pair in pairs:
        for name, result in (("coded", pair.coded), ("float32", pair.float32)):
            if target is not None and (result.best_accuracy or 0.0) < target:
                print(f"  seed {pair.seed}, {name}: {target:g} was not reached; the ratios above are of unequal runs")


def _plain(pair: Pair) -> dict[str, object]:
    coded, float32 = msgspec.to_builtins(pair.coded), msgspec.to_builtins(pair.float32)
    return {"partition": pair.partition, "seed": pair.seed, "coded": coded, "float32": float32}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", type=Path, default=Path("digits"), metavar="JOB.toml")
    parser.add_argument("--data", default="digits", metavar="FILE.npz|digits")
    parser.add_argument("--test", type=Path, metavar="FILE.npz", help="a test split; else a fifth of the data")
    parser.add_argument("--features", metavar="NAME", help="the array of features in the NPZ files (X)")
    parser.add_argument("--devices", type=int, default=10, metavar="N")
    parser.add_argument("--partition", nargs="+", default=["iid", "shards:2"], metavar="HOW")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--rounds", type=int, metavar="R", help="instead of the job's max_rounds")
    parser.add_argument("--target", type=float, metavar="ACC", help="stop at this accuracy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    return parser


if __name__ == "__main__":
    main()
