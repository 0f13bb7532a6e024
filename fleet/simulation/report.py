"""`fedge simulate` as a command: what its line names, and what a person or a script sees of the run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TextIO

import msgspec

from fleet.console.display import Display, duration, n_bytes
from fleet.problems.problem import Problem, read_problem
from fleet.simulation.simulate import Result, RoundRow, simulate
from runtime.settings import SettingsError


def command(arguments: argparse.Namespace) -> int:
    """Run `fedge simulate` as the command line says. Raises what `read_problem` and `simulate` raise."""
    to_stdout = arguments.json == Path("-")
    if arguments.json is not None and not to_stdout and not arguments.json.parent.is_dir():
        raise SettingsError(f"--json {arguments.json}: there is no folder {arguments.json.parent}")
    problem = read_problem(
        arguments.job,
        arguments.data,
        how=arguments.partition,
        n_devices=arguments.devices,
        test=arguments.test,
        features=arguments.features,
        label=arguments.label,
        source=arguments.source,
        seed=arguments.seed,
        rounds=arguments.rounds,
        target=arguments.target,
    )
    stream: TextIO = sys.stderr if to_stdout else sys.stdout
    report = _Report(Display(stream), problem)
    result = simulate(
        problem.spec, problem.shares, problem.test, report.tell, keys=arguments.keys, test_file=problem.test_file
    )
    report.sum_up(result)
    if arguments.json is not None:
        text = msgspec.json.format(msgspec.json.encode(result)).decode() + "\n"
        if to_stdout:
            sys.stdout.write(text)
        else:
            arguments.json.write_text(text, encoding="utf-8")
    return 0


class _Report:
    """What a person sees of a simulation."""

    def __init__(self, display: Display, problem: Problem) -> None:
        self._display = display
        stop = problem.spec.rounds.stop
        self._other = stop.metric if stop.is_set and stop.metric not in ("accuracy", "loss") else ""
        """What the rule to stop goes by, where no other column says it."""
        self._max_rounds = problem.spec.rounds.max_rounds
        self._began = time.perf_counter()
        sizes = [len(share.y) for share in problem.shares]
        display.line(
            f"{problem.spec.name}: {len(sizes)} devices with {min(sizes)} to {max(sizes)} examples, "
            f"{sum(sizes)} in all, {len(problem.test.y)} to test on"
        )
        other = f"  {self._other}" if self._other else ""
        display.line(
            f"{'round':>6} {'updates':>7} {'accuracy':>9} {'loss':>8} {'up':>9} {'down':>9} {'seconds':>8}{other}"
        )

    def tell(self, row: RoundRow) -> None:
        """Show a round, and how long it may still take."""
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.4f}"
        loss = "-" if row.loss is None else f"{row.loss:.4f}"
        value = row.measures.get(self._other)
        other = f"  {'-' if value is None else f'{value:.4f}':>{len(self._other)}}" if self._other else ""
        self._display.line(
            f"{row.round:>6} {row.participants:>7} {accuracy:>9} {loss:>8} "
            f"{n_bytes(row.bytes_up):>9} {n_bytes(row.bytes_down):>9} {row.seconds:>8.2f}{other}"
        )
        left = (time.perf_counter() - self._began) / row.round * (self._max_rounds - row.round)
        self._display.status(f"round {row.round} of at most {self._max_rounds}, at most {duration(left)} left")

    def sum_up(self, result: Result) -> None:
        """Show the totals."""
        self._display.line(f"ended after {len(result.rounds)} rounds in {duration(result.seconds)}: {result.reason}")
        if result.deployed_accuracy is not None:
            self._display.line(f"deployed is the mean of the last versions: accuracy {result.deployed_accuracy:.4f}")
        for way, n, float32 in (
            ("up", result.bytes_up, result.float32_bytes_up),
            ("down", result.bytes_down, result.float32_bytes_down),
        ):
            per_device = n_bytes(n / result.devices)
            self._display.line(
                f"{way:>4}: {n_bytes(n)} in all, {per_device} a device; "
                f"float32 would have taken {n_bytes(float32)}, {float32 / max(n, 1):.1f} times as much"
            )
