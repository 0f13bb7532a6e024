"""The rounds of McMahan et al. 2017 (Communication-Efficient Learning of Deep Networks from Decentralized Data), again.

    python -m benchmarks.paper --train mnist_train.npz --test mnist_test.npz
    python -m benchmarks.paper --train mnist_train.npz --test mnist_test.npz --rows 2nn-iid cnn-iid --codings off strong

A hundred devices with 600 rows each, a tenth of them a round (C = 0.1), batches of ten. The rows are those of Table 1
(E = 1: "2NN" to 97 %) and Table 2 (E = 5: the CNN to 99 %), the paper's rounds beside ours. A round counts as the paper
counts: the first whose test accuracy, made monotone, is at the target. The paper chose the learning rate of each row
on a grid, by this very test set; ours is one a net, and the same for all codings, unless `--learning-rate` says
another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from fleet.console.display import n_bytes
from fleet.problems.problem import read_problem
from fleet.simulation.simulate import Result, simulate

HERE = Path(__file__).parent
DEVICES = 100
HEADER = (
    f"{'row':<11} {'coding':<8} {'target':>6} {'paper':>6} {'ours':>6} {'best':>7} {'up a device':>12} "
    f"{'down':>9} {'minutes':>8}"
)


class Row(NamedTuple):
    """A row of the paper. rounds: those that it needed. most: how many are run at most."""

    about: str
    job: Path
    partition: str
    target: float
    rounds: int
    most: int


ROWS = {
    "2nn-iid": Row("Table 1, 2NN, IID, C = 0.1", HERE / "mnist.toml", "iid", 0.97, 87, 174),
    "2nn-shards": Row("Table 1, 2NN, two shards a device, C = 0.1", HERE / "mnist.toml", "shards:2", 0.97, 664, 664),
    "cnn-iid": Row("Table 2, CNN, IID, E = 5, B = 10", HERE / "mnist_cnn.toml", "iid", 0.99, 20, 40),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every row in every coding, and print it."""
    asked = _parser().parse_args(arguments)
    print(HEADER)
    for name in asked.rows:
        for coding in asked.codings:
            _print(name, coding, _run(ROWS[name], coding, asked))


def _run(row: Row, coding: str, asked: argparse.Namespace) -> Result:
    problem = read_problem(
        row.job,
        str(asked.train),
        how=row.partition,
        n_devices=DEVICES,
        test=asked.test,
        seed=asked.seed,
        rounds=row.most,
        target=row.target,
    )
    train = structs.replace(problem.spec.train, learning_rate=asked.learning_rate or problem.spec.train.learning_rate)
    return simulate(structs.replace(problem.spec, compression=coding, train=train), problem.shares, problem.test)


def _print(name: str, coding: str, found: Result) -> None:
    row = ROWS[name]
    reached = next((n for n, one in enumerate(found.rounds, 1) if (one.accuracy or 0.0) >= row.target), None)
    best = max(one.accuracy or 0.0 for one in found.rounds)
    print(
        f"{name:<11} {coding:<8} {row.target:>6.2f} {row.rounds:>6} {reached or '-':>6} {best:>7.4f} "
        f"{n_bytes(found.bytes_up // DEVICES):>12} {n_bytes(found.bytes_down // DEVICES):>9} "
        f"{found.seconds / 60:>8.1f}",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, metavar="FILE.npz", help="MNIST's 60,000 rows")
    parser.add_argument("--test", type=Path, required=True, metavar="FILE.npz", help="and its 10,000")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--codings", nargs="+", default=["off", "strong"], metavar="CODING")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="instead of that of the job file")
    return parser


if __name__ == "__main__":
    main()
