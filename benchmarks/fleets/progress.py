"""How far it is: a line on stderr for each run that ends, with the time that is left."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.fleets.runs import Kept, Task
from benchmarks.fleets.workers import Done

CODED = 2.5
"""What a coded run is thought to take beside one in float32 until one has run."""


class Progress:
    """What runs take: as long as others of their fleet and coding took, else what the catalogue says times the pace."""

    def __init__(self, jobs: int, plain: str, kept: Iterable[Kept] = ()) -> None:
        self._jobs = jobs
        self._plain = plain
        self._took: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        self._guessed_s = self._took_s = 0.0
        for run in kept:
            self._took[run.fleet, run.coding, len(run.rounds)].append(run.seconds)

    def seconds(self, task: Task) -> float:
        """Guess what a run takes on this machine, as busy as it is."""
        if took := self._took.get((task.fleet.name, task.coding.name, task.fleet.rounds)):
            return sum(took) / len(took)
        return self._guess(task) * (self._took_s / self._guessed_s if self._guessed_s else 1.0)

    def _guess(self, task: Task) -> float:
        return task.fleet.seconds * (1.0 if task.coding.name == self._plain else CODED)

    def longest_first(self, tasks: Iterable[Task]) -> list[Task]:
        """Return the tasks in the order in which none is left alone at the end."""
        return sorted(tasks, key=self.seconds, reverse=True)

    def left(self, tasks: Iterable[Task]) -> float:
        """Guess the seconds until these tasks are done."""
        return sum(map(self.seconds, tasks)) / self._jobs

    def begin(self, n_kept: int, tasks: Sequence[Task]) -> None:
        """Say what is to be done."""
        _say(f"{n_kept} runs are kept, {len(tasks)} are to be done: {duration(self.left(tasks))} on {self._jobs}")

    def ended(self, done: Done, n_done: int, left: Sequence[Task]) -> None:
        """Say what came of a run, and how long the others will take. left: those that have not ended."""
        task, kept = done
        where = f"[{n_done}/{n_done + len(left)}] {task.fleet.name} {task.coding.name} seed {task.seed}"
        if isinstance(kept, str):
            _say(f"{where}: FAILED: {kept}; {duration(self.left(left))} left")
            return
        self._took[kept.fleet, kept.coding, len(kept.rounds)].append(kept.seconds)
        self._guessed_s += self._guess(task)
        self._took_s += kept.seconds
        end = f"loss {kept.column('loss')[-1]:.4f}" if task.fleet.falls else f"{kept.column('accuracy')[-1]:.4f}"
        _say(f"{where}: {end}, {kept.seconds:.0f} s; {duration(self.left(left))} left")


def duration(seconds: float) -> str:
    """Return a time in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
