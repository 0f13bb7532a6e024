"""The aggregator as a process: one loop between the broker and the jobs.

    broker ──packets──▶ unpack ──messages──▶ leadership, roster, jobs ──messages──▶ pack ──▶ outgoing ──▶ broker

It listens before it leads (leadership.py), and says and does nothing for any job while it does not. Everything it wants
retained is sent again at every connect, from the store: a broker that lost all it knew is told again. What a job's own
code throws stays that job's (jobs.py). `step` does one thing and returns: a simulator drives many of these in a thread.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path

from msgspec import structs

from aggregator import leadership, projection
from aggregator.comings import Comings
from aggregator.commands import Commands
from aggregator.config import AggregatorConfig
from aggregator.executor import Inline
from aggregator.guard import Guard
from aggregator.jobs import RELOAD_S, Jobs, Resting
from aggregator.leadership import Leadership, Me
from aggregator.projection import Clear, Out, Question
from aggregator.roster import Roster
from aggregator.run import Run
from aggregator.signed import SignedSpec
from aggregator.spool import SpoolError
from aggregator.starting import Given
from aggregator.store import TAKE_OVER, Store, StoreError
from aggregator.takeover import Cutter
from broker import reasons
from broker.errors import WireError
from broker.messages import Beacon, Candidate, Chunk, Command, Head, Job, Offer, Presence, Reply, Version
from broker.outgoing import Outgoing
from broker.seal import ForgedError, Refusals
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, Transport, TransportEvent
from broker.wire import Wire, levels
from models.budget import Capacity
from models.job import JobSpec
from runtime.faults import Marks
from runtime.tally import Tally

log = logging.getLogger(__name__)

_REFUSED = {
    "unsigned": "this fleet takes signed commands alone: name your key in [identity] of operator.toml",
    "forged": "the aggregator does not have your key among the pinned ones: give it the trust.json that names you "
    "([identity] trust in aggregator.toml) and start it again",
}
"""What a command is answered that nobody has proved to be an operator's."""

LISTENS_TO = ("aggregator", "candidate")
"""The words of the topic table that every aggregator subscribes to."""
LEADS_WITH = ("head", "device", "command", "query")
"""Those that the one which leads subscribes to beside. What is retained comes in this order, the heads first: a device
that is not there may be the last that a round waited for, and a store that is older than its head has to know it then.
"""
SAID_ONCE = ("offer", "chunk")
"""And those under which nothing is to be retained: whoever does so is to be noticed at once."""
MOST_FOREIGN = 256
MOST_AT_ONCE = 64
MOST_BYTES_AT_ONCE = 4 * 2**20
"""What is taken from the broker before verdicts are written: updates wait in memory meanwhile."""
COMPANY_S = 0.01
"""How long an update that is not the last of its round waits for others to be written with it: they share a sync."""
SETTLE_S = 0.2
"""After connecting, how long retained messages may take to arrive before the beacon is published over them."""
READ_AGAIN_S = 600.0
READ_AGAIN_EACH_S = 0.5
"""Presences are read again from the broker this often, or so long for each device: it may have dropped one's word."""
HEADS_S = 1.0
"""A head that is not this one's is written over after this long: its own may be on their way back."""
BURY_S = 60.0
"""That a job was deleted is said to devices that have it no more often than this."""


class ReplacedError(RuntimeError):
    """Another aggregator leads this fleet, and this one was told to exit then."""


class SessionTakenOverError(RuntimeError):
    """Another client has connected under this aggregator's client id: the broker has hung up on this one."""


