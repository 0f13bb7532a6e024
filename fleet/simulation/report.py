"""`fedge simulate` as a command: what its line names, and what a person or a script sees of the run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import msgspec
import numpy as np
from msgspec import structs

from aggregator.convergence import no_better
from fleet.console.display import Display, duration, n_bytes
from fleet.console.metrics import Cell
from fleet.factories import find_beside
from fleet.factories import told_of as told_of_net
from fleet.local.processes import interruptible
from fleet.problems.examples import find_job
from fleet.problems.problem import Problem, read_problem, told_of
from fleet.results import NO_PICTURES, draw, folder, headline, write_metrics
from fleet.simulation.left import Left
from fleet.simulation.simulate import Result, RoundRow, SimulationError, simulate
from models.job import JobSpec
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
    find_beside(find_job(arguments.job), problem.spec)
    notes = told_of_net(problem.spec)
    weights = None
    if arguments.base is not None:
        from fleet.console.versions import read_weights  # here alone: it loads onnx

        weights = read_weights(arguments.base, problem.spec)
    stream: TextIO = sys.stderr if to_stdout else sys.stdout
    report = _Report(Display(stream), problem, None if arguments.out is None else folder(arguments.out))
    for note in notes:
        report.display.line(note)
    try:
        with interruptible(), _quiet(), redirect_stdout(stream):  # a factory may print, and a script reads our JSON
            result = simulate(
                *(problem.spec, problem.shares, problem.test, report.tell),
                keys=arguments.keys,
                test_file=problem.test_file,
                on_end=None if arguments.out is None else report.leave,
                weights=weights,
            )
    except (KeyboardInterrupt, SimulationError):
        report.break_off()
        raise
    result = structs.replace(result, refused=problem.refused)
    report.sum_up(result)
    if arguments.json is not None:
        text = msgspec.json.format(msgspec.json.encode(result)).decode() + "\n"
        if to_stdout:
            sys.stdout.write(text)
        else:
            arguments.json.write_text(text, encoding="utf-8")
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what fleet and aggregator would log that a person sees here anyway: each version, and who is away."""
    logs = [logging.getLogger("aggregator.run"), logging.getLogger("edge_agent.work")]
    before = [log.level for log in logs]
    if "FEDGE_LOG" not in os.environ:
        for log in logs:
            log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


