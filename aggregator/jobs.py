"""The jobs of one fleet: those at work, and those at rest with the reason.

    in the store ──load──▶ at work ──its own code throws, or its rows are damaged──▶ at rest ──resume──▶ at work
                              │ ▲
      its state cannot be     ▼ │ RELOAD_S
      written or read now    put off

Every act of a job goes through `inside`, the boundary that its faults do not cross; what it says goes to `send`. A job
is made from the store and nothing else, so that taking it up again after a full disk, after damage and at a start is
the same. What devices know and the store has lost gives a job a new generation (`look_back`).
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor

import msgspec
from msgspec import Struct, structs

from aggregator import bases, creation, projection
from aggregator import signed as signeds
from aggregator.config import AggregatorConfig
from aggregator.effects import BrokerLost, DeviceStatus, Doubted, EndJob
from aggregator.evaluation import check_measured
from aggregator.inbox import Inbox
from aggregator.litter import Litter
from aggregator.projection import Clear, Out
from aggregator.roster import Roster
from aggregator.run import Run
from aggregator.signed import SignedSpec
from aggregator.starting import Given
from aggregator.store import DamageError, JobRow, Store, StoreError
from broker.messages import Job, Status, Version
from broker.payloads import MAX_CONTROL_BYTES
from broker.transport import wire_bytes
from broker.wire import Wire
from models.budget import Capacity
from models.data.dataset import DatasetError
from models.job import JobSpec
from models.nets.net import ModelError
from runtime.faults import ENTRY_S, Fault, Marks, contain

log = logging.getLogger(__name__)

RELOAD_S = 5.0
"""A job whose state could not be written is loaded again from the store after this long."""
RENAME_S = 60.0
LAST_RENAME_S = 86_400.0
"""Words of devices can give a job a new generation only so long after the last one; it doubles each time."""
TOMBSTONES = 20
"""Deleted jobs whose tombstones lie at the broker, for devices that were away."""


class Resting(Struct, frozen=True):
    """A job of the store that does not run now. again: it is loaded again by itself. ended: it was over before."""

    name: str
    version: Version | None
    why: str
    again: bool
    ended: str = ""


class Jobs:
    """All jobs of one aggregator. clock: seconds that only go forward. token: draws the end of a job's id.

    send: is given what jobs say, in order. executor: where versions are evaluated. wake: called, on any thread, when
    there is something to `settle`. capacity: what there is for jobs; no limit when not given.
    """

    def __init__(
        self,
        store: Store,
        config: AggregatorConfig,
        roster: Roster,
        marks: Marks,
        wire: Wire,
        *,
        clock: Callable[[], float],
        token: Callable[[], str],
        send: Callable[[Iterable[Out]], None],
        executor: Executor,
        wake: Callable[[], None],
        capacity: Capacity | None = None,
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.resting: dict[str, Resting] = {}
        self.trouble: dict[str, str] = {}
        """Job to what the broker has refused of it."""
        self.term = store.term
        self.packet_bytes: int | None = config.broker.max_packet_bytes
        """The largest packet that the broker takes, where that is known."""
        self._online = True
        self.inbox = Inbox(config.limits.unassembled_bytes, store.folder)
        self._store = store
        self._config = config
        self._roster = roster
        self._marks = marks
        self._wire = wire
        self._clock = clock
        self._token = token
        self._send = send
        self._executor = executor
        self._wake = wake
        self._capacity = capacity
        self._reload_at: dict[str, float] = {}
        self._rename_at: dict[str, tuple[float, int]] = {}
        """Job to when to give it a generation above this one."""
        self._renamed: dict[str, tuple[float, float]] = {}
        """Job to when it may be given another one, and how long that is after the last."""
        self._believed: dict[str, set[str]] = {}
        """Job to the devices whose word has given it a generation."""
        self._litter = Litter(store, clock=clock, send=send)

    # Time.

    @property
    def deadline(self) -> float:
        """When `tick` has something to do, if nothing is received before; inf for never."""
        deadlines = [d for run in self.runs.values() if (d := run.deadline) is not None]
        renames = (at for at, _ in self._rename_at.values())
        return min([*deadlines, *self._reload_at.values(), *renames, self._litter.deadline])

    def tick(self, now: float) -> None:
        """Let time pass."""
        due = [job for job, run in self.runs.items() if (at := run.deadline) is not None and now >= at]
        for job in due:
            self.inside(job, Run.tick)
        if due and self._online:
            self._litter.clear()
        self._litter.tick(now)
        for job in [job for job, at in self._reload_at.items() if now >= at]:
            del self._reload_at[job]
            self._reload(job)
        for job in [job for job, (at, _) in self._rename_at.items() if now >= at]:
            self._rename(job, self._rename_at.pop(job)[1])

    @property
    def expects_more(self) -> bool:
        """Whether all that waits to be settled is the better for waiting a little: more will come that goes with it."""
        unsettled = [run for run in self.runs.values() if run.is_unsettled]
        return bool(unsettled) and all(run.expects_more for run in unsettled)

    @property
    def unsettled_bytes(self) -> int:
        """Bytes of the updates that wait to be settled."""
        total = 0
        for run in self.runs.values():
            total += run.unsettled_bytes
        return total

    def settle(self) -> None:
        """Make durable what has been judged or made since, each job in one, and say what follows."""
        for job in [job for job, run in self.runs.items() if run.is_unsettled]:
            self.inside(job, Run.settle)

    def prepare(self) -> None:
        """Use the time in which nothing is waited for: devices train."""
        for job in [job for job, run in self.runs.items() if not run.is_prepared]:
            self.inside(job, Run.prepare)

    # All of them.

    def load_all(self) -> None:
        """Load every job of the store that is not deleted. Raises StoreError when it cannot be read at all."""
        bases.sweep(self._store, self._config)
        for row in self._store.jobs():
            if row.ended != "deleted":
                self._load(row)

    def step_out(self) -> None:
        """Note of every job at work that it is let go: the process is about to end, and none of them is to blame."""
        for run in self.runs.values():
            run.step_out()

    def drop_all(self) -> None:
        """Forget what is in memory of them: another aggregator leads."""
        self.step_out()
        for job in self.runs:
            self.inbox.forget_job(job)
            if self._capacity is not None:
                self._capacity.leave(job)
        for known in (self.runs, self.resting, self._reload_at, self._rename_at):
            known.clear()
        self._litter.doubt()

    def lead(self, term: int) -> None:
        """Speak under this term from now on."""
        self.term = term
        for run in self.runs.values():
            run.term = term

    def connected(self, packet_bytes: int | None) -> None:
        """Note that the connection is a new one, whose broker takes packets up to this size."""
        self.packet_bytes, self._online = packet_bytes, True
        self.trouble.clear()  # what this broker refuses it will refuse again

        def doubt(run: Run, now: float) -> list[Out]:
            run.fit(packet_bytes)
            return run.handle(Doubted(), now)

        for job in list(self.runs):
            self.inside(job, doubt)

    def disconnected(self) -> None:
        """Note that the broker is not reachable: rounds stand still."""
        self._online = False
        self._litter.doubt()
        for job in list(self.runs):
            self.inside(job, lambda run, now: run.handle(BrokerLost(), now))

    def say_everything(self) -> None:
        """Send everything that should lie at the broker."""
        for job in self._deleted(TOMBSTONES):
            self._send(projection.tombstone(job, self.term))
        self._litter.doubt()
        self._litter.clear()
        for job in list(self.runs):
            self._say_all_of(job)

    def _say_all_of(self, job: str) -> None:
        self.inside(job, lambda run, _now: run.retained())
        self.inside(job, Run.announce)

    def be_denied(self, levels: list[str], reason: str) -> None:
        """Note that the broker does not take something: for the operator, with the job that it belongs to.

        levels: of its topic, behind the fleet.
        """
        for job in self.runs:
            if job in levels:
                self.trouble[job] = f"the broker refuses {'/'.join(levels)}: {reason}"[:500]

    def _deleted(self, most: int) -> list[str]:
        """Return the jobs that were deleted last, as far as that can be read."""
        try:
            return self._store.deleted(max(0, most))
        except StoreError as error:
            log.error("which jobs were deleted cannot be read: %s", error)
            return []

    def was_deleted(self, job: str) -> bool:
        """Return whether there was this job; where that cannot be read, it is not known."""
        try:
            return self._store.is_deleted(job)
        except StoreError as error:
            log.error("whether job=%s was deleted cannot be read: %s", job, error)
            return False

    # Devices.

    def tell(self, job: str, device: str, *, live: bool) -> None:
        """Tell a job how a device stands to it."""
        run, part = self.runs.get(job), self._roster.part_in(job, device)
        if run is None or not (part.said or part.barred or run.coordinator.members.get(device) is not None):
            return  # it takes no part in this job
        failed, failure = (part.failure.base, part.failure.why) if part.failure else (None, "")
        why = part.why if part.said else "it has said nothing of this job"
        seen = DeviceStatus(device, part.online, part.ready, why, live, failed, failure, part.rows, part.barred)
        self.inside(job, lambda run, now: run.handle(seen, now))

    def tell_of(self, device: str) -> None:
        """Tell every job anew how a device stands to it: it has been barred, or is not any more."""
        known = self._roster.devices.get(device)
        for job in list(self.runs):
            self.tell(job, device, live=known is not None and known.live)

    def _tell_barred(self, job: str) -> None:
        """Tell a job that was just loaded of whom nothing is counted, known or not: before anything is drawn."""
        for device in self._roster.quarantined:
            self.tell(job, device, live=False)

    def _tell_all(self, job: str) -> None:
        for device, known in self._roster.devices.items():
            self.tell(job, device, live=known.live)

    def look_back(self, job: str, version: Version, device: str = "", *, done: bool = False) -> None:
        """Notice that something is known that the store does not have: the state directory is an old backup.

        It is a later version; or that a device is done with the current one. A device is believed once, and each new
        generation waits for longer than the one before: none of it is proved.
        """
        run, now = self.runs.get(job), self._clock()
        if run is None or run.coordinator.ended or device in self._believed.get(job, ()):
            return
        if not (run.is_behind(version) or (done and run.has_lost(version, device))):
            return
        if device:
            self._believed.setdefault(job, set()).add(device)
        not_before, _ = self._renamed.get(job, (now, 0.0))
        _, above = self._rename_at.get(job, (0.0, 0))
        self._rename_at[job] = (max(now, not_before), max(above, version.generation))
        if not_before <= now:
            self._rename(job, self._rename_at.pop(job)[1])

    def _rename(self, job: str, above: int) -> None:
        """Return the current version of a job a new generation, so that no number is given out twice."""
        run, now = self.runs.get(job), self._clock()
        if run is None:
            if job in self.resting and self.resting[job].again:
                self._rename_at[job] = (now + RELOAD_S, above)
            return
        log.warning("job=%s version=%s: more is known than the store has, a new generation follows", job, run.version)
        try:
            self._store.raise_generation(job, above)
        except StoreError as error:
            self._rename_at[job] = (now + RELOAD_S, above)  # who said so is not believed a second time
            self._put_off(job, error)
            return
        _, pause_s = self._renamed.get(job, (0.0, RENAME_S / 2))
        pause_s = min(2 * pause_s, LAST_RENAME_S)
        self._renamed[job] = (now + pause_s, pause_s)
        self._reload(job)

    # One.

    def submit(
        self, spec: JobSpec, request: str = "", signed: SignedSpec | None = None, start: Given | None = None
    ) -> str:
        """Start a job and return its id; an ended job of the same name makes way, in the same transaction.

        start: weights that it starts from.

        Raises ValueError if one has not ended, ModelError, DatasetError or StoreError if it cannot be run here, and
        RuntimeError with what the job's own code has thrown.
        """
        check_measured(spec, self._config)
        older = self._make_way(spec.name)
        job = f"{spec.name}-{self._token() if signed is None else signed.incarnation}"
        if signed is not None and (job in self.runs or job in self.resting or self._store.is_deleted(job)):
            raise ValueError(f"there was a job {job} before: submit it again, it gets another id")
        self._check_size(job, spec, signed)
        self._check_room(job, spec, older)
        too_old = self._deleted(2 * TOMBSTONES - len(older))[max(0, TOMBSTONES - len(older)) :]
        if signed is not None:
            signeds.keep(self._store, job, signed)  # before: a job without it is of no use to anybody
        try:
            row = self._create(job, spec, older, request, start)
        except BaseException:
            if signed is not None:
                signeds.drop(self._store, job)
            raise
        # It is there now: nothing that goes wrong from here on may refuse it.
        for other in older:
            self._drop(other)
            self._send(projection.tombstone(other, self.term))
        self._litter.clear()
        self._send([Clear(Job(deleted, self.term)) for deleted in too_old])
        self._load(row)
        self.inside(job, lambda run, _now: run.retained())
        self._tell_all(job)
        self.inside(job, Run.tick)
        return job

    def notes_of_net(self, job: str) -> tuple[str, ...]:
        """Return what the author of a job's net should know of it; nothing of one that was not tried here."""
        return () if self._capacity is None else self._capacity.notes(job)

    def _make_way(self, name: str) -> list[str]:
        """Return the jobs of this name, all of which have ended. Raises ValueError if one has not."""
        runs_ = [run for run in self.runs.values() if run.spec.name == name]
        if any(not run.coordinator.ended for run in runs_):
            raise ValueError(f"job {name} is running: stop it first, or submit under another name")
        rests = {job: rest for job, rest in self.resting.items() if rest.name == name}
        if any(not rest.ended for rest in rests.values()):
            raise ValueError(f"job {name} is at rest and has not ended: stop it first, or submit under another name")
        return [*(run.job for run in runs_), *rests]

    def _drop(self, job: str) -> None:
        """Forget what is in memory of a job."""
        for known in (self.runs, self.resting, self.trouble, self._reload_at, self._rename_at, self._believed):
            known.pop(job, None)
        self.inbox.forget_job(job)
        self._marks.leave(job)
        if self._capacity is not None:
            self._capacity.forget(job)

    def _create(self, job: str, spec: JobSpec, replaces: list[str], request: str, start: Given | None) -> JobRow:
        # By what is submitted, not by the job: an operator's command is repeated until it is answered.
        submitted = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:16]
        if why := self._marks.reason(submitted):
            raise RuntimeError(f"it is not tried: {why}")

        def check(rows: int) -> None:
            self._check_room(job, spec, replaces, rows)

        def create() -> JobRow:
            with self._marks.entered(submitted, "submit", f"job {spec.name} was submitted", most_s=ENTRY_S):
                leaving = [run.leaving() for other in replaces if (run := self.runs.get(other)) is not None]
                return creation.create(
                    *(job, spec, self._store, self._config, check),
                    replaces=replaces,
                    leaving=leaving,
                    request=request,
                    given=start,
                )

        row = contain(create, ModelError, DatasetError, StoreError)
        if isinstance(row, Fault):
            raise RuntimeError(f"its own code fails: {row.why}")
        return row

    def _check_size(self, job: str, spec: JobSpec, signed: SignedSpec | None) -> None:
        said = Job(job, self.term, creation.as_tree(spec)) if signed is None else signed.said(job, self.term, None)
        packet = self._wire.pack(said)
        limit = min(self.packet_bytes or math.inf, MAX_CONTROL_BYTES)
        if wire_bytes(packet) > limit:
            raise ValueError(f"the job has {wire_bytes(packet)} bytes, and the broker takes {limit:.0f}")

    def _check_room(self, job: str, spec: JobSpec, replaces: Collection[str], rows: int | None = None) -> None:
        """Raise ModelError, with the numbers, where there is no room for a job. rows: of its test split, once read.

        The jobs that it replaces are over, and will be gone.
        """
        if self._capacity is None:
            return
        refusal = self._capacity.weigh(job, spec, rows=rows, over=self._over, gone=replaces)
        if refusal.why:
            raise ModelError(refusal.why)

    @property
    def _over(self) -> set[str]:
        return {job for job, run in self.runs.items() if run.coordinator.ended}

    def stop(self, job: str, who: str = "") -> None:
        """End a job; its last version stays. who: has asked for it, for people."""
        self.inside(job, lambda run, now: run.handle(EndJob(_stopped_by(who)), now))

    def stop_resting(self, job: str, who: str = "") -> None:
        """End a job that is at rest, as far as it can be: its devices are told to forget it. Raises StoreError."""
        rest = self.resting[job]
        self._store.end_job(job, "stopped", f"{_stopped_by(who)}; it was at rest: {rest.why}"[:500])
        self._reload_at.pop(job, None)
        self._marks.leave(job)
        self.resting[job] = structs.replace(rest, ended="stopped", again=False)
        self._send(projection.tombstone(job, self.term))

    def delete(self, job: str, who: str = "") -> None:
        """Forget a job that has ended, with its versions: its devices are told to. Raises StoreError."""
        self._store.end_job(job, "deleted", who)
        self._drop(job)
        bases.sweep(self._store, self._config)
        self._send(projection.tombstone(job, self.term))
        self._litter.clear()

    def resume(self, job: str) -> None:
        """Try a job again that is at rest."""
        self._marks.leave(job)
        self._reload(job)

    def inside(self, job: str, act: Callable[[Run, float], Iterable[Out]]) -> None:
        """Let a job act, if it is at work: the boundary that its faults do not cross.

        What it writes is on disk, in one sync, before what it says is sent. A state that cannot be written now is
        loaded again soon; what its own code throws puts the job at rest.
        """
        run = self.runs.get(job)
        if run is None:
            return
        try:
            with self._store.synced_once():
                out = contain(lambda: list(act(run, self._clock())), StoreError)
        except DamageError as error:
            self._rest(job, run.spec.name, str(error))
            return
        except StoreError as error:
            self._put_off(job, error)
            return
        if isinstance(out, Fault):
            self._rest(job, run.spec.name, out.why)
        else:
            self._send(out)

    # Loading.

    def _load(self, row: JobRow) -> None:
        """Load a job, or put it at rest with the reason."""
        job, now = row.job, self._clock()
        if why := self._marks.reason(job):
            self._rest(job, row.name, why, row.ended)
            return
        if self._capacity is not None and row.spec is not None and not row.ended:
            # What lies on the disk lies there; and what has ended is wanted, and takes little.
            refusal = self._capacity.weigh(job, row.spec, over=self._over, disk=False)
            if refusal.why:
                self._rest(job, row.name, refusal.why)
                return

        def make() -> Run:
            with self._marks.entered(job, "begin", "it was loaded", most_s=ENTRY_S):
                return Run(
                    row,
                    self._store,
                    self._config,
                    self.inbox,
                    self.term,
                    now,
                    marks=self._marks,
                    packet_bytes=self.packet_bytes,
                    executor=self._executor,
                    wake=self._wake,
                    stated_rows=self._wire.seal.stated_rows,
                    signed=signeds.read(self._store, job),
                    head_digits=self._wire.seal.head_digits,
                )

        try:
            run = contain(make, ModelError, DatasetError, StoreError)
        except (ModelError, DatasetError, DamageError) as error:
            self._rest(job, row.name, f"it cannot be run here: {error}", row.ended)
            return
        except StoreError as error:
            self._put_off(job, error, row.name)
            return
        if isinstance(run, Fault):
            self._rest(job, row.name, run.why, row.ended)
            return
        self.runs[job] = run
        if self._capacity is not None:
            self._capacity.take(job, run.spec)
        self.resting.pop(job, None)
        self._tell_barred(job)
        if not self._online:
            self.inside(job, lambda run, now: run.handle(BrokerLost(), now))

    def _let_go(self, job: str) -> Run | None:
        """Take a job out of those at work; return its run, if it was there."""
        run = self.runs.pop(job, None)
        if run is not None:
            run.step_out()
        if self._capacity is not None:
            self._capacity.leave(job)
        return run

    def _put_off(self, job: str, error: StoreError, name: str = "") -> None:
        """Forget what is in memory of a job whose state cannot be written or read now, and load it again soon."""
        log.error("job=%s: %s; trying again in %g s", job, error, RELOAD_S)
        self._store.events.note("store.failed", f"{job} is put off: {error}", job=job)
        run = self._let_go(job)
        known = self.resting.get(job)
        name = run.spec.name if run else name or (known.name if known else job)
        ended = run.coordinator.ended if run else (known.ended if known else "")
        self.resting[job] = Resting(name, run.version if run else None, str(error), again=True, ended=ended)
        self.inbox.forget_job(job)
        self._reload_at[job] = self._clock() + RELOAD_S

    def _rest(self, job: str, name: str, why: str, ended: str = "") -> None:
        """Put a job at rest, with the reason, for the operator; the others go on."""
        log.error("at rest job=%s: %s", job, why)
        self._store.events.note("job.resting", f"{job} is at rest: {why}", job=job)
        run = self._let_go(job)
        ended = run.coordinator.ended if run else ended
        self.resting[job] = Resting(name, run.version if run else None, why, again=False, ended=ended)
        self.inbox.forget_job(job)
        self._reload_at.pop(job, None)
        if run is not None:
            run.resting, run.reason = True, why[:500]
            self._send([Status(job, run.version, "resting", run.reason)])

    def _reload(self, job: str) -> None:
        try:
            row = next((row for row in self._store.jobs() if row.job == job), None)
        except StoreError as error:
            self._put_off(job, error)
            return
        if row is None or row.ended == "deleted":
            return
        self._let_go(job)
        self.inbox.forget_job(job)
        self._load(row)
        self._say_all_of(job)
        self._tell_all(job)
        self.inside(job, Run.tick)


def _stopped_by(who: str) -> str:
    return f"an operator stopped it{f' ({who})' * bool(who)}"
