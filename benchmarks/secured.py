"""What message keys and TLS cost a fleet: bytes, CPU and memory of the same job without them, and with them.

    python -m benchmarks.secured job.toml --data train.npz --test test.npz --devices 10 --rounds 20
    python -m benchmarks.secured job.toml --data train.npz --test test.npz --partition column:device --json secured.json

mosquitto, an aggregator and every device are processes; a proxy before the devices' listener counts. In turn:

    passwords    deploy/mosquitto/mosquitto.conf: a password each, and nobody signs
    keys         the same broker; everybody signs, and believes signed words alone
    keys, TLS    deploy/mosquitto/locked.conf: TLS 1.3 and a client certificate each, keys as before

Bytes are all that TCP carries to and from devices, of one: MQTT, or TLS records with MQTT in them, handshakes and
resends too; not the heads of TCP and IP. Every kind runs twice, for three rounds and for all, so that what is said once
(to connect and be known; of the job, and of its end) is told apart from a round. [rounds.stop] of the job is left out.
CPU is user and system from the first version to the last, a round: of the aggregator, of the broker, of one device on
average. Memory is VmHWM, of 10^6 bytes; of devices the largest. All models have to be the same bits: else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec import to_builtins

from benchmarks.costs import FEW, KINDS, Cost, measure
from broker.errors import StartError
from fleet.console.watch import WatchError
from fleet.local.processes import ChildDiedError, interruptible
from fleet.problems.partition import PartitionError
from fleet.problems.problem import read_problem
from models.data.dataset import DatasetError
from models.nets.net import ModelError
from runtime.settings import SettingsError

INTERRUPTED = 130

# What is printed.

HEADER = (
    f"{'':<10}{'B to join':>15}{f'B, {FEW} rounds':>15}{'B, each further':>19}{'s':>7}"
    f"{'ms of CPU a round':>26}{'MB':>26}"
)
UNITS = (
    f"{'':<10}{'up':>8}{'down':>7}{'up':>8}{'down':>7}{'up':>10}{'down':>9}{'/round':>7}"
    f"{'aggregator':>11}{'broker':>8}{'agent':>7}{'aggregator':>12}{'broker':>7}{'agent':>7}"
)


def median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of runs of one kind; their models are the first one's."""
    first = to_builtins(costs[0])
    numbers = [name for name, value in first.items() if isinstance(value, float)]
    return Cost(**first | {name: statistics.median(getattr(cost, name) for cost in costs) for name in numbers})


def is_same(costs: Sequence[Cost]) -> bool:
    """Return whether all have made the same model, by as much of its SHA-256 as all of them say."""
    said = min(len(cost.sha256) for cost in costs)
    return len({cost.sha256[:said] for cost in costs}) == 1


def _row(cost: Cost) -> str:
    return (
        f"{cost.kind:<10}{cost.joined_up:>8.0f}{cost.joined_down:>7.0f}{cost.begun_up:>8.0f}{cost.begun_down:>7.0f}"
        f"{cost.up:>10.1f}{cost.down:>9.1f}{cost.round_s:>7.2f}"
        f"{cost.aggregator_ms:>11.1f}{cost.broker_ms:>8.2f}{cost.agent_ms:>7.1f}"
        f"{cost.aggregator_mb:>12.1f}{cost.broker_mb:>7.1f}{cost.agent_mb:>7.1f}"
    )


def _beside(cost: Cost, plain: Cost) -> str:
    """Say how much more a kind sends: in every round, and once, whose share of the first rounds is taken off."""
    up, down = cost.up - plain.up, cost.down - plain.down
    join = cost.joined_up - plain.joined_up, cost.joined_down - plain.joined_down
    job = cost.begun_up - plain.begun_up - FEW * up, cost.begun_down - plain.begun_down - FEW * down
    return (
        f"{cost.kind} beside {plain.kind}, bytes of a device up and down: {up:+.1f} and {down:+.1f} a round; once "
        f"{join[0]:+.0f} and {join[1]:+.0f} to join, {job[0]:+.0f} and {job[1]:+.0f} for the job"
    )


def _print(found: Sequence[Cost], repeats: int) -> None:
    first = found[0]
    print(f"{first.devices} devices, {first.rounds} rounds" + (f", medians of {repeats}" if repeats > 1 else ""))
    print(f"{HEADER}\n{UNITS}")
    rows = [median([cost for cost in found if cost.kind == kind.name]) for kind in KINDS]
    for row in rows:
        print(_row(row))
    for row in rows[1:]:
        print(_beside(row, rows[0]))
    if is_same(found):
        longest = max((cost.sha256 for cost in found), key=len)
        print(f"the same model every time: version {first.rounds}, accuracy {first.accuracy}, SHA-256 {longest}")
    else:
        models = "; ".join(f"{cost.kind} {cost.sha256[:16]}" for cost in found)
        print(f"NOT the same model every time: {models}; a device may have been late: give the job a longer deadline_s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where something does not run or the models differ, 2 for bad input."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.json is not None and not asked.json.resolve().parent.is_dir():
        parser.error(f"--json {asked.json}: there is no such folder")
    try:
        problem = read_problem(
            *(asked.job, asked.data),
            how=asked.partition,
            n_devices=asked.devices,
            test=asked.test,
            features=asked.features,
            rounds=asked.rounds,
        )
        with interruptible():
            before = os.getloadavg()[0]
            found = measure(problem, asked.repeats, lambda text: print(text, file=sys.stderr, flush=True))
    except (SettingsError, PartitionError, DatasetError, ModelError) as error:
        print(f"benchmarks.secured: {error}", file=sys.stderr)
        return 2
    except (StartError, WatchError, ChildDiedError, OSError) as error:
        print(f"benchmarks.secured: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing is left behind", file=sys.stderr)
        return INTERRUPTED
    _print(found, asked.repeats)
    print(f"load of the machine before and after: {before:.1f}, {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    if asked.json is not None:
        asked.json.write_text(json.dumps(to_builtins(found), indent=1) + "\n", encoding="utf-8")
    return int(not is_same(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.secured",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", nargs="?", type=Path, default=Path("digits"), metavar="JOB.toml")
    parser.add_argument("--data", default="digits", metavar="FILE.npz|digits")
    parser.add_argument("--test", type=Path, metavar="FILE.npz", help="a test split; else a fifth of the data")
    parser.add_argument("--features", metavar="NAME", help="the array of features in the NPZ files (X)")
    parser.add_argument("--devices", type=_number, default=10, metavar="N")
    parser.add_argument("--partition", default="iid", metavar="HOW", help="iid, column:NAME, shards:K, dirichlet:A")
    parser.add_argument("--rounds", type=_rounds, default=20, metavar="R", help=f"more than {FEW}")
    parser.add_argument("--repeats", type=_number, default=1, metavar="N", help="medians of so many runs of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    return parser


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _rounds(text: str) -> int:
    if _number(text) <= FEW:
        raise argparse.ArgumentTypeError(f"{text} are too few: {FEW} are run by themselves, and the rest is measured")
    return _number(text)


if __name__ == "__main__":
    sys.exit(main())
