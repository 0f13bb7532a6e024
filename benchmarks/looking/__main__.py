"""What it costs to look on a fleet by its page, and what looking on costs the rounds.

    python -m benchmarks.looking                       sizes: memory, processor, and how long each page takes
    python -m benchmarks.looking --streams 1000        pairs: the rounds beside so many open streams, and without
    python -m benchmarks.looking --paint               the first paint in a real Chromium, at each size
    python -m benchmarks.looking --demo                from `fedge demo` to the first live row

Everything is a process of its own, as users have it: mosquitto, `fedge aggregator run` with its page beside it, agents,
and what stands for many devices and for many who look. The crowd's devices say who and how they are; two real ones
train. CPU is that of the page's process alone, as the kernel counts it; memory its peak (VmHWM) in MB of 10^6 bytes;
times are wall times of requests, each on a connection of its own: on a busy machine they are too long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.looking import asked, paint, pairs
from benchmarks.looking.asked import Took, Weight
from benchmarks.looking.crowd import names
from benchmarks.looking.large import Large, large
from benchmarks.looking.told import Told

SIZES = (10, 1_000, 20_000)
GOAL_MS = 300.0
GOAL_MB = 150.0
FIRST = "Fleet, first rows"
GOAL_RATIO = 1.05
MIX = ("/live/", "/live/jobs/{job}", "/live/?q=s1", "/live/?sort=heat", "/live/events", "/live/?state=online&page=2")
"""What ten streams look at: the fleet's page by one query and another, the job, events."""


class Size(Struct, frozen=True):
    """What is measured of a fleet of one size. cpu: seconds a minute, by what goes on meanwhile."""

    devices: int
    cpu: dict[str, float]
    peak_mb: float
    online: int
    """Devices that the page shows as online once all is measured."""
    drawn: int
    """Those that the open round has drawn then."""
    took: dict[str, Took]
    weights: dict[str, Weight]


def measured(fleet: Large, seconds: float, tries: int) -> Size:
    """Measure one fleet. Raises OSError, ValueError, SilentError."""
    cpu = {"quiet, nobody looks": _cpu(fleet, seconds)}
    fleet.speak()
    cpu["they speak, nobody looks"] = _cpu(fleet, seconds)
    paths = [path.format(job=fleet.job) for path in MIX]
    for n in (1, 10):
        words = (fleet.page.removeprefix("http://").rstrip("/"), n, 0, *paths)
        with Told("benchmarks.looking.viewers", words, fleet.shown.folder / "viewers.log") as viewers:
            viewers.tell("open")
            cpu[f"{n} stream{'s' if n > 1 else ''}"] = _cpu(fleet, seconds)
    device = names(1)[0] if fleet.n > 2 else "device-01"
    version = fleet.shown.version
    took = dict(asked.all_of(fleet.page, fleet.pid, fleet.job, version, device, tries))
    weights = {name: asked.weight(fleet.page, path) for name, path in (("Fleet", "/"), ("Job", f"/jobs/{fleet.job}"))}
    fleet.quiet()
    return Size(fleet.n, cpu, fleet.peak_mb, fleet.n_online, fleet.n_drawn, took, weights)


def _cpu(fleet: Large, seconds: float) -> float:
    """Return what the page's process takes from now on, in seconds a minute."""
    began, used = time.monotonic(), fleet.used_s
    time.sleep(seconds)
    return 60.0 * (fleet.used_s - used) / (time.monotonic() - began)


def sizes_told(sizes: Sequence[Size]) -> list[str]:
    """Return the table of all sizes."""

    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:<34}" + "".join(f"{cell:>24}" for cell in cells)

    first = sizes[0]
    return [
        row("", (f"{size.devices:,} devices" for size in sizes)),
        *(row(f"CPU s/min, {name}", (f"{size.cpu[name]:.2f}" for size in sizes)) for name in first.cpu),
        row("online / drawn as this ends", (f"{size.online:,} / {size.drawn:,}" for size in sizes)),
        row("peak memory, MB", (f"{size.peak_mb:.1f}" for size in sizes)),
        *(row(f"first load, {name}", (_weighed(size.weights[name]) for size in sizes)) for name in first.weights),
        "\nms to the first byte, to the last, at worst; ms of CPU; kB",
        *(row(name, (_took(size.took[name]) for size in sizes)) for name in first.took),
    ]


def _weighed(weight: Weight) -> str:
    return f"{weight.sent / 1e3:.0f} kB in {weight.requests}, gzip {weight.zipped / 1e3:.0f}"


def _took(took: Took) -> str:
    return f"{took.first_ms:.0f} {took.whole_ms:.0f} {took.worst_ms:.0f}; {took.cpu_ms:.0f}; {took.n_bytes / 1e3:.0f}"


