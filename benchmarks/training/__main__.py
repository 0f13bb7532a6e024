"""What a training step costs, of every kind of net: time against what it is held against, and the memory of agents.

    python -m benchmarks.training
    python -m benchmarks.training --only cnn1d gru --seconds 5 --json FILE
    python -m benchmarks.training --no-agents

A step is what a device does for a batch: loss, gradients, SGD, and the state that a checkpoint would hold. Torch is
eager, as its tutorial writes it, with its own SGD; products are those of a perceptron, x W^T, d^T x and d W, as NumPy
does them, and pieces the same as fast as we know how to. All times are CPU times, medians of pairs in one process on
one thread, so that a busy machine slows both; the ratio is the median of the ratios of pairs. Memory is the peak
(VmHWM) of an agent that is connected to a broker and trains three rounds, compressed by "strong": of each net, on
made-up rows, and of each demo as it is, on its own rows and with a model in service (--demos: these alone).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.training import agents, demos, epochs, turns
from benchmarks.training.agents import Peak
from benchmarks.training.rows import BATCHES, MLP, ROWS, Row
from benchmarks.training.turns import Timed

HEADER = f"{'net':<16} {'shape':<52} {'batch':>5} {'against':>9} {'ms':>8} {'its ms':>8} {'ratio':>6} {'goal':>5}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows in turn and print them, then what weights of rows cost, and memory."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.demos:
        _peaks([], demos.NAMES)
        return
    if asked.peak:
        epochs.print_peak()
        return
    rows = [row for row in ROWS if not asked.only or any(row.name.startswith(name) for name in asked.only)]
    if not rows:
        parser.error(f"--only {' '.join(asked.only)}: there are {', '.join(sorted({row.name for row in ROWS}))}")
    if asked.json is not None and not asked.json.parent.is_dir():
        parser.error(f"--json {asked.json}: there is no such folder")
    print(HEADER, flush=True)
    times = [_said(turns.timed(row, batch, asked.seconds)) for row in rows for batch in BATCHES]
    lost = [f"{one.row.name} at {one.batch}" for one in times if not one.holds]
    print(f"\nslower than the goal: {', '.join(lost) or 'none'}\n", flush=True)
    figures = _figures(times) | (epochs.measured() if not asked.only else {})
    for key, value in figures.items():
        print(f"{key:20} {value:8.3f}")
    print()
    peaks = [] if asked.no_agents else _peaks(rows, () if asked.only else demos.NAMES)
    if asked.json:
        asked.json.write_text(json.dumps(figures | _tree(times, peaks), indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NET", help="nets whose names begin like this")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each line, at least 15 pairs")
    parser.add_argument("--no-agents", action="store_true", help="leave the memory of agents out")
    parser.add_argument("--demos", action="store_true", help="the memory of agents of the demos, and nothing else")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    return parser


def _said(one: Timed) -> Timed:
    row = one.row
    print(
        f"{row.name:<16} {row.shape:<52} {one.batch:>5} {row.against:>9} {one.ours_ms:8.3f} {one.other_ms:8.3f} "
        f"{one.ratio:6.2f} {row.goal:5.2f}{'' if one.holds else '  slower than the goal'}",
        flush=True,
    )
    return one


def _figures(times: Sequence[Timed]) -> dict[str, float]:
    """Return the figures of the perceptron at batch 10 against Torch, where they were measured."""
    for one in times:
        if one.row.model is MLP and (one.row.against, one.batch) == ("torch", 10):
            return {
                "numpy_ms_per_step": one.ours_ms,
                "torch_ms_per_step": one.other_ms,
                "torch_over_numpy": 1.0 / one.ratio,
            }
    return {}


def _peaks(rows: Sequence[Row], names: Sequence[str]) -> list[Peak]:
    """Measure and print the memory of agents: a net each once, and these demos."""
    print(f"{'agent that trains':<69} {'parameters':>10} {'peak MB':>8} {'goal':>5}", flush=True)
    of_rows = (agents.peak(row) for row in {row.name: row for row in rows}.values())
    found = []
    for one in chain(of_rows, map(agents.peak_of_demo, names)):
        missed = "" if one.holds else "  more than the goal"
        print(
            f"{one.name:<16} {one.shape:<52} {one.parameters:>10,} {one.agent_mb:8.1f} {agents.GOAL_MB:5.0f}{missed}",
            flush=True,
        )
        found.append(one)
    return found


def _tree(times: Sequence[Timed], peaks: Sequence[Peak]) -> dict[str, Any]:
    return {
        "rows": [
            {"net": one.row.name, "shape": one.row.shape, "batch": one.batch, "against": one.row.against}
            | {"ms": one.ours_ms, "other_ms": one.other_ms, "ratio": one.ratio, "goal": one.row.goal}
            for one in times
        ],
        "agents": [
            {"net": one.name, "shape": one.shape, "parameters": one.parameters, "peak_mb": one.agent_mb}
            for one in peaks
        ],
    }


if __name__ == "__main__":
    main()
