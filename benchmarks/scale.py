"""What grows with a fleet or a job, and what must not: events, chunks, the simulator, and a thousand real connections.

    python -m benchmarks.scale                                       # all that needs no broker, in about a minute
    python -m benchmarks.scale coordinator --known 1000 20000 --drawn 500 2000 20000
    python -m benchmarks.scale versions --versions 1000 50000
    python -m benchmarks.scale chunks --chunks 250 1000 4000
    python -m benchmarks.scale simulator --devices 1000 5000
    python -m benchmarks.scale --connections 1000 --json scale.json  # mosquitto, an aggregator, agents

Each table has a ratio: what the largest costs beside the smallest. An event and a chunk should cost the same however
many there are, so that 1 is flat; the simulator is held against its devices. What is over its goal is said at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is loaded: it reads them once

import msgspec  # noqa: E402
from msgspec import to_builtins  # noqa: E402

from benchmarks import connections, events  # noqa: E402
from benchmarks.connections import Load  # noqa: E402
from benchmarks.events import Cost  # noqa: E402
from benchmarks.simulated import Simulated  # noqa: E402
from broker.errors import StartError  # noqa: E402
from fleet.console.display import duration  # noqa: E402
from fleet.console.watch import WatchError  # noqa: E402
from fleet.local.processes import ChildDiedError, interruptible  # noqa: E402

T = TypeVar("T")
PARTS = ("coordinator", "versions", "chunks", "simulator")
FLAT = 2.0
"""What may cost so much more among the most than among the fewest is flat: caches are not."""
SLOWEST_US = 50.0
SIMULATED_CPU_S, SIMULATED_MB = 5.0, 110.0
"""What 5,000 simulated devices may take."""
GOAL_DEVICES = 5000
AGGREGATOR_MB = 80.0
STEPS = (10, 100, 1000)
INTERRUPTED = 130


class _Progress:
    """Says on stderr how far it is, once that has taken longer than two seconds."""

    def __init__(self, n: int) -> None:
        self._n, self._done, self._began = n, 0, time.monotonic()

    def say(self, text: str) -> None:
        if time.monotonic() - self._began > 2.0:
            print(text, file=sys.stderr, flush=True)

    def done(self, what: str) -> None:
        self._done += 1
        left = (time.monotonic() - self._began) * (self._n - self._done) / self._done
        self.say(f"[{self._done}/{self._n}] {what}; about {duration(left)} left")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0; 1 where something could not be run, 2 for bad input."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.json is not None and not asked.json.resolve().parent.is_dir():
        parser.error(f"--json {asked.json}: there is no such folder")
    logging.disable(logging.ERROR)  # what devices are refused, and what jobs wait for, is no news here
    try:
        with interruptible():
            return _measure(asked)
    except (StartError, ChildDiedError, WatchError, OSError, subprocess.CalledProcessError) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    finally:
        logging.disable(logging.NOTSET)


def _measure(asked: argparse.Namespace) -> int:
    parts = asked.parts or ([] if asked.connections else list(PARTS))
    sizes = [(known, drawn) for known in asked.known for drawn in asked.drawn if drawn <= known]
    counts = sorted({*(n for n in STEPS if n < (asked.connections or 0)), *filter(None, [asked.connections])})
    n_steps = ("coordinator" in parts) * (len(sizes) + len(asked.known)) + len(counts)
    n_steps += ("chunks" in parts) * len(asked.chunks) + ("simulator" in parts) * len(asked.devices)
    n_steps += ("versions" in parts) * len(asked.versions)
    progress, lost, found = _Progress(n_steps), list[str](), dict[str, object]()
    if "coordinator" in parts:
        costs = [cost for size in sizes for cost in _told(progress, f"{size}", lambda at=size: events.coordinator(*at))]
        costs += [
            _told(progress, f"a service of {known}", lambda at=known: events.aggregator(at)) for known in asked.known
        ]
        lost += _print_costs("the coordinator: CPU of an event, in us, by devices known / drawn", costs)
        found["coordinator"] = [cost._asdict() for cost in costs]
    if "versions" in parts:
        costs = [_told(progress, f"{n} versions", lambda at=n: events.versions(at)) for n in asked.versions]
        lost += _print_costs("a job's rounds: CPU of a coordinator's event, in us, by versions of the job", costs)
        found["versions"] = [cost._asdict() for cost in costs]
    if "chunks" in parts:
        pairs = [
            _told(progress, f"{n} chunks", lambda at=n: (events.chunks_down(at), events.chunks_up(at)))
            for n in asked.chunks
        ]
        costs = [cost for pair in pairs for cost in pair]
        lost += _print_costs("chunks: CPU of one, through a whole service, in us, by how many there are", costs)
        found["chunks"] = [cost._asdict() for cost in costs]
    if "simulator" in parts:
        runs = [_told(progress, f"{n} devices", lambda at=n: simulated(at)) for n in asked.devices]
        lost += _print_simulated(runs)
        found["simulator"] = to_builtins(runs)
    if counts:
        loads = [
            _told(progress, f"{n} connections", lambda at=n: connections.measure(at, progress.say)) for n in counts
        ]
        lost += _print_loads(loads)
        found["connections"] = to_builtins(loads)
    print("\n" + "\n".join(f"over its goal: {line}" for line in lost) if lost else "\nnothing is over its goal")
    if asked.json is not None:
        asked.json.write_text(json.dumps(found | {"over": lost}, indent=1) + "\n", encoding="utf-8")
    return 0


def _told(progress: _Progress, what: str, act: Callable[[], T]) -> T:
    found = act()
    progress.done(what)
    return found


# Events and chunks.


class _Line(NamedTuple):
    """One kind of event, at every size that it was timed at."""

    kind: str
    costs: list[Cost]

    @property
    def ratio(self) -> float:
        """What it costs at the largest size, or the dearest one, beside the smallest."""
        return max(cost.us for cost in self.costs) / self.costs[0].us


def _print_costs(title: str, costs: Sequence[Cost]) -> list[str]:
    """Print a table, and return what is not flat, or dear."""
    lines = [
        _Line(kind, [cost for cost in costs if cost.kind == kind]) for kind in dict.fromkeys(c.kind for c in costs)
    ]
    sizes = sorted({(cost.known, cost.drawn) for cost in costs if cost.drawn}) or sorted({(c.known, 0) for c in costs})
    heads = [f"{known:,}/{drawn:,}" if drawn else f"{known:,}" for known, drawn in sizes]
    print(f"\n{title}\n{'':<26}" + "".join(f"{head:>14}" for head in heads) + f"{'ratio':>8}{'events/s':>11}")
    lost = []
    for line in lines:
        at = {(cost.known, cost.drawn): cost.us for cost in line.costs}
        if not any(size in at for size in sizes):  # of a whole service: nobody is drawn
            at = {size: at[size[0], 0] for size in sizes if (size[0], 0) in at}
        cells = [f"{at[size]:>14,.1f}" if size in at else f"{'':>14}" for size in sizes]
        worst = max(cost.us for cost in line.costs)
        if line.kind == events.ROUND:
            each = " ".join(f"{cost.us / cost.known:>13.2f}" for cost in line.costs)
            print(f"{'a round, a device known':<26} {each}{'':>8}{1e6 / worst:>10,.0f}", flush=True)
            continue
        print(f"{line.kind:<26}{''.join(cells)}{line.ratio:>8.2f}{1e6 / worst:>11,.0f}", flush=True)
        if line.ratio > FLAT:
            lost.append(
                f"{line.kind}: {line.ratio:.1f}x as much at its dearest as at the smallest size, where 1 is flat"
            )
        if worst > SLOWEST_US:
            lost.append(f"{line.kind}: {worst:.0f} us an event, where {SLOWEST_US:.0f} are allowed")
    return lost


# The simulator.


def simulated(n_devices: int) -> Simulated:
    """Simulate a job in a fresh process. Raises CalledProcessError."""
    command = [sys.executable, "-m", "benchmarks.simulated", str(n_devices)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return msgspec.json.decode(answer.splitlines()[-1], type=Simulated)


def _print_simulated(runs: Sequence[Simulated]) -> list[str]:
    print(
        "\nthe simulator: 387 parameters, 5 rounds, a tenth drawn\n"
        f"{'devices':>10}{'CPU s':>10}{'ms a device':>13}{'peak MB':>10}"
    )
    lost = []
    for run in runs:
        print(f"{run.devices:>10,}{run.cpu_s:>10.2f}{1e3 * run.cpu_s / run.devices:>13.2f}{run.peak_mb:>10.0f}")
        if run.devices <= GOAL_DEVICES:
            lost += _over(f"simulating {run.devices:,} devices, CPU s", run.cpu_s, SIMULATED_CPU_S)
            lost += _over(f"simulating {run.devices:,} devices, peak MB", run.peak_mb, SIMULATED_MB)
    if len(runs) > 1:
        n, cpu, peak = (getattr(runs[-1], name) / getattr(runs[0], name) for name in ("devices", "cpu_s", "peak_mb"))
        print(f"{n:.1f}x the devices: {cpu:.1f}x the CPU, {peak:.1f}x the memory")
        if cpu > FLAT * n:
            lost.append(f"the simulator: {cpu:.1f}x the CPU for {n:.1f}x the devices, so it is not linear")
    return lost


# Real connections.


def _print_loads(loads: Sequence[Load]) -> list[str]:
    print(
        f"\nreal connections: one aggregator, rounds that draw {connections.DRAWN}; CPU and VmHWM of the aggregator\n"
        f"{'devices':>10}{'all there s':>13}{'CPU ms, they come':>19}{'take up a job':>15}{'a round':>9}"
        f"{'round s':>9}{'peak MB':>9}{'devices MB':>12}"
    )
    for load in loads:
        cpu_ms = 1e3 * load.connect_cpu_s, 1e3 * load.ready_cpu_s
        print(
            f"{load.devices:>10,}{load.connect_s:>13.1f}{cpu_ms[0]:>19.1f}{cpu_ms[1]:>15.1f}{load.round_cpu_ms:>9.1f}"
            f"{load.round_s:>9.2f}{load.peak_mb:>9.1f}{load.devices_peak_mb:>12.0f}"
        )
    first, last = loads[0], loads[-1]
    lost = _over(f"the aggregator of {last.devices:,} devices, peak MB", last.peak_mb, AGGREGATOR_MB)
    if len(loads) > 1:
        cpu, peak = last.round_cpu_ms / first.round_cpu_ms, last.peak_mb / first.peak_mb
        print(f"{last.devices / first.devices:.0f}x the devices: {cpu:.2f}x the CPU a round, {peak:.2f}x the memory")
        if cpu > FLAT:
            lost.append(f"a round among {last.devices:,} devices: {cpu:.1f}x the CPU as among {first.devices}")
        if peak > 1.25:
            lost.append(f"the aggregator of {last.devices:,} devices: {peak:.2f}x the memory, where 1 is flat")
    return lost


def _over(what: str, value: float, goal: float) -> list[str]:
    return [f"{what}: {value:.1f} where {goal:g} is the goal, {value / goal:.1f}x"] if value > goal else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--known", nargs="+", type=_number, default=[1000, 20_000], metavar="N", help="devices known")
    parser.add_argument("--drawn", nargs="+", type=_number, default=[500, 2000, 20_000], metavar="N")
    parser.add_argument("--versions", nargs="+", type=_number, default=[1000, 50_000], metavar="N", help="of a job")
    parser.add_argument("--chunks", nargs="+", type=_number, default=[250, 500, 1000, 2000, 4000], metavar="N")
    parser.add_argument("--devices", nargs="+", type=_number, default=[1000, 5000], metavar="N", help="simulated ones")
    parser.add_argument("--connections", type=_number, metavar="N", help="real ones: 10, 100 … and N of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 2 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} is no number from 2 to 100,000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
