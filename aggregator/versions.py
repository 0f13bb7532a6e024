"""What operators do with the versions of jobs: pause and resume, roll back, export, delete. See commands.py."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aggregator import bases, effects, restoring
from aggregator.askers import asker
from aggregator.convergence import best_of
from aggregator.kept import KeptState, PastJob
from aggregator.run import Run
from aggregator.starting import Given
from aggregator.store import JobRow
from aggregator.uploads import Uploads
from broker.messages import Export, Pause, RollBack
from models.job import JobSpec

if TYPE_CHECKING:
    from aggregator.service import Aggregator

PIECE_BYTES = 24_576
"""Of a body that is exported, in one answer: a third more in base64, and the smallest broker known takes 64 kB."""
UPLOAD, BASE = "upload:", "base:"


class Found(NamedTuple):
    """A version of a job."""

    job: str
    spec: JobSpec
    version: str
    """With its generation, as people know it."""
    state: KeptState
    is_best: bool
    reason: str


# What changes something.


def pause(aggregator: Aggregator, command: Pause) -> str:
    """Pause a job at work; return that in words. Raises ValueError or StoreError."""
    run = _at_work(aggregator, command.name)
    core = run.coordinator
    if not core.paused:
        paused = f"paused by {asker(command.client)} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        aggregator.store.pause(run.job, paused)
        aggregator.jobs.inside(run.job, lambda run, now: run.handle(effects.Pause(paused), now))
    return f"{run.job} is {core.paused}: no round opens; fedge job resume {run.spec.name} goes on"


def unpause(aggregator: Aggregator, name: str, who: str) -> str | None:
    """Let a paused job go on, as somebody asked; return that in words, or None where none of the name is paused.

    Raises StoreError.
    """
    run = next((run for run in _named(aggregator, name) if run.coordinator.paused), None)
    if run is None:
        return None
    version = run.version
    aggregator.store.pause(run.job, "", who)
    aggregator.jobs.inside(run.job, lambda run, now: run.handle(effects.Unpause(), now))
    return f"{run.job} goes on from version {version}"


def roll_back(aggregator: Aggregator, command: RollBack) -> str | None:
    """Make an older version the next one; return that in words, or None while something is under way.

    Raises ValueError or StoreError.
    """
    run = _at_work(aggregator, command.name, "; to train on from a version of it, submit a job with --from")
    if run.coordinator.is_busy:
        return None  # which is the best may be another one then
    number = _number(run, command.version)
    if restoring.is_again(run.history) == number:
        return f"{run.job}: version {run.version} is version {number} again"
    if number == run.version.number:
        raise ValueError(f"version {number} is the current version of {run.job}")
    if number and number not in (sizes := aggregator.store.states.sizes(run.job)):
        raise ValueError(_not_kept(run.job, number, restoring.named(sizes, run.best, run.version.number)))
    why = f"version {number} was restored by {asker(command.client)}"
    aggregator.jobs.inside(run.job, lambda run, now: run.handle(effects.RollBack(number, why), now))
    after = aggregator.runs.get(run.job)
    if after is None:
        raise RuntimeError(f"{run.job} could not be rolled back: its state cannot be written now")
    if restoring.is_again(after.history) == number:
        told = f"{run.job}: version {after.version} is version {number} again"
        aggregator.store.events.note("job.rolled_back", f"{told}, as {asker(command.client)} asked", job=run.job)
        return told
    raise ValueError(f"{run.job} stays at version {after.version}: version {number} cannot be had, see the log")


def delete(aggregator: Aggregator, name: str, who: str) -> str:
    """Forget a job that has ended or was replaced, as somebody asked; return that in words.

    Raises ValueError or StoreError.
    """
    for run in _named(aggregator, name):
        if not run.coordinator.ended:
            raise ValueError(f"job {run.job} is running: stop it first")
        aggregator.jobs.delete(run.job, who)
        return f"{run.job} is deleted, with its versions"
    for job, rest in list(aggregator.resting.items()):
        if name in (job, rest.name):
            if not rest.ended:
                raise ValueError(f"job {job} is at rest and has not ended: stop it first")
            aggregator.jobs.delete(job, who)
            return f"{job} is deleted, with its versions"
    past = [one for one in aggregator.store.states.past() if name in (one.job, one.name)]
    if len(past) > 1:
        raise ValueError(f"{len(past)} replaced jobs have the name {name}: say which, {', '.join(p.job for p in past)}")
    for one in past:
        aggregator.store.forget_past(one.job, who)
        return f"{one.job} is deleted, with its versions"
    raise ValueError(f"no job has the name {name}")


# What only looks.


def find(aggregator: Aggregator, name: str, version: str) -> Found:
    """Return a version of a job: its number, "best" or "last". Raises ValueError or StoreError."""
    for run in sorted(_named(aggregator, name), key=lambda run: bool(run.coordinator.ended)):
        number = _number(run, version)
        state = run.state_of(number)
        if state is None:
            sizes = aggregator.store.states.sizes(run.job)
            raise ValueError(_not_kept(run.job, number, restoring.named(sizes, run.best, run.version.number)))
        said = f"{run.version.generation}.{number}"
        return Found(run.job, run.spec, said, state, number == run.best, run.reason if run.coordinator.ended else "")
    for past in aggregator.store.states.past():
        if name in (past.job, past.name):
            return _of_past(aggregator, past, version)
    for row in aggregator.store.jobs():
        if name in (row.job, row.name) and row.job in aggregator.resting:
            return _of_resting(aggregator, row, version)
    raise ValueError(f"no job has the name {name}: fedge job list --all shows those there are")


def _of_resting(aggregator: Aggregator, row: JobRow, version: str) -> Found:
    """Return a version of a job that is at rest, as far as it was kept; the current one cannot be had."""
    states, why = aggregator.store.states, aggregator.resting[row.job].why
    number: int | None = None
    if row.spec is not None and version != "last":
        best = best_of(aggregator.store.history(row.job), row.spec.rounds)
        number = best if version == "best" else _natural(version, row.generation)
        state = None if number is None else states.get(row.job, number)
        if state is not None:
            return Found(row.job, row.spec, f"{row.generation}.{number}", state, number == best, why)
    kept = ", ".join(map(str, states.sizes(row.job))) or "none"
    raise ValueError(f"{row.job} is at rest, and of its versions these can be had: {kept}; it is at rest: {why}"[:500])


def _of_past(aggregator: Aggregator, past: PastJob, version: str) -> Found:
    states = aggregator.store.states
    number = past.best if version == "best" else past.last if version == "last" else _natural(version, past.generation)
    state = None if number is None else states.get(past.job, number)
    if state is None:
        there = restoring.named(states.sizes(past.job), past.best, past.last, ended=True)
        raise ValueError(_not_kept(past.job, version, there))
    said = f"{past.generation}.{state.number}"
    return Found(past.job, past.spec, said, state, number == past.best, past.reason)


def given(aggregator: Aggregator, uploads: Uploads, text: str) -> Given:
    """Return the weights that a job is to start from: NAME, NAME@VERSION, upload:DIGEST or base:DIGEST.

    Raises ValueError or StoreError.
    """
    if text.startswith(UPLOAD):
        return Given(uploads.whole(text.removeprefix(UPLOAD)), "the weights that were sent")
    if text.startswith(BASE):
        return Given(uploads.whole(text.removeprefix(BASE)), "the tensors that were sent", begins_with_base=True)
    name, _, version = text.partition("@")
    found = find(aggregator, name, version or "last")
    base = bases.of_job(aggregator.store, found.job)
    return Given(found.state.body, f"{found.job} version {found.state.number}", found.spec, base)


def of_start(run: Run, text: str) -> str:
    """Return in words what a job started from, and what that costs. text: as it was asked for; "" if it was not."""
    n_bytes = sum(len(body.data) for body in run.bodies() if body.number == 1)
    n_bytes += 0 if run.base is None else run.base.n_bytes
    if text.startswith(BASE):
        return f"what is frozen of its net has come: {n_bytes:,} bytes, once, for each device that has not got them"
    what = (
        "the weights that were sent"
        if text.startswith(UPLOAD)
        else text or f"the weights that {run.spec.model.kind} gives"
    )
    told = f"it starts from {what}: that is version 1, of {n_bytes:,} bytes for each device"
    return told if text else f'{told}; start = "seed" in [model] draws others of its seed, which costs none'


class Exports:
    """Answers exports, page by page. The body of the last one is remembered: it is asked for many times."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._last: tuple[tuple[str, str, str], Found] | None = None

    def page(self, command: Export) -> tuple[str, dict[str, Any], str]:
        """Return a piece of a version, and what it is of; and where the next piece begins, if there is one.

        Raises ValueError where there is no such version, StoreError where it cannot be read.
        """
        key = command.client, command.name, command.version
        begins, _, sha256 = command.after.partition(":")
        at = _natural(begins) if command.after else 0
        if self._last is None or self._last[0] != key or not at:
            self._last = key, find(self._aggregator, command.name, command.version)
        found = self._last[1]
        if sha256 and sha256 != found.state.sha256:  # of a job that has gone on since, and another asked in between
            raise ValueError(f"{found.job} has another {command.version} version since: begin again")
        body = found.state.body
        data: dict[str, Any] = {"piece": base64.b64encode(body[at : at + PIECE_BYTES]).decode()}
        if not at:
            data |= {
                "job": found.job,
                "spec": msgspec.to_builtins(found.spec),
                "version": found.version,
                "number": found.state.number,
                "sha256": found.state.sha256,
                "n_bytes": len(body),
                "metrics": found.state.metrics,
                "best": found.is_best,
                "reason": found.reason[:500],
            }
        end = at + PIECE_BYTES
        if end < len(body):
            return found.job, data, f"{end}:{found.state.sha256}"
        self._last = None
        return found.job, data, ""


