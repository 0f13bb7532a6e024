"""The agent as a process: one loop between the broker, the jobs of this device, and its one training.

    broker ──packets──▶ unpack ──messages──▶ work (participant) ──messages──▶ pack ──▶ queue ──▶ broker
                                               │        ▲
                                               ▼        └ a slice of training whenever nothing is to be heard
                                             model slots, each behind a thread that only waits for its child process

The network may do what it likes: being offline changes nothing but what is sent. `step` does one thing and returns, so
that a simulator can drive many of these in one thread.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from broker import topics
from broker.errors import WireError
from broker.failpoints import reach
from broker.messages import Beacon, Body, Head, Job, Presence, Round, Verdict, Want
from broker.settings import SettingsError, convert
from broker.tally import Tally
from broker.transport import Denied, Event, Offline, Online, Packet, Transport, Usurped
from edge_agent import files
from edge_agent.config import AgentConfig
from edge_agent.participant import Event as WorkEvent
from edge_agent.participant import Over
from edge_agent.presence import Announcer
from edge_agent.slots import Install, Slots
from edge_agent.work import Out, Subscribe, Unsubscribe, Work
from models.dataset import DatasetError
from models.job import JobSpec
from models.nets import ModelError
from models.source import Reader, read

log = logging.getLogger(__name__)

SLICE_S = 0.05
"""Training goes on this long between two looks at the broker."""
SETTLE_S = 0.2
"""After connecting, how long retained jobs may take to arrive before this device says what it can take part in."""
LOOK_AGAIN_S = 60.0
"""Data that could not be used are looked at again after this long."""


class ClonedError(RuntimeError):
    """Another process has connected under this device's name."""


def count_boot(state_dir: Path) -> int:
    """Raise the durable boot counter and give it. Raises OSError when the state directory cannot be written."""
    state_dir.mkdir(parents=True, exist_ok=True)
    content = files.unseal(state_dir / "boot")
    boot = (int(content) if content and content.isdigit() else 0) + 1
    files.seal(state_dir / "boot", str(boot).encode())
    return boot


def will(fleet: str, device: str, boot: int) -> Packet:
    """Give the last will: this boot of the device is offline."""
    return topics.pack(Presence(device, boot, online=False), fleet)


