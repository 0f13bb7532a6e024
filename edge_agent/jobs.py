"""The jobs on one device: those it works on, and those that it cannot take part in now, with the reason.

    announced ──▶ looked at ──data fit──▶ at work ──its own code throws──▶ at rest ──FIRST_REST_S, then longer──┐
                    ▲  │ ▲                   │                                                                  │
                    │  ▼ │ LOOK_AGAIN_S      │                                                                  │
                    │ put off ◀──────────────┘ its disk fails it, or its data have gone bad                     │
                    └───────────────────────────────────────────────────────────────────────────────────────────┘

Every act of a job goes through `inside`, the boundary that its faults do not cross; what it says goes to `send`. One
job trains at a time; where several would, each has its turn; while data are read (reading.py) none does. A job that
there is no room for (models/budget.py) is put off before anything of it is made.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct

from broker.messages import BASE, Body, Failure, Int8, Job, Version
from broker.wire import Wire
from edge_agent import outbox
from edge_agent.activity import Activity, first_of, put_off
from edge_agent.bases import Bases
from edge_agent.config import AgentConfig
from edge_agent.disk import below
from edge_agent.effects import Deployed, DeployFailed, Disconnected, JobEnded, ParticipantEvent
from edge_agent.heard import Heard
from edge_agent.home import Home
from edge_agent.reading import Readings
from edge_agent.resources import Resources
from edge_agent.seldom import NOTHING, put, without
from edge_agent.slots import Slots
from edge_agent.work import Work
from edge_agent.workspace import Out, Subscribe, Unsubscribe
from models.budget import Capacity
from models.contract import ContractSpec
from models.data.dataset import DatasetError
from models.data.source import Opener, Source
from models.frozen import FrozenError, MissingError
from models.job import JobSpec
from models.nets.net import ModelError
from runtime.faults import ENTRY_S, Fault, Marks, contain
from runtime.formats import NewerFormatError
from runtime.settings import SettingsError

log = logging.getLogger(__name__)

SLICE_S = 0.05
"""Training goes on this long between two looks at the broker."""
LOOK_AGAIN_S = 60.0
"""Data or a disk that could not be used are looked at again after this long; so is whether others have made room."""
NO_ROOM_S = 600.0
"""A job that is too large for this device is weighed again after this long: a disk may have been emptied."""
STALL_S = 60.0
"""What is frozen of a net is asked for again where no piece of it has come for so long;"""
WAIT_S = 5.0
"""and looked for again after this long where it is on its way for another job."""
TURN_S = 5.0
"""How long a job trains until another has its turn."""
FIRST_REST_S = 600.0
LAST_REST_S = 86_400.0
"""A job whose own code has failed is tried again after the first, then ever less often."""
READING = "its data are being read"
SAID_S = 2.0
"""A reading is told of where it takes longer than this."""
UNSIGNED = (
    "it is signed by no operator whose key this device has pinned: submit it again with such a key, or have the device "
    "take the trust.json that names yours (`fedge agent trust`)"
)
UNANNOUNCED = "it is on disk here, and no aggregator has announced it"
LEFT_OVER_S = 60.0
"""A job on disk that nobody has announced for so long after connecting is reported."""


SCRATCH = "scratch"
"""The folder in the state directory where the examples of large sources lie, in files without names."""


class _Open(Struct, frozen=True):
    """A source that is open, and what is meant by it."""

    name: str
    contract: ContractSpec
    classifies: bool
    labelled: bool
    source: Source

    def is_for(self, spec: JobSpec) -> bool:
        """Return whether it is what a job means."""
        meant = spec.data_name, _classifies(spec), not spec.model.finds_anomalies, spec.contract
        return (self.name, self.classifies, self.labelled, self.contract) == meant


def _classifies(spec: JobSpec) -> bool:
    """Return whether a job's labels are classes, where that makes another source of it: a window's label goes by it."""
    return spec.contract.window is None or spec.model.labels_are_classes


class _Later(Struct):
    """A job that this device cannot take part in now. at: when to look again. pause_s: how long it rested."""

    spec: JobSpec
    at: float
    pause_s: float


class Jobs:
    """All jobs of one device.

    clock: seconds that only go forward. open_source: what makes a source of the settings of one. readings: where data
    are read. send: is given what the jobs say, in order. capacity: what there is for them; no limit when not given.
    heard: what must not be forgotten of former lives, where keys are pinned.
    """

    __slots__ = (  # beyond thirty names a dict of each object weighs a kilobyte
        "_announced",
        "_bases",
        "_beginning",
        "_capacity",
        "_clock",
        "_config",
        "_denied",
        "_heard",
        "_home",
        "_later",
        "_led",
        "_left_over_at",
        "_marks",
        "_online",
        "_open_source",
        "_overs",
        "_packet_bytes",
        "_readings",
        "_resources",
        "_rested_s",
        "_send",
        "_sources",
        "_spread_s",
        "_takes_bodies",
        "_trouble",
        "_turn_ends_at",
        "_turns",
        "_wire",
        "changed",
        "int8",
        "slots",
        "unready",
        "works",
    )

    def __init__(
        self,
        config: AgentConfig,
        home: Home,
        wire: Wire,
        *,
        clock: Callable[[], float],
        open_source: Opener,
        readings: Readings,
        marks: Marks,
        slots: Slots | None,
        send: Callable[[Iterable[Out]], None],
        resources: Resources,
        capacity: Capacity | None = None,
        heard: Heard | None = None,
    ) -> None:
        self.works: dict[str, Work] = {}
        self.unready: Mapping[str, str] = NOTHING
        """Job to the reason why this device cannot take part in it."""
        self.changed = True
        """Whether what a presence says of jobs may be another than when somebody last set this to False; but for what
        only goes along with one (presence.py)."""
        self._beginning: Mapping[str, tuple[Work, float]] = NOTHING
        """Jobs whose data are being looked at, and since when."""
        self._sources: tuple[_Open, ...] = ()
        """What is open, with what is meant by it: one for all jobs that mean the same, so that they share its rows.
        (Most devices have one or two, for which a dict weighs twice as much.)"""
        self._later: Mapping[str, _Later] = NOTHING
        self._rested_s: Mapping[str, float] = NOTHING
        self._trouble: Mapping[str, str] = NOTHING
        self.int8: Mapping[str, Int8] = NOTHING
        """Job id to what has come of its model in int8, where its card says it."""
        self._denied: Mapping[str, str] = NOTHING
        """Job to what this broker has refused of it."""
        self._overs: Mapping[str, JobEnded] = NOTHING
        """Jobs that have ended, and how."""
        self._announced: tuple[str, ...] = ()
        """Jobs that the broker has told of."""
        self._left_over_at = math.inf
        self._turns = 0
        self._turn_ends_at = 0.0
        self._online = False
        self._takes_bodies = False
        """Whether this connection brings what is retained on a wildcard."""
        self._spread_s = 0.0
        self._led = 0
        """The term of the leader's last beacon."""
        self._packet_bytes: int | None = config.broker.max_packet_bytes
        self._config = config
        self._home = home
        self._wire = wire
        self._clock = clock
        self._open_source = open_source
        self._readings = readings
        self._resources = resources
        self._capacity = capacity
        self._heard = heard
        self._bases = Bases(home, config.models, wire)
        """What is frozen of the nets of jobs."""
        self._marks = marks
        self.slots = slots
        self._send = send

    @property
    def _folder(self) -> Path:
        return below(self._home.folder, "jobs")

    # Time.

    @property
    def busy(self) -> bool:
        """Whether there is training to do."""
        for work in self.works.values():  # noqa: SIM110 -- asked after each step, and mostly of one job
            if work.busy:
                return True
        return False

    @property
    def deadline(self) -> float:
        """When `tick` has something to do, if nothing is received before; inf for never."""
        earliest = self._left_over_at
        for work in self.works.values():
            at = work.deadline
            if at is not None and at < earliest:
                earliest = at
        for later in self._later.values():
            earliest = min(earliest, later.at)
        for job, (_, since) in self._beginning.items():
            if job not in self.unready:
                earliest = min(earliest, since + SAID_S)
        return earliest

    def tick(self, now: float) -> None:
        """Let time pass."""
        if self.slots is not None:
            self._note_installs(self.slots)
        if self._readings.busy:
            self._note_readings()
        if now < self.deadline:
            return
        self.changed = True
        for job, (_, since) in self._beginning.items():
            if now >= since + SAID_S:
                self.unready = {job: READING, **self.unready}
        for job, work in list(self.works.items()):
            if work.deadline is not None and now >= work.deadline:
                self.inside(job, Work.tick)
        for job in [job for job, later in self._later.items() if now >= later.at]:
            self._look_again(job, now)
        if now >= self._left_over_at:
            self._left_over_at = math.inf
            self._report_left_over()

    def train(self, work: Work) -> None:
        """Let a job train for a slice of time."""
        self.inside(work.job, lambda work, now: work.train_for(SLICE_S, now, self._clock))

    def next_turn(self) -> Work | None:
        """Return the job that trains now. Where several would, each has its turn, so that none starves another."""
        if self._readings.busy:
            for work in self.works.values():
                work.step_out()
            return None
        if not self.busy:
            return None
        busy = [work for work in self.works.values() if work.busy]
        before = next((work for work in busy if work.turn == self._turns), None)
        if before is not None and (len(busy) == 1 or self._clock() < self._turn_ends_at):
            return before
        chosen = min((work for work in busy if work is not before), key=lambda work: work.turn, default=None)
        if chosen is not None:
            if before is not None:
                before.step_out()
            self._turns += 1
            chosen.turn, self._turn_ends_at = self._turns, self._clock() + TURN_S
        return chosen

    # All of them.

    def pause(self) -> None:
        """Keep what is unfinished, before the process ends."""
        for job in list(self.works):
            self.inside(job, Work.pause)
        self._readings.close()

    def connected(self, packet_bytes: int | None) -> None:
        """Note that the connection is a new one, whose broker takes packets up to this size."""
        self.changed = True
        self._online, self._packet_bytes = True, packet_bytes
        self._denied = NOTHING  # what this broker refuses it will refuse again
        self._left_over_at = self._clock() + LEFT_OVER_S
        self.say_again()

    def note_wildcards(self) -> None:
        """Note that this connection brings what is retained on a topic that only a wildcard names."""
        if not self._takes_bodies:
            self._takes_bodies = True
            for work in self.works.values():
                work.takes_bodies = True

    def disconnected(self) -> None:
        """Note that the broker is not reachable."""
        self._online = self._takes_bodies = False
        for job in list(self.works):
            self.pass_on(job, Disconnected())

    def greet(self, spread_s: float, term: int) -> None:
        """Note over how long the leader wants answers to be spread, and the term that it speaks under."""
        self._spread_s, self._led = spread_s, term
        for work in self.works.values():
            work.participant.announced.led = term

    def say_again(self) -> None:
        """Offer again what a new connection, or a new leader, may never have received."""
        for job in list(self.works):
            self._connect(job)

    def be_denied(self, levels: list[str], reason: str) -> None:
        """Note that the broker does not take something: for the operator, with the job that it belongs to.

        levels: of its topic, behind the fleet. Where that is a filter of a body, its pieces are asked for one by one.
        """
        if levels[:1] == ["body"] and levels[-1] == "+":
            self.inside(levels[1], lambda work, _: work.do_without_filters())
            return
        self.changed = True
        for job in self.works:
            if job in levels:
                self._denied = put(self._denied, job, reason)

    @property
    def trouble(self) -> Mapping[str, str]:
        """Job to what an operator should look at."""
        told = {job: work.told for job, work in self.works.items() if work.told}
        return {**told, **self._trouble, **self._denied} if told or self._denied else self._trouble

    def sources(self) -> list[tuple[str, str]]:
        """Return every job that is at work here, or put off, with the name of the source of its data."""
        known = {job: work.spec for job, work in self.works.items()}
        known |= {job: later.spec for job, later in self._later.items()}
        return [(job, spec.data_name) for job, spec in known.items()]

    def activity(self, *, is_led: bool, sends: bool) -> Activity:
        """Return what this device does. is_led: an aggregator leads. sends: packets wait to be sent."""
        at_work = (work.activity(is_led=is_led, sends=sends) for work in self.works.values())
        looking = (Activity("reading", job) for job in self._beginning)
        later = (
            Activity("fetching", job) if job in self._bases.coming else put_off(job, self.unready.get(job, ""))
            for job in self._later
        )
        return first_of([*at_work, *looking, *later])

    @property
    def serves(self) -> dict[str, Version]:
        """Job to the version that its applications are answered by."""
        served = {job: work.participant.deployment.deployed for job, work in self.works.items()}
        return {job: version for job, version in served.items() if version is not None}

    @property
    def failed(self) -> dict[str, Failure]:
        """Job to the last training, where that failed."""
        return {job: work.failure for job, work in self.works.items() if work.failure is not None}

    # One.

    def pass_on(self, job: str, event: ParticipantEvent) -> None:
        """Tell a job of an event, if it is at work."""
        self.inside(job, lambda work, now: work.handle(event, now))

    def inside(self, job: str, act: Callable[[Work, float], list[Out]]) -> None:
        """Let a job's work act, if there is such a job: the boundary that its faults do not cross.

        A disk that fails it, or data that have gone bad, are looked at again soon; what its own code throws puts it at
        rest for longer.
        """
        work = self.works.get(job)
        if work is None:
            return
        before = work.failure, work.participant.ahead, work.n_examples, work.told
        try:
            out = contain(partial(act, work, self._clock()), OSError, DatasetError)
        except DatasetError as error:
            self._put_off(job, self._leave(job).spec, str(error), LOOK_AGAIN_S, error.cell)
            return
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            why = f"a file cannot be used{where}: {error.strerror or error}"
            self._put_off(job, self._leave(job).spec, why, LOOK_AGAIN_S)
            return
        if isinstance(out, Fault):
            self._rest(job, self._leave(job).spec, out.why)
            return
        if (work.failure, work.participant.ahead, work.n_examples, work.told) != before:
            self.changed = True
        if out:
            self._send(out)

    def take(self, chunk: Body) -> None:
        """Take a piece of a version, or of what is frozen of a job's net."""
        if not chunk.name.startswith(BASE):
            work = self.works.get(chunk.job)
            come = None if work is None else work.keep(chunk, self._clock())
            if come is None:
                self.inside(chunk.job, lambda work, now: work.take(chunk, now))
            else:
                self._send(come)
            return
        later = self._later.get(chunk.job)
        if later is None or chunk.job not in self._bases.coming:
            return
        try:
            out = self._bases.take(chunk)
        except (FrozenError, OSError) as error:
            why = f"what is frozen of its net cannot be fetched: {error}"
            self._put_off(chunk.job, later.spec, why, NO_ROOM_S if isinstance(error, FrozenError) else LOOK_AGAIN_S)
            return
        if out is None:
            self._later = without(self._later, chunk.job)
            self._begin(chunk.job, later.spec)
            return
        later.at = self._clock() + STALL_S
        self._send(out)

    def meet(self, job: Job) -> None:
        """Take what the broker says of a job: that it is there, has ended, or is deleted."""
        self.changed = True
        if job.spec is None:
            if self._heard is not None:
                self._heard.end(job.job)
            self._forget(job.job)
            return
        if job.base is not None:
            self._bases.note(job.job, job.base)
        if why := self._objection(job):
            if self.unready.get(job.job) != why:
                log.error("job=%s is refused: %s", job.job, why)
            if job.job not in self.works:
                self.unready = put(self.unready, job.job, why)
            return
        if job.job not in self._announced:
            self._announced += (job.job,)
        if self.unready.get(job.job) in (UNANNOUNCED, UNSIGNED):
            self.unready = without(self.unready, job.job)
        if self._is_another(job):
            log.error("job=%s has another specification than before, and is begun anew", job.job)
            self._drop(job.job)
        if self._known(job.job) is None:
            try:
                spec = self._resources.spec(job)
            except SettingsError as error:
                log.warning("job not understood: %s", error)
                told = f"this agent does not understand the job: {error}"[:500]
                self.unready = put(self.unready, job.job, told)
                return
            wanted = spec.rounds.labels.items()
            if spec.data_name in self._config.data and wanted <= self._config.labels.items():
                self._begin(job.job, spec)
        self._overs = without(self._overs, job.job)
        if job.last is not None:
            over = JobEnded(job.last, job.term)
            self._overs = put(self._overs, job.job, over)
            self.pass_on(job.job, over)

    def _known(self, job: str) -> JobSpec | None:
        """Return the specification of a job that this device works on, or is about to."""
        if job in self.works:
            return self.works[job].spec
        if job in self._beginning:
            return self._beginning[job][0].spec
        return self._later[job].spec if job in self._later else None

    def _is_another(self, job: Job) -> bool:
        """Return whether the leader says another specification of a job than this device knows: that one was forged.

        One that is not understood, or is said under another term than the leader's, is nobody's.
        """
        known = self._known(job.job)
        if known is None or job.term != self._led:
            return False
        try:
            return self._resources.spec(job) != known
        except SettingsError:
            return False

    def _objection(self, job: Job) -> str:
        """Return why this device will have nothing to do with a job, whoever announces it; "" where it may."""
        if self._heard is not None and self._heard.has_ended(job.job):
            return "it was deleted, and is announced again: submit it anew"
        return "" if self._wire.is_signed_spec(job) else UNSIGNED

    def _connect(self, job: str) -> None:
        self.inside(job, lambda work, now: work.connected(self._spread_s, self._packet_bytes, now))

    def _begin(self, job: str, spec: JobSpec) -> None:
        """Take part in a job, or say why not and look again later."""
        if why := self._marks.reason(job):
            self._rest(job, spec, why)
            return
        if not self._fits(job, spec):
            return
        try:
            work = contain(lambda: self._make(job, spec), ModelError, NewerFormatError, MissingError, OSError)
        except MissingError as error:
            self._fetch_base(job, spec, error)
            return
        except (ModelError, NewerFormatError, OSError) as error:
            self._put_off(job, spec, str(error), LOOK_AGAIN_S)
            return
        if isinstance(work, Fault):
            self._rest(job, spec, work.why)
            return
        self._beginning = put(self._beginning, job, (work, self._clock()))
        work.look()
        self._take_part(job)

    def _look_again(self, job: str, now: float) -> None:
        """Look again whether this device can take part in a job; or ask again for what is on its way for it."""
        if (out := self._bases.again(job)) is not None:
            self._later[job].at = now + STALL_S
            self._send(out)
            return
        later, self._later = self._later[job], without(self._later, job)
        self._begin(job, later.spec)

    def _fetch_base(self, job: str, spec: JobSpec, missing: MissingError) -> None:
        """Fetch what is frozen of a job's net, and begin the job with it."""
        try:
            out = self._bases.begin(job, missing.spec)
        except (FrozenError, OSError) as error:
            self._put_off(job, spec, f"what is frozen of its net cannot be kept: {error}", LOOK_AGAIN_S)
            return
        if out is None:  # all of it had come before this process began, but for its name
            self._begin(job, spec)
            return
        self.changed = True
        self.unready = put(self.unready, job, str(missing))
        at = self._clock() + (STALL_S if job in self._bases.coming else WAIT_S)
        self._later = put(self._later, job, _Later(spec, at, STALL_S))
        self._send(out)

    def _take_part(self, job: str) -> None:
        """Take part in a job whose data have been looked at, if they have; or say why not and look again later."""
        work, _ = self._beginning[job]
        if work.reads:
            return
        self._looked_at(job)
        try:
            fault = contain(work.note_look, DatasetError, OSError)
        except (DatasetError, OSError) as error:
            cell = error.cell if isinstance(error, DatasetError) else ""
            self._put_off(job, work.spec, str(error), LOOK_AGAIN_S, cell)
            return
        if isinstance(fault, Fault):
            self._rest(job, work.spec, fault.why)
            return
        if not self._fits(job, work.spec, work.n_examples):
            return
        work.takes_bodies = self._takes_bodies
        self.works[job] = work
        work.participant.announced.led = self._led
        self.changed = True
        self.unready = without(self.unready, job)
        log.info("takes part job=%s examples=%d", job, work.n_examples)
        self._send([Subscribe((self._wire.filter_for("round", job=job),))])
        self.inside(job, Work.begin)
        if self._online:
            self._connect(job)
        if job in self._overs:  # it has ended meanwhile
            self.pass_on(job, self._overs[job])

    def _fits(self, job: str, spec: JobSpec, rows: int | None = None) -> bool:
        """Return whether there is room for a job, and count it then; else put it off, with the numbers.

        rows: of its data, once they have been read.
        """
        if self._capacity is None:
            return True
        refusal = self._capacity.weigh(job, spec, rows=rows, over=self._overs)
        if refusal.why:
            self._put_off(job, spec, refusal.why, LOOK_AGAIN_S if refusal.waits else NO_ROOM_S)
            return False
        self._capacity.take(job, spec, rows=rows)
        return True

    def _make(self, job: str, spec: JobSpec) -> Work:
        deployed = self.slots.deployed(job, spec.name) if self.slots else None
        with self._marks.entered(job, "begin", "it was begun", most_s=ENTRY_S):
            return Work(
                *(job, spec, self._config, self._home, below(self._folder, job), self._clock(), deployed),
                wire=self._wire,
                marks=self._marks,
                source=self._source(spec),
                readings=self._readings,
                resources=self._resources,
                find=self._bases.finder(job, spec),
            )

    def _looked_at(self, job: str) -> None:
        """Note that a job's data are not being looked at any more."""
        self._beginning = without(self._beginning, job)

    def _source(self, spec: JobSpec) -> Source:
        """Return the source of a job, open."""
        known = next((one.source for one in self._sources if one.is_for(spec)), None)
        if known is None:
            settings, classifies = self._config.data[spec.data_name], _classifies(spec)
            labelled = not spec.model.finds_anomalies
            known = self._open_source(
                *(settings, spec.contract, below(self._home.folder, SCRATCH)),
                classifies=classifies,
                labelled=labelled,
                allow=self._config.models.allow,
            )
            self._sources += (_Open(spec.data_name, spec.contract, classifies, labelled, known),)
        return known

    def _note_readings(self) -> None:
        """Go on with the jobs whose data have been read meanwhile."""
        for job in self._readings.ended():
            if job in self._beginning:
                self._take_part(job)
            else:
                self.inside(job, Work.go_on)

    def _put_off(self, job: str, spec: JobSpec, why: str, pause_s: float, cell: str = "") -> None:
        """Say why this device cannot take part now, and look again later. cell: of its data, for its own log alone."""
        here = f" (it holds {cell!r})" if cell else ""
        log.error("cannot take part job=%s: %s%s; looking again in %g s", job, why, here, pause_s)
        self.changed = True
        if self._capacity is not None:
            self._capacity.leave(job)
        self.unready = put(self.unready, job, why[:500])
        self._later = put(self._later, job, _Later(spec, self._clock() + pause_s, pause_s))

    def _rest(self, job: str, spec: JobSpec, why: str) -> None:
        """Put a job at rest whose own code has failed, and let it try again ever less often."""
        again = 2.0 ** self._marks.forgive(job) * FIRST_REST_S
        pause_s = min(max(2 * self._rested_s.get(job, FIRST_REST_S / 2), again), LAST_REST_S)
        self._rested_s = put(self._rested_s, job, pause_s)
        self._put_off(job, spec, f"at rest: {why}", pause_s)

    def _leave(self, job: str) -> Work:
        """Stop working on a job; what is on disk stays."""
        work = self.works.pop(job)
        self.changed = True
        work.step_out()
        self._readings.forget(job)
        filters = (self._wire.filter_for(word, job=job) for word in ("head", "round"))
        self._send([Unsubscribe((*filters, *work.subscribed))])
        self._trouble = without(self._trouble, job)
        return work

    def _forget(self, job: str) -> None:
        """Forget a deleted job, whether or not this process has worked on it."""
        self._announced = tuple(name for name in self._announced if name != job)
        self._drop(job)
        folder, disk = below(self._folder, job), self._home.disk
        try:
            if disk.exists(folder):
                log.info("job deleted job=%s", job)
            outbox.forget(folder, disk)
        except OSError as error:
            log.error("job=%s is deleted, and %s stays on disk: %s", job, folder, error.strerror or error)
        needed = list(self._going_on())
        self._bases.sweep(needed, job)
        self._sources = tuple(one for one in self._sources if any(map(one.is_for, needed)))
        self._sweep()

    def _drop(self, job: str) -> None:
        """Forget what is in memory of a job."""
        self.unready, self._later = without(self.unready, job), without(self._later, job)
        self._rested_s, self._overs = without(self._rested_s, job), without(self._overs, job)
        self._denied = without(self._denied, job)
        if self._capacity is not None:
            self._capacity.forget(job)
        self._looked_at(job)
        self._readings.forget(job)
        self._send(self._bases.stop(job))
        if job in self.works:
            self._leave(job)
        self._marks.leave(job)

    def _report_left_over(self) -> None:
        """Say of jobs on disk that nobody announces that they are here: who has deleted them says so again."""
        known = self.works.keys() | self._announced
        try:
            names = outbox.leftovers(self._folder, known, self._home.disk)
        except OSError as error:
            log.error("%s cannot be read: %s", self._folder, error.strerror or error)
            return
        for job in names:
            self.unready = put(self.unready, job, UNANNOUNCED)

    # The model slots.

    def _note_installs(self, slots: Slots) -> None:
        int8 = {job: one for job, one in slots.int8().items() if job in self._announced}
        if int8 != self.int8:
            self.int8, self.changed = int8, True
        for outcome in slots.finished():
            self.changed = True
            release, why = outcome.release, outcome.why
            version = Version(release.generation, release.number)
            self._trouble = without(self._trouble, release.job)
            if why:
                told = f"model {outcome.name} {version} is not in service: {why}"[:500]
                self._trouble = put(self._trouble, release.job, told)
            self.pass_on(release.job, DeployFailed(version, why) if why else Deployed(version))
            self._sweep()

    def _sweep(self) -> None:
        """Remove the models of jobs that are over, as [models] keep says."""
        if self.slots is not None:
            self.slots.sweep({spec.name for spec in self._going_on()})

    def _going_on(self) -> list[JobSpec]:
        """Return the jobs that are at work here, or will be."""
        beginning = (work.spec for work, _ in self._beginning.values())
        return [*(w.spec for w in self.works.values()), *beginning, *(later.spec for later in self._later.values())]
