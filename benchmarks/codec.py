"""The update codec on real updates: bits at equal error, and speed, all of one run.

    python -m benchmarks.codec                                                  # digits of scikit-learn, 64-128-10
    python -m benchmarks.codec --train mnist_train.npz --test mnist_test.npz    # 784-200-200-10
    python -m benchmarks.codec --train ... --test ... --shards 2 --rate 0.1     # two shards of sorted labels each

Set OPENBLAS_NUM_THREADS=1. A hundred devices share --examples; the updates are made by local training, one
epoch in batches of ten, through the very code that runs on devices, after ten rounds without compression.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fleet.measure import eden
from models import codec, nets, train
from models.codec.frame import write
from models.dataset import Dataset, fit, load
from models.job import ModelSpec, TrainSpec
from models.lattice import initial
from models.params import Params, n_parameters, spec_of, subtract

Float64 = npt.NDArray[np.float64]

N_DEVICES, N_DRAWN = 100, 10
STEPS = (16.0, 11.0, 8.0, 5.6, 4.0, 2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 0.25, 0.12, 0.06, 0.03)


class Fleet(NamedTuple):
    """Devices with their data, the net they train, and the test set."""

    net: nets.Net
    parts: list[Dataset]
    test: Dataset
    train: TrainSpec


def fleet_of(arguments: argparse.Namespace) -> Fleet:
    rng = np.random.default_rng(0)
    if arguments.train is None:
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        X, order = (X / 16).astype(np.float32), rng.permutation(len(y))
        whole, model = Dataset(X[order], y[order]), ModelSpec(inputs=64, hidden=(128,), outputs=10)
        data, test = Dataset(whole.X[:1500], whole.y[:1500]), Dataset(whole.X[1500:], whole.y[1500:])
    else:
        model = ModelSpec(inputs=784, hidden=(200, 200), outputs=10)
        data, test = fit(load(arguments.train), model), fit(load(arguments.test), model)
    chosen = rng.permutation(len(data.y))[: arguments.examples]
    data = Dataset(data.X[chosen], data.y[chosen])
    rows = shares(np.asarray(data.y), arguments.shards, rng)
    settings = TrainSpec(learning_rate=arguments.rate)
    return Fleet(nets.build(model), [Dataset(data.X[r], data.y[r]) for r in rows], test, settings)


def shares(y: npt.NDArray[np.int64], shards: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Deal rows to devices: at random, or as so many shards of the rows sorted by label (McMahan et al.
    2017)."""
    if not shards:
        return list(np.array_split(rng.permutation(len(y)), N_DEVICES))
    pieces = np.array_split(np.argsort(y, kind="stable"), shards * N_DEVICES)
    dealt = rng.permutation(len(pieces)).reshape(N_DEVICES, shards)
    return [np.concatenate([pieces[piece] for piece in hand]) for hand in dealt]


def local_update(fleet: Fleet, params: Params, device: int, version: int) -> Params:
    state = train.begin(params, train.seed_for(0, version, str(device)))
    run = train.steps(fleet.net, state, fleet.parts[device], fleet.train, version_number=version)
    return subtract(train.finish(run, state).params, params)


def some_updates(fleet: Fleet, n: int = 3, rounds: int = 10) -> list[Params]:
    """Train a few rounds without compression, then give the updates of n devices."""
    params, rng = initial(fleet.net.spec, 0).params(fleet.net.spec), np.random.default_rng(0)
    for version in range(rounds):
        drawn = rng.choice(N_DEVICES, N_DRAWN, replace=False).tolist()
        updates = [local_update(fleet, params, device, version) for device in drawn]
        params = {name: old + np.mean([u[name] for u in updates], axis=0) for name, old in params.items()}
    return [local_update(fleet, params, device, rounds) for device in range(n)]


def point(updates: Sequence[Params], code: Callable[[Params], tuple[int, Sequence[Float64]]]) -> tuple[float, float]:
    """Return (bits per coordinate, NMSE), each the mean over updates."""
    bits, lost = [], []
    for update in updates:
        n_bytes, decoded = code(update)
        truth = [values.astype(np.float64) for values in update.values()]
        energy = sum(float(np.square(t).sum()) for t in truth)
        bits.append(8 * n_bytes / n_parameters(spec_of(update)))
        lost.append(sum(float(np.square(t - d).sum()) for t, d in zip(truth, decoded, strict=True)) / energy)
    return float(np.mean(bits)), float(np.mean(lost))