class Agent:
    """One device on one fleet.

    transport: opened by `start`. clock: seconds that only go forward. read_data: how a data source becomes rows.
    """

    def __init__(
        self,
        config: AgentConfig,
        device: str,
        boot: int,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.monotonic,
        software: str = "",
        read_data: Reader = read,
    ) -> None:
        self.config = config
        self.device = device
        self.boot = boot
        self.tally = Tally()
        self.works: dict[str, Work] = {}
        self._transport = transport
        self._clock = clock
        self._state_dir = Path(config.state_dir)
        self._unready: dict[str, str] = {}
        self._look_again: dict[str, tuple[float, JobSpec]] = {}
        self._queue: deque[Packet] = deque()
        self._online = False
        self._term = 0
        self._spread_s = 0.0
        self._rng = random.Random(f"{device}/{boot}")  # noqa: S311 -- jitter, no secret
        self._announcer = Announcer(config.limits.presence_s)
        self._software = software
        self._read_data = read_data
        self._slots = Slots(self._state_dir, config.models.allow) if config.models.inference else None

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
        busy = self._busy
        event = self._transport.take(0.0 if busy else self._patience(timeout_s))
        if event is not None:
            self._receive(event)
        elif busy is not None:
            self._guarded(busy.job, lambda work, now: work.train_for(SLICE_S, now, self._clock))
        self._tick()
        self._pump()
        return event is not None or busy is not None

    def stop(self) -> None:
        """Say goodbye; what is unfinished is on disk or will be done again."""
        for job in list(self.works):
            self._guarded(job, Work.pause)
        if self._online:
            self._transport.publish(will(self.config.fleet, self.device, self.boot))
        self._transport.close()
        if self._slots is not None:
            self._slots.close()

    @property
    def doing(self) -> str:
        """One phrase for people: what goes on."""
        phrases = [
            f"{work.spec.name}: {work.participant.doing}" for work in self.works.values() if work.participant.doing
        ]
        return "; ".join(phrases) or ("idle" if self._online else "offline")

    @property
    def busy(self) -> bool:
        """Tell whether `step` has training to do."""
        return self._busy is not None

    @property
    def deadline(self) -> float:
        """When `step` has something to do, if nothing is received before; inf for never."""
        deadlines = [d for work in self.works.values() if (d := work.deadline) is not None]
        deadlines += [at for at, _ in self._look_again.values()]
        if self._online:
            deadlines.append(self._announcer.due_at(self._presence()))
        return min(deadlines, default=math.inf)

    @property
    def _busy(self) -> Work | None:
        return next((work for work in self.works.values() if work.busy), None)

    def _patience(self, timeout_s: float) -> float:
        wait = min(timeout_s, self.deadline - self._clock())
        return max(0.0, min(wait, 0.005) if self._queue else wait)

    def _tick(self) -> None:
        now = self._clock()
        for job, work in list(self.works.items()):
            if work.deadline is not None and now >= work.deadline:
                self._guarded(job, Work.tick)
        for job in [job for job, (at, _) in self._look_again.items() if now >= at]:
            self._begin(job, self._look_again.pop(job)[1])
        if self._online:
            presence = self._presence()
            if self._announcer.allows(presence, now):
                self._queue.append(topics.pack(presence, self.config.fleet))

    def _pump(self) -> None:
        while self._online and self._queue and self._transport.publish(self._queue[0]):
            reach("agent.published", self._queue.popleft().topic)

    # Events.

    def _receive(self, event: Event) -> None:
        match event:
            case Packet():
                self._hear(event)
            case Online():
                log.info("online")
                self._online = True
                self._announcer.forget(self._clock(), SETTLE_S + self._rng.random() * self._spread_s)
                self._tell_connected()
            case Offline(reason):
                if self._online:
                    log.warning("offline: %s", reason)
                self._online = False
                self._queue.clear()
            case Denied(topic, reason):
                log.error("the broker refuses topic=%s: %s", topic, reason)
            case Usurped():
                raise ClonedError(f"another client has connected as {self.device}: two devices share this id")

    def _hear(self, packet: Packet) -> None:
        try:
            message = topics.unpack(packet, self.config.fleet)
            match message:
                case Job():
                    self._meet(message)
                case Head() | Round():
                    self._pass_on(message.job, message)
                case Want() | Verdict():
                    self._pass_on(message.job, message)
                case Body():
                    self._guarded(message.job, lambda work, now: work.take(message, now))
                case Beacon():
                    self._greet(message)
                case Presence() if not message.online and message.boot >= self.boot:
                    self._announcer.forget(self._clock(), 0.0)
                case _:
                    pass  # our own words, cleared topics
        except WireError as error:
            if self.tally.count("garbage"):
                log.warning("refused garbage topic=%r: %s", packet.topic[:120], error)

    def _greet(self, beacon: Beacon) -> None:
        """Note who leads, and offer again what a new aggregator may never have received: it need not wait its turn."""
        self._spread_s = beacon.spread_s
        if beacon.online and beacon.term > self._term:
            came_back, self._term = self._term > 0, beacon.term
            if came_back:
                self._tell_connected()

    def _tell_connected(self) -> None:
        for job in list(self.works):
            self._guarded(job, lambda work, now: work.connected(self._spread_s, now))

    def _pass_on(self, job: str, event: WorkEvent) -> None:
        self._guarded(job, lambda work, now: work.handle(event, now))

    def _guarded(self, job: str, act: Callable[[Work, float], Iterable[Out]]) -> None:
        """Let a job's work act, if there is such a job. If the disk fails it, begin it again from the disk later."""
        if job not in self.works:
            return
        try:
            self._send(act(self.works[job], self._clock()))
        except OSError as error:
            why = f"the state directory cannot be used: {error.strerror or error}"
            log.error("job=%s: %s; trying again in %g s", job, why, LOOK_AGAIN_S)
            self._put_off(job, self._leave(job).spec, why)

    # Jobs.

    def _meet(self, job: Job) -> None:
        if job.spec is None:
            self._forget(job.job)
        elif job.job not in self.works:
            try:
                spec = convert(job.spec, JobSpec, job.job)
            except SettingsError as error:
                log.warning("job not understood: %s", error)
                self._unready[job.job] = f"this agent does not understand the job: {error}"[:500]
                return
            wanted = spec.rounds.labels.items()
            if spec.data_name in self.config.data and wanted <= self.config.labels.items():
                self._begin(job.job, spec)
        if job.last is not None:
            self._pass_on(job.job, Over(job.last, job.term))

    def _begin(self, job: str, spec: JobSpec) -> None:
        folder, now = self._state_dir / "jobs" / job, self._clock()
        deployed = self._slots.deployed(job, spec.name) if self._slots else None
        try:
            self.works[job] = Work(
                job, spec, self.config, self.device, self.boot, folder, now, deployed, self._read_data
            )
        except (DatasetError, ModelError, OSError) as error:
            log.error("cannot take part job=%s: %s", job, error)
            self._put_off(job, spec, str(error))
            return
        self._unready.pop(job, None)
        log.info("takes part job=%s examples=%d", job, len(self.works[job].data.y))
        fleet = self.config.fleet
        self._transport.subscribe(topics.filter_for(fleet, "round", job=job))
        self._guarded(job, Work.begin)

    def _put_off(self, job: str, spec: JobSpec, why: str) -> None:
        """Say why this device cannot take part now, and look again later."""
        self._unready[job] = why[:500]
        self._look_again[job] = (self._clock() + LOOK_AGAIN_S, spec)

    def _leave(self, job: str) -> Work:
        """Stop working on a job; what is on disk stays."""
        fleet = self.config.fleet
        filters = (topics.filter_for(fleet, word, job=job) for word in ("head", "round"))
        self._transport.unsubscribe(*filters)
        return self.works.pop(job)

    def _forget(self, job: str) -> None:
        self._unready.pop(job, None)
        self._look_again.pop(job, None)
        if job in self.works:
            log.info("job deleted job=%s", job)
            self._leave(job).delete()

    @property
    def unready(self) -> dict[str, str]:
        """Job to the reason why this device cannot take part in it."""
        return self._unready | {job: work.failure[:500] for job, work in self.works.items() if work.failure}

    def _presence(self) -> Presence:
        unready = self.unready
        return Presence(
            self.device,
            self.boot,
            online=True,
            labels=self.config.labels,
            ready={job: len(work.data.y) for job, work in self.works.items() if job not in unready},
            unready=unready,
            software=self._software,
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
                    self._queue.append(topics.pack(message, self.config.fleet))
        self._pump()
