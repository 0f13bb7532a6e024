"""The aggregator as a process: one loop between the broker and the runs.

    broker ──packets──▶ unpack ──messages──▶ roster, inbox, run ──messages──▶ pack ──▶ queue ──▶ broker

Everything it wants retained is sent again at every connect, from the store: a broker that lost all it knew is told
again. `step` does one thing and returns, so that a simulator can drive many of these in one thread.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from aggregator import run as runs
from aggregator.config import AggregatorConfig
from aggregator.effects import Seen, Stop
from aggregator.inbox import Inbox
from aggregator.roster import Roster
from aggregator.run import Clear, Out, Run
from aggregator.store import JobRow, Store, StoreError
from broker import topics
from broker.errors import WireError
from broker.failpoints import reach
from broker.messages import Beacon, Chunk, Explain, Head, Offer, Presence, Reply, Submit, Verdict, echo
from broker.messages import Stop as StopCommand
from broker.settings import SettingsError, convert
from broker.tally import Tally
from broker.transport import Denied, Event, Offline, Online, Packet, Transport, Usurped
from models.dataset import DatasetError
from models.job import JobSpec
from models.nets import ModelError

log = logging.getLogger(__name__)

HEARD = ("device", "offer", "chunk", "command", "aggregator", "head")
"""The words of the topic table that an aggregator subscribes to."""
RELOAD_S = 5.0
"""A job whose state could not be written is loaded again from the store after this long."""
SETTLE_S = 0.2
"""After connecting, how long retained messages may take to arrive before the beacon is published over them."""
TAKE_OVER = 2**32
"""A term at least this high is given out by `--take-over`: it wins against whatever is at work."""


class ReplacedError(RuntimeError):
    """Another aggregator is at work on this fleet; this one must stop."""


def will(fleet: str, term: int, nonce: str) -> Packet:
    """Give the last will: a beacon that says that this aggregator is gone."""
    return topics.pack(Beacon(term, nonce, online=False), fleet)


class Aggregator:
    """All jobs of one fleet.

    transport: opened by `start`. clock: seconds that only go forward.
    """

    def __init__(
        self,
        config: AggregatorConfig,
        store: Store,
        transport: Transport,
        *,
        term: int,
        nonce: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.term = term
        self.nonce = nonce
        self.tally = Tally()
        self.roster = Roster()
        self.runs: dict[str, Run] = {}
        self._store = store
        self._transport = transport
        self._clock = clock
        self._inbox = Inbox(config.limits.unassembled_bytes)
        self._queue: deque[Packet] = deque()
        self._reload_at: dict[str, float] = {}
        self._resting: set[str] = set()
        """Jobs of the store that have no run now: their state cannot be written, or they cannot be run here."""
        self._online = False
        self._settled_at = math.inf

    # The loop.

    def start(self) -> None:
        """Load every job from the store, then start connecting."""
        for row in self._store.jobs():
            if row.ended != "deleted":
                self._load(row)
        self._transport.subscribe(*(topics.filter_for(self.config.fleet, word) for word in HEARD))
        self._transport.open()

    def step(self, timeout_s: float = 1.0) -> bool:
        """Take one event, or let time pass; False when nothing happened.

        Raises ReplacedError when another aggregator has taken over.
        """
        event = self._transport.take(self._patience(timeout_s))
        if event is not None:
            self._receive(event)
        self._tick()
        self._pump()
        return event is not None

    def stop(self) -> None:
        """Say goodbye to the fleet."""
        if self._online:
            self._transport.publish(will(self.config.fleet, self.term, self.nonce))
        self._transport.close()

    @property
    def doing(self) -> str:
        """One phrase for people: what goes on."""
        if not self._online:
            return "offline"
        phrases = [f"{run.spec.name} {run.coordinator.state} at version {run.version}" for run in self.runs.values()]
        return "; ".join(phrases) or "no job"

    @property
    def deadline(self) -> float:
        """When `step` has something to do, if nothing is received before; inf for never."""
        deadlines = [d for run in self.runs.values() if (d := run.deadline) is not None]
        return min([*deadlines, *self._reload_at.values(), self._settled_at])

    def _patience(self, timeout_s: float) -> float:
        wait = min(timeout_s, self.deadline - self._clock())
        return max(0.0, min(wait, 0.005) if self._queue else wait)

    def _tick(self) -> None:
        now = self._clock()
        if now >= self._settled_at:
            self._settled_at = math.inf
            self._reconcile()
        for job, run in list(self.runs.items()):
            if run.deadline is not None and now >= run.deadline:
                self._guarded(job, Run.tick)
        for job in [job for job, at in self._reload_at.items() if now >= at]:
            del self._reload_at[job]
            self._reload(job)

    def _pump(self) -> None:
        while self._online and self._queue and self._transport.publish(self._queue[0]):
            reach("aggregator.published", self._queue.popleft().topic)

    # Events.

    def _receive(self, event: Event) -> None:
        match event:
            case Packet():
                self._hear(event)
            case Online():
                log.info("online")
                self._online = True
                self._settled_at = self._clock() + SETTLE_S
            case Offline(reason):
                if self._online:
                    log.warning("offline: %s", reason)
                self._online = False
                self._queue.clear()
            case Denied(topic, reason):
                log.error("the broker refuses topic=%s: %s", topic, reason)
            case Usurped():
                raise ReplacedError("another client has connected under this aggregator's name")

    def _hear(self, packet: Packet) -> None:
        try:
            message = topics.unpack(packet, self.config.fleet)
        except WireError as error:
            self._refuse("garbage", f"topic={packet.topic[:120]!r}: {error}")
            return
        match message:
            case Presence():
                self._see(message)
            case Offer():
                self._weigh(message)
            case Chunk():
                self._collect(message)
            case Submit() | StopCommand() | Explain():
                self._send([self._obey(message)])
            case Beacon():
                self._meet(message)
            case Head():
                self._look_back(message)
            case _:
                pass  # our own words, cleared topics

    def _meet(self, beacon: Beacon) -> None:
        if beacon.nonce == self.nonce or beacon.term < self.term:
            return
        if beacon.online:
            raise ReplacedError(
                f"another aggregator is at work on fleet {self.config.fleet} (term {beacon.term}, this one has "
                f"{self.term}): stop it, or start this one with --take-over if it is surely dead"
            )
        self.term = self._store.raise_term(beacon.term + 1)
        for job in list(self.runs):
            self._reload(job)

    def _look_back(self, head: Head) -> None:
        """Notice that the broker has a later version than the store: the state directory was restored from a backup."""
        run = self.runs.get(head.job)
        if run is None or head.version <= run.version:
            return
        log.warning(
            "job=%s was at version %s, the store is at %s: a new generation", head.job, head.version, run.version
        )
        self._guarded(head.job, lambda run, _now: run.raise_generation(head.version.generation))
        self._reload(head.job)

    def _see(self, presence: Presence) -> None:
        match self.roster.see(presence):
            case "news":
                for job in list(self.runs):
                    self._tell(job, presence.device)
            case "clone":
                self._refuse("clone", f"device={presence.device}: two devices speak under this id")
            case "full":
                self._refuse("roster full", f"device={presence.device}")
            case "stale":
                log.debug("presence of an older boot device=%s", presence.device)

    def _tell(self, job: str, device: str) -> None:
        seen = Seen(device, *self.roster.part_in(job, device))
        self._guarded(job, lambda run, now: run.handle(seen, now))

    def _weigh(self, offer: Offer) -> None:
        if offer.job in self._resting:
            return  # it is offered again; whether it counts is in the store, and only the run may say
        if offer.job not in self.runs:
            refusal = Verdict(offer.device, offer.job, offer.base, echo(offer), refused="there is no such job")
            self._refuse("unknown job", f"job={offer.job} device={offer.device}")
            self._send([refusal])
            return
        self._guarded(offer.job, lambda run, now: run.handle(offer, now))

    def _collect(self, chunk: Chunk) -> None:
        try:
            complete = self._inbox.add(chunk, self._clock())
        except WireError as error:
            self._refuse("bad chunk", f"job={chunk.job} device={chunk.device}: {error}")
            return
        if complete is not None:
            self._weigh(complete)

    def _refuse(self, kind: str, detail: str) -> None:
        if self.tally.count(kind):
            log.warning("refused %s (%d so far) %s", kind, self.tally.counts[kind], detail)

    # Commands.

    def _obey(self, command: Submit | StopCommand | Explain) -> Reply:
        data: dict[str, Any] = {}
        match command:
            case Submit(spec=spec):
                ok, text = self._submit(spec)
            case StopCommand(name=name):
                ok, text = self._end(name)
            case Explain(name=name, number=number):
                ok, text, data = self._explain(name, number)
        log.info("command %s ok=%s: %s", type(command).__name__.lower(), ok, text)
        return Reply(command.client, command.request, ok, text[:500], data)

    def _submit(self, tree: dict[str, object]) -> tuple[bool, str]:
        try:
            spec = convert(tree, JobSpec, "job")
            return True, self.submit(spec)
        except (SettingsError, ModelError, DatasetError, StoreError, ValueError) as error:
            return False, str(error)

    def submit(self, spec: JobSpec) -> str:
        """Start a job and give its id; an ended job of the same name makes way.

        Raises ValueError if one has not ended, ModelError, DatasetError or StoreError if it cannot be run here.
        """
        older = [run for run in self.runs.values() if run.spec.name == spec.name]
        if any(not run.coordinator.ended for run in older):
            raise ValueError(f"job {spec.name} is running: stop it first, or submit under another name")
        if any(row.spec.name == spec.name and not row.ended for row in self._store.jobs() if row.job in self._resting):
            raise ValueError(f"job {spec.name} has not ended and is at rest, see the log: submit under another name")
        job = f"{spec.name}-{secrets.token_hex(4)}"
        row = runs.create(job, spec, self._store, self.config)
        for run in older:
            self._delete(run)
        self._load(row)
        self._send(self.runs[job].retained())
        for device in self.roster.devices:
            self._tell(job, device)
        return job

    def _end(self, name: str) -> tuple[bool, str]:
        for job, run in list(self.runs.items()):
            if run.spec.name == name and not run.coordinator.ended:
                self._guarded(job, lambda run, now: run.handle(Stop("an operator stopped it"), now))
                if job not in self.runs:
                    return False, f"{job} could not be stopped: its state cannot be written now"
                return True, f"stopped {job} at version {run.version}"
        return False, f"no running job has the name {name}"

    def _explain(self, name: str, number: int) -> tuple[bool, str, dict[str, Any]]:
        run = next((run for run in self.runs.values() if name in (run.job, run.spec.name)), None)
        if run is None:
            return False, f"no job has the name {name}", {}
        rounds = run.explain(number)
        if not rounds:
            return False, f"job {name} is at version {run.version}: no round has tried to make version {number}", {}
        return True, run.job, {"rounds": rounds}

    def _delete(self, run: Run) -> None:
        tombstone = run.tombstone()
        self._store.end_job(run.job, "deleted", f"replaced by a new job {run.spec.name}")
        del self.runs[run.job]
        self._send(tombstone)

    # Runs.

    def _load(self, row: JobRow) -> None:
        try:
            self.runs[row.job] = Run(row, self._store, self.config, self._inbox, self.term, self._clock())
            self._resting.discard(row.job)
        except (ModelError, DatasetError) as error:
            self._resting.add(row.job)
            log.error("job=%s cannot be run here: %s", row.job, error)

    def _guarded(self, job: str, act: Callable[[Run, float], Iterable[Out]]) -> None:
        """Carry out what a run wants. If its state cannot be written, forget it and load it again from the store."""
        if job not in self.runs:
            return
        try:
            self._send(act(self.runs[job], self._clock()))
        except StoreError as error:
            self._rest(job, error)

    def _rest(self, job: str, error: StoreError) -> None:
        log.error("job=%s: %s; trying again in %g s", job, error, RELOAD_S)
        self.runs.pop(job, None)
        self._resting.add(job)
        self._inbox.forget_job(job)
        self._reload_at[job] = self._clock() + RELOAD_S

    def _reload(self, job: str) -> None:
        try:
            self._load(next(row for row in self._store.jobs() if row.job == job))
        except StoreError as error:
            self._rest(job, error)
        if job in self.runs:
            self._guarded(job, lambda run, _now: run.retained())
            for device in self.roster.devices:
                self._tell(job, device)

    # Sending.

    def _reconcile(self) -> None:
        """Send everything that should be retained; who asks for more than that asks again by himself."""
        self._queue.clear()
        self._send([Beacon(self.term, self.nonce, online=True, spread_s=self.config.limits.spread_s)])
        for job in list(self.runs):
            self._guarded(job, lambda run, _now: run.retained())
            self._guarded(job, Run.announce)

    def _send(self, messages: Iterable[Out]) -> None:
        for message in messages:
            if isinstance(message, Clear):
                self._queue.append(topics.clear(message.message, self.config.fleet))
            else:
                self._queue.append(topics.pack(message, self.config.fleet))
        self._pump()
