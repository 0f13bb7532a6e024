"""What operators ask for, and the answers. A command may come several times, and is done once.

Answers that could be long come in pages of PAGE_BYTES: the smallest broker known takes 64 kB. `more` of an answer is
the `after` of the next question.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from aggregator import curves, devices, evaluation, notes, signed, versions, waits
from aggregator.askers import asker
from aggregator.convergence import STARTED
from aggregator.pages import PAGE_BYTES
from aggregator.pages import page as cut_to_page
from aggregator.run import Run
from aggregator.store import AttemptRow, StoreError
from aggregator.uploads import Uploads
from broker.messages import (
    Change,
    Command,
    Curve,
    Delete,
    Devices,
    Events,
    Explain,
    Export,
    History,
    Jobs,
    Offer,
    Pause,
    Quarantine,
    Release,
    Reply,
    Resume,
    RollBack,
    Show,
    Stop,
    Submit,
    Upload,
    Verdict,
    echo,
)
from models.data.dataset import DatasetError
from models.job import JobSpec
from models.nets.net import ModelError
from runtime.faults import Fault, contain
from runtime.settings import SettingsError, convert

if TYPE_CHECKING:
    from aggregator.service import Aggregator

log = logging.getLogger(__name__)

REMEMBERED = 256
"""Commands whose answers are given again when they come again."""
MOST_TAKEN = 100_000
"""Signed commands that change something and are taken in one life of an aggregator: eight years of one an hour."""
ATTEMPTS_A_PAGE = 20
"""Attempts that are read for one page: each may have 20,000 devices."""

Refusals = (SettingsError, ModelError, DatasetError, StoreError, ValueError, RuntimeError)
"""Why a command may not be done; the text is for the operator."""


class Commands:
    """Answers operators for one aggregator."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._done: OrderedDict[tuple[str, str], Reply] = OrderedDict()
        self._begun: OrderedDict[tuple[str, str], Command] = OrderedDict()
        """What is under way: nobody is told that it is done before that is durable."""
        self.uploads = Uploads(aggregator.clock, aggregator.config.limits.unassembled_bytes)
        """Weights that jobs will start from."""
        self._export = versions.Exports(aggregator)
        self._taken: set[tuple[str, str]] = set()
        """Signed commands that were heard. Each is said to one life of the aggregator: no later one need know it."""

    def obey(self, command: Command) -> Reply | None:
        """Do what is asked for, unless that was done, and return the answer; None: not yet. Raises nothing."""
        key = (command.client, command.request)
        if key in self._done:
            return self._done[key]
        # a piece of weights may come again without harm, and there are thousands of them
        if isinstance(command, Change) and not isinstance(command, Upload) and command.to and not self._is_new(key):
            return None
        reply = contain(lambda: self._obey(command))
        self._begun.pop(key, None)
        if reply is None:
            self._begun[key] = command
            while len(self._begun) > REMEMBERED:
                self._begun.popitem(last=False)
            return None
        if isinstance(reply, Fault):
            reply = Reply(command.client, command.request, ok=False, text=f"the aggregator failed at it: {reply.why}")
        if isinstance(command, Change):
            if not isinstance(command, Upload):
                log.info("command %s ok=%s: %s", type(command).__name__.lower(), reply.ok, reply.text)
            self._done[key] = reply
            while len(self._done) > REMEMBERED:
                self._done.popitem(last=False)
        return reply

    def _is_new(self, key: tuple[str, str]) -> bool:
        """Return whether a signed command was not done before: its answer may be forgotten, it must not be."""
        if key in self._begun or key in self._taken:
            return key in self._begun
        if len(self._taken) >= MOST_TAKEN:
            log.error(
                "%d commands were taken since this aggregator was started: start it again to take more", MOST_TAKEN
            )
            return False
        self._taken.add(key)
        return True

    def answers(self) -> list[Reply]:
        """Return the answers to what was under way, and is not any more."""
        return [reply for command in list(self._begun.values()) if (reply := self.obey(command)) is not None]

    def forget_begun(self) -> None:
        """Forget what was under way: somebody else leads, and is asked again by whoever was not answered."""
        self._begun.clear()

    @staticmethod
    def refusal_of_deleted(offer: Offer) -> Verdict:
        """Return the verdict on an update to a job that was deleted here."""
        return Verdict(offer.device, offer.job, offer.base, echo(offer), refused="the job was deleted")

    def _obey(self, command: Command) -> Reply | None:
        data: dict[str, Any] = {}
        more = ""
        ok = True
        try:
            match command:
                case Submit():
                    text, data = self._submit(command)
                case Stop(name=name):
                    stopped = self._stop(name, asker(command.client))
                    if stopped is None:
                        return None
                    text = stopped
                case Resume(name=name):
                    text = self._resume(name, asker(command.client))
                case Pause():
                    text = versions.pause(self._aggregator, command)
                case RollBack():
                    rolled = versions.roll_back(self._aggregator, command)
                    if rolled is None:
                        return None
                    text = rolled
                case Delete(name=name):
                    text = versions.delete(self._aggregator, name, asker(command.client))
                case Upload():
                    text = self.uploads.take(command)
                case Export():
                    text, data, more = self._export.page(command)
                case Jobs(after=after, past=past):
                    text, data, more = self._jobs(after, past=past)
                case Show(name=name, after=after):
                    text, data, more = self._show(name, after)
                case Explain():
                    text, data, more = self._explain(command)
                case Curve():
                    text, data, more = self._curve(command)
                case Devices() | History() | Events():
                    text, data, more = devices.answer(self._aggregator, command)
                case Quarantine():
                    text = devices.put(self._aggregator, command)
                case Release():
                    text = devices.release(self._aggregator, command)
        except Refusals as error:
            ok, text = False, str(error)
        return Reply(command.client, command.request, ok, text[:500], data, more)

    # What changes something.

    def _submit(self, command: Submit) -> tuple[str, dict[str, Any]]:
        aggregator, request = self._aggregator, f"{command.client}/{command.request}"
        job = aggregator.store.job_of_request(request)
        if job is None:
            spec = convert(command.spec, JobSpec, "job")
            start = versions.given(aggregator, self.uploads, command.start) if command.start else None
            job = aggregator.submit(spec, request, signed.of(command), start)
        run = aggregator.runs.get(job)
        said = notes.at_submit(run, aggregator.roster) if run else []
        said = [*aggregator.jobs.notes_of_net(job), *said]
        if run is not None and STARTED in run.metrics:
            said = [versions.of_start(run, command.start), *said]
        return job, {"notes": said} if said else {}

    def _stop(self, name: str, who: str) -> str | None:
        """Stop a job, as somebody asked; None while a version of it is being made, which comes first."""
        aggregator = self._aggregator
        for job, rest in list(aggregator.resting.items()):
            if name in (job, rest.name) and not rest.ended:
                aggregator.jobs.stop_resting(job, who)
                return f"stopped {job}, which was at rest"
        found = [run for run in aggregator.runs.values() if name in (run.job, run.spec.name)]
        for run in found:
            if not run.coordinator.ended:
                aggregator.jobs.stop(run.job, who)
                stopped = aggregator.runs.get(run.job)
                if stopped is None:
                    raise RuntimeError(f"{run.job} could not be stopped: its state cannot be written now")
                return f"stopped {run.job} at version {run.version}" if stopped.coordinator.ended else None
        for run in found:
            if run.coordinator.ended == "stopped":
                return f"{run.job} was stopped at version {run.version} before"
        for job, rest in aggregator.resting.items():
            if name in (job, rest.name) and rest.ended == "stopped":
                return f"{job} was stopped before"
        raise ValueError(f"no running job has the name {name}")

    def _resume(self, name: str, who: str) -> str:
        aggregator = self._aggregator
        if (resumed := versions.unpause(aggregator, name, who)) is not None:
            return resumed
        for job, rest in list(aggregator.resting.items()):
            if name in (job, rest.name):
                if rest.ended == "stopped":
                    raise ValueError(f"{job} was stopped: submit it again, under the same name")
                aggregator.jobs.resume(job)
                if still := aggregator.resting.get(job):
                    raise RuntimeError(f"{job} is still at rest: {still.why}")
                aggregator.store.events.note("job.resumed", f"{job} is not at rest any more, as {who} asked", job=job)
                return f"{job} is there again: it has finished" if rest.ended else f"{job} is at work again"
        raise ValueError(f"no job of the name {name} is at rest, or paused")

    # What only looks.

    def _jobs(self, after: str, *, past: bool) -> tuple[str, dict[str, Any], str]:
        of_past = versions.past_lines(self._aggregator) if past else []
        lines, more = cut_to_page(chain(self._lines(), of_past), after, lambda line: str(line["job"]))
        return f"{len(lines)} jobs", {"jobs": lines}, more

    def _lines(self) -> Iterator[dict[str, Any]]:
        aggregator = self._aggregator
        for job in sorted(aggregator.runs.keys() | aggregator.resting.keys()):
            run, rest = aggregator.runs.get(job), aggregator.resting.get(job)
            if run is not None:
                yield self._line(run)
            elif rest is not None:
                ends = "it is tried again by itself" if rest.again else f"fedge job resume {rest.name}, or job stop"
                yield {
                    "name": rest.name,
                    "job": job,
                    "state": rest.ended or "resting",
                    "version": str(rest.version or ""),
                    "reason": rest.why[:500],
                    "waits_for": "" if rest.ended else f"at rest: {rest.why}"[:500],
                    "ends": "" if rest.ended else ends,
                }
        for job, version in sorted(aggregator.foreign.items()):
            yield {
                "name": job.rpartition("-")[0],
                "job": job,
                "state": "foreign",
                "version": str(version),
                "waits_for": "the aggregator that has it: this one's store has never known it",
            }

    def _line(self, run: Run) -> dict[str, Any]:
        aggregator, core = self._aggregator, run.coordinator
        known = run.by_devices | run.metrics
        wait = notes.waits_of(run, aggregator.roster, aggregator.clock())
        return {
            "name": run.spec.name,
            "job": run.job,
            "state": "paused" if core.paused and core.state == "waiting" else core.state,
            "version": str(run.version),
            "metrics": evaluation.shown(known, run.spec.rounds.stop) | evaluation.scored_version(run.by_devices),
            "devices_online": sum(known.presence.online for known in aggregator.roster.devices.values()),
            "devices_ready": sum(member.there and member.ready for _, member in core.members),
            "reason": run.reason if core.ended else "",
            "waits_for": wait.text,
            "ends": wait.ends,
            "notes": [
                *notes.of(run),
                *([aggregator.jobs.trouble[run.job]] if run.job in aggregator.jobs.trouble else []),
                *aggregator.guard.told(aggregator.clock()),
            ],
        }

    def _show(self, name: str, after: str) -> tuple[str, dict[str, Any], str]:
        aggregator = self._aggregator
        for line in self._lines():
            if name in (line["job"], line["name"]):
                break
        else:
            raise ValueError(f"no job has the name {name}")
        run = aggregator.runs.get(line["job"])
        if run is None:
            return line["job"], {"job": line, "devices": []}, ""
        scored = None if after else aggregator.store.federated(run.job)
        standings = waits.standings(run.coordinator, aggregator.clock())
        streaks = run.streaks
        devices = (self._device(msgspec.to_builtins(one), run.job, streaks.get(one.device)) for one in standings)
        first: dict[str, Any] = {} if after else {"scores": _fitting(run.scores())}
        if scored is not None:
            first["federated"] = {"version": scored[0]} | scored[1]
        left = PAGE_BYTES - len(msgspec.json.encode(first))
        page, more = cut_to_page(devices, after, lambda device: str(device["device"]), left)
        return run.job, {"job": line, "devices": page} | first, more

    def _device(self, standing: dict[str, Any], job: str, refused_in_a_row: int | None) -> dict[str, Any]:
        if refused_in_a_row is not None:
            standing["refused_in_a_row"] = refused_in_a_row
        known = self._aggregator.roster.devices.get(standing["device"])
        if known is None:
            return standing
        said = known.presence
        beside: dict[str, Any] = {
            "examples": said.ready.get(job),
            "trouble": said.trouble.get(job),
            "alarm": known.alarm or None,
        }
        if (int8 := said.int8.get(job)) is not None:
            beside["int8"] = msgspec.structs.asdict(int8) | {"version": str(int8.version), "why": int8.why[:500]}
        return standing | {name: value for name, value in beside.items() if value is not None}

    def _run(self, name: str) -> Run:
        """Return the job of this name or id that is loaded. Raises ValueError where there is none."""
        run = next((run for run in self._aggregator.runs.values() if name in (run.job, run.spec.name)), None)
        if run is None:
            raise ValueError(f"no job at work has the name {name}")
        return run

    def _curve(self, command: Curve) -> tuple[str, dict[str, Any], str]:
        run, store = self._run(command.name), self._aggregator.store
        if command.devices:
            lines, more = curves.devices(run, store, command.after, PAGE_BYTES)
            return run.job, {"devices": lines}, more
        lines, more = curves.versions(run, store, command.after, PAGE_BYTES)
        return run.job, {"versions": lines}, more

    def _explain(self, command: Explain) -> tuple[str, dict[str, Any], str]:
        run = self._run(command.name)
        number, _, device = command.after.partition(":")
        attempt = int(number) if number.isdigit() and len(number) < 10 else 0
        if attempt == 0 and not self._rounds(run, command.number, 0, 1):
            raise ValueError(
                f"job {command.name} is at version {run.version}: no round has tried to make version {command.number}"
            )
        found: list[dict[str, Any]] = []
        left = PAGE_BYTES
        rows = self._rows(run, command.number, attempt - 1 if device else attempt)
        for row in rows:
            after = device if row.attempt.number == attempt else ""
            fates = run.fates() if row.outcome == "open" else row.fates
            if command.device is not None:
                fates = {name: fate for name, fate in fates.items() if name == command.device}
            page, cut, left = _cut(fates, after, left)
            found.append(_told(row, page))
            if cut:
                return run.job, {"rounds": found}, f"{row.attempt.number}:{cut}"
            if left <= 0 or len(found) >= ATTEMPTS_A_PAGE:
                break
        last = found[-1]["attempt"] if found else attempt
        return run.job, {"rounds": found}, str(last) if self._rounds(run, command.number, last, 1) else ""

    def _rows(self, run: Run, number: int, after: int) -> Iterator[AttemptRow]:
        while rows := self._rounds(run, number, after, 1):
            yield rows[0]
            after = rows[0].attempt.number

    def _rounds(self, run: Run, number: int, after: int, most: int) -> list[AttemptRow]:
        return self._aggregator.store.attempts_page(run.job, number - 1, after=after, most=most) if number else []