class Aggregator:
    """All jobs of one fleet.

    transport: opened by `start`, without a last will. wire: that of the fleet in `config`. take_over: lead whoever else
    does. exit_when_replaced: raise ReplacedError instead of standing by. clock: seconds that only go forward. token:
    draws the end of a job's id. executor: where versions are evaluated; in the loop where none is given. It is its
    owner's to shut down. cutter: ends the connections of devices that flood. capacity: what its process may take for
    jobs; no limit where none is given.
    """

    def __init__(
        self,
        config: AggregatorConfig,
        store: Store,
        transport: Transport,
        wire: Wire,
        *,
        nonce: str,
        take_over: bool = False,
        exit_when_replaced: bool = False,
        clock: Callable[[], float] = time.monotonic,
        token: Callable[[], str] = lambda: secrets.token_hex(4),
        marks: Marks | None = None,
        executor: Executor | None = None,
        cutter: Cutter | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        self.config = config
        self.nonce = nonce
        self.tally = Tally()
        self.refusals = Refusals()
        self.roster = Roster()
        self.store = store
        self.clock = store.events.clock = clock
        self.roster.quarantined = store.quarantined()
        self._comings = Comings(store.events)
        marks = marks if marks is not None else Marks(Path(config.state_dir) / "entered")
        self.jobs = Jobs(
            *(store, config, self.roster, marks, wire),
            clock=clock,
            token=token,
            send=self._send,
            executor=Inline() if executor is None else executor,
            wake=transport.wake,
            capacity=capacity,
        )
        take_over = take_over or store.note(TAKE_OVER) != ""
        self.leadership = Leadership(self._me(), take_over=take_over, draw=token, wary=wire.seal.signs)
        self._took_over = take_over
        self.foreign: dict[str, Version] = {}
        """Jobs that lie at the broker, and that this store has never known."""
        self._exit_when_replaced = exit_when_replaced
        self._led = False
        self._transport = transport
        self._wire = wire
        self._out = Outgoing(transport, "aggregator.published")
        self.guard = Guard(
            *(config.limits, store, transport, wire, self._out),
            now=clock(),
            cutter=cutter,
            refuse=self._refuse,
            devices=lambda: self.roster.devices,
            reconnect=lambda: transport.renew(self._will(), hurry=True),
        )
        self._commands = Commands(self)
        self._roll = 0
        self._buried: dict[str, float] = {}
        """Deleted job to when that was said last to who still has it."""
        self._heads: set[str] = set()
        """Jobs at whose heads somebody else has said something."""
        self._say_heads_at = math.inf
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
            claim=store.claim,
            empty=not any(row.ended != "deleted" for row in store.jobs()),
            former=former,
            replaced="" if restored else store.note("replaced"),
            restored=restored,
        )

    @property
    def runs(self) -> dict[str, Run]:
        """The jobs that are at work."""
        return self.jobs.runs

    @property
    def resting(self) -> dict[str, Resting]:
        """The jobs that are at rest."""
        return self.jobs.resting

    @property
    def term(self) -> int:
        """What this aggregator leads under, or has led under last."""
        return self.jobs.term

    # The loop.

    def start(self) -> None:
        """Start connecting."""
        self.store.events.note("aggregator.started", f"aggregator {self.nonce} was started")
        self._transport.subscribe(*self._filters(LISTENS_TO))
        self._transport.open()

    def _filters(self, words: Iterable[str]) -> list[str]:
        return [self._wire.filter_for(word) for word in words]

    def step(self, timeout_s: float = 1.0) -> bool:
        """Take what has come, or let time pass; False when nothing happened.

        What came in one go is weighed first and made durable in one.

        Raises ReplacedError when another aggregator leads and this one was told to exit then, SessionTakenOverError
        when another client has its id, and StoreError when the state directory cannot be written as this one begins to
        lead.
        """
        event, taken, n_bytes = self._transport.take(self._patience(timeout_s)), 0, 0
        since = self.clock()
        while event is not None:
            self._receive(event)
            taken += 1
            n_bytes += len(event.payload) if isinstance(event, Packet) else 0
            has_room = max(n_bytes, self.jobs.unsettled_bytes) < MOST_BYTES_AT_ONCE
            event = self._more(since) if taken < MOST_AT_ONCE and has_room else None
        self.jobs.settle()
        self._tick()
        self.jobs.settle()  # what waited for room, and has found it
        if self.leads:
            self._send(self._commands.answers())
        self._out.pump()
        self.jobs.prepare()
        return taken > 0

    def _more(self, since: float) -> TransportEvent | None:
        """Return what has come as well; an update waits a little for others of its round, as a sync costs them all."""
        event = self._transport.take(0.0)
        if event is None and (left := since + COMPANY_S - self.clock()) > 0 and self.jobs.expects_more:
            event = self._transport.take(left)
        return event

    def stop(self) -> None:
        """Say goodbye to the fleet, if this one has led it, and note that no job is to blame for the end."""
        self.jobs.step_out()
        self.guard.release()
        if self._out.online and self.leads:
            self._transport.publish(self._wire.pack(self._beacon(online=False)))
        self._transport.close()
        self._write_events()

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
            who = f"aggregator {leader.nonce if leader else '?'}"
            if not self.leadership.gone:
                return f"standing by: {who} leads"
            more = ", and --take-over makes this one lead" if self.leadership.stays else ""
            return f"standing by: {who} led, and is not there now{more}"
        if not self.leads:
            return "listening whether somebody leads"
        phrases = [f"{run.spec.name} {run.coordinator.state} at version {run.version}" for run in self.runs.values()]
        phrases += [f"{rest.name} at rest" for rest in self.resting.values()]
        return "; ".join(phrases) or "no job"

    @property
    def deadline(self) -> float:
        """When `step` has something to do, if nothing is received before; inf for never."""
        own = (self._settled_at, self._read_again_at, self._rise_at, self._say_heads_at, self.leadership.deadline)
        told = min(self.store.events.deadline, self._comings.deadline)
        mine = min(*own, told, self.jobs.deadline, self.jobs.inbox.deadline)
        return min(mine, self.guard.deadline) if self.leads and self._out.online else mine

    def _patience(self, timeout_s: float) -> float:
        wait = min(timeout_s, self.deadline - self.clock())
        return max(0.0, min(wait, 0.005) if len(self._out) else wait)

    def _tick(self) -> None:
        now = self.clock()
        if now >= self.leadership.deadline:
            self._follow(self.leadership.tick(now))
        if now >= self._rise_at:
            self._rise()
        if now >= self._say_heads_at:
            heads, self._heads, self._say_heads_at = self._heads, set(), math.inf
            self._send([projection.head(self.runs[job]) for job in sorted(heads) if job in self.runs])
        if now >= self._settled_at:
            self._settled_at = math.inf
            self._reconcile()
        if now >= self._read_again_at:
            self._read_again()
        for device in self._wire.seal.revoked():
            self._revoke(device)
        self.jobs.tick(now)
        if self.leads and self._out.online:
            self.guard.tick(now, set(self.runs))
        if now >= self.jobs.inbox.deadline:
            self.jobs.inbox.tick(now)
        if self.jobs.inbox.has_called:
            for offer in self.jobs.inbox.call(now):
                self._weigh(offer)
        self._comings.tick(now)
        self.store.events.turn(now)
        if self.store.events.is_due(now):
            self._write_events()

    def _write_events(self) -> None:
        """Write what has happened, where nothing has been written for a while that took it along."""
        try:
            self.store.write_events()
        except StoreError as error:
            self.store.events.put_off(self.clock())
            log.warning("what has happened cannot be written down: %s", error)

    # Events.

    def _receive(self, event: TransportEvent) -> None:
        match event:
            case Packet():
                self._hear(event)
            case Online(max_packet_bytes):
                log.info("online")
                self._come_online(max_packet_bytes)
            case Offline(reason):
                if self._out.online:
                    log.log(logging.INFO if reason == reasons.RENEWED else logging.WARNING, "offline: %s", reason)
                self._out.online = False
                self._out.clear()
                self._settled_at = self._read_again_at = self._say_heads_at = math.inf
                self.jobs.disconnected()
                self.guard.lost(self.clock())
                self._follow(self.leadership.receive(leadership.Lost(), self.clock()))
            case Denied(topic, reason):
                log.error("the broker refuses topic=%s: %s", topic, reason)
                self.jobs.be_denied(levels(topic), reason)
            case SessionTakenOver():
                raise SessionTakenOverError("another client has connected under this aggregator's client id")

    def _come_online(self, packet_bytes: int | None) -> None:
        now = self.clock()
        self._out.online = True
        self.roster.doubt()
        self.guard.connected(now)
        self.jobs.connected(packet_bytes)
        self._follow(self.leadership.receive(leadership.Connected(), now))
        if self.leads:
            self._roll += 1
            self._settled_at = now + SETTLE_S
            self._read_again_at = now + READ_AGAIN_S
            self._buried.clear()
            self.foreign.clear()

    def _hear(self, packet: Packet) -> None:
        now = self.clock()
        if self.leads and not self.guard.admits(packet, now):
            return
        try:
            message = self._wire.unpack(packet)
        except ForgedError as error:
            self._hear_forged(error, packet)
            return
        except WireError as error:
            self._refuse("garbage", f"topic={packet.topic[:120]!r}: {error}")
            if self.leads and not packet.retain:
                self._write_over(levels(packet.topic))
            return
        match message:
            case Beacon():
                heard = leadership.Heard(message, live=not packet.retain)
                self._follow(self.leadership.receive(heard, now))
            case Candidate():
                self._follow(self.leadership.receive(message, now))
            case _ if not self.leads:
                pass
            case Presence():
                self._see(message, live=not packet.retain and self._wire.is_fresh(message))
            case Head():
                self._read_head(message, live=not packet.retain)
            case _ if packet.retain:
                self._refuse("retained", f"topic={packet.topic[:120]!r}: it is said once, and not to be kept")
            case Offer():
                self._weigh(message)
            case Chunk():
                self._collect(message)
            case _ if isinstance(message, Command):
                reply = self._commands.obey(message)
                self._send([] if reply is None else [reply])
            case _:
                pass  # our own words, cleared topics

    def _hear_forged(self, error: ForgedError, packet: Packet) -> None:
        """Count what nobody has proved to be his; ask who may be a device that this life does not know yet."""
        message = error.message
        self.store.events.count(error.kind)
        if told := self.refusals.count(error, packet.topic, self.clock()):
            log.error("%s", told)
        if not self.leads:
            return
        if error.kind == "stranger" and isinstance(message, Offer):
            if message.device not in self.roster.devices:
                self.roster.hear(message.device, self.clock())
            self._question(message.device, self.clock())
        elif error.kind in _REFUSED and isinstance(message, Command):
            self._send([Reply(message.client, message.request, ok=False, text=_REFUSED[error.kind])])

    def _revoke(self, device: str) -> None:
        """Hold a device whose words are not taken any more for gone."""
        known = self.roster.devices.get(device)
        log.warning("device=%s is revoked, or was enrolled anew: what its former key says is refused", device)
        if known is not None:
            self._see(structs.replace(known.presence, online=False), live=True)

    # Leading.

    def _follow(self, effects: Iterable[leadership.Effect]) -> None:
        """Carry out what leading, or not, asks for. Raises ReplacedError or StoreError."""
        for effect in effects:
            match effect:
                case leadership.AskWhoLeads():
                    me = self.leadership.me
                    self._out.put(self._wire.pack(Candidate(me.nonce, me.term, me.claim, me.empty)))
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
        words = {"claim": str(claim), "nonce": self.nonce, "replaced": "", "restored": "", TAKE_OVER: ""}
        for name, value in words.items():
            if self.store.note(name) != value:
                self.store.set_note(name, value)
        told = f"aggregator {self.nonce} leads fleet {self.config.fleet} under term {term}"
        with self.store.events.told("aggregator.leads", told):
            self.jobs.term = self.store.raise_term(term)
        log.info("leads fleet=%s term=%d store=%s", self.config.fleet, self.term, self.store.identity)
        self._led = True
        self.jobs.load_all()
        self._out.clear()
        self._transport.subscribe(*self._filters(LEADS_WITH))
        self._transport.subscribe(*self._filters(SAID_ONCE), as_published=True)
        self._transport.renew(self._will())

    def _rise(self) -> None:
        """Say everything again under a higher term, once that is durable."""
        self._rise_at = math.inf
        try:
            self.jobs.lead(self.store.raise_term(self.leadership.me.term))
        except StoreError as error:
            log.error("the term cannot be raised: %s; trying again in %g s", error, RELOAD_S)
            self.store.events.note("store.failed", f"the term cannot be raised: {error}")
            self._rise_at = self.clock() + RELOAD_S
            return
        self.leadership.me.term = self.term
        self._say_everything()

    def _stand_down(self, leader: Beacon, replaced: str) -> None:
        led, self._led = self._led, False
        log.error(
            "another aggregator leads fleet=%s nonce=%s term=%d store=%s: this one (nonce=%s term=%d store=%s) stands "
            "by; start it with --take-over if it shall lead",
            *(self.config.fleet, leader.nonce, leader.term, leader.store),
            *(self.nonce, self.term, self.store.identity),
        )
        told = f"aggregator {leader.nonce} leads: {self.nonce} stands by"
        self.store.events.note("aggregator.stands_by", told)
        self._comings.forget()
        self._commands.forget_begun()
        self.jobs.drop_all()
        self._out.clear()
        self._settled_at = self._read_again_at = self._rise_at = self._say_heads_at = math.inf
        if replaced != self.store.note("replaced"):
            try:
                self.store.set_note("replaced", replaced)
            except StoreError as error:
                log.error("that it was replaced cannot be written down: %s", error)
        self.guard.stand_down()
        self._transport.unsubscribe(*self._filters((*LEADS_WITH, *SAID_ONCE)))
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
            asks=self.leadership.asks if online else "",
            answers=self.leadership.answers if online else "",
        )

    def _will(self) -> Packet:
        """Return the last will. It cannot say that there is no job: one may be submitted after it was left."""
        return self._wire.pack(structs.replace(self._beacon(online=False), empty=False))

    def _read_head(self, head: Head, live: bool) -> None:
        """Look back at what a head knows of a job; or note that there is one that belongs to another store.

        What is said now at a job's topic, and is not what this one says there, does not stay.
        """
        self.jobs.look_back(head.job, head.version)
        run = self.runs.get(head.job)
        if live and run is not None and head != projection.head(run):
            self._write_over(["head", head.job])
        if head.job in self.runs or head.job in self.resting or self.jobs.was_deleted(head.job):
            self.foreign.pop(head.job, None)
        elif len(self.foreign) < MOST_FOREIGN:
            self.foreign[head.job] = head.version

    def _write_over(self, levels: list[str]) -> None:
        """Say again what belongs at a topic of this one's own, where somebody has said something else."""
        match levels:
            case ["aggregator"]:
                self._follow(self.leadership.hear_nonsense(self.clock()))
            case ["head", job] if job in self.runs:
                self._say_heads_at = min(self._say_heads_at, self.clock() + HEADS_S)
                self._heads.add(job)

    # Devices.

    def _see(self, presence: Presence, live: bool) -> None:
        known = self.roster.devices.get(presence.device)
        before = None if known is None else known.presence
        sight = self.roster.see(presence, live=live, now=self.clock())
        if live:
            self._comings.hear(before, presence, sight, self.clock(), self.runs)
        if sight.told:
            say = log.error if sight.alarm else log.warning
            if not sight.alarm or self.tally.count("clone"):
                say("device=%s: %s", presence.device, sight.told)
        if sight.kind == "full":
            self._refuse("roster full", f"device={presence.device}")
        if self._wire.seal.signs and self._is_passed_over(presence):
            self._follow(self.leadership.hear_term(presence.term, self.clock()))
        if sight.kind != "news":
            return
        self.guard.note_device(presence.device)
        for job in list(self.runs):
            self.jobs.tell(job, presence.device, live=live)
        for job, version in presence.done.items():
            self.jobs.look_back(job, version, presence.device, done=True)
        for job, version in presence.ahead.items():
            self.jobs.look_back(job, version, presence.device)
        for job in presence.unready.keys() - self.runs.keys():
            if self.clock() >= self._buried.get(job, -math.inf) + BURY_S and self.jobs.was_deleted(job):
                self._buried[job] = self.clock()
                self._out.put(structs.replace(self._wire.pack(Job(job, self.term)), retain=False))
        if presence.term > self.term:
            self._follow(self.leadership.hear_term(presence.term, self.clock()))

    def _is_passed_over(self, presence: Presence) -> bool:
        """Return whether a device goes by another life of an aggregator, under a term that is not lower than this."""
        goes_by_another = presence.to != "" and not self._wire.is_fresh(presence)
        return presence.term > self.term or (presence.term == self.term and goes_by_another)

    def _ask(self, device: str, heard_at: float = math.inf) -> None:
        """Find out whether a device is still there, of which some job has heard nothing since then."""
        now = self.clock()
        if self.roster.is_alive(device, now, since=heard_at):
            # It is busy with another job, and has as good as answered.
            for job in list(self.runs):
                self.jobs.tell(job, device, live=True)
        else:
            self._question(device, now)

    def _question(self, device: str, now: float) -> None:
        if (absent := self.roster.ask(device, now)) is not None:
            # Not retained: an answer that is lost must not leave a device for gone that is there.
            self._out.put(structs.replace(self._wire.pack(absent), retain=False))

    def _weigh(self, offer: Offer) -> None:
        if self.roster.hear(offer.device, self.clock(), offer.job if offer.job in self.runs else ""):
            self._ask(offer.device)
        if offer.job in self.runs:
            self.jobs.look_back(offer.job, offer.base, offer.device)
            self.jobs.inside(offer.job, lambda run, now: run.handle(offer, now))
        elif offer.job in self.resting:
            pass  # it is offered again, and the job may come back
        elif self.jobs.was_deleted(offer.job):
            self._send([self._commands.refusal_of_deleted(offer)])
        else:
            # Only who knows the job may end an update: it is offered again, and the right aggregator may come back.
            self._refuse("unknown job", f"job={offer.job} device={offer.device}: is this the right state directory?")

    def _collect(self, chunk: Chunk) -> None:
        try:
            complete = self.jobs.inbox.add(chunk, self.clock())
        except WireError as error:
            self._refuse("bad chunk", f"job={chunk.job} device={chunk.device}: {error}")
            return
        except SpoolError as error:
            self._refuse("no room on disk", f"job={chunk.job} device={chunk.device}: {error}")
            return
        if complete is not None:
            self._weigh(complete)

    def _refuse(self, kind: str, detail: str) -> None:
        self.store.events.count(kind)
        if self.tally.count(kind):
            log.warning("refused %s (%d so far) %s", kind, self.tally.counts[kind], detail)

    def submit(
        self, spec: JobSpec, request: str = "", signed: SignedSpec | None = None, start: Given | None = None
    ) -> str:
        """Start a job and return its id. signed: the specification as an operator has signed it, where one has.
        start: weights that it starts from.

        Raises what `Jobs.submit` raises, and ValueError where this store is empty and the fleet has jobs: with a job of
        its own it would outrank the store that they belong to.
        """
        if self.leadership.me.empty and self.foreign and not self._took_over:
            theirs = ", ".join(self.foreign)[:200]
            raise ValueError(
                f"this aggregator has no job, and at the broker lie those of another store ({theirs}): is this the "
                "right state directory? If that store is lost for good, start this one with --take-over"
            )
        job = self.jobs.submit(spec, request, signed, start)
        if self.leadership.me.empty:
            self.leadership.me.empty = False
            self._send([self._beacon()])
        return job

    # Sending.

    def _reconcile(self) -> None:
        """Send everything that should be retained; who asks for more than that asks again by himself."""
        self._out.clear()
        self._say_everything()

    def _say_everything(self) -> None:
        self._send([self._beacon()])
        self.jobs.say_everything()

    def _read_again(self) -> None:
        """Ask the broker for the retained presences once more."""
        self._read_again_at = self.clock() + max(READ_AGAIN_S, READ_AGAIN_EACH_S * len(self.roster.devices))
        if self.guard.is_cordoned("device"):
            return
        name = self._wire.filter_for("device")
        self._transport.unsubscribe(name)
        self._transport.subscribe(name)

    def _send(self, messages: Iterable[Out]) -> None:
        questions: dict[str, float] = {}
        for message in messages:
            match message:
                case Clear():
                    self._out.put(self._wire.clear(message.message))
                case Question(devices):
                    questions |= devices
                case _:
                    self.guard.note(message)
                    self._out.put(self._wire.pack(message))
        for device, heard_at in questions.items():  # last: what follows from an answer comes after all of this
            self._ask(device, heard_at)
        self._out.pump()
