"""The aggregator as a process: one loop between the broker and the runs.

    broker ──packets──▶ unpack ──messages──▶ leadership, roster, inbox, run ──messages──▶ pack ──▶ outgoing ──▶ broker

It listens before it leads (leadership.py), and says and does nothing for any job while it does not. Everything it wants
retained is sent again at every connect, from the store: a broker that lost all it knew is told again. What a job's own
code throws puts that job at rest (`_inside`), and the others go on. `step` does one thing and returns, so that a
simulator can drive many of these in one thread.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from aggregator import leadership
from aggregator import run as runs
from aggregator.commands import Commands
from aggregator.config import AggregatorConfig
from aggregator.effects import Doubted, Seen, Stop
from aggregator.inbox import Inbox
from aggregator.leadership import Leadership, Me
from aggregator.projection import Clear, Out, Question
from aggregator.roster import Roster
from aggregator.run import Run
from aggregator.store import DamageError, JobRow, Store, StoreError
from broker import topics
from broker.errors import WireError
from broker.faults import Fault, Marks, contain
from broker.messages import Beacon, Candidate, Chunk, Command, Head, Job, Offer, Presence, Status, Version
from broker.outgoing import Outgoing
from broker.tally import Tally
from broker.transport import Denied, Event, Offline, Online, Packet, Transport, Usurped, wire_bytes
from models.dataset import DatasetError
from models.job import JobSpec
from models.nets import ModelError

log = logging.getLogger(__name__)

HEARD = ("device", "offer", "chunk", "command", "aggregator", "candidate", "head")
"""The words of the topic table that an aggregator subscribes to."""
RELOAD_S = 5.0
"""A job whose state could not be written is loaded again from the store after this long."""
SETTLE_S = 0.2
"""After connecting, how long retained messages may take to arrive before the beacon is published over them."""
READ_AGAIN_S = 600.0
"""Presences are read again from the broker this often: it may have dropped the one word of a device."""
RENAME_S = 60.0
"""Devices' words can give a job a new generation no more often than this."""
TOMBSTONES = 20
"""Deleted jobs whose tombstones lie at the broker, for devices that were away."""


class ReplacedError(RuntimeError):
    """Another aggregator leads this fleet, and this one was told to exit then."""


class Resting(Struct, frozen=True):
    """A job of the store that does not run now. again: it is loaded again by itself."""

    name: str
    version: Version | None
    why: str
    again: bool


