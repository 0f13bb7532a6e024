"""What loggers write beside what somebody prepares by hand: the same two jobs on both, on twelve stations' readings.

    python -m benchmarks.raw_air beijing_air.npz
    python -m benchmarks.raw_air beijing_air.npz --rounds 12 --json raw.json

FILE is an NPZ with `raw` (stations, hours, readings), `raw_time`, `raw_names` and `device_names`. Every role is a
process and speaks to a real mosquitto. In turn:

    prepared    a clean NPZ a station: hours with holes left out, every column standardised over the fleet beforehand
    raw         eight files of text (semicolons, tabs, decimal commas, UTF-16, gzip, JSON lines, four ways to write the
                time, columns in any order), two of SQLite, two live topics; all with the holes of the readings

The raw jobs name their columns and say normalise = "standard". Both are tested on the same hours. It is met when the
share of right levels is within half a point, and R2 of the values within .01: else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.raw_air import tables
from benchmarks.raw_air.fleet import Outcome, Plan, run
from broker.errors import StartError
from fleet.console.watch import WatchError
from fleet.local.processes import ChildDiedError, interruptible

ACCURACY_APART, R2_APART = 0.005, 0.01
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where it is not met or something does not run, 2 for bad input."""
    asked = _parser().parse_args(arguments)
    try:
        air = tables.read(asked.file)
    except (OSError, KeyError, ValueError) as error:
        print(f"benchmarks.raw_air: {asked.file}: {error}", file=sys.stderr)
        return 2
    plans = [Plan("prepared", False, asked.rounds, asked.seed), Plan("raw", True, asked.rounds, asked.seed)]
    found: dict[str, Outcome] = {}
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="fedge-air-", dir=asked.folder) as name:
            for plan in plans:
                folder = Path(name).resolve() / plan.name
                folder.mkdir()
                found[plan.name] = run(plan, air, folder, lambda text: print(text, file=sys.stderr, flush=True))
    except (StartError, WatchError, ChildDiedError, OSError) as error:
        print(f"benchmarks.raw_air: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing is left behind", file=sys.stderr)
        return INTERRUPTED
    print(f"{'':<10}{'accuracy':>9}{'R2':>8}{'B up a device':>15}{'B down':>9}{'s':>7}")
    for kind, outcome in found.items():
        print(
            f"{kind:<10}{outcome.levels['accuracy']:>9.4f}{outcome.values['r2']:>8.4f}"
            f"{outcome.bytes_up / outcome.devices:>15,.0f}{outcome.bytes_down / outcome.devices:>9,.0f}"
            f"{outcome.seconds:>7.0f}"
        )
    accuracy = found["raw"].levels["accuracy"] - found["prepared"].levels["accuracy"]
    r2 = found["raw"].values["r2"] - found["prepared"].values["r2"]
    is_met = abs(accuracy) <= ACCURACY_APART and abs(r2) <= R2_APART
    print(f"raw beside prepared: accuracy {accuracy:+.4f}, R2 {r2:+.4f}: {'met' if is_met else 'NOT met'}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    if asked.json is not None:
        asked.json.write_text(json.dumps({kind: one._asdict() for kind, one in found.items()}, indent=1) + "\n")
    return int(not is_met)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.raw_air", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE.npz")
    parser.add_argument("--rounds", type=int, default=10, metavar="R", help="rounds in which devices train")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where its files go while it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what each came to there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
