"""The agent as a process: one loop between the broker, the jobs of this device, and its one training.

    broker ──packets──▶ unpack ──messages──▶ work (participant) ──messages──▶ pack ──▶ outgoing ──▶ broker
                                               │        ▲
                                               ▼        └ a slice of training whenever nothing is to be heard
                                             model slots, each behind a thread that only waits for its child process

The network may do what it likes: being offline changes nothing but what is sent, and nothing is kept to be sent later
that would be said again anyway. What a job's own code throws puts that job at rest (`_inside`), and the others go on.
`step` does one thing and returns, so that a simulator can drive many of these in one thread.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

from broker import topics
from broker.errors import WireError
from broker.faults import Fault, Marks, contain
from broker.messages import Beacon, Body, Failure, Head, Job, Presence, Round, Verdict, Version, Want
from broker.outgoing import Outgoing
from broker.settings import SettingsError, convert
from broker.tally import Tally
from broker.transport import Denied, Event, Offline, Online, Packet, Transport, Usurped
from edge_agent import outbox
from edge_agent.config import AgentConfig
from edge_agent.effects import Deployed, DeployFailed, Disconnected, Over
from edge_agent.effects import Event as WorkEvent
from edge_agent.home import Home
from edge_agent.presence import Announcer
from edge_agent.slots import Install, Slots
from edge_agent.work import Out, Subscribe, Unsubscribe, Work
from models.dataset import DatasetError
from models.job import JobSpec
from models.nets import ModelError
from models.source import Reader, read

log = logging.getLogger(__name__)

T = TypeVar("T")

SLICE_S = 0.05
"""Training goes on this long between two looks at the broker."""
SETTLE_S = 0.2
"""After connecting, how long retained jobs may take to arrive before this device says what it can take part in."""
LOOK_AGAIN_S = 60.0
"""Data or a disk that could not be used are looked at again after this long."""
TURN_S = 5.0
"""How long a job trains until another has its turn."""
FIRST_REST_S = 600.0
LAST_REST_S = 86_400.0
"""A job whose own code has failed is tried again after the first, then ever less often."""
UNANNOUNCED = "it is on disk here, and no aggregator has announced it"
MOST_JOBS = 256
"""Jobs that a presence has room for."""
LEFT_OVER_S = 60.0
"""A job on disk that nobody has announced for so long after connecting is reported."""


class ClonedError(RuntimeError):
    """Another process has connected under this device's name."""


def will(fleet: str, home: Home) -> Packet:
    """Return the last will: this life of the device is over."""
    gone = Presence(home.device, home.boot, online=False, incarnation=home.incarnation, nonce=home.nonce)
    return topics.pack(gone, fleet)


class _Later(Struct):
    """A job that this device cannot take part in now. at: when to look again. pause_s: how long it rested."""

    spec: JobSpec
    at: float
    pause_s: float


