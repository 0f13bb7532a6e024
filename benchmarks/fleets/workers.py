"""Runs in processes of their own, one a run, as many at once as asked.

A worker loads its data, runs the real fleet and keeps the result itself, so what has finished is kept whatever becomes
of the rest. It takes no Ctrl-C, which a terminal sends to everybody: the parent ends it, and it leaves by an exception,
so that the simulation's folder goes with it. A worker whose parent has died ends at its next round.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NamedTuple

from benchmarks.fleets import data
from benchmarks.fleets.catalogue import Fleet
from benchmarks.fleets.data import Files
from benchmarks.fleets.runs import Cache, Kept, Task
from fleet.problems.problem import dealt
from fleet.simulation.simulate import RoundRow, SimulationError, simulate
from models.data.dataset import Dataset, fit

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_told_to_leave = threading.Event()
ENDING_S = 10.0
"""What a worker has to leave, before it is killed."""


class Done(NamedTuple):
    """A run that has come to its end, or why it has not."""

    task: Task
    kept: Kept | str


class _Worker(NamedTuple):
    task: Task
    process: BaseProcess


def run(task: Task, files: Files, cache: Cache) -> Kept:
    """Run a fleet in this process and keep the result. Raises what `simulate` raises."""
    fleet, parent = task.fleet, os.getppid()
    shares, test = _dealt(fleet, task.seed, files)

    def look(_row: RoundRow) -> None:
        if _told_to_leave.is_set() or os.getppid() != parent:
            raise KeyboardInterrupt

    return cache.keep(task, simulate(fleet.job(task.seed, task.coding.compression), shares, test, look))


def _dealt(fleet: Fleet, seed: int, files: Files) -> tuple[list[Dataset], Dataset]:
    """Return each device's rows and those to test on; the whole data set, of which they are copies, is let go."""
    source = data.read(fleet.data, files)
    shares = data.cut(fleet.cut, source, fleet.devices, seed)
    return dealt(fit(source.train, fleet.net), shares), fit(source.test, fleet.net)


def run_all(tasks: Sequence[Task], files: Files, cache: Cache, jobs: int) -> Generator[Done, None, None]:
    """Run the tasks in their order, `jobs` at a time, and return each as it ends. Who leaves early ends them all."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    waiting, running = list(reversed(tasks)), dict[Connection, _Worker]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                told, worker = _start(waiting.pop(), files, cache)
                running[told] = worker
            ready = wait(list(running))
            for told in [one for one in running if one in ready]:
                yield _ended(told, running.pop(told), cache)
    finally:
        _end([worker.process for worker in running.values()])
        for told in running:
            told.close()


def _start(task: Task, files: Files, cache: Cache) -> tuple[Connection, _Worker]:
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, dict(files), cache, tell), daemon=True)
    # Blocked while it starts, and so in the child for good; what comes meanwhile reaches the parent afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    tell.close()
    return told, _Worker(task, process)


def _work(task: Task, files: Files, cache: Cache, tell: Connection) -> None:
    signal.signal(signal.SIGTERM, _leave)
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            run(task, files, cache)
        except (SimulationError, ValueError, OSError, MemoryError) as error:
            tell.send(f"{type(error).__name__}: {error}")


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End as by Ctrl-C, the one exception that no job's fault hides; where it is thrown in vain, after the round."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.unraisablehook = lambda _: None  # what is cut short has nothing to say
    _told_to_leave.set()
    raise KeyboardInterrupt


def _ended(told: Connection, worker: _Worker, cache: Cache) -> Done:
    try:
        why = str(told.recv())
    except EOFError:
        why = ""
    told.close()
    worker.process.join()
    kept = cache.find(worker.task)
    return Done(worker.task, kept or why or f"its process ended with {worker.process.exitcode}")


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(ENDING_S)
        if process.is_alive():
            process.kill()
            process.join()