def by_ours(name: str, step: float) -> Callable[[Params], tuple[int, Sequence[Float64]]]:
    def code(update: Params) -> tuple[int, Sequence[Float64]]:
        tensors = tuple(update.values())
        body = write(tensors, tensors, name, step, np.random.default_rng(0))
        return len(body), [decoded.values() for decoded in codec.decode(body, spec_of(update))]

    return code


def by_eden(bits: int) -> Callable[[Params], tuple[int, Sequence[Float64]]]:
    def code(update: Params) -> tuple[int, Sequence[Float64]]:
        quantiser = eden(update, bits)
        body = quantiser.encode()
        return len(body), quantiser.decode(body)

    return code


def print_bits(updates: Sequence[Params]) -> None:
    curve = sorted((nmse, bits) for bits, nmse in (point(updates, by_ours("adaptive", step)) for step in STEPS))
    errors, bits = np.log([nmse for nmse, _ in curve]), [b for _, b in curve]

    def ours(nmse: float) -> float:
        return float(np.interp(math.log(nmse), errors, bits))

    print("bits per coordinate at equal NMSE")
    for nmse in (0.3, 0.1, 0.03, 0.01):
        print(f"  NMSE {nmse:<6g} adaptive {ours(nmse):6.3f}   Gaussian bound {0.5 * math.log2(1 / nmse):6.3f}")
    rivals = {"int8": by_ours("int8", 1.0), "EDEN 1 bit": by_eden(1), "EDEN 2 bit": by_eden(2)}
    for name, code in rivals.items():
        cost, nmse = point(updates, code)
        fewer = f"{ours(nmse):.3f}, {cost / ours(nmse):.1f} times fewer"
        print(f"  {name:11} {cost:6.3f} at NMSE {nmse:.2g}: adaptive {fewer}")


def seconds(work: Callable[[], object], n: int = 7) -> float:
    best = math.inf
    for _ in range(n):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def print_speed(update: Params, name: str) -> None:
    tensors, spec = tuple(update.values()), spec_of(update)
    for label, codec_name, step, stochastic in (
        ("float32", "float32", 1.0, False),
        ("int8", "int8", 1.0, False),
        ("nearest, step 4", "adaptive", 4.0, False),
        ("stochastic, step 8", "adaptive", 8.0, True),
    ):

        def code(codec_name: str = codec_name, step: float = step, stochastic: bool = stochastic) -> bytes:
            return write(tensors, tensors, codec_name, step, np.random.default_rng(0), stochastic=stochastic)

        body = code()
        print_row(name, label, n_parameters(spec), len(body), seconds(code), seconds(partial(codec.decode, body, spec)))
    rotated = eden(update, 1)
    body = rotated.encode()
    print_row(
        name,
        "EDEN 1 bit",
        n_parameters(spec),
        len(body),
        seconds(rotated.encode),
        seconds(partial(rotated.decode, body)),
    )


def print_row(name: str, label: str, n: int, n_bytes: int, encode: float, decode: float) -> None:
    rates = [f"{1e3 * taken:7.1f} ms {4e-6 * n / taken:6.0f} MB/s" for taken in (encode, decode)]
    print(f"  {name:8} {label:19} {n_bytes:>11,} B   encode {rates[0]}   decode {rates[1]}")


def large_update() -> Params:
    """Return 4.8 million coordinates, nearly low-rank."""
    rng = np.random.default_rng(0)
    head = 0.01 * rng.standard_normal((2400, 12)) @ rng.standard_normal((12, 2000))
    return {"w": (head + 0.003 * rng.standard_normal(head.shape)).astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.2)
    arguments = parser.parse_args()
    fleet = fleet_of(arguments)
    updates = some_updates(fleet)
    print_bits(updates)
    print("speed, best of seven")
    print_speed(updates[0], f"{n_parameters(fleet.net.spec):,}")
    print_speed(large_update(), "4.8 M")


if __name__ == "__main__":
    main()
