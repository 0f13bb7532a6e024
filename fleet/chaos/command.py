"""`fedge chaos`: kill everything, everywhere, and see whether it matters.

    undisturbed run ──▶ SHA-256 of every version ─┐
                                                  ├─▶ the same?  and the books of everybody agree?
    the same under kill -9 ──▶ SHA-256 ───────────┘

A fleet of real processes on a real mosquitto (`stage`) is killed at every effect of both state machines, inside
the durable steps and at any moment (`points`, `scheduler`), started again after a short while, and audited
(`audit`). Because a round waits for the same devices in both runs, and because encoding repeats bit for bit
on one machine, the models must be identical. What the schedule did not come to (points that nobody reached, kills that
were not due before the jobs were done) is run again, in another fleet: it says nothing of what was promised.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from broker.wire import Wire
from fleet.chaos import stage as chaos_stage
from fleet.chaos.audit import AuditOutcome, Recovery, as_json, audit, recoveries
from fleet.chaos.fleet import Fleet, Kill, ProcessError, running, sabotaged
from fleet.chaos.lookout import RETRY_S, Lookout
from fleet.chaos.points import Point, points
from fleet.chaos.sabotage import SABOTAGE
from fleet.chaos.scheduler import Scheduler
from fleet.console import operator
from fleet.console.display import Display, duration
from fleet.console.observer import over_mqtt
from fleet.console.operator import OperatorError
from fleet.local import stage
from fleet.local.processes import FEDGE, interruptible

STANDSTILL_S = 90.0
"""A fleet that makes no version for this long has come to a standstill."""
FULL = 2
"""Kills for each failpoint there is, from which on none of them may be missed."""
LOOK_S = 0.02
N_TRIES = 5
MORE_RUNS = 3
"""How often what a schedule did not come to is run again."""
KILLS_A_POINT = 4
"""Kills of a run that goes after points which nobody has reached, for each of them."""


class Options(NamedTuple):
    """What is asked for. devices: those that count; one more claims too many examples. minutes: no kills after this."""

    out: Path
    devices: int = 5
    rounds: int = 20
    kills: int = 120
    seed: int = 1
    minutes: float = 30.0
    sabotage: str | None = None
    standstill_s: float = STANDSTILL_S
    executor: str = "threads"
    keys: bool = False


class ChaosRun(NamedTuple):
    """One run from its start to its end."""

    outcome: AuditOutcome
    kills: list[Kill]
    rows: list[Recovery]
    missed: list[str]
    """Points at which somebody was to die, and nobody did."""
    problems: list[str]
    seconds: float

    def agrees_with(self, other: ChaosRun) -> bool:
        """Return whether it came to the same models, and nothing went wrong on the way."""
        problems = self.problems or self.outcome.problems
        return not problems and self.outcome.sha256 == other.outcome.sha256


class ChaosReport(Struct, frozen=True):
    """What `--json` writes."""

    kills: int
    identical: bool
    retrained_epochs: int
    lost_updates: int
    duplicated_updates: int
    good: bool
    """Everything is as promised."""
    problems: list[str]
    seed: int
    devices: int
    rounds: int
    sabotage: str | None
    versions_identical: int
    versions: int
    sha256: dict[str, str]
    """Job to the SHA-256 of its last version."""
    undisturbed_sha256: dict[str, str]
    recovery_p50_s: float | None
    """From a restart to the next version."""
    recovery_max_s: float | None
    rows: list[Recovery]
    points: dict[str, int]
    """Kills at each failpoint."""
    points_missed: list[str]
    """Points that nobody reached, however often it was tried."""
    runs: int
    """Under fire: more than one where a schedule did not come to everything."""
    seconds: float
    undisturbed_seconds: float


def command(arguments: argparse.Namespace) -> int:
    """Run `fedge chaos`; give 1 where anything is not as promised."""
    kept = arguments.out is not None
    out = arguments.out if kept else Path(tempfile.mkdtemp(prefix="fedge-chaos-"))
    options = Options(
        out,
        arguments.devices,
        arguments.rounds,
        arguments.kills,
        arguments.seed,
        arguments.minutes,
        arguments.sabotage,
        executor=arguments.executor,
        keys=arguments.keys,
    )
    display = Display(sys.stdout)
    try:
        if kept:
            stage.clear(options.out)
        with interruptible():
            before = undisturbed(options, display)
            report = chaos(options, before, display)
        if arguments.json is not None:
            arguments.json.write_text(as_json(report), encoding="utf-8")
        show(report, display)
        kept = kept or not report.good
        if not report.good:
            display.line(f"logs, traces and states are in {out}")
    finally:
        if not kept:
            shutil.rmtree(out, ignore_errors=True)
    return 0 if report.good else 1


def undisturbed(options: Options, display: Display) -> ChaosRun:
    """Run the jobs without a kill. Raises StartError, SettingsError, OSError or OperatorError."""
    display.line(f"undisturbed: {options.rounds} rounds of {options.devices} devices, and one that claims too much")
    return _run(options._replace(kills=0, sabotage=None), "undisturbed", display)


def chaos(options: Options, before: ChaosRun, display: Display) -> ChaosReport:
    """Run the jobs under fire and compare. Raises StartError, SettingsError, OSError or OperatorError."""
    what = f", without {options.sabotage}" if options.sabotage else ""
    display.line(f"chaos: {options.kills} kills, seed {options.seed}{what}")
    runs = [_run(options, "chaos", display)]
    while len(runs) <= MORE_RUNS and runs[-1].agrees_with(before) and (rest := _left_over(options, runs)).kills:
        missed = _missed(options, runs)
        display.line(f"again: {rest.kills} kills{', at ' * bool(missed)}{', '.join(missed)}")
        runs.append(_run(rest._replace(seed=options.seed + len(runs)), f"chaos-{len(runs) + 1}", display, missed))
    return _compare(options, before, runs)


def _missed(options: Options, runs: Sequence[ChaosRun]) -> list[str]:
    """Return the points that nobody has reached, where there were kills for every one."""
    if options.kills < FULL * len(points()):
        return []
    died_at = {kill.point for run in runs for kill in run.kills}
    return sorted(name for name in runs[0].missed if name not in died_at)


def _left_over(options: Options, runs: Sequence[ChaosRun]) -> Options:
    """Return what there is still to do: no kills where everything has been done."""
    kills = options.kills - sum(len(run.kills) for run in runs)
    return options._replace(kills=max(0, kills, KILLS_A_POINT * len(_missed(options, runs))))


# One run.


def _run(options: Options, name: str, display: Display, only: Sequence[str] = ()) -> ChaosRun:
    rng = random.Random(options.seed)  # noqa: S311 -- a schedule of kills, no secret
    command = sabotaged(options.sabotage) if options.sabotage else FEDGE
    began = time.monotonic()
    with running(
        *(options.out / name, options.devices, options.rounds, rng, command),
        executor=options.executor,
        keys=options.keys,
    ) as fleet:
        watch = _Watch(options, fleet, rng, display, began, only)
        problems = watch.to_the_end()
    traces = {name: member.trace for name, member in fleet.members.items()}
    for trace in traces.values():
        trace.read()
    outcome = audit(fleet.stage, traces)
    rows = recoveries(fleet.kills, traces, watch.versions_at)
    missed = sorted({point.name for point in watch.scheduler.waiting})
    return ChaosRun(outcome, fleet.kills, rows, missed, problems, round(time.monotonic() - began, 1))


class _Watch:
    """Looks after a fleet from the first job to the end of the last update."""

    def __init__(
        self,
        options: Options,
        fleet: Fleet,
        rng: random.Random,
        display: Display,
        began: float,
        only: Sequence[str],
    ) -> None:
        self.versions_at: list[float] = []
        self._options = options
        self._fleet = fleet
        self._display = display
        self._began = began
        broker = operator.load_config(fleet.stage.aggregator.config).broker
        self._config = fleet.stage.operator(broker)
        self._lookout = Lookout(over_mqtt("lookout", self._config.broker, Wire(chaos_stage.FLEET), retry_s=RETRY_S))
        self.scheduler = Scheduler(
            fleet, self._lookout, rng, _points(options.sabotage, only), options.kills, options.rounds
        )

    def to_the_end(self) -> list[str]:
        """Return what went wrong on the way. Raises StartError."""
        jobs = self._fleet.stage
        with self._lookout:
            try:
                self._follow(lambda: self._lookout.led)
                for spec in (*jobs.compared, jobs.loose):
                    operator.submit(self._config, jobs.job_file(spec))
                self.scheduler.open = True
                self._follow(self._is_finished)
                self.scheduler.cease()
                self._follow(self._is_calm)
                self._stop_loose()
                self._follow(self._is_over)
            except (ProcessError, _StandstillError) as error:
                return [str(error)]
        return []

    def _follow(self, done: Callable[[], bool]) -> None:
        """Go on until something is so."""
        moved_at = time.monotonic()
        while not done():
            n_versions = len(self.versions_at)
            self._lookout.listen()
            self.scheduler.step(self._version())
            self._display.status(self._doing())
            if len(self.versions_at) > n_versions:
                moved_at = time.monotonic()
            if time.monotonic() - moved_at > self._options.standstill_s:
                raise _StandstillError(f"standstill: {self._doing()}, for {self._options.standstill_s:g} s")
            if time.monotonic() - self._began > 60 * self._options.minutes and self.scheduler.open:
                self.scheduler.cease()
            time.sleep(LOOK_S)

    def _stop_loose(self) -> None:
        """End the job that would go on for ever."""
        for _ in range(N_TRIES):
            with contextlib.suppress(OperatorError):
                operator.stop(self._config, self._fleet.stage.loose.name)
                return

    def _version(self) -> int:
        head = self._lookout.head(self._fleet.stage.steady.name)
        number = head.version.number if head else 0
        self.versions_at += [time.monotonic()] * (number - len(self.versions_at))
        return number

    def _is_finished(self) -> bool:
        return all(self._state(spec.name) == "finished" for spec in self._fleet.stage.compared)

    def _is_calm(self) -> bool:
        return self._fleet.broker_alive and all(member.alive for member in self._fleet.members.values())

    def _is_over(self) -> bool:
        """Return whether no update is offered any more, and the first device serves the last version."""
        head = self._lookout.head(self._fleet.stage.steady.name)
        devices, jobs = self._fleet.stage.devices, self._fleet.stage.compared
        waiting = [f for role in devices for spec in jobs for f in role.state.glob(f"jobs/{spec.name}-*/update.bin")]
        served = self._fleet.stage.slot / "current"
        return (
            self._state(self._fleet.stage.loose.name) == "stopped"
            and not waiting
            and head is not None
            and served.is_symlink()
            and served.readlink().name.startswith(f"{head.version.generation}-{head.version.number}-")
        )

    def _state(self, name: str) -> str:
        head = self._lookout.head(name)
        return head.state if head else ""

    def _doing(self) -> str:
        version, rounds = self._version(), self._options.rounds
        text = f"version {version} of {rounds}"
        if self._options.kills:
            text += f", {len(self._fleet.kills)} of {self._options.kills} kills"
        passed = time.monotonic() - self._began
        return text + (f", about {duration(passed / version * (rounds - version))} left" if version else "")


def _points(sabotage: str | None, only: Sequence[str]) -> list[Point]:
    """Return where to kill: everywhere, or at these points only, or where the lack of a safeguard shows."""
    wanted = [point for point in points() if not only or point.name in only]
    return [p for p in wanted if sabotage is None or p.name in SABOTAGE[sabotage].hurts_at]


class _StandstillError(RuntimeError):
    """Nothing goes on any more."""


# Both runs.


def _compare(options: Options, before: ChaosRun, runs: Sequence[ChaosRun]) -> ChaosReport:
    expected, first = before.outcome, runs[0]
    # Of the first run that differs, if one does.
    shown = next((run.outcome for run in runs if run.outcome.sha256 != expected.sha256), first.outcome)
    pairs = [p for name in expected.sha256 for p in zip(expected.sha256[name], shown.sha256[name], strict=False)]
    same = sum(one == other for one, other in pairs)
    right = expected.sha256, expected.settled, expected.served
    identical = all((r.outcome.sha256, r.outcome.settled, r.outcome.served) == right for r in runs)
    kills = [kill for run in runs for kill in run.kills]
    total = first.rows[-1]
    problems = [*before.problems, *expected.problems]
    problems += [problem for run in runs for problem in (*run.problems, *run.outcome.problems)]
    problems += _broken_promises(options, runs, identical=identical)
    return ChaosReport(
        kills=len(kills),
        identical=identical,
        retrained_epochs=sum(run.outcome.retrained_epochs for run in runs),
        lost_updates=sum(run.outcome.lost_updates for run in runs),
        duplicated_updates=sum(run.outcome.duplicated_updates for run in runs),
        good=not problems,
        problems=problems,
        seed=options.seed,
        devices=options.devices,
        rounds=options.rounds,
        sabotage=options.sabotage,
        versions_identical=same,
        versions=sum(map(len, expected.sha256.values())),
        sha256={name: versions[-1] for name, versions in shown.sha256.items()},
        undisturbed_sha256={name: versions[-1] for name, versions in expected.sha256.items()},
        recovery_p50_s=total.version_p50_s,
        recovery_max_s=total.version_max_s,
        rows=first.rows,
        points=dict(sorted(Counter(kill.point for kill in kills).items())),
        points_missed=_missed(options, runs),
        runs=len(runs),
        seconds=round(sum(run.seconds for run in runs), 1),
        undisturbed_seconds=before.seconds,
    )


def _broken_promises(options: Options, runs: Sequence[ChaosRun], *, identical: bool) -> list[str]:
    retrained, lost, twice, kills = (
        sum(run.outcome.retrained_epochs for run in runs),
        sum(run.outcome.lost_updates for run in runs),
        sum(run.outcome.duplicated_updates for run in runs),
        sum(len(run.kills) for run in runs),
    )
    checks = [
        (identical, "the models, or what devices are done with, are not those of the undisturbed run"),
        (not retrained, f"{retrained} finished epochs were trained again"),
        (not lost, f"{lost} accepted updates were lost"),
        (not twice, f"{twice} updates were counted twice"),
        (kills >= options.kills, f"only {kills} of {options.kills} kills took place: nothing is said of the rest"),
    ]
    return [text for good, text in checks if not good]


# For people.


def show(report: ChaosReport, display: Display) -> None:
    """Write the table and what it comes to."""
    say = display.line
    say()
    names = ("killed", "kills", "at points", "at work again: p50", "max", "next version: p50", "max")
    say("{:<12} {:>6} {:>10}   {:>18} {:>7}   {:>17} {:>7}".format(*names))
    for row in report.rows:
        work, version = (row.work_p50_s, row.work_max_s), (row.version_p50_s, row.version_max_s)
        cells = [f"{_seconds(a):>{width}} {_seconds(b):>7}" for (a, b), width in ((work, 18), (version, 17))]
        say(f"{row.who:<12} {row.kills:>6} {row.at_points:>10}   {'   '.join(cells)}")
    n_points = sum("." in point for point in report.points)
    say()
    again = f", in {report.runs} runs" if report.runs > 1 else ""
    say(f"failpoints         {n_points} different ones, {len(report.points_missed)} that nobody reached{again}")
    say(f"retrained epochs   {report.retrained_epochs}")
    say(f"lost updates       {report.lost_updates}")
    say(f"duplicated updates {report.duplicated_updates}")
    say(f"versions           {report.versions_identical} of {report.versions} have the SHA-256 of the undisturbed run")
    for name, sha256 in report.sha256.items():
        same = "identical" if sha256 == report.undisturbed_sha256[name] else "NOT identical"
        say(f"{name:<18} {sha256[:16]} {same}")
    say(f"took               {duration(report.seconds)}; undisturbed {duration(report.undisturbed_seconds)}")
    for problem in report.problems:
        say(f"NOT AS PROMISED: {problem}")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