def past_lines(aggregator: Aggregator) -> Iterator[dict[str, Any]]:
    """Return what `job list --all` shows of replaced jobs, by id."""
    states = aggregator.store.states
    for past in sorted(states.past(), key=lambda past: past.job):
        metrics = {} if past.best is None else states.metrics(past.job, past.best)
        yield {
            "name": past.name,
            "job": past.job,
            "state": "replaced",
            "version": f"{past.generation}.{past.last}",
            "metrics": {name: metrics[name] for name in ("accuracy", "loss", "participants") if name in metrics},
            "reason": f"{past.ended}: {past.reason}; another of its name replaced it at {past.at} UTC; "
            f"kept: {restoring.named(states.sizes(past.job), past.best, past.last, ended=True)}"[:500],
        }


# Names and numbers.


def _named(aggregator: Aggregator, name: str) -> list[Run]:
    return [run for run in aggregator.runs.values() if name in (run.job, run.spec.name)]


def _at_work(aggregator: Aggregator, name: str, what_to_do: str = "") -> Run:
    found = _named(aggregator, name)
    for run in found:
        if not run.coordinator.ended:
            return run
    for run in found:
        raise ValueError(f"job {run.job} has ended: {run.reason}"[: 500 - len(what_to_do)] + what_to_do)
    for job, rest in aggregator.resting.items():
        if name in (job, rest.name):
            raise ValueError(f"job {job} is at rest: {rest.why}"[:500])
    raise ValueError(f"no running job has the name {name}")


def _number(run: Run, version: str) -> int:
    """Return the number of a version of a job. Raises ValueError where there is none."""
    current = run.version.number
    if version == "last":
        return current
    if version == "best":
        best = run.best
        if best is None:
            raise ValueError(f"nobody measures the versions of {run.job}: which is the best is not known")
        return best
    number = _natural(version, run.version.generation)
    if number > current:
        raise ValueError(f"{run.job} is at version {run.version}: there is no version {number}")
    return number


_VERSION = re.compile(r"(?:([0-9]{1,10})\.)?([0-9]{1,9})")
"""Its number, or as it is shown: with a generation, of which a version that is still the same may have had several."""


def _natural(text: str, generation: int | None = None) -> int:
    """Return the number of a version. generation: the last that there was of its job."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ValueError(f'{text[:40]!r} is no version: say its number, "best" or "last"')
    if generation is not None and found[1] and not 0 < int(found[1]) <= generation:
        raise ValueError(f"there is no version {text}: of generations, its first number, there were {generation}")
    return int(found[2])


def _not_kept(job: str, version: object, there: str) -> str:
    return f"version {version} of {job} is not kept; these are: {there}"[:500]
