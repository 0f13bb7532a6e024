"""What a process may take for its jobs, and whether one more fits: said in numbers, before anything of it is made.

    [limits] model_parameters, memory_bytes, disk_bytes    what stands there
    not given: memory    nine tenths of what its control groups allow, or three quarters of what the machine has,
                         whichever is less
               disk      what is free where the state directory lies, and what that has taken already

A job that does not fit alone is refused. One that would fit alone, but not beside those that are at work, waits until
they have ended: who came first stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from models.job import JobSpec
from models.needs import Needs, together
from models.nets import size
from models.nets.net import ModelError
from models.nets.size import Size, UntrainableError
from runtime import machine

MOST_PARAMETERS = 25_000_000
"""Of a net, where [limits] do not say: as many as a built-in one may have."""
OF_MACHINE = 3, 4
"""What a process takes of a machine's memory at most; the rest is the system's, the rows' and everybody else's."""
OF_GROUPS = 9, 10
NAMED = 3
"""Jobs that a refusal names."""


class Limits(Protocol):
    """[limits] of agent.toml and aggregator.toml."""

    @property
    def model_parameters(self) -> int:
        """The most parameters that a net may have."""

    @property
    def memory_bytes(self) -> int | None:
        """The most memory that the process may take."""

    @property
    def disk_bytes(self) -> int | None:
        """The most room on the disk that it may take."""


class Budget(NamedTuple):
    """What there is. None: not known, and so not limited. ..._from: where the number is from, for people."""

    parameters: int = MOST_PARAMETERS
    memory_bytes: int | None = None
    memory_from: str = ""
    disk_bytes: int | None = None
    disk_from: str = ""

    def __str__(self) -> str:
        """Return it in words."""
        memory = "memory without a limit" if self.memory_bytes is None else f"{said(self.memory_bytes)} of memory"
        disk = "disk without a limit" if self.disk_bytes is None else f"{said(self.disk_bytes)} of disk"
        origins = [origin for origin in (self.memory_from, self.disk_from) if origin]
        of_jobs = f"for jobs: nets of up to {self.parameters:,} parameters, {memory}, {disk}"
        return f"{of_jobs} ({'; '.join(origins)})" if origins else of_jobs


class Refusal(NamedTuple):
    """Why a job cannot be taken. waits: it can once others have ended. of_net: its net could be trained nowhere."""

    why: str
    waits: bool = False
    of_net: bool = False


def found(limits: Limits, folder: Path | None, root: Path = machine.ROOT) -> Budget:
    """Return the budget of this process. folder: its state directory, if it has one here. root: as in `machine`."""
    memory, memory_from = limits.memory_bytes, "memory_bytes in [limits]"
    if memory is None:
        memory, memory_from = _memory(root)
    disk, disk_from = limits.disk_bytes, "disk_bytes in [limits]"
    if disk is None:
        disk, disk_from = _disk(folder)
    return Budget(limits.model_parameters, memory, memory_from, disk, disk_from)


def _memory(root: Path) -> tuple[int | None, str]:
    machine_, group = machine.physical_bytes(root), machine.group_bytes(root)
    choices = []
    if machine_ is not None:
        share, parts = OF_MACHINE
        choices.append((machine_ * share // parts, f"{share}/{parts} of the machine's {said(machine_)}"))
    if group is not None:
        share, parts = OF_GROUPS
        choices.append((group * share // parts, f"{share}/{parts} of the {said(group)} that its control group allows"))
    return min(choices, default=(None, ""))


def _disk(folder: Path | None) -> tuple[int | None, str]:
    free = None if folder is None else machine.free_bytes(folder)
    if free is None or folder is None:
        return None, ""
    return free + machine.used_bytes(folder), f"what is free at {folder}, or its own"


def refusal(needs: Needs, budget: Budget, base_bytes: int, beside: dict[str, Needs], over: Collection[str]) -> Refusal:
    """Return why a job does not fit; an empty one where it does.

    base_bytes: what the process takes without any job. beside: those that it has. over: of these, the ones that are.
    """
    if needs.parameters > budget.parameters:
        return Refusal(
            f"the job does not fit here: its net has {needs.parameters:,} parameters, where model_parameters = "
            f"{budget.parameters:,} in [limits]"
        )
    alone = base_bytes + needs.alone_bytes
    if budget.memory_bytes is not None and alone > budget.memory_bytes:
        return Refusal(_too_much(f"{said(alone)} of memory", budget.memory_bytes, budget.memory_from, needs))
    if budget.disk_bytes is not None and needs.disk_bytes > budget.disk_bytes:
        return Refusal(_too_much(f"{said(needs.disk_bytes)} of disk", budget.disk_bytes, budget.disk_from, needs))
    ended = [other for job, other in beside.items() if job in over]
    going_on = [other for job, other in beside.items() if job not in over]
    before, after = (base_bytes + together(jobs, ended) for jobs in (going_on, [*going_on, needs]))
    if budget.memory_bytes is not None and after > budget.memory_bytes:
        return Refusal(
            _not_beside("memory", after, before, budget.memory_bytes, budget.memory_from, beside), waits=True
        )
    before = sum(other.disk_bytes for other in beside.values())
    after = before + needs.disk_bytes
    if budget.disk_bytes is not None and after > budget.disk_bytes:
        return Refusal(_not_beside("disk", after, before, budget.disk_bytes, budget.disk_from, beside), waits=True)
    return Refusal("")


def _too_much(what: str, most: int, origin: str, needs: Needs) -> str:
    return (
        f"the job does not fit here: its net of {needs.parameters:,} parameters takes about {what}, where there are "
        f"{said(most)} ({origin})"
    )


def _not_beside(what: str, after: int, before: int, most: int, origin: str, beside: dict[str, Needs]) -> str:
    names = ", ".join(sorted(beside)[:NAMED]) + (f" and {len(beside) - NAMED} more" if len(beside) > NAMED else "")
    return (
        f"the job does not fit beside {names}: with it about {said(after)} of {what} would be taken, without it "
        f"{said(before)}, and there are {said(most)} ({origin}); it has to wait until they have ended"
    )


def said(n_bytes: int) -> str:
    """Return a number of bytes as a person reads it."""
    if n_bytes < 10**6:
        return f"{n_bytes / 1e3:,.0f} kB"
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes < 10**10 else f"{n_bytes / 1e9:,.1f} GB"


class Capacity:
    """The jobs that one process has taken, and whether it can take another.

    of: what a job takes, by its size and how many rows it has, where that is known. base_bytes: what the process takes
    without any. folder: its state directory. exports: whether somebody reads if a factory's net can be exported.
    """

    def __init__(
        self,
        limits: Limits,
        folder: Path | None,
        of: Callable[[JobSpec, Size, int | None], Needs],
        base_bytes: int,
        root: Path = machine.ROOT,
        *,
        exports: bool = False,
    ) -> None:
        self._exports = exports
        self._limits = limits
        self._folder = folder
        self._of = of
        self._base_bytes = base_bytes
        self._root = root
        self._taken: dict[str, Needs] = {}
        self._sizes: dict[str, Size] = {}
        self._notes: dict[str, tuple[str, ...]] = {}

    @property
    def budget(self) -> Budget:
        """What there is now: a disk fills up."""
        return found(self._limits, self._folder, self._root)

    def size(self, job: str) -> Size | None:
        """Return how large the net of a job is that was weighed; None where that is not known."""
        return self._sizes.get(job)

    def notes(self, job: str) -> tuple[str, ...]:
        """Return what its author should know of the net of a job that was weighed."""
        return self._notes.get(job, ())

    def weigh(
        self,
        job: str,
        spec: JobSpec,
        *,
        rows: int | None = None,
        over: Collection[str] = (),
        gone: Collection[str] = (),
        disk: bool = True,
    ) -> Refusal:
        """Return why there is no room for a job; an empty refusal where there is, and nothing changes.

        rows: of its data, where they are known. over: the jobs that have ended. gone: those that make way. disk:
        whether that counts.
        """
        budget = self.budget if disk else self.budget._replace(disk_bytes=None)
        try:
            needs = self._needs(job, spec, rows, budget)
        except ModelError as error:
            return Refusal(str(error), of_net=isinstance(error, UntrainableError))
        except OSError as error:  # of the child that counts
            return Refusal(f"how large its net is cannot be found out: {error.strerror or error}", waits=True)
        if needs is None:
            return Refusal("")
        return refusal(needs, budget, self._base_bytes, self._others({job, *gone}), over)

    def take(self, job: str, spec: JobSpec, *, rows: int | None = None) -> None:
        """Count a job among those that are here, whether or not there is room; one of unknown size takes nothing."""
        size_ = self._sizes.get(job) or size.of_job(spec)
        if size_ is not None:
            self._taken[job] = self._of(spec, size_, rows)

    def leave(self, job: str) -> None:
        """Note that a job is not at work here now; how large its net is stays known."""
        self._taken.pop(job, None)

    def forget(self, job: str) -> None:
        """Note that a job does not come back."""
        self.leave(job)
        self._sizes.pop(job, None)
        self._notes.pop(job, None)

    def _others(self, but: Collection[str]) -> dict[str, Needs]:
        return {job: needs for job, needs in self._taken.items() if job not in but}

    def _needs(self, job: str, spec: JobSpec, rows: int | None, budget: Budget) -> Needs | None:
        size_ = self._sizes.get(job)
        if size_ is None:
            most = budget.memory_bytes or machine.physical_bytes(self._root)
            trial = size.tried(spec, None if most is None else max(0, most - self._base_bytes), exports=self._exports)
            if trial is None:
                return None
            size.check_job(trial, spec)
            size_, self._notes[job] = trial.size, trial.notes
        self._sizes[job] = size_
        return self._of(spec, size_, rows)