class Agent:
    """One device on one fleet.

    home: its state directory, open. transport: opened by `start`. clock: seconds that only go forward. read_data: how a
    data source becomes rows. slots: where models are put into service; made here where none are given.
    """

    def __init__(
        self,
        config: AgentConfig,
        home: Home,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.monotonic,
        software: str = "",
        read_data: Reader = read,
        slots: Slots | None = None,
        marks: Marks | None = None,
    ) -> None:
        self.config = config
        self.home = home
        self.device = home.device
        self.tally = Tally()
        self.works: dict[str, Work] = {}
        self._transport = transport
        self._turns = 0
        self._turn_ends_at = 0.0
        self._clock = clock
        self._jobs_dir = home.folder / "jobs"
        self._unready: dict[str, str] = {}
        self._later: dict[str, _Later] = {}
        self._rested_s: dict[str, float] = {}
        self._trouble: dict[str, str] = {}
        self._overs: dict[str, Over] = {}
        """Jobs that have ended, and how."""
        self._denied: dict[str, str] = {}
        """Job to what this broker has refused of it."""
        self._announced: set[str] = set()
        """Jobs that the broker has told of."""
        self._left_over_at = math.inf
        self._out = Outgoing(transport, "agent.published")
        self._term = 0
        self._leader_term = 0
        self._roll: tuple[str, int] | None = None
        self._spread_s = 0.0
        self._packet_bytes: int | None = config.broker.max_packet_bytes
        self._rng = random.Random(f"{home.device}/{home.boot}/{home.nonce}")  # noqa: S311 -- jitter, no secret
        self._announcer = Announcer(config.limits.presence_s)
        self._software = software
        self._read_data = read_data
        self._marks = marks if marks is not None else Marks(home.folder / "entered", software)
        self._slots = slots
        if self._slots is None and config.models.inference:
            self._slots = Slots(home.folder, config.models.allow, wake=transport.wake, keep=config.models.keep)

    # The loop.

    def start(self) -> None:
        """Start connecting."""
        fleet, device = self.config.fleet, self.device
        self._transport.subscribe(
            topics.filter_for(fleet, "aggregator"),
            topics.filter_for(fleet, "job"),
            topics.filter_for(fleet, "want", device=device),
            topics.filter_for(fleet, "verdict", device=device),
            topics.filter_for(fleet, "device", device=device),
        )
        self._transport.open()

    def step(self, timeout_s: float = 1.0) -> bool:
        """Take one event, or a slice of training, or let time pass; False when nothing happened.

        Raises ClonedError when another process has connected under this device's name.
        """
        busy = self._next_turn()
        event = self._transport.take(0.0 if busy else self._patience(timeout_s))
        if event is not None:
            self._receive(event)
        elif busy is not None:
            self._inside(busy.job, lambda work, now: work.train_for(SLICE_S, now, self._clock))
        self._tick()
        self._out.pump()
        return event is not None or busy is not None

    def stop(self) -> None:
        """Say goodbye; what is unfinished is on disk or will be done again."""
        for job in list(self.works):
            self._inside(job, Work.pause)
        if self._out.online:
            self._transport.publish(will(self.config.fleet, self.home))
        self._transport.close()
        if self._slots is not None:
            self._slots.close()

    @property
    def doing(self) -> str:
        """One phrase for people: what goes on."""
        phrases = [
            f"{work.spec.name}: {work.participant.doing}" for work in self.works.values() if work.participant.doing
        ]
        return "; ".join(phrases) or ("idle" if self._out.online else "offline")

    @property
    def busy(self) -> bool:
        """Whether `step` has training to do."""
        return any(work.busy for work in self.works.values())

    @property
    def deadline(self) -> float:
        """When `step` has something to do, if nothing is received before; inf for never."""
        deadlines = [d for work in self.works.values() if (d := work.deadline) is not None]
        deadlines += [later.at for later in self._later.values()]
        deadlines.append(self._left_over_at)
        if self._out.online:
            deadlines.append(self._announcer.due_at(self._presence()))
        return min(deadlines, default=math.inf)

    def _next_turn(self) -> Work | None:
        """Return the job that trains now. Where several would, each has its turn, so that none starves another."""
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

    def _patience(self, timeout_s: float) -> float:
        wait = min(timeout_s, self.deadline - self._clock())
        return max(0.0, min(wait, 0.005) if len(self._out) else wait)

    def _tick(self) -> None:
        now = self._clock()
        self._note_installs()
        for job, work in list(self.works.items()):
            if work.deadline is not None and now >= work.deadline:
                self._inside(job, Work.tick)
        for job in [job for job, later in self._later.items() if now >= later.at]:
            self._begin(job, self._later.pop(job).spec)
        if now >= self._left_over_at:
            self._left_over_at = math.inf
            self._report_left_over()
        if self._out.online:
            presence = self._presence()
            if self._announcer.allows(presence, now):
                self._out.put(topics.pack(presence, self.config.fleet))

    # Events.

    def _receive(self, event: Event) -> None:
        match event:
            case Packet():
                self._hear(event)
            case Online(max_packet_bytes):
                log.info("online")
                self._out.online = True
                self._denied.clear()  # what this broker refuses it will refuse again
                self._packet_bytes = max_packet_bytes
                now = self._clock()
                self._announcer.forget(now, SETTLE_S + self._rng.random() * self._spread_s)
                self._left_over_at = now + LEFT_OVER_S
                self._tell_connected()
            case Offline(reason):
                if self._out.online:
                    log.warning("offline: %s", reason)
                self._out.online = False
                self._out.clear()
                for job in list(self.works):
                    self._pass_on(job, Disconnected())
            case Denied(topic, reason):
                self._be_denied(topic, reason)
            case Usurped():
                raise ClonedError(f"another client has connected as {self.device}: two devices share this id")

    def _hear(self, packet: Packet) -> None:
        try:
            message = topics.unpack(packet, self.config.fleet)
        except WireError as error:
            self._count_garbage(packet.topic, error)
            return
        match message:
            case Job():
                self._meet(message)
            case Head() | Round() | Want() | Verdict():
                self._pass_on(message.job, message)
            case Body():
                self._inside(message.job, lambda work, now: work.take(message, now))
            case Beacon():
                self._greet(message)
            case Presence():
                self._hear_of_self(message, live=not packet.retain)
            case _:
                pass  # cleared topics

    def _count_garbage(self, topic: str, error: WireError) -> None:
        if self.tally.count("garbage"):
            log.warning("refused garbage topic=%r: %s", topic[:120], error)

    def _be_denied(self, topic: str, reason: str) -> None:
        """Note that the broker does not take something: for the operator, with the job that it belongs to."""
        log.error("the broker refuses topic=%s: %s", topic, reason)
        for job in self.works:
            if job in topic.split("/"):
                self._denied[job] = reason

    def _greet(self, beacon: Beacon) -> None:
        """Note who leads. Answer a roll call, and offer again what a new aggregator may never have received."""
        if not beacon.online:
            return
        self._spread_s, self._leader_term = beacon.spread_s, beacon.term
        if (beacon.nonce, beacon.roll) != self._roll:
            first, self._roll = self._roll is None, (beacon.nonce, beacon.roll)
            wait_s = self._rng.random() * beacon.spread_s
            self._announcer.forget(self._clock(), max(SETTLE_S, wait_s) if first else wait_s)
        if beacon.term > self._term:
            came_back, self._term = self._term > 0, beacon.term
            if came_back:
                self._tell_connected()

    def _hear_of_self(self, presence: Presence, live: bool) -> None:
        """Put right what is said of this device: that it is gone, by a late will or as a question; or by a clone."""
        mine = presence.life == self.home.nonce
        if not presence.online and (live or mine or presence.boot >= self.home.boot):
            self._announcer.forget(self._clock(), 0.0)
        elif presence.online and live and not mine and self.tally.count("clone"):
            log.error(
                "another process speaks as device=%s: incarnation=%s boot=%d nonce=%s, this one is %s, %d, %s",
                *(self.device, presence.incarnation, presence.boot, presence.nonce),
                *(self.home.incarnation, self.home.boot, self.home.nonce),
            )

    def _tell_connected(self) -> None:
        for job in list(self.works):
            self._connect(job)

    def _connect(self, job: str) -> None:
        self._inside(job, lambda work, now: work.connected(self._spread_s, self._packet_bytes, now))

    def _pass_on(self, job: str, event: WorkEvent) -> None:
        self._inside(job, lambda work, now: work.handle(event, now))

    # Jobs.

    def _inside(self, job: str, act: Callable[[Work, float], Iterable[Out]]) -> None:
        """Let a job's work act, if there is such a job: the boundary that its faults do not cross.

        A disk that fails it is looked at again soon; what its own code throws puts it at rest for longer.
        """
        work = self.works.get(job)
        if work is None:
            return
        try:
            out = contain(lambda: list(act(work, self._clock())), OSError)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            why = f"a file cannot be used{where}: {error.strerror or error}"
            self._put_off(job, self._leave(job).spec, why, LOOK_AGAIN_S)
            return
        if isinstance(out, Fault):
            self._rest(job, self._leave(job).spec, out.why)
        else:
            self._send(out)

    def _meet(self, job: Job) -> None:
        if job.spec is None:
            self._forget(job.job)
            return
        self._announced.add(job.job)
        if self._unready.get(job.job) == UNANNOUNCED:
            del self._unready[job.job]
        if job.job not in self.works and job.job not in self._later:
            try:
                spec = convert(job.spec, JobSpec, job.job)
            except SettingsError as error:
                log.warning("job not understood: %s", error)
                self._unready[job.job] = f"this agent does not understand the job: {error}"[:500]
                return
            wanted = spec.rounds.labels.items()
            if spec.data_name in self.config.data and wanted <= self.config.labels.items():
                self._begin(job.job, spec)
        self._overs.pop(job.job, None)
        if job.last is not None:
            self._overs[job.job] = Over(job.last, job.term)
            self._pass_on(job.job, self._overs[job.job])

    def _begin(self, job: str, spec: JobSpec) -> None:
        """Take part in a job, or say why not and look again later."""
        if why := self._marks.reason(job):
            self._rest(job, spec, why)
            return
        try:
            work = contain(lambda: self._make(job, spec), DatasetError, ModelError, OSError)
        except (DatasetError, ModelError, OSError) as error:
            self._put_off(job, spec, str(error), LOOK_AGAIN_S)
            return
        if isinstance(work, Fault):
            self._rest(job, spec, work.why)
            return
        self.works[job] = work
        self._unready.pop(job, None)
        log.info("takes part job=%s examples=%d", job, work.n_examples)
        self._transport.subscribe(topics.filter_for(self.config.fleet, "round", job=job))
        self._inside(job, Work.begin)
        if self._out.online:
            self._connect(job)
        if job in self._overs:  # it has ended meanwhile
            self._pass_on(job, self._overs[job])

    def _make(self, job: str, spec: JobSpec) -> Work:
        deployed = self._slots.deployed(job, spec.name) if self._slots else None
        with self._marks.entered(job, "begin", "it was begun"):
            return Work(
                *(job, spec, self.config, self.home, self._jobs_dir / job, self._clock(), deployed),
                marks=self._marks,
                read_data=self._read_data,
            )

    def _put_off(self, job: str, spec: JobSpec, why: str, pause_s: float) -> None:
        """Say why this device cannot take part now, and look again later."""
        log.error("cannot take part job=%s: %s; looking again in %g s", job, why, pause_s)
        self._unready[job] = why[:500]
        self._later[job] = _Later(spec, self._clock() + pause_s, pause_s)

    def _rest(self, job: str, spec: JobSpec, why: str) -> None:
        """Put a job at rest whose own code has failed, and let it try again ever less often."""
        again = 2.0 ** self._marks.forgive(job) * FIRST_REST_S
        pause_s = min(max(2 * self._rested_s.get(job, FIRST_REST_S / 2), again), LAST_REST_S)
        self._rested_s[job] = pause_s
        self._put_off(job, spec, f"at rest: {why}", pause_s)

    def _leave(self, job: str) -> Work:
        """Stop working on a job; what is on disk stays."""
        work, fleet = self.works.pop(job), self.config.fleet
        work.step_out()
        filters = (topics.filter_for(fleet, word, job=job) for word in ("head", "round"))
        self._transport.unsubscribe(*filters, *work.subscribed)
        self._trouble.pop(job, None)
        return work

    def _forget(self, job: str) -> None:
        """Forget a deleted job, whether or not this process has worked on it."""
        for known in (self._unready, self._later, self._rested_s, self._overs, self._denied):
            known.pop(job, None)
        self._announced.discard(job)
        if job in self.works:
            self._leave(job)
        self._marks.leave(job)
        folder = self._jobs_dir / job
        try:
            if folder.exists():
                log.info("job deleted job=%s", job)
                outbox.forget(folder)
        except OSError as error:
            log.error("job=%s is deleted, and %s stays on disk: %s", job, folder, error.strerror or error)
        self._sweep()

    def _report_left_over(self) -> None:
        """Say of jobs on disk that nobody announces that they are here: who has deleted them says so again."""
        known = self._announced | self.works.keys()
        try:
            names = outbox.leftovers(self._jobs_dir, known)
        except OSError as error:
            log.error("%s cannot be read: %s", self._jobs_dir, error.strerror or error)
            return
        for job in names:
            self._unready[job] = UNANNOUNCED

    # The model slots.

    def _note_installs(self) -> None:
        if self._slots is None:
            return
        for outcome in self._slots.finished():
            release, why = outcome.release, outcome.why
            version = Version(release.generation, release.number)
            self._trouble.pop(release.job, None)
            if why:
                self._trouble[release.job] = f"model {outcome.name} {version} is not in service: {why}"[:500]
            self._pass_on(release.job, DeployFailed(version, why) if why else Deployed(version))
            self._sweep()

    def _sweep(self) -> None:
        """Remove the models of jobs that are over, as [models] keep says."""
        if self._slots is not None:
            going_on = [*(work.spec for work in self.works.values()), *(later.spec for later in self._later.values())]
            self._slots.sweep({spec.name for spec in going_on})

    # What is said of all of it.

    @property
    def unready(self) -> dict[str, str]:
        """Job to the reason why this device cannot take part in it."""
        return self._unready

    @property
    def failed(self) -> dict[str, Failure]:
        """Job to the last training, where that failed."""
        return {job: work.failure for job, work in self.works.items() if work.failure is not None}

    def _presence(self) -> Presence:
        works = self.works.items()
        return Presence(
            self.device,
            self.home.boot,
            online=True,
            labels=self.config.labels,
            ready=_few({job: work.n_examples for job, work in works}),
            unready=_few(self._unready),
            software=self._software,
            incarnation=self.home.incarnation,
            nonce=self.home.nonce,
            failed=_few(self.failed),
            done=_few({job: done for job, work in works if (done := work.participant.done) is not None}),
            ahead=_few({job: ahead for job, work in works if (ahead := work.participant.ahead) is not None}),
            trouble=_few(self._denied | self._trouble),
            term=self._term if self._term > self._leader_term else 0,
        )

    # Sending.

    def _send(self, messages: Iterable[Out]) -> None:
        for message in messages:
            match message:
                case Subscribe(filters):
                    self._transport.subscribe(*filters)
                case Unsubscribe(filters):
                    self._transport.unsubscribe(*filters)
                case Install():
                    if self._slots is not None:
                        self._slots.put(message)
                case _:
                    self._out.put(topics.pack(message, self.config.fleet))
        self._out.pump()


def _few(said: Mapping[str, T]) -> dict[str, T]:
    """Return a copy, of as many jobs as one presence may name."""
    return dict(itertools.islice(said.items(), MOST_JOBS))