class _Report:
    """What a person sees of a simulation, and what is left of it in a folder."""

    def __init__(self, display: Display, problem: Problem, out: Path | None) -> None:
        self.display, self._spec, self._out = display, problem.spec, out
        stop = problem.spec.rounds.stop
        self._other = stop.metric if stop.is_set and stop.metric not in ("accuracy", "loss") else ""
        """What no other column says: what the rule to stop goes by, or R2 of values."""
        if not problem.spec.model.classifies and not self._other:
            self._other = headline(problem.spec)
        self._max_rounds = problem.spec.rounds.max_rounds
        self._rows: list[RoundRow] = []
        self._classifies = problem.spec.model.classifies
        self._n_devices, self._refused = len(problem.shares), problem.refused
        self._left = ""
        self._began = time.perf_counter()
        sizes = [len(share.y) for share in problem.shares]
        for note in told_of(problem):
            display.line(note)
        display.line(
            f"{problem.spec.name}: {len(sizes)} devices with {min(sizes)} to {max(sizes)} examples, "
            f"{sum(sizes)} in all, {len(problem.test.y)} to test on"
        )
        other = f"  {self._other}" if self._other else ""
        display.line(
            f"{'round':>6} {'updates':>7} {'accuracy' if self._classifies else self._other:>9} {'loss':>8} {'up':>9} "
            f"{'down':>9} {'seconds':>8}{other if self._classifies else ''}"
        )

    def tell(self, row: RoundRow) -> None:
        """Show a round, and how long it may still take."""
        self._rows.append(row)
        first = row.accuracy if self._classifies else row.measures.get(self._other)
        accuracy = "-" if first is None else f"{first:.4f}"
        loss = "-" if row.loss is None else f"{row.loss:.4f}"
        value = row.measures.get(self._other)
        other = (
            f"  {'-' if value is None else f'{value:.4f}':>{len(self._other)}}"
            if self._other and self._classifies
            else ""
        )
        self.display.line(
            f"{row.round:>6} {row.participants:>7} {accuracy:>9} {loss:>8} "
            f"{n_bytes(row.bytes_up):>9} {n_bytes(row.bytes_down):>9} {row.seconds:>8.2f}{other}"
        )
        left = (time.perf_counter() - self._began) / row.round * (self._max_rounds - row.round)
        self.display.status(f"round {row.round} of at most {self._max_rounds}, at most {duration(left)} left")

    def leave(self, left: Left) -> None:
        """Write the model and the curves. Raises OSError."""
        assert self._out is not None  # noqa: S101 -- who has no folder asks for nothing
        files = [
            _write_model(self._out, self._spec, left),
            write_metrics(self._out, _cells(self._rows, self._n_devices)),
        ]
        pictures = self._draw(self._out)
        self._left = f"version {left.number} is in {'  '.join(map(str, [*files, *pictures]))}"
        if not pictures and find_spec("matplotlib") is None:
            self._left += f"; {NO_PICTURES}"

    def _draw(self, out: Path) -> list[Path]:
        measure, n = headline(self._spec), self._n_devices
        sent = np.cumsum([row.bytes_up + row.bytes_down for row in self._rows]) / n
        values = [row.measures.get(measure) for row in self._rows]
        return draw(out, f"{self._spec.name} on {n} devices", measure, values, sent.tolist())

    def break_off(self) -> None:
        """Say what there is of a run that has not come to its end."""
        if self._left:
            self.display.line(f"not at its end: {self._left}")

    def sum_up(self, result: Result) -> None:
        """Show the totals, what matters most first."""
        if told := self._who_was_away(result.idle):
            self.display.line(told)
        n_rounds = sum(row.participants > 0 for row in result.rounds)  # the last version may be an older one again
        self.display.line(f"ended after {n_rounds} rounds in {duration(result.seconds)}: {result.reason}")
        words = (
            no_better(result.rounds[-1].measures | _always(result), self._spec.contract.classes)
            if result.rounds
            else ""
        )
        if words and words not in result.reason:
            self.display.line(f"the model is {words}")
        if result.deployed_accuracy is not None:
            self.display.line(f"deployed is the mean of the last versions: accuracy {result.deployed_accuracy:.4f}")
        for way, n, float32 in (
            ("up", result.bytes_up, result.float32_bytes_up),
            ("down", result.bytes_down, result.float32_bytes_down),
        ):
            per_device = n_bytes(n / result.devices)
            self.display.line(
                f"{way:>4}: {n_bytes(n)} in all, {per_device} a device; "
                f"float32 would have taken {n_bytes(float32)}, {float32 / max(n, 1):.1f} times as much"
            )
        if self._left:
            self.display.line(self._left)

    def _who_was_away(self, idle: Mapping[str, str]) -> str:
        """Return how many devices did nothing for the model, in words; "" where all did."""
        away = {**self._refused, **idle}
        if not away:
            return ""
        device, why = next(iter(away.items()))
        return f"{len(away)} of {self._n_devices + len(self._refused)} devices were refused: {device}: {why}"


def _always(result: Result) -> dict[str, float]:
    return {} if result.always is None else {"always": float(result.always)}


def _cells(rows: Sequence[RoundRow], n_devices: int) -> list[dict[str, Cell]]:
    """Return the rounds as rows of metrics.csv: bytes are those of a device so far, as in a demo's."""
    found, sums = [], {"bytes_up": 0, "bytes_down": 0, "body_bytes_up": 0, "body_bytes_down": 0}
    for row in rows:
        fields = structs.asdict(row)
        number, measured = fields.pop("round"), fields.pop("measures")
        sums = {name: so_far + fields[name] for name, so_far in sums.items()}
        fields |= {name: round(so_far / n_devices) for name, so_far in sums.items()}
        plain = {name: value for name, value in fields.items() if value is not None}
        found.append({"version": f"1.{number}", **plain, **measured})
    return found


def _write_model(out: Path, spec: JobSpec, left: Left) -> Path:
    """Write the model as ONNX; where that cannot be written here, as NPZ. Raises ExportError, OSError."""
    if find_spec("onnx") is None:
        path = out / "model.npz"
        np.savez(path, **left.params)  # type: ignore[arg-type]  # its stub takes the names for options
        return path
    from models.serving.export import to_onnx  # onnx is an extra

    path = out / "model.onnx"
    path.write_bytes(to_onnx(spec.model, left.params, metadata=left.about, contract=spec.contract, agreed=left.agreed))
    return path
