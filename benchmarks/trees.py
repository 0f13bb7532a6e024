"""Simulations by another state of this project, each a process that imports that tree and nothing of this one.

What runs there (`SCRIPT`) goes by faces that older trees have: `fleet.problems.problem.read_problem`,
`fleet.simulation.simulate.simulate` and the version and SHA-256 of an `aggregator.run.Run`, which are looked at
whenever `on_round` says that a version is there. Folders that a simulation makes for itself are put below ours, so that
whoever is killed leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
from msgspec import Struct

from broker.embedded import on_leash

PAUSE_S = 0.02
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SCRIPT = """\
import json, sys, tempfile
from pathlib import Path
asked = json.loads(sys.argv[1])
ours = tempfile.TemporaryDirectory
tempfile.TemporaryDirectory = lambda *_, **__: ours(dir=asked["folder"])
import importlib
def found(*names):
    tree = Path(asked["tree"]).resolve()
    for name in names:
        if (tree / (name.replace(".", "/") + ".py")).is_file():
            return importlib.import_module(name)
    sys.exit(f"{tree} has none of {names}: it is too old to be compared")
simulation = found("fleet.simulation.simulate", "fleet.simulate")
problems = found("fleet.problems.problem", "fleet.problem")
from aggregator.run import Run
from models.job import StopSpec
from msgspec import structs
for module in (simulation, sys.modules["aggregator.run"]):
    if not Path(module.__file__).resolve().is_relative_to(Path(asked["tree"]).resolve()):
        sys.exit(f"{module.__name__} was imported from {module.__file__}, not from the tree that was asked for")
runs, begin = [], Run.__init__
def noted(self, *rest, **more):
    begin(self, *rest, **more)
    runs.append(self)
Run.__init__ = noted
more = {} if asked["features"] is None else {"features": asked["features"]}
problem = problems.read_problem(
    Path(asked["job"]), asked["data"], how=asked["how"], n_devices=asked["devices"], rounds=asked["versions"], **more
)
rules = structs.replace(problem.spec.rounds, stop=StopSpec(), target=None)
if asked["fraction"] is not None:
    few = max(1, int(asked["fraction"] * len(problem.shares)))
    rules = structs.replace(rules, fraction=asked["fraction"], quorum=min(rules.quorum, few))
spec = structs.replace(problem.spec, compression=asked["coding"], rounds=rules)
sha256 = []
def on_round(row):
    if runs[-1].version.number != row.round:
        sys.exit(f"version {runs[-1].version} is there already when version {row.round} is told of: it goes unseen")
    sha256.append(runs[-1].sha256)
done = simulation.simulate(spec, problem.shares, problem.test, on_round)
print(json.dumps({"up": done.bytes_up, "down": done.bytes_down, "sha256": sha256}))
"""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Have signals that ask us to stop wait for the end of a block: for cleaning up, which is done once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Fleet(NamedTuple):
    """A job and data, and how they are dealt out. fraction: of the devices in a round; None: as the job says."""

    job: str
    data: str
    how: str
    n_devices: int
    fraction: float | None
    features: str | None = None


class Task(NamedTuple):
    """One fleet in one coding on one tree."""

    tree: Path
    side: str
    name: str
    fleet: Fleet
    coding: str
    versions: int


class Answer(Struct, frozen=True):
    """What came of a task. up, down: payload bytes of MQTT, of all devices. sha256: of every version from 1 on.

    error: why nothing came of it.
    """

    up: int = 0
    down: int = 0
    sha256: list[str] = []
    seconds: float = 0.0
    error: str = ""


class _Running(NamedTuple):
    task: Task
    process: subprocess.Popen[bytes]
    out: Path
    began: float


class Runs:
    """Runs tasks, some at once, and ends those that are under way when its block ends."""

    def __init__(self, folder: Path, at_once: int) -> None:
        self._folder = folder
        self._at_once = at_once
        self._running: list[_Running] = []
        self._n = 0

    def __enter__(self) -> Runs:
        self._folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with undisturbed():
            for running in self._running:
                running.process.kill()
            for running in self._running:
                running.process.wait()

    def all(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        """Run all tasks, and return each with its answer as soon as that is there."""
        left = deque(tasks)
        while left or self._running:
            while left and len(self._running) < self._at_once:
                self._running.append(self._start(left.popleft()))
            ended = [running for running in self._running if running.process.poll() is not None]
            for running in ended:
                self._running.remove(running)
                yield running.task, _answer(running)
            if not ended:
                time.sleep(PAUSE_S)

    def _start(self, task: Task) -> _Running:
        self._n += 1
        folder = self._folder / str(self._n)
        folder.mkdir()
        fleet = task.fleet
        asked = {
            "tree": str(task.tree),
            "folder": str(folder),
            "job": fleet.job,
            "data": fleet.data,
            "how": fleet.how,
            "devices": fleet.n_devices,
            "fraction": fleet.fraction,
            "features": fleet.features,
            "coding": task.coding,
            "versions": task.versions,
        }
        environment = os.environ | {
            "PYTHONPATH": str(task.tree),
            "PYTHONDONTWRITEBYTECODE": "1",  # whoever names a folder finds it as it was
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = on_leash([sys.executable, "-P", "-c", SCRIPT, json.dumps(asked)])
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
                process_group=0,  # Ctrl-C in a terminal comes to us alone
            )
        return _Running(task, process, folder, time.monotonic())


def _answer(running: _Running) -> Answer:
    seconds = time.monotonic() - running.began
    if running.process.returncode:
        said = (running.out / "err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = said[-1] if said else f"its process ended with {running.process.returncode}"
        return Answer(seconds=seconds, error=why[:500])
    found = msgspec.json.decode((running.out / "out").read_bytes(), type=Answer)
    return msgspec.structs.replace(found, seconds=seconds)
