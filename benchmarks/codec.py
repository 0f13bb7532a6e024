"""The update codec: speed and bytes on real updates, and beside DRIVE and EDEN what it costs in rounds; all of one run.

    python -m benchmarks.codec                                                  # digits of scikit-learn, 64-128-10
    python -m benchmarks.codec --train mnist_train.npz --test mnist_test.npz    # 784-200-200-10
    python -m benchmarks.codec --train ... --test ... --partition shards:2 --target 0.92

Set OPENBLAS_NUM_THREADS=1. A sketch with a bucket for every coordinate is DRIVE at one bit (Vargaftik et al. 2021) and
EDEN at more (2022): those rows are the same code with `buckets` and `bits` said. Rounds are those of
`fleet.simulation.simulate` to a target, beside float32 on the same seed. The hash of a plan is made once a base, and
has a column of its own.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec import structs

from aggregator import record
from aggregator.learner import Learner
from fleet.console.display import n_bytes
from fleet.problems.problem import Problem, read_problem
from fleet.simulation.simulate import simulate
from models.chain import Chain
from models.codec import FLOAT32, INT8, Coding, Terms
from models.codec.terms import terms_for
from models.job import PRESETS, CompressionSpec, RoundsSpec
from models.lattice import initial
from models.nets import table as nets
from models.params import Params, n_parameters, spec_of, subtract
from models.training import train

EVERY_COORDINATE = 2**26
RIVALS = {
    "DRIVE, 1 bit": CompressionSpec(buckets=EVERY_COORDINATE, bits=1, bits_down=2),
    "EDEN, 2 bits": CompressionSpec(buckets=EVERY_COORDINATE, bits=2, bits_down=2),
    "int8": CompressionSpec(codec="int8"),
}


def an_update(problem: Problem) -> Params:
    """Return what the first device makes of the first version."""
    spec = problem.spec
    net = nets.build(spec.model)
    start = initial(net.spec, spec.seed).params(net.spec)
    state = train.begin(start, train.seed_for(spec.seed, 0, "device-00"))
    steps = train.steps(net, state, problem.shares[0], spec.train, version_number=0)
    return subtract(train.finish(steps, state).params, start)


def large_update() -> Params:
    """Return 4.8 million coordinates, nearly low-rank."""
    rng = np.random.default_rng(0)
    head = 0.01 * rng.standard_normal((2400, 12)) @ rng.standard_normal((12, 2000))
    return {"w": (head + 0.003 * rng.standard_normal(head.shape)).astype(np.float32)}


def print_speed(update: Params) -> None:
    """Print what each coding takes on one update, the best of seven."""
    spec = spec_of(update)
    d = n_parameters(spec)
    sketches = [terms_for(d, d // share, bits) for share, bits in ((32, 1), (8, 1), (1, 1), (1, 2), (1, 4))]
    for terms in dict.fromkeys((*sketches, INT8, FLOAT32)):
        coding, rng = Coding(spec, terms, "benchmark"), np.random.default_rng(0)
        hashing = seconds(lambda terms=terms: Coding(spec, terms, "benchmark").hash) if terms.is_sketch else 0.0  # type: ignore[misc]
        body = coding.encode(update, rng)
        encode = seconds(lambda coding=coding, rng=rng: coding.encode(update, rng))  # type: ignore[misc]
        decode = seconds(lambda coding=coding, body=body: coding.decode(body))  # type: ignore[misc]
        unfold = seconds(lambda coding=coding, body=body: coding.tensors(coding.decode(body)))  # type: ignore[misc]
        print(
            f"  {d:>9,} {_named(terms):26} {len(body):>10,} B   hash {1e3 * hashing:6.2f}   encode {1e3 * encode:6.2f}"
            f"   decode {1e3 * decode:6.2f}   to coordinates {1e3 * unfold:6.2f} ms"
        )


def print_server(problem: Problem, update: Params) -> None:
    """Print what the aggregator's arithmetic takes: an update in the sum, and the version that a thousand make."""
    net = nets.build(problem.spec.model)
    d = n_parameters(net.spec)
    for buckets in sorted({max(64, d // 16), EVERY_COORDINATE}):
        spec = structs.replace(problem.spec, compression=CompressionSpec(buckets=buckets), rounds=RoundsSpec())
        learner = Learner(net, spec, record.start(net, spec).to_bytes())
        body = Chain(net.spec, spec).coding(0, learner.terms).encode(update, np.random.default_rng(0))
        began = time.perf_counter()
        for _ in range(1000):
            learner.admit(body, 100)
        admitted = time.perf_counter()
        learner.next()
        made = time.perf_counter()
        print(
            f"  {d:>9,} {_named(learner.terms):26} {len(body):>10,} B   1,000 updates {admitted - began:6.2f} s   "
            f"the version they make {1e3 * (made - admitted):6.1f} ms"
        )


def _named(terms: Terms) -> str:
    if terms.is_sketch:
        return f"{terms.m:,} buckets, {terms.bits} bit{'s' * (terms.bits > 1)}"
    return "int8" if terms == INT8 else "float32"


def seconds(work: Callable[[], object], n: int = 7) -> float:
    """Return what a piece of work takes, the best of n."""
    best = math.inf
    for _ in range(n):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def print_rounds(problem: Problem) -> None:
    """Print the rounds and the bytes of every coding to the job's target."""
    codings: dict[str, CompressionSpec] = {"float32": PRESETS["off"]}
    codings |= {name: PRESETS[name] for name in ("light", "strong", "extreme")} | RIVALS
    print(f"  {'coding':14} {'rounds':>6} {'accuracy':>8} {'up':>10} {'down':>10}   payload of MQTT, all devices")
    for name, coding in codings.items():
        found = simulate(structs.replace(problem.spec, compression=coding), problem.shares, problem.test)
        print(
            f"  {name:14} {len(found.rounds):>6} {found.accuracy or 0.0:>8.4f} {n_bytes(found.bytes_up):>10} "
            f"{n_bytes(found.bytes_down):>10}",
            flush=True,
        )


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--partition", default="iid", metavar="HOW")
    parser.add_argument("--devices", type=int, metavar="N", help="(10, or 100 with --train)")
    parser.add_argument("--target", type=float, default=0.95, metavar="A")
    parser.add_argument("--rounds", type=int, default=120, metavar="N")
    arguments = parser.parse_args()
    problem = _problem(arguments)
    print("speed on one update, best of seven")
    print_speed(an_update(problem))
    print_speed(large_update())
    print("the aggregator's sum, without MQTT and SQLite")
    print_server(problem, an_update(problem))
    print(f"rounds to {arguments.target:g}")
    print_rounds(problem)


def _problem(asked: argparse.Namespace) -> Problem:
    more = {"how": asked.partition, "rounds": asked.rounds, "target": asked.target}
    if asked.train is None:
        return read_problem(Path("digits"), "digits", n_devices=asked.devices or 10, **more)
    return read_problem(
        Path(__file__).parent / "mnist.toml", str(asked.train), test=asked.test, n_devices=asked.devices or 100, **more
    )


if __name__ == "__main__":
    main()
