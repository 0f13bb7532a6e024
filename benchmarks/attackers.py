"""What one device with its own credentials can cost the others: how long a round takes with and without each attack.

    python -m benchmarks.attackers                                  # three pairs of 60 s for each attack: an hour
    python -m benchmarks.attackers --seconds 15 --pairs 1 --attacks qos0 dribble
    python -m benchmarks.attackers --json attackers.json

mosquitto has deploy's configuration and access list, its two listeners and passwords. The aggregator is a process; the
devices share one, have a connection each, and take PACE_S to read their rows, so that a round takes about two seconds
and the processor is not what it waits for. Updates are 800 kB, in pieces, and there is room for one at a time.

Windows without and with the attack alternate in one fleet, the first and the last without; each goes from one commit to
another, and begins as the attack does. A pair is a window with it, and the mean of those before and after it. "calm"
is the same of the windows without an attack among themselves, at worst: what this machine makes of nothing at all.
Every attack comes from a device of its own, that has not attacked before, and that connects again at once whenever it
is thrown off, as often as deploy/nftables/fedge.nft allows one address. It has a link of 1 Gbit/s, and takes only the
processor that nobody else wants: in the field it burns its own. What the broker and the aggregator spend on it counts,
and is told, with what the attack has come to. What costs the others more than a tenth is said at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from msgspec import Struct, to_builtins

from benchmarks import intruders
from benchmarks.arena import DEVICES, WARM, Arena, Window
from benchmarks.intruders import Reached
from broker.errors import StartError
from fleet.console.display import duration
from fleet.console.watch import WatchError
from fleet.local.processes import ChildDiedError, Children, interruptible
from fleet.problems.problem import device_names

GOAL = 1.1
"""Times as long as without the attack a round may take."""
INTERRUPTED = 130


class Attack(Struct, frozen=True):
    """What an attack costs. calm: one window more than attacked."""

    name: str
    calm: list[Window]
    attacked: list[Window]
    reached: list[Reached]
    ratio: float
    """Of the times of a round, with and without it; the median of its pairs."""
    ratios: list[float]
    noise: float
    """The largest ratio of two calm windows that follow each other."""
    recovery_s: float
    """From its end to the next commit, at worst."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0; 1 where something could not be run, 2 for bad input."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.seconds <= 0 or asked.pairs < 1:
        parser.error("there is nothing to measure without a second and a pair")
    if asked.json is not None and not asked.json.resolve().parent.is_dir():
        parser.error(f"--json {asked.json}: there is no such folder")
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="fedge-attackers-") as name:
            return _measure(asked, Path(name))
    except (StartError, ChildDiedError, WatchError, OSError, subprocess.CalledProcessError) as error:
        print(f"attackers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED


def _measure(asked: argparse.Namespace, folder: Path) -> int:
    intruders_ = [f"{name}-{pair}" for name in asked.attacks for pair in range(asked.pairs)]
    names = ["aggregator", "operator", *device_names(DEVICES), *intruders_]
    print(
        f"{DEVICES} devices, updates of 800 kB, room for one; {asked.pairs} pairs of windows of {asked.seconds:g} s; "
        f"load {os.getloadavg()[0]:.1f}\n\n"
        f"{'attack':<10}{'round s':>8}{'attacked':>9}{'times':>7}{'(calm)':>8}{'recovery s':>11}{'MB/s':>7}"
        f"{'packets/s':>11}{'connects':>9}{'broker CPU':>12}{'aggregator':>12}{'broker MB':>11}",
        flush=True,
    )
    found: list[Attack] = []
    with Children() as children, Arena(folder, children, names) as arena:
        began, n = time.monotonic(), len(asked.attacks)
        try:
            for done, name in enumerate(asked.attacks):
                found.append(_pairs(arena, name, asked.pairs, asked.seconds))
                _print(found[-1])
                left = (time.monotonic() - began) / (done + 1) * (n - done - 1)
                print(f"[{done + 1}/{n}] {name}; about {duration(left)} left", file=sys.stderr, flush=True)
        finally:
            if asked.logs is not None:
                shutil.copytree(folder, asked.logs, ignore=shutil.ignore_patterns("*.password", "passwd"))
    lost = [
        f"{one.name}: {one.ratio:.2f} times as long, where {GOAL:g} is the goal" for one in found if one.ratio > GOAL
    ]
    print("\n" + "\n".join(f"over its goal: {line}" for line in lost) if lost else "\nnothing is over its goal")
    if asked.json is not None:
        text = json.dumps({"attacks": to_builtins(found), "over": lost}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _pairs(arena: Arena, name: str, pairs: int, seconds: float) -> Attack:
    calm, attacked, recoveries, reached = [arena.window(seconds)], [], [], []
    for pair in range(pairs):
        window, recovery_s, sent = arena.attack(name, f"{name}-{pair}", seconds)
        attacked.append(window)
        recoveries.append(recovery_s)
        reached.append(sent)
        arena.pass_rounds(WARM)
        calm.append(arena.window(seconds))
    ratios = [
        2 * window.round_s / (before.round_s + after.round_s)
        for before, window, after in zip(calm[:-1], attacked, calm[1:], strict=True)
    ]
    still = [one.round_s / other.round_s for one, other in itertools.pairwise(calm)]
    noise = max(max(one, 1 / one) for one in still)
    return Attack(name, calm, attacked, reached, statistics.median(ratios), ratios, noise, max(recoveries))


def _print(attack: Attack) -> None:
    median = statistics.median
    calm, attacked = (median(window.round_s for window in windows) for windows in (attack.calm, attack.attacked))
    seconds = sum(one.seconds for one in attack.reached) or 1.0
    cpus = [
        f"{median(of(w) for w in attack.attacked):.0%} ({median(of(w) for w in attack.calm):.0%})"
        for of in (attrgetter("broker"), attrgetter("aggregator"))
    ]
    print(
        f"{attack.name:<10}{calm:>8.2f}{attacked:>9.2f}{attack.ratio:>7.2f}{attack.noise:>8.2f}{attack.recovery_s:>11.1f}"
        f"{sum(one.bytes for one in attack.reached) / seconds / 1e6:>7.1f}"
        f"{sum(one.packets for one in attack.reached) / seconds:>11,.0f}"
        f"{sum(one.connections for one in attack.reached):>9}{cpus[0]:>12}{cpus[1]:>12}"
        f"{max(window.mb for window in attack.attacked):>11.0f}",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="of a window, at least")
    parser.add_argument("--pairs", type=int, default=3, metavar="N")
    names = list(intruders.ATTACKS)
    parser.add_argument("--attacks", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep what the fleet has said there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