class Aggregator:
    """All jobs of one fleet.

    transport: opened by `start`, without a last will. take_over: lead whoever else does. exit_when_replaced: raise
    ReplacedError instead of standing by. clock: seconds that only go forward. token: draws the end of a job's id.
    """

    def __init__(
        self,
        config: AggregatorConfig,
        store: Store,
        transport: Transport,
        *,
        nonce: str,
        take_over: bool = False,
        exit_when_replaced: bool = False,
        clock: Callable[[], float] = time.monotonic,
        token: Callable[[], str] = lambda: secrets.token_hex(4),
        marks: Marks | None = None,
    ) -> None:
        self.config = config
        self.nonce = nonce
        self.tally = Tally()
        self.roster = Roster()
        self.runs: dict[str, Run] = {}
        self.resting: dict[str, Resting] = {}
        self.trouble: dict[str, str] = {}
        """Job to what the broker has refused of it."""
        self.term = store.term
        self.store = store
        self.clock = clock
        self.marks = marks if marks is not None else Marks(Path(config.state_dir) / "entered")
        self.leadership = Leadership(self._me(), take_over=take_over)
        self._exit_when_replaced = exit_when_replaced
        self._led = False
        self._transport = transport
        self._token = token
        self._inbox = Inbox(config.limits.unassembled_bytes)
        self._out = Outgoing(transport, "aggregator.published")
        self._commands = Commands(self)
        self._roll = 0
        self._packet_bytes: int | None = config.broker.max_packet_bytes
        self._reload_at: dict[str, float] = {}
        self._rename_at: dict[str, tuple[float, int]] = {}
        """Job to when to give it a generation above this one; and when that was done last."""
        self._renamed_at: dict[str, float] = {}
        self._rise_at = math.inf
        self._settled_at = math.inf
        self._read_again_at = math.inf

    def _me(self) -> Me:
        store = self.store
        former = "" if store.moved else store.note("nonce")
        restored = store.note("restored") != ""
        return Me(
            self.nonce,
            store.identity,
            term=store.term,
            claim=int(store.note("claim") or 0),
            empty=not any(row.ended != "deleted" for row in store.jobs()),
            former=former,
            replaced="" if restored else store.note("replaced"),
            restored=restored,
        )

    # The loop.

    def start(self) -> None:
        """Start connecting."""
        self._transport.subscribe(*(topics.filter_for(self.config.fleet, word) for word in HEARD))
        self._transport.open()

    def step(self, timeout_s: float = 1.0) -> bool:
        """Take one event, or let time pass; False when nothing happened.

        Raises ReplacedError when another aggregator leads and this one was told to exit then, and StoreError when the
        state directory cannot be written as this one begins to lead.
        """
        event = self._transport.take(self._patience(timeout_s))
        if event is not None:
            self._receive(event)
        self._tick()
        self._out.pump()
        return event is not None

    def stop(self) -> None:
        """Say goodbye to the fleet, if this one has led it."""
        if self._out.online and self.leads:
            self._transport.publish(topics.pack(self._beacon(online=False), self.config.fleet))
        self._transport.close()

    @property
    def leads(self) -> bool:
        """Whether this aggregator leads the fleet."""
        return self.leadership.state == "leading"

    @property
    def doing(self) -> str:
        """One phrase for people: what goes on."""
        if not self._out.online:
            return "offline"
        if self.leadership.state == "standby":
            leader = self.leadership.leader
            return f"standing by: aggregator {leader.nonce if leader else '?'} leads"
        if not self.leads:
            return "listening whether somebody leads"
        phrases = [f"{run.spec.name} {run.coordinator.state} at version {run.version}" for run in self.runs.values()]
        phrases += [f"{rest.name} at rest" for rest in self.resting.values()]
        return "; ".join(phrases) or "no job"

    @property
    def deadline(self) -> float:
        """When `step` has something to do, if nothing is received before; inf for never."""
        deadlines = [d for run in self.runs.values() if (d := run.deadline) is not None]
        deadlines += [*self._reload_at.values(), *(at for at, _ in self._rename_at.values())]
        own = (self._settled_at, self._read_again_at, self._rise_at, self.leadership.deadline)
        return min([*deadlines, *own])

    def _patience(self, timeout_s: float) -> float:
        wait = min(timeout_s, self.deadline - self.clock())
        return max(0.0, min(wait, 0.005) if len(self._out) else wait)

    def _tick(self) -> None:
        now = self.clock()
        if now >= self.leadership.deadline:
            self._follow(self.leadership.tick(now))
        if now >= self._rise_at:
            self._rise()
        if now >= self._settled_at:
            self._settled_at = math.inf
            self._reconcile()
        if now >= self._read_again_at:
            self._read_again()
        for job, run in list(self.runs.items()):
            if run.deadline is not None and now >= run.deadline:
                self._inside(job, Run.tick)
        for job in [job for job, at in self._reload_at.items() if now >= at]:
            del self._reload_at[job]
            self._reload(job)
        for job in [job for job, (at, _) in self._rename_at.items() if now >= at]:
            self._rename(job, self._rename_at.pop(job)[1])
        if self._inbox.has_called:
            for offer in self._inbox.call():
                self._weigh(offer)

    # Events.

    def _receive(self, event: Event) -> None:
        match event:
            case Packet():
                self._hear(event)
            case Online(max_packet_bytes):
                log.info("online")
                self._packet_bytes = max_packet_bytes
                self._come_online()
            case Offline(reason):
                if self._out.online:
                    log.warning("offline: %s", reason)
                self._out.online = False
                self._out.clear()
                self._settled_at = self._read_again_at = math.inf
                self._follow(self.leadership.receive(leadership.Lost(), self.clock()))
            case Denied(topic, reason):
                self._be_denied(topic, reason)
            case Usurped():
                log.error("another client has connected under this aggregator's name")

    def _come_online(self) -> None:
        now = self.clock()
        self._out.online = True
        self.roster.doubt()
        for job in list(self.runs):
            self._inside(job, lambda run, now: self._fit(run, now))
        self._follow(self.leadership.receive(leadership.Connected(), now))
        if self.leads:
            self._roll += 1
            self._settled_at = now + SETTLE_S
            self._read_again_at = now + READ_AGAIN_S

    def _fit(self, run: Run, now: float) -> list[Out]:
        run.fit(self._packet_bytes)
        return run.handle(Doubted(), now)

    def _be_denied(self, topic: str, reason: str) -> None:
        """Note that the broker does not take something: for the operator, with the job that it belongs to."""
        log.error("the broker refuses topic=%s: %s", topic, reason)
        levels = topic.split("/")
        for job in self.runs:
            if job in levels:
                self.trouble[job] = f"the broker refuses {'/'.join(levels[3:])}: {reason}"[:500]

    def _hear(self, packet: Packet) -> None:
        try:
            message = topics.unpack(packet, self.config.fleet)
        except WireError as error:
            self._refuse("garbage", f"topic={packet.topic[:120]!r}: {error}")
            return
        now = self.clock()
        match message:
            case Beacon():
                heard = leadership.Heard(message, live=not packet.retain)
                self._follow(self.leadership.receive(heard, now))
            case Candidate():
                self._follow(self.leadership.receive(message, now))
            case _ if not self.leads:
                pass
            case Presence():
                self._see(message, live=not packet.retain)
            case Offer():
                self._weigh(message)
            case Chunk():
                self._collect(message)
            case Head():
                self._look_back(message.job, message.version)
            case _ if isinstance(message, Command):
                self._send([self._commands.obey(message)])
            case _:
                pass  # our own words, cleared topics

    # Leading.

    def _follow(self, effects: Iterable[leadership.Effect]) -> None:
        """Carry out what leading, or not, asks for. Raises ReplacedError or StoreError."""
        for effect in effects:
            match effect:
                case leadership.Ask():
                    me = self.leadership.me
                    self._out.put(topics.pack(Candidate(me.nonce, me.term, me.claim, me.empty), self.config.fleet))
                case leadership.Lead(term, claim):
                    self._lead(term, claim)
                case leadership.Rise():
                    self._rise()
                case leadership.Speak():
                    self._send([self._beacon()])
                case leadership.StandDown(leader, replaced):
                    self._stand_down(leader, replaced)
        self._out.pump()

    def _lead(self, term: int, claim: int) -> None:
        for name, value in (("claim", str(claim)), ("nonce", self.nonce), ("replaced", ""), ("restored", "")):
            if self.store.note(name) != value:
                self.store.set_note(name, value)
        self.term = self.store.raise_term(term)
        log.info("leads fleet=%s term=%d store=%s", self.config.fleet, self.term, self.store.identity)
        self._led = True
        self._load_all()
        self._out.clear()
        self._transport.renew(self._will())

    def _load_all(self) -> None:
        for row in self.store.jobs():
            if row.ended != "deleted":
                self._load(row)

    def _rise(self) -> None:
        """Say everything again under a higher term, once that is durable."""
        self._rise_at = math.inf
        try:
            self.term = self.store.raise_term(self.leadership.me.term)
        except StoreError as error:
            log.error("the term cannot be raised: %s; trying again in %g s", error, RELOAD_S)
            self._rise_at = self.clock() + RELOAD_S
            return
        self.leadership.me.term = self.term
        for run in self.runs.values():
            run.term = self.term
        self._reconcile()

    def _stand_down(self, leader: Beacon, replaced: str) -> None:
        led, self._led = self._led, False
        log.error(
            "another aggregator leads fleet=%s nonce=%s term=%d store=%s: this one (nonce=%s term=%d store=%s) stands "
            "by; start it with --take-over if it shall lead",
            *(self.config.fleet, leader.nonce, leader.term, leader.store),
            *(self.nonce, self.term, self.store.identity),
        )
        self.runs.clear()
        self.resting.clear()
        self._reload_at.clear()
        self._rename_at.clear()
        self._out.clear()
        self._settled_at = self._read_again_at = self._rise_at = math.inf
        if replaced != self.store.note("replaced"):
            try:
                self.store.set_note("replaced", replaced)
            except StoreError as error:
                log.error("that it was replaced cannot be written down: %s", error)
        if led:
            self._transport.renew(None)
        if self._exit_when_replaced:
            raise ReplacedError(f"another aggregator leads fleet {self.config.fleet}: nonce {leader.nonce}")

    def _beacon(self, *, online: bool = True) -> Beacon:
        me, limits = self.leadership.me, self.config.limits
        return Beacon(
            self.term,
            self.nonce,
            online=online,
            spread_s=limits.spread_s,
            roll=self._roll,
            store=me.store,
            since=self.leadership.since,
            claim=me.claim,
            empty=me.empty,
        )

    def _will(self) -> Packet:
        """Return the last will. It cannot say that there is no job: one may be submitted after it was left."""
        return topics.pack(structs.replace(self._beacon(online=False), empty=False), self.config.fleet)

    # Devices.

    def _see(self, presence: Presence, live: bool) -> None:
        sight = self.roster.see(presence, live=live, now=self.clock())
        if sight.told:
            say = log.error if sight.alarm else log.warning
            if not sight.alarm or self.tally.count("clone"):
                say("device=%s: %s", presence.device, sight.told)
        if sight.kind == "full":
            self._refuse("roster full", f"device={presence.device}")
        if sight.kind != "news":
            return
        for job in list(self.runs):
            self.tell(job, presence.device, live=live)
        for job, version in presence.done.items():
            self._look_back(job, version, presence.device)
        for job in presence.unready.keys() - self.runs.keys():
            if self.store.is_deleted(job):
                self._out.put(structs.replace(topics.pack(Job(job, self.term), self.config.fleet), retain=False))
        if presence.term > self.term:
            self._follow(self.leadership.hear_term(presence.term, self.clock()))

    def _ask(self, device: str) -> None:
        """Find out whether a device is still there, which some job has long heard nothing of."""
        now = self.clock()
        if self.roster.is_alive(device, now):  # it is busy with another job, and has as good as answered
            for job in list(self.runs):
                self.tell(job, device, live=True)
        elif (absent := self.roster.ask(device, now)) is not None:
            # Not retained: an answer that is lost must not leave a device for gone that is there.
            self._out.put(structs.replace(topics.pack(absent, self.config.fleet), retain=False))

    def tell(self, job: str, device: str, *, live: bool) -> None:
        """Tell a job how a device stands to it."""
        run, part = self.runs.get(job), self.roster.part_in(job, device)
        if run is None or (not part.said and run.coordinator.members.get(device) is None):
            return  # it takes no part in this job
        failed, failure = (part.failure.base, part.failure.why) if part.failure else (None, "")
        seen = Seen(device, part.online, part.ready, part.why, live, failed, failure)
        self._inside(job, lambda run, now: run.handle(seen, now))

    def tell_all(self, job: str) -> None:
        """Tell a job of every device."""
        for device, known in self.roster.devices.items():
            self.tell(job, device, live=known.live)

    def _look_back(self, job: str, version: Version, done: str = "") -> None:
        """Notice that something is known that the store does not have: the state directory is an old backup.

        It is a later version, or that a device is done with the current one.
        """
        run = self.runs.get(job)
        if run is None or not (run.is_behind(version) or (done and run.has_lost(version, done))):
            return
        before = self._rename_at.get(job, (0.0, 0))[1]
        at = max(self.clock(), self._renamed_at.get(job, -math.inf) + RENAME_S)
        self._rename_at[job] = (at, max(before, version.generation))
        if at <= self.clock():
            self._rename(job, self._rename_at.pop(job)[1])

    def _rename(self, job: str, above: int) -> None:
        """Give the current version of a job a new generation, so that no number is given out twice."""
        run = self.runs.get(job)
        if run is None:
            return
        self._renamed_at[job] = self.clock()
        log.warning("job=%s is at version %s, and later ones are known: a new generation", job, run.version)
        try:
            self.store.raise_generation(job, above)
        except StoreError as error:
            self._put_off(job, error)
            return
        self._reload(job)

    def _weigh(self, offer: Offer) -> None:
        if self.roster.hear(offer.device, self.clock()):
            self._ask(offer.device)
        if offer.job in self.runs:
            self._look_back(offer.job, offer.base)
            self._inside(offer.job, lambda run, now: run.handle(offer, now))
        elif self.store.is_deleted(offer.job):
            self._send([self._commands.refusal_of_deleted(offer)])
        else:
            # Only who knows the job may end an update: it is offered again, and the right aggregator may come back.
            self._refuse("unknown job", f"job={offer.job} device={offer.device}: is this the right state directory?")

    def _collect(self, chunk: Chunk) -> None:
        try:
            complete = self._inbox.add(chunk, self.clock())
        except WireError as error:
            self._refuse("bad chunk", f"job={chunk.job} device={chunk.device}: {error}")
            return
        if complete is not None:
            self._weigh(complete)

    def _refuse(self, kind: str, detail: str) -> None:
        if self.tally.count(kind):
            log.warning("refused %s (%d so far) %s", kind, self.tally.counts[kind], detail)

    # Jobs.

    def submit(self, spec: JobSpec, request: str = "") -> str:
        """Start a job and return its id; an ended job of the same name makes way, in the same transaction.

        Raises ValueError if one has not ended, ModelError, DatasetError or StoreError if it cannot be run here, and
        RuntimeError with what the job's own code has thrown.
        """
        older = [run for run in self.runs.values() if run.spec.name == spec.name]
        if any(not run.coordinator.ended for run in older):
            raise ValueError(f"job {spec.name} is running: stop it first, or submit under another name")
        if any(rest.name == spec.name for rest in self.resting.values()):
            raise ValueError(
                f"job {spec.name} is at rest and has not ended: stop it first, or submit under another name"
            )
        job = f"{spec.name}-{self._token()}"
        self._check_size(job, spec)
        graves = [tomb for run in older for tomb in run.tombstone()]
        replaces = [run.job for run in older]

        # The name of what is submitted, not of the job: an operator's command is repeated until it is answered.
        submitted = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:16]
        if why := self.marks.reason(submitted):
            raise RuntimeError(f"it is not tried: {why}")

        def create() -> JobRow:
            with self.marks.entered(submitted, "submit", f"job {spec.name} was submitted"):
                return runs.create(job, spec, self.store, self.config, replaces=replaces, request=request)

        row = contain(create, ModelError, DatasetError, StoreError)
        if isinstance(row, Fault):
            raise RuntimeError(f"its own code fails: {row.why}")
        for run in older:
            del self.runs[run.job]
            self.trouble.pop(run.job, None)
            self._inbox.forget_job(run.job)
        self._send(graves)
        self._send([Clear(Job(deleted, self.term)) for deleted in self.store.deleted(2 * TOMBSTONES)[TOMBSTONES:]])
        self._load(row)
        if self.leadership.me.empty:
            self.leadership.me.empty = False
            self._send([self._beacon()])
        self._inside(job, lambda run, _now: run.retained())
        self.tell_all(job)
        self._inside(job, Run.tick)
        return job

    def _check_size(self, job: str, spec: JobSpec) -> None:
        packet = topics.pack(Job(job, self.term, runs.as_tree(spec)), self.config.fleet)
        limit = min(self._packet_bytes or math.inf, topics.MAX_CONTROL_BYTES)
        if wire_bytes(packet) > limit:
            raise ValueError(f"the job has {wire_bytes(packet)} bytes, and the broker takes {limit:.0f}")

    def _load(self, row: JobRow) -> None:
        """Load a job, or put it at rest with the reason. Raises StoreError when it cannot be read now."""
        job, now = row.job, self.clock()
        if why := self.marks.reason(job):
            self._rest(job, row.name, why)
            return

        def make() -> Run:
            with self.marks.entered(job, "begin", "it was loaded"):
                packet_bytes = self._packet_bytes
                return Run(
                    row,
                    self.store,
                    self.config,
                    self._inbox,
                    self.term,
                    now,
                    marks=self.marks,
                    packet_bytes=packet_bytes,
                )

        try:
            run = contain(make, ModelError, DatasetError, StoreError)
        except (ModelError, DatasetError, DamageError) as error:
            self._rest(job, row.name, f"it cannot be run here: {error}")
            return
        except StoreError as error:
            self._put_off(job, error, row.name)
            return
        if isinstance(run, Fault):
            self._rest(job, row.name, run.why)
            return
        self.runs[job] = run
        self.resting.pop(job, None)

    def _inside(self, job: str, act: Callable[[Run, float], Iterable[Out]]) -> None:
        """Let a job act, if it is at work: the boundary that its faults do not cross.

        A state that cannot be written now is loaded again soon; what its own code throws puts the job at rest.
        """
        run = self.runs.get(job)
        if run is None:
            return
        try:
            out = contain(lambda: list(act(run, self.clock())), StoreError)
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

    def _put_off(self, job: str, error: StoreError, name: str = "") -> None:
        """Forget what is in memory of a job whose state cannot be written or read now, and load it again soon."""
        log.error("job=%s: %s; trying again in %g s", job, error, RELOAD_S)
        run = self.runs.pop(job, None)
        known = self.resting.get(job)
        name = run.spec.name if run else name or (known.name if known else job)
        self.resting[job] = Resting(name, run.version if run else None, str(error), again=True)
        self._inbox.forget_job(job)
        self._reload_at[job] = self.clock() + RELOAD_S

    def _rest(self, job: str, name: str, why: str) -> None:
        """Put a job at rest, with the reason, for the operator; the others go on."""
        log.error("at rest job=%s: %s", job, why)
        run = self.runs.pop(job, None)
        self.resting[job] = Resting(name, run.version if run else None, why, again=False)
        self._inbox.forget_job(job)
        self._reload_at.pop(job, None)
        if run is not None:
            run.resting, run.reason = True, why[:500]
            self._send([Status(job, run.version, "resting", run.reason)])

    def stop_job(self, job: str) -> None:
        """End a job; its last version stays."""
        self._inside(job, lambda run, now: run.handle(Stop("an operator stopped it"), now))

    def resume(self, job: str) -> None:
        """Try a job again that is at rest."""
        self.marks.leave(job)
        self._reload(job)

    def _reload(self, job: str) -> None:
        try:
            row = next((row for row in self.store.jobs() if row.job == job), None)
        except StoreError as error:
            self._put_off(job, error)
            return
        if row is None or row.ended == "deleted":
            return
        self.runs.pop(job, None)
        self._inbox.forget_job(job)
        self._load(row)
        self._inside(job, lambda run, _now: run.retained())
        self._inside(job, Run.announce)
        self.tell_all(job)
        self._inside(job, Run.tick)

    # Sending.

    def _reconcile(self) -> None:
        """Send everything that should be retained; who asks for more than that asks again by himself."""
        self._out.clear()
        self._send([self._beacon()])
        self._send([Job(job, self.term) for job in self.store.deleted(TOMBSTONES)])
        for job in list(self.runs):
            self._inside(job, lambda run, _now: run.retained())
            self._inside(job, Run.announce)

    def _read_again(self) -> None:
        """Have the broker send the retained presences once more."""
        self._read_again_at = self.clock() + READ_AGAIN_S
        name = topics.filter_for(self.config.fleet, "device")
        self._transport.unsubscribe(name)
        self._transport.subscribe(name)

    def _send(self, messages: Iterable[Out]) -> None:
        for message in messages:
            match message:
                case Clear():
                    self._out.put(topics.clear(message.message, self.config.fleet))
                case Question(device):
                    self._ask(device)
                case _:
                    self._out.put(topics.pack(message, self.config.fleet))
        self._out.pump()
