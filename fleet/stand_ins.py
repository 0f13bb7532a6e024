"""Who stands in the storm: the aggregator and the agents, as their cores and what is durable, with tokens for numbers.

`Server` is what run.py, store.py and service.py are in the aggregator, `Device` what work.py and outbox.py are in the
agent. A node may die before every effect and every write; its disk outlives it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from msgspec import structs

from aggregator.coordinator import Coordinator
from aggregator.effects import (
    Announce,
    Answer,
    Attempt,
    Close,
    Collect,
    Commit,
    Committed,
    Judged,
    Open,
    Publish,
    Record,
    Seen,
)
from aggregator.effects import Effect as ServerEffect
from aggregator.effects import Event as ServerEvent
from broker.messages import Chunk, Head, Offer, Round, Verdict, Version, Want, echo
from edge_agent.participant import (
    Connected,
    Deploy,
    Fetch,
    FetchFailed,
    Halt,
    Installed,
    Look,
    Over,
    Participant,
    Ready,
    Send,
    Settle,
    Train,
    Trained,
    TrainingFailed,
    Upload,
    without_body,
)
from edge_agent.participant import Effect as DeviceEffect
from edge_agent.participant import Event as DeviceEvent
from models.job import JobSpec

JOB = "storm-1"
HEARTBEAT_S = 5.0
RELOAD_S = 5.0
TOO_MANY_EXAMPLES = 1000

Key = tuple[str, Version, str]
"""An update: its device, base and digest."""


class _CrashError(Exception):
    """A process dies here."""


class _DiskFullError(Exception):
    """A write was refused; nothing of it is on the disk."""


class World(Protocol):
    """What the nodes need of the storm around them."""

    rng: random.Random
    now: float
    spec: JobSpec
    crash: float
    full: float
    jumped: float
    bad_device: str
    head: Head | None
    over: Over | None
    presences: dict[str, Seen]
    truth: dict[Key, bool]

    def later(self, seconds: float, act: Callable[..., None], *args: Any) -> None: ...
    def violated(self, what: str) -> None: ...
    def gone(self, node: Node) -> None: ...
    def deliver(self, node: Node, message: object, surely: bool = False) -> None: ...
    def send_up(self, device: Device, message: object) -> None: ...
    def send_down(self, device: str, message: object) -> None: ...
    def publish_head(self, server: Server, head: Head) -> None: ...
    def publish_round(self, server: Server, round_: Round | None) -> None: ...
    def publish_bodies(self, server: Server, numbers: set[int]) -> None: ...
    def current_round(self) -> Round | None: ...
    def fetch(self, device: Device, effect: Fetch, life: int) -> None: ...
    def be_seen(self, device: Device) -> None: ...
    def check_answer(self, verdict: Verdict) -> None: ...
    def check_settled(self, device: Device, verdict: Verdict) -> None: ...


class Node:
    """A process with a link to the broker and a clock of its own. Its disk outlives it."""

    def __init__(self, storm: World, name: str) -> None:
        self.storm = storm
        self.name = name
        self.rng = storm.rng
        self.alive = False
        self.online = False
        self.connection = 0
        self.skew = 0.0
        self.life = 0
        self._wake_at: float | None = None

    @property
    def now(self) -> float:
        """Seconds on this node's own clock."""
        return self.storm.now + self.skew

    def start(self) -> None:
        """Come up with what is on the disk, on a clock that starts anywhere, and connect."""
        self.alive, self.life, self._wake_at = True, self.life + 1, None
        self.skew = self.rng.uniform(-50.0, 50.0) - self.storm.now * self.rng.randint(0, 1)
        self.guarded(self.load)
        if self.alive:
            self.connect()

    def connect(self) -> None:
        """Get a link, and with it whatever is retained."""
        if self.alive and not self.online:
            self.online, self.connection = True, self.connection + 1
            self.guarded(self.greet)

    def disconnect(self) -> None:
        """Lose the link; what was under way to here is gone, and the broker says so."""
        if self.online:
            self.online = False
            self.storm.gone(self)
            self.storm.later(self.rng.uniform(0.1, 20.0), self.connect)

    def die(self) -> None:
        """Lose everything that is not on the disk."""
        if self.alive:
            self.alive = False
            if self.online:
                self.online = False
                self.storm.gone(self)
            self.storm.later(self.rng.uniform(0.1, 20.0), self.start)

    def guarded(self, act: Callable[..., None], *args: object) -> None:
        """Do something that may end this process, then see when it wants to be woken."""
        try:
            act(*args)
        except _CrashError:
            self.die()
        except _DiskFullError:
            self.suffer()
        if self.alive:
            self._set_alarm()

    def chance_to_die(self) -> None:
        """Stand between two effects."""
        if self.rng.random() < self.storm.crash:
            raise _CrashError

    def write(self) -> None:
        """Stand before a write."""
        self.chance_to_die()
        if self.rng.random() < self.storm.full:
            raise _DiskFullError

    def _set_alarm(self) -> None:
        deadline = self.deadline()
        if deadline is None:
            return
        at = max(deadline - self.skew, self.storm.now)
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self.storm.later(at - self.storm.now + 1e-6, self._wake, self.life, at)

    def _wake(self, life: int, at: float) -> None:
        if self.alive and life == self.life and at == self._wake_at:
            self._wake_at = None
            deadline = self.deadline()
            if deadline is not None and self.now >= deadline:
                self.guarded(self.tick)
            else:
                self._set_alarm()

    def load(self) -> None: ...
    def greet(self) -> None: ...
    def tick(self) -> None: ...
    def suffer(self) -> None: ...
    def hear(self, message: Any) -> None: ...
    def deadline(self) -> float | None: ...


