"""Looking on while a fleet works: a client that hears what is said and counts along."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct, field

from broker.messages import Beacon, Chunk, Head, Message, Offer, Presence, Reply, Round, Status, Submit, Verdict
from broker.operator_seal import OperatorSeal
from broker.transport import Offline, Online
from edge_agent.bases import FETCHING
from edge_agent.jobs import READING
from fleet.console.observer import Garbage, Observer, Said
from models.job import JobSpec

HEARD = ("aggregator", "device", "head", "round", "status", "offer", "chunk", "verdict")
SILENCE_S = 120.0
"""A fleet that says nothing at all for this long has stopped."""


class WatchError(RuntimeError):
    """The fleet does not do what it should; the message says what."""


class Sights(Struct):
    """What has been seen so far of a fleet that has one job."""

    led: bool = False
    """There is an aggregator."""
    ready: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Device to why its last training failed."""
    heads: dict[int, Head] = field(default_factory=dict)
    """The first head of each version."""
    way_bytes: dict[int, int] = field(default_factory=dict)
    """Version to the bytes of the way that its round carried."""
    statuses: dict[int, Status] = field(default_factory=dict)
    """The first status of each version."""
    ended: Status | None = None
    offered: dict[int, set[str]] = field(default_factory=dict)
    """Base version to the devices that have offered an update to it, but for those that were refused."""
    body_bytes_up: int = 0
    """Bytes of updates, resends included."""

    def see(self, message: Message) -> bool:
        """Take a message; True for the first status of a version.

        Raises WatchError where a device cannot take part, or the job is refused.
        """
        match message:
            case Beacon():
                self.led = message.online
            case Presence() if why := out_for(message):
                raise WatchError(f"{message.device} cannot take part: {why}")
            case Presence():
                (self.ready.add if message.ready else self.ready.discard)(message.device)
                self._note_failures(message)
            case Offer():
                self.body_bytes_up += len(message.body)
                self.offered.setdefault(message.base.number, set()).add(message.device)
            case Chunk():
                self.body_bytes_up += len(message.data)
            case Verdict() if not message.counted:
                self.offered.get(message.base.number, set()).discard(message.device)
            case Reply() if not message.ok:
                raise WatchError(f"the aggregator refuses the job: {message.text}")
            case Round() if message.way:
                self.way_bytes[message.base.number] = len(message.way)
            case Head():
                self.heads.setdefault(message.version.number, message)
            case Status():
                return self._see_status(message)
        return False

    def _note_failures(self, presence: Presence) -> None:
        self.failed.pop(presence.device, None)
        for failure in presence.failed.values():
            self.failed[presence.device] = failure.why
        if self.failed and self.failed.keys() >= self.ready:
            raise WatchError(f"training fails on every device: {next(iter(self.failed.values()))}")

    def _see_status(self, status: Status) -> bool:
        if status.state == "resting":
            raise WatchError(f"the job is at rest: {status.reason}")
        if status.state in ("finished", "stopped"):
            self.ended = status
        new = status.version.number not in self.statuses
        self.statuses.setdefault(status.version.number, status)
        return new


def out_for(presence: Presence) -> str:
    """Return why a device cannot take part; "" where it can, or is about to: data are being read, or a net fetched."""
    return "; ".join(why for why in presence.unready.values() if why != READING and not why.startswith(FETCHING))


class Watch:
    """An operator's eyes and voice on one fleet, for the length of a block. heard: the words that it listens to.

    Whoever watches has started the fleet and its broker: either gone, or speaking nonsense, is the end of it.
    """

    def __init__(self, observer: Observer, *, heard: Sequence[str] = HEARD) -> None:
        self._observer = observer
        self._heard = heard
        self._heard_at = time.monotonic()

    def __enter__(self) -> Watch:
        """Connect."""
        self._observer.listen_for_replies()
        self._observer.listen(*self._heard)
        self._observer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        self._observer.__exit__()

    def hear(self, timeout_s: float = 0.2) -> Iterator[Message | None]:
        """Return what is said, and None whenever nothing was for timeout_s.

        Raises WatchError where the broker is gone, and where the fleet is silent or is not understood.
        """
        while True:
            heard = self._observer.take(timeout_s)
            if heard is None and time.monotonic() - self._heard_at > SILENCE_S:
                raise WatchError(f"nothing has been heard of the fleet for {SILENCE_S:g} s")
            match heard:
                case Said(message):
                    self._heard_at = time.monotonic()
                    yield message
                case Garbage(_, why):
                    raise WatchError(f"the fleet speaks nonsense: {why}")
                case Offline(reason):
                    raise WatchError(f"the broker is gone: {reason}")
                case Online():
                    self._heard_at = time.monotonic()
                case None:
                    yield None

    def submit(self, spec: JobSpec, request: str = "submit", start: str = "") -> None:
        """Ask for a job; a Reply follows. request: another one for each job; what is asked for once is done once.

        start: what it starts from, as `Submit` has it.
        """
        tree, seal = msgspec.to_builtins(spec), self._observer.wire.seal
        submit = Submit(self._observer.client, request, tree, start=start)
        if isinstance(seal, OperatorSeal) and seal.signs:
            submit = seal.signed(submit, spec.name, secrets.token_hex(4))
        self._observer.say(submit)
