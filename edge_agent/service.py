"""The agent as a process: one loop between the broker, the jobs of this device, and its one training.

    broker ──packets──▶ unpack ──messages──▶ work (participant) ──messages──▶ pack ──▶ outgoing ──▶ broker
                                               │        ▲
                                               ▼        └ a slice of training whenever nothing is to be heard
                                             model slots, each behind a thread that only waits for its child process

The network may do what it likes: being offline changes nothing but what is sent, and nothing is kept to be sent later
that would be said again anyway. What a job's own code throws stays that job's (jobs.py).
`step` does one thing and returns, so that a simulator can drive many of these in one thread.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from broker.errors import WireError
from broker.messages import Beacon, Body, Head, Job, Offer, Presence, Round, Verdict, Version, Want
from broker.outgoing import Outgoing
from broker.seal import ForgedError, Refusals
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, Transport, TransportEvent
from broker.wire import Wire, levels
from edge_agent.activity import Activity
from edge_agent.config import AgentConfig
from edge_agent.heard import Heard
from edge_agent.home import Home
from edge_agent.jobs import Jobs
from edge_agent.presence import Announcer
from edge_agent.reading import Readings, Start, inline
from edge_agent.resend import up_to
from edge_agent.resources import Resources
from edge_agent.slots import Calibrate, Install, Slots
from edge_agent.teller import Teller
from edge_agent.textfile import Textfile
from edge_agent.work import Work
from edge_agent.workspace import Out, Subscribe, Unsubscribe
from models.budget import Capacity
from models.data import source
from models.data.source import Opener
from runtime.faults import Marks
from runtime.tally import Tally

if TYPE_CHECKING:
    from edge_agent.live.listeners import Live  # which few devices have
    from edge_agent.renewal import Renewal

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 0.2
"""After connecting, how long retained jobs may take to arrive before this device says what it can take part in."""
DENY_S = 2.0
"""What somebody else says in this device's name is denied after this long: its own last word may be on its way back."""
MEND_VITALS = "bring the broker's access list up to date (deploy/mosquitto/acl), or set [vitals] every_s = 0"
MOST_JOBS = 256
"""Jobs that a presence has room for."""


class ClonedError(RuntimeError):
    """Another process has connected under this device's name."""


def will(wire: Wire, home: Home) -> Packet:
    """Return the last will: this life of the device is over."""
    gone = Presence(home.device, home.boot, online=False, incarnation=home.incarnation, nonce=home.nonce)
    return wire.pack(gone)