class Server(Node):
    """The aggregator: what run.py, store.py and service.py do, with tokens for numbers."""

    def __init__(self, storm: World) -> None:
        super().__init__(storm, "aggregator")
        # On the disk.
        self.versions: list[list[Key]] = [[]]
        self.verdicts: dict[str, Verdict] = {}
        self.sum: list[Key] = []
        self.attempts: dict[tuple[Version, int], tuple[Attempt, str]] = {}
        self.ended: Literal["", "finished", "stopped"] = ""
        self.term = 0
        # In memory.
        self.core: Coordinator | None = None
        self.opened_at: float | None = None
        self.inbox: dict[str, Offer] = {}

    @property
    def version(self) -> Version:
        return Version(1, len(self.versions) - 1)

    def load(self) -> None:
        """Make the coordinator from the disk."""
        if self.core is None:
            self.term += 1
        here = [(attempt, how) for (base, _), (attempt, how) in sorted(self.attempts.items()) if base == self.version]
        open_ = next((attempt for attempt, how in here if how == "open"), None)
        self.inbox.clear()
        self.core = Coordinator(
            self.storm.spec.rounds,
            self.storm.spec.seed,
            self.version,
            now=self.now,
            max_examples=TOO_MANY_EXAMPLES,
            heartbeat_s=HEARTBEAT_S,
            ledger=list(self.verdicts.values()),
            counted=[name for name, _, _ in self.sum],
            attempt=open_,
            last=here[-1][0] if here else None,
            history=[{} for _ in self.versions],
            ended=self.ended,
        )
        self.opened_at = self.now if open_ and not self.ended else None

    def die(self) -> None:
        super().die()
        self.core = None

    def suffer(self) -> None:
        """Forget the run and load it again in a while."""
        self.core = None
        self.storm.later(RELOAD_S, self._reload, self.life)

    def _reload(self, life: int) -> None:
        if self.alive and life == self.life and self.core is None:
            self.guarded(self.load)
            if self.alive and self.online:
                self.guarded(self.greet)

    def greet(self) -> None:
        """Hear who is there, and tell the broker all that should be retained."""
        for presence in list(self.storm.presences.values()):
            self.storm.deliver(self, presence, surely=True)
        if self.core is not None:
            self._publish_all(self.core)
            self.carry_out(self.core, self.core.announce(self.now))

    def tick(self) -> None:
        if self.core is not None:
            self.carry_out(self.core, self.core.tick(self.now))

    def deadline(self) -> float | None:
        return self.core.deadline if self.core is not None else None

    def hear(self, message: ServerEvent | Chunk) -> None:
        event: ServerEvent | None
        if isinstance(message, Chunk):
            offer = self.inbox.pop(message.device, None)
            event = structs.replace(offer, body=message.data) if offer else None
        else:
            event = message
        if self.core is not None and event is not None:
            self.carry_out(self.core, self.core.receive(event, self.now))

    def carry_out(self, core: Coordinator, effects: Sequence[ServerEffect]) -> None:
        """Do what the coordinator wants, in order; the process may die before each."""
        queue = deque(effects)
        while queue:
            self.chance_to_die()
            follow = self._carry_out(queue.popleft(), core)
            queue.extendleft(reversed(follow))
        self._check_round(core)

    def _carry_out(self, effect: ServerEffect, core: Coordinator) -> list[ServerEffect]:
        storm = self.storm
        match effect:
            case Open(attempt):
                self.write()
                self.attempts[attempt.base, attempt.number] = (attempt, "open")
                self.opened_at = self.now
            case Announce(attempt, left, first):
                if attempt.base != self.version or self.attempts[attempt.base, attempt.number][1] != "open":
                    storm.violated(f"a round that is not open in the store is announced: {attempt}")
                storm.publish_round(
                    self,
                    Round(
                        JOB,
                        self.term,
                        attempt.base,
                        left,
                        attempt.threshold,
                        attempt.number,
                        along=_along(attempt.base, first),
                    ),
                )
            case Collect(offer, weight):
                if not 1 <= weight <= offer.n_examples:
                    storm.violated(f"weight {weight} for {offer}")
                return self._collect(offer, core)
            case Record(verdict):
                self.write()
                self._note(verdict)
                return core.receive(Judged(verdict), self.now)
            case Answer(verdict):
                storm.check_answer(verdict)
                storm.send_down(verdict.device, verdict)
            case Commit(close):
                return self._commit(close, core)
            case Close(attempt, outcome, _, _):
                self.write()
                self.attempts[attempt.base, attempt.number] = (attempt, outcome)
                self.opened_at = None
                self._clear_round(core)
            case Publish(state, _):
                if state in ("finished", "stopped"):
                    self.write()
                    self.ended = state
                self._publish_all(core)
        return []

    def _collect(self, offer: Offer, core: Coordinator) -> list[ServerEffect]:
        if not offer.body:
            self.inbox[offer.device] = offer
            self.storm.send_down(offer.device, Want(offer.device, JOB, offer.digest, "01"))
            return []
        refused = "absurd" if offer.device == self.storm.bad_device else ""
        verdict = Verdict(offer.device, JOB, offer.base, echo(offer), refused)
        self.write()
        self._note(verdict)
        if verdict.counted:
            self.sum.append((offer.device, offer.base, echo(offer)))
        return core.receive(Judged(verdict), self.now)

    def _note(self, verdict: Verdict) -> None:
        known = self.storm.truth.setdefault((verdict.device, verdict.base, verdict.digest), verdict.counted)
        late = verdict.base != self.version
        if (late and self.storm.spec.rounds.late == "refuse") or known != verdict.counted:
            self.storm.violated(f"a second or misplaced verdict {verdict} at version {self.version}")
        older = self.verdicts.get(verdict.device)
        if older is not None and older.base == verdict.base:
            self.storm.violated(f"two verdicts for one base: {older}, {verdict}")
        self.verdicts[verdict.device] = verdict

    def _commit(self, close: Close, core: Coordinator) -> list[ServerEffect]:
        if close.attempt.base != self.version:
            self.storm.violated(f"version {close.attempt.base} is left while {self.version} is current")
        names = {name for name, _, _ in self.sum}
        if core.counted != sorted(names) or len(names) < self.storm.spec.rounds.quorum:
            self.storm.violated(f"commit of {core.counted} while {sorted(names)} are in the sum")
        self.write()
        self.attempts[close.attempt.base, close.attempt.number] = (close.attempt, close.outcome)
        self.versions.append(self.sum)
        self.sum = []
        self.inbox.clear()
        self.opened_at = None
        if len(self.versions) - 1 > self.storm.spec.rounds.max_rounds:
            self.storm.violated(f"version {self.version} is beyond max_rounds")
        follow = core.receive(Committed(self.version, {}), self.now)
        self._clear_round(core)
        return follow

    def _clear_round(self, core: Coordinator) -> None:
        if core.attempt is None:
            self.storm.publish_round(self, None)

    def _publish_all(self, core: Coordinator) -> None:
        number = len(self.versions) - 1
        self.storm.publish_bodies(self, {number, number - 1} - {0})
        state = self.ended or core.state
        self.storm.publish_head(self, Head(JOB, self.term, self.version, "0" * 64, state=state))

    def _check_round(self, core: Coordinator) -> None:
        if self.opened_at is None or core.attempt is None:
            return
        if self.now > self.opened_at + float(core.rules.deadline_s) + self.storm.jumped + 1e-3:
            self.storm.violated(f"round {core.attempt.number} on {core.attempt.base} did not end at its deadline")