def sizes_judged(sizes: Sequence[Size]) -> list[str]:
    """Return what misses its goal."""
    lines = []
    for size in sizes:
        if size.peak_mb > GOAL_MB:
            lines.append(
                f"over its goal: {size.peak_mb:.0f} MB at {size.devices:,} devices, where {GOAL_MB:g} are allowed"
            )
        for name, took in size.took.items():
            is_wanted = name == FIRST or name.startswith(("search", "sorted", "filter", "Fleet"))
            if is_wanted and took.whole_ms > GOAL_MS:
                lines.append(
                    f"over its goal: {name} at {size.devices:,} devices takes {took.whole_ms:.0f} ms of {GOAL_MS:g}"
                )
    return lines


def pairs_told(found: Sequence[pairs.Pair], peak_mb: float) -> list[str]:
    """Return the table of all pairs, and what they come to."""
    lines = ["        without streams                     beside them"]
    lines.append(
        "ratio   ms  rounds  page aggr. CPU/s         ms  rounds  page aggr. viewers CPU/s  open cuts refused MB/s"
    )
    for pair in found:
        a, b = pair.without, pair.beside
        lines.append(
            f"{pair.ratio:.3f} {a.round_ms:6.1f} {a.rounds:5d} {a.page_cpu:6.3f} {a.aggregator_cpu:6.3f}       "
            f"{b.round_ms:6.1f} {b.rounds:5d} {b.page_cpu:6.3f} {b.aggregator_cpu:6.3f} {b.viewers_cpu:6.3f} "
            f"{b.open:9d} {b.cuts:4d} {b.refused:5d} {b.mb_s:6.1f}"
        )
    ratio = pairs.ratio(found)
    ratios = sorted(pair.ratio for pair in found)
    lower, upper = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    more = statistics.median(pair.beside.page_cpu - pair.without.page_cpu for pair in found)
    lines.append(f"the median of the ratios: {ratio:.3f}, their quartiles {lower:.3f} and {upper:.3f}")
    lines.append(f"the page's process takes {more:.3f} of a processor more beside them, and {peak_mb:.0f} MB at most")
    if ratio > GOAL_RATIO:
        lines.append(f"over its goal: a round takes {ratio:.3f} times as long, where {GOAL_RATIO:g} are allowed")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, and print it."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if min(given.devices) < 2 or given.tries < 1 or given.seconds <= 0 or given.pairs < 1 or given.agents < 1:
        parser.error("there is nothing to measure without two devices, a try, a second, a pair and an agent")
    if given.json is not None and not given.json.parent.is_dir():
        parser.error(f"--json {given.json}: there is no such folder")
    busy = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load {busy:.1f} as this begins", flush=True)
    try:
        told, lines = _measured(given)
    except paint.NoBrowserError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines), f"\nload {os.getloadavg()[0]:.1f} as this ends")
    if given.json is not None:
        given.json.write_bytes(msgspec.json.encode({"load": busy, **told}))
    return 0


def _measured(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Return what was asked for, as it is written, and as it is printed. Raises NoBrowserError."""
    if given.streams:
        paired, peak = pairs.measure(given.agents, given.streams, given.slow, given.pairs, given.seconds, _say)
        return {"pairs": paired, "peak_mb": peak}, pairs_told(paired, peak)
    if given.demo:
        first = paint.of_demo()
        return {"demo": first}, paint.demo_told(first)
    if given.paint:
        paints = [_with(n, given.deadline, lambda fleet: paint.of_page(fleet.page, given.tries)) for n in given.devices]
        return {"paints": paints}, paint.told(list(zip(given.devices, paints, strict=True)))
    sizes = [_with(n, given.deadline, lambda fleet: measured(fleet, given.seconds, given.tries)) for n in given.devices]
    return {"sizes": sizes}, [*sizes_told(sizes), "", *sizes_judged(sizes)]


def _with(n: int, deadline_s: float, act: Callable[[Large], Any]) -> Any:
    """Return what is measured of a fleet of n devices."""
    with tempfile.TemporaryDirectory(prefix="fedge-looking-") as folder, large(Path(folder), n, deadline_s) as fleet:
        _say(f"{n} devices are there")
        return act(fleet)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.looking", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, nargs="+", default=SIZES, metavar="N", help="sizes of fleets")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of CPU, or of half a pair (10)")
    parser.add_argument(
        "--deadline", type=float, default=90.0, metavar="S", help="of the round that is open meanwhile (90)"
    )
    parser.add_argument("--tries", type=int, default=9, metavar="N", help="of each request, or first paint (9)")
    parser.add_argument("--streams", type=int, default=0, metavar="N", help="measure rounds beside so many")
    parser.add_argument("--slow", type=int, default=20, metavar="N", help="clients that take a byte a second (20)")
    parser.add_argument("--pairs", type=int, default=6, metavar="N", help="with streams and without (6)")
    parser.add_argument("--agents", type=int, default=10, metavar="N", help="that make the rounds (10)")
    parser.add_argument("--paint", action="store_true", help="measure the first paint")
    parser.add_argument("--demo", action="store_true", help="measure the demo's first row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