class Agent:
    """One device on one fleet.

    home: its state directory, open. transport: opened by `start`. wire: that of the fleet in `config`. clock: seconds
    that only go forward. open_source: what makes a data source of its settings. start_reading: where data are read
    (reading.py). slots: where models are put into service; made here where none are given. resources: what it shares
    with others in its process; nothing where none are given. capacity: what its process may take for jobs; no limit
    where none is given. renewal: of its certificate, where it has one. live: its live sources, where it has any.
    """

    most_at_once = 64
    """Events that are taken in a step, before the time is looked at again; 1 where who looks on wants to see each."""

    def __init__(
        self,
        config: AgentConfig,
        home: Home,
        transport: Transport,
        wire: Wire,
        *,
        clock: Callable[[], float] = time.monotonic,
        software: str = "",
        open_source: Opener = source.open,
        start_reading: Start = inline,
        slots: Slots | None = None,
        marks: Marks | None = None,
        resources: Resources | None = None,
        capacity: Capacity | None = None,
        renewal: Renewal | None = None,
        live: Live | None = None,
    ) -> None:
        self.config = config
        self.home = home
        self.device = home.device
        self.tally = Tally()
        self._transport = transport
        self._renewal = renewal
        self._live = live
        self._live_trouble: Mapping[str, str] = _NOTHING
        self._wire = wire
        self._clock = clock
        self._out = Outgoing(transport, "agent.published")
        self._heard = Heard(home.folder, home.disk, keys=wire.seal.pinned) if wire.seal.trusts else None
        self._term = 0
        if self._heard is not None:
            self._term = self._heard.term
            wire.seal.start_from(self._term)
        self._refusals = Refusals() if wire.seal.trusts else None
        self._leader_term = 0
        self._roll: tuple[str, int] | None = None
        self._session_with = ""
        """The life of the aggregator that this device has agreed on a session with."""
        self._spread_s = 0.0
        self._resources = resources or Resources()
        self._rng = self._resources.jitter(f"{home.device}/{home.boot}/{home.nonce}")
        self._announcer = Announcer(config.limits.presence_s)
        self._teller: Teller | None = None
        if every_s := config.vitals.every_s:
            file = config.vitals.textfile
            textfile = Textfile(Path(file), software) if file else None
            self._teller = Teller(every_s, home, wire, transport.counters, self._resources, clock(), textfile)
        self._is_led = False
        self._has_asked = False
        """Whether this connection was asked once more for what is retained on a wildcard."""
        self._own_word = 0
        """Checksum of the presence that was sent last."""
        self._deny_at = math.inf
        self._said: Presence | None = None
        """What there was to say of this device when its jobs last changed."""
        self._software = software
        if slots is None and config.models.inference:
            slots = Slots(home.folder, config.models.allow, wake=transport.wake, keep=config.models.keep)
        marks = marks if marks is not None else Marks(home.folder / "entered", software)
        self.jobs = Jobs(
            config,
            home,
            wire,
            clock=clock,
            open_source=open_source,
            readings=Readings(start_reading, marks),
            marks=marks,
            slots=slots,
            send=self._send,
            resources=self._resources,
            capacity=capacity,
            heard=self._heard,
        )

    # The loop.

    def start(self) -> None:
        """Start connecting."""
        wire, device = self._wire, self.device
        self._transport.subscribe(
            wire.filter_for("aggregator"),
            wire.filter_for("job"),
            wire.filter_for("want", device=device),
            wire.filter_for("verdict", device=device),
            wire.filter_for("device", device=device),
        )
        self._transport.open()
        if self._live is not None:
            self._live.start()

    def step(self, timeout_s: float = 1.0) -> bool:
        """Take what has come, or a slice of training, or let time pass; False when nothing happened.

        Raises ClonedError when another process has connected under this device's name.
        """
        busy = self.jobs.next_turn()
        event, taken = self._transport.take(0.0 if busy else self._patience(timeout_s)), 0
        if event is None and busy is not None:
            self.jobs.train(busy)
        while event is not None:
            self._receive(event)
            taken += 1
            event = self._transport.take(0.0) if taken < self.most_at_once else None
        self._tick()
        self._out.pump()
        return taken > 0 or busy is not None

    def stop(self) -> None:
        """Say goodbye; what is unfinished is on disk or will be done again."""
        self.jobs.pause()
        if self._out.online:
            self._transport.publish(will(self._wire, self.home))
        self._transport.close()
        if self._live is not None:
            self._live.stop()
        if self._renewal is not None:
            self._renewal.close()
        if self.jobs.slots is not None:
            self.jobs.slots.close()

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
        return self.jobs.busy

    @property
    def deadline(self) -> float:
        """When `step` has something to do, if nothing is received before; inf for never."""
        looks_at = math.inf if self._teller is None or not self._out.online else self._teller.pace.look_at
        return min(self.jobs.deadline, self._announces_at, self._deny_at, looks_at)

    def _patience(self, timeout_s: float) -> float:
        if timeout_s <= 0.0:
            return 0.0
        wait = min(timeout_s, self.deadline - self._clock())
        return max(0.0, min(wait, 0.005) if len(self._out) else wait)

    def _tick(self) -> None:
        now = self._clock()
        self.jobs.tick(now)
        if self._live is not None and (said := self._live.trouble()) is not self._live_trouble:
            self._live_trouble, self.jobs.changed = said, True
        if now >= self._deny_at:
            self._deny_at = math.inf
            self._announcer.forget(now, 0.0)
        if self._renewal is not None:
            self._renewal.tick(now, online=self._out.online)
        if self._announces_at <= now:
            presence = self._said = self._presence()
            if self._announcer.allows(presence, now):
                packet = self._wire.pack(presence)
                self._own_word, self._deny_at = zlib.crc32(packet.payload), math.inf
                self._out.put(packet)
        if self._teller is not None and self._out.online and now >= self._teller.pace.look_at:
            vitals = self._teller.tell(now, self._activity, lambda: self.jobs.serves)
            if vitals is not None:
                self._out.put(vitals)

    def _activity(self) -> Activity:
        return self.jobs.activity(is_led=self._is_led, sends=len(self._out) > 0)

    @property
    def _announces_at(self) -> float:
        """When to announce what there is to say, which is put together anew where jobs have changed; inf for never."""
        if not self._out.online:
            return math.inf
        if self._clock() < self._announcer.not_before:
            return self._announcer.not_before
        if self._said is None or self.jobs.changed:
            self._said, self.jobs.changed = self._presence(), False
        return self._announcer.due_at(self._said)

    # Events.

    def _receive(self, event: TransportEvent) -> None:
        match event:
            case Packet():
                self._hear(event)
            case Online(max_packet_bytes):
                log.info("online")
                self._out.online, self._has_asked = True, False
                self._announcer.forget(self._clock(), SETTLE_S + up_to(self._rng, self._spread_s))
                self._tell_again()
                self.jobs.connected(max_packet_bytes)
            case Offline(reason):
                if self._out.online:
                    log.warning("offline: %s", reason)
                self._out.online = self._is_led = False
                self._out.clear()
                self._deny_at = math.inf
                self.jobs.disconnected()
            case Denied(topic, reason):
                log.error("the broker refuses topic=%s: %s", topic, reason)
                if self._teller is not None and topic == self._teller.topic:
                    log.error("no vitals are said over this connection: %s", MEND_VITALS)
                    self._teller.stop()
                self.jobs.be_denied(levels(topic), reason)
            case SessionTakenOver():
                raise ClonedError(f"another client has connected as {self.device}: two devices share this id")

    def _hear(self, packet: Packet) -> None:
        if self._renewal is not None and packet.topic == self._renewal.topic:
            self._renewal.hear(packet)
            return
        try:
            message = self._wire.unpack(packet)
        except ForgedError as error:
            if self._refusals is not None and (told := self._refusals.count(error, packet.topic, self._clock())):
                log.error("%s", told)
            return
        except WireError as error:
            self._count_garbage(packet.topic, error)
            return
        if self._heard is not None:
            self._heard.note_term(self._wire.seal.term)
        match message:
            case Job():
                if packet.retain:  # by a filter with a wildcard
                    self.jobs.note_wildcards()
                self.jobs.meet(message)
            case Head() | Round() | Want() | Verdict():
                self.jobs.pass_on(message.job, message)
            case Body():
                self.jobs.take(message)
            case Beacon():
                self._greet(message, live=not packet.retain)
            case Presence():
                self._hear_of_self(message, zlib.crc32(packet.payload), live=not packet.retain)
            case _:
                pass  # cleared topics

    def _count_garbage(self, topic: str, error: WireError) -> None:
        if self.tally.count("garbage"):
            log.warning("refused garbage topic=%r: %s", topic[:120], error)

    def _greet(self, beacon: Beacon, live: bool) -> None:
        """Note who leads. Answer a roll call, and offer again what may have been said to nobody.

        That is so when another one leads, or one at last, and when the connection of the one that leads is a new one.
        The term is that of the last one who said so now: what was heard before of a higher one was forged, or its
        sender leads no more.
        """
        self._is_led = beacon.online
        if not beacon.online:
            return
        insists = live and beacon.term == self._leader_term
        self._spread_s, self._leader_term = beacon.spread_s, beacon.term
        if not self._wire.seal.goes_by(beacon):
            self._leader_term -= 1  # it has to hear that it must rise above the term that both have
        self.jobs.greet(beacon.spread_s, beacon.term if live else max(beacon.term, self._term))
        came_back = False
        if (beacon.nonce, beacon.roll) != self._roll:
            is_first, self._roll = self._roll is None, (beacon.nonce, beacon.roll)
            came_back = live or not is_first  # a first one that is said now: until now nobody led
            wait_s = up_to(self._rng, beacon.spread_s)
            self._announcer.forget(self._clock(), max(SETTLE_S, wait_s) if is_first else wait_s)
            self._tell_again()
        if beacon.term > self._term:
            came_back, self._term = came_back or self._term > 0, beacon.term
        elif insists:
            self._term = beacon.term  # it was told of the higher one, or nobody can hear that it was not
        if self._wire.seal.session_with != self._session_with:  # which could check nothing that was said before
            came_back, self._session_with = True, self._wire.seal.session_with
            self._announcer.forget(self._clock(), up_to(self._rng, beacon.spread_s))
        if came_back:
            self.jobs.say_again()

    def _tell_again(self) -> None:
        """Say again how the device is: the broker may have lost it."""
        if self._teller is not None:
            self._teller.forget(self._clock(), self._spread_s)

    def _hear_of_self(self, presence: Presence, word: int, live: bool) -> None:
        """Put right what is said of this device: that it is gone, by a late will or as a question; or by another.

        word: checksum of what was said. What this device said last itself comes back to it, and needs no denial.
        """
        mine = presence.life == self.home.nonce
        if presence.online and live:
            wait_until = min(self._deny_at, self._clock() + DENY_S)
            self._deny_at = math.inf if word == self._own_word else wait_until
        if not presence.online and (live or mine or presence.boot >= self.home.boot):
            self._announcer.forget(self._clock(), 0.0)
            if self._wire.seal.trusts and live and not presence.exchange:  # whoever asks may not know our session
                self.jobs.say_again()
        elif presence.online and live and not mine and self.tally.count("clone"):
            log.error(
                "another process speaks as device=%s: incarnation=%s boot=%d nonce=%s, this one is %s, %d, %s",
                *(self.device, presence.incarnation, presence.boot, presence.nonce),
                *(self.home.incarnation, self.home.boot, self.home.nonce),
            )

    # What is said of all of it.

    @property
    def works(self) -> dict[str, Work]:
        """The jobs that this device works on."""
        return self.jobs.works

    def _presence(self) -> Presence:
        ready: dict[str, int] = {}
        done: dict[str, Version] = {}
        ahead: dict[str, Version] = {}
        for job, work in self.works.items():
            ready[job] = work.n_examples
            part = work.participant
            if part.done is not None:
                done[job] = part.done
            if part.ahead is not None:
                ahead[job] = part.ahead
        return Presence(
            self.device,
            self.home.boot,
            online=True,
            labels=self.config.labels,
            ready=_few(ready),
            unready=_few(self.jobs.unready),
            software=self._software,
            incarnation=self.home.incarnation,
            nonce=self.home.nonce,
            failed=_few(self.jobs.failed),
            done=_few(done),
            ahead=_few(ahead),
            trouble=_few(self._trouble()),
            term=self._term if self._term > self._leader_term else 0,
            int8=_few(self.jobs.int8),
        )

    def _trouble(self) -> Mapping[str, str]:
        """Return job to what an operator should look at: of the job itself, or else of its live source."""
        if not self._live_trouble:
            return self.jobs.trouble
        known = ((job, self._live_trouble.get(data)) for job, data in self.jobs.sources())
        return {job: f"its data: {said}" for job, said in known if said} | dict(self.jobs.trouble)

    # Sending.

    def _send(self, messages: Iterable[Out]) -> None:
        for message in messages:
            match message:
                case Subscribe(filters, again=True):  # all jobs want the same: to see what this connection brings
                    if not self._has_asked:
                        self._has_asked = True
                        self._transport.subscribe(*filters, again=True)
                case Subscribe(filters):
                    self._transport.subscribe(*filters)
                case Unsubscribe(filters):
                    self._transport.unsubscribe(*filters)
                case Install():
                    if self.jobs.slots is not None:
                        self.jobs.slots.put(message)
                case Calibrate():
                    if self.jobs.slots is not None:
                        self.jobs.slots.calibrate(message)
                case Offer():
                    self._offer(message)
                case _:
                    self._out.put(self._wire.pack(message))
        self._out.pump()

    def _offer(self, offer: Offer) -> None:
        """Send an offer, with who it is from where the aggregator cannot know that; it is made again at each beacon of
        another life, so nothing is lost where it could not be proved yet.
        """
        seal = self._wire.seal
        if not seal.is_met:
            return
        if not seal.is_introduced:
            self._out.put(self._wire.pack(self._presence()))
        self._out.put(self._wire.pack(offer))


_NOTHING: dict[str, Any] = {}


def _few(said: Mapping[str, T]) -> dict[str, T]:
    """Return a copy, of as many jobs as one presence may name, for a presence: nobody changes it."""
    if not said:
        return _NOTHING
    return dict(said if len(said) <= MOST_JOBS else itertools.islice(said.items(), MOST_JOBS))