def _told(row: AttemptRow, fates: dict[str, str]) -> dict[str, Any]:
    return {
        "attempt": row.attempt.number,
        "base": str(row.attempt.base),
        "outcome": row.outcome,
        "reason": row.reason,
        "opened": row.opened,
        "closed": row.closed,
        "target": row.attempt.target,
        "fates": fates,
    }


def _cut(fates: dict[str, str], after: str, left: int) -> tuple[dict[str, str], str, int]:
    """Return the fates behind a device as far as there is room, the last device if not all fit, and the room left."""
    page: dict[str, str] = {}
    last = ""
    left -= 400  # what is said of the attempt itself
    for device in sorted(fates):
        if device <= after:
            continue
        need = len(msgspec.json.encode((device, fates[device]))) + 1
        if need > left and page:
            return page, last, left
        page[device], last, left = fates[device], device, left - need
    return page, "", left


def _fitting(scores: dict[str, Any]) -> dict[str, Any]:
    """Return scores that leave half a page: without what is of single classes where their names are too long."""
    if len(msgspec.json.encode(scores)) <= PAGE_BYTES // 2:
        return scores

    def cut(one: dict[str, Any]) -> dict[str, Any]:
        return one | {"measures": {name: value for name, value in one["measures"].items() if ":" not in name}}

    return {"classes": [], "current": cut(scores["current"]), "best": cut(scores["best"])}