class Device(Node):
    """An agent with one job: what work.py and outbox.py do."""

    def __init__(self, storm: World, name: str, big: bool) -> None:
        super().__init__(storm, name)
        self.big = big
        # On the disk.
        self.boot = 0
        self.update: Offer | None = None
        self.settled: Version | None = None
        # In memory.
        self.core: Participant | None = None
        self.fetching: Fetch | None = None
        self.training: Train | None = None
        # For the record.
        self.finished: dict[Version, int] = {}

    def load(self) -> None:
        self.boot += 1
        self.fetching = self.training = None
        self.core = Participant(
            self.name,
            JOB,
            self.storm.spec,
            random.Random(self.rng.random()),  # noqa: S311 -- jitter, no secret
            offer=self.update,
            trained=self.update.base if self.update else self.settled,
            now=self.now,
        )
        self.core.receive(Ready(), self.now)

    def greet(self) -> None:
        self.storm.be_seen(self)
        self._hear_retained()
        if self.fetching is not None:
            self.storm.fetch(self, self.fetching, self.life)
        self._tell(Connected(2.0))

    def _hear_retained(self) -> None:
        for message in (self.storm.current_round(), self.storm.over):
            if message is not None:
                self.storm.deliver(self, message)

    def tick(self) -> None:
        if self.core is not None:
            self.carry_out(self.core.tick(self.now))

    def suffer(self) -> None:
        """An agent whose disk is full dies, and is started again."""
        self.die()

    def deadline(self) -> float | None:
        return self.core.deadline if self.core is not None else None

    def hear(self, message: DeviceEvent | int) -> None:
        if isinstance(message, int):
            self._arrived(message)
        else:
            self._tell(message)

    def _tell(self, event: DeviceEvent) -> None:
        if self.core is not None:
            self.carry_out(self.core.receive(event, self.now))

    def carry_out(self, effects: Sequence[DeviceEffect]) -> None:
        """Do what the participant wants, in order; the process may die before each."""
        for effect in effects:
            self.chance_to_die()
            self._carry_out(effect)

    def _carry_out(self, effect: DeviceEffect) -> None:
        storm = self.storm
        match effect:
            case Fetch():
                self.fetching = effect
                storm.fetch(self, effect, self.life)
            case Train() as train:
                if self.training is not None:
                    storm.violated(f"{self.name} starts a second training")
                if self.update is not None:
                    storm.violated(f"{self.name} trains while an update is without verdict")
                self.training = train
                storm.later(self.rng.uniform(0.5, 15.0), self._trained, self.life, train)
            case Look():
                if storm.head is not None:
                    storm.deliver(self, storm.head)
            case Halt():
                self.training = None
            case Send(offer, with_body):
                storm.send_up(self, offer if with_body and not self.big else without_body(offer))
            case Upload(want):
                storm.send_up(self, Chunk(JOB, self.name, want.digest, 0, b"x"))
            case Settle(verdict):
                storm.check_settled(self, verdict)
                self.write()
                self.settled, self.update = verdict.base, None
            case Deploy():
                pass

    def _arrived(self, number: int) -> None:
        if self.fetching is not None and self.fetching.version.number == number:
            version, self.fetching = self.fetching.version, None
            failed = self.rng.random() < 0.3 * self.storm.full
            self._tell(FetchFailed(version) if failed else Installed(version))

    def _trained(self, life: int, train: Train) -> None:
        if self.alive and life == self.life and train is self.training:
            self.guarded(self._finish, train)

    def _finish(self, train: Train) -> None:
        self.training = None
        bad = self.name == self.storm.bad_device
        if bad and self.rng.random() < 0.3:
            self._tell(TrainingFailed(train.base, "it diverged"))
            return
        self.write()
        self.finished[train.base] = n = self.finished.get(train.base, 0) + 1
        if n > 1:
            self.storm.violated(f"{self.name} finished a second training on {train.base}")
        many = TOO_MANY_EXAMPLES + 1 if bad and self.rng.random() < 0.5 else 10
        digest = f"{self.rng.randrange(2)}-{n}"  # often that of another base: only the base tells them apart
        body = b"" if self.big else b"x"
        self.update = Offer(JOB, self.name, train.base, many, digest, 9, body=body)
        self._tell(Trained(self.update))


def _along(base: Version, first: bool) -> bytes:
    """Give what comes along with a round: a proof of version 0, or the way to another, the first time."""
    return b"12345678" + b"way" * bool(base.number) if first or not base.number else b""
