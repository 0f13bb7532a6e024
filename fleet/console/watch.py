"""Looking on while a fleet works: a client that hears what is said and counts along."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct, field

from broker import topics
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.errors import WireError
from broker.messages import Beacon, Chunk, Head, Message, Offer, Presence, Reply, Round, Status, Submit, Verdict
from broker.transport import Offline, Online, Packet
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

    def see(self, message: Message, packet: Packet) -> bool:
        """Take a message; True for the first status of a version.

        Raises WatchError where a device cannot take part, or the job is refused.
        """
        match message:
            case Beacon():
                self.led = message.online
            case Presence() if message.unready:
                raise WatchError(f"{message.device} cannot take part: {'; '.join(message.unready.values())}")
            case Presence():
                (self.ready.add if message.ready else self.ready.discard)(message.device)
                self._note_failures(message)
            case Offer() | Chunk():
                self.body_bytes_up += topics.blob_bytes(packet)
                if isinstance(message, Offer):
                    self.offered.setdefault(message.base.number, set()).add(message.device)
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


class Watch:
    """An operator's eyes and voice on one fleet. heard: words of the topic table to listen to.

    Raises WatchError where the fleet is silent.
    """

    def __init__(self, broker: BrokerSettings, fleet: str, *, heard: Sequence[str] = HEARD) -> None:
        self._fleet = fleet
        self._heard = heard
        self._client = f"watch-{secrets.token_hex(4)}"
        self._transport = MqttTransport(broker, self._client)
        self._heard_at = time.monotonic()

    def __enter__(self) -> Watch:
        """Connect."""
        self._transport.subscribe(topics.filter_for(self._fleet, "reply", client=self._client))
        self._transport.subscribe(*(topics.filter_for(self._fleet, word) for word in self._heard))
        self._transport.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        self._transport.close()

    def hear(self, timeout_s: float = 0.2) -> Iterator[tuple[Message, Packet] | None]:
        """Return what is said, and None whenever nothing was for timeout_s."""
        while True:
            event = self._transport.take(timeout_s)
            if event is None and time.monotonic() - self._heard_at > SILENCE_S:
                raise WatchError(f"nothing has been heard of the fleet for {SILENCE_S:g} s")
            match event:
                case Packet():
                    self._heard_at = time.monotonic()
                    try:
                        yield topics.unpack(event, self._fleet), event
                    except WireError as error:
                        raise WatchError(f"the fleet speaks nonsense: {error}") from error
                case Offline(reason):
                    raise WatchError(f"the broker is gone: {reason}")
                case Online():
                    self._heard_at = time.monotonic()
                case None:
                    yield None

    def submit(self, spec: JobSpec) -> None:
        """Ask for a job; a Reply follows."""
        command = Submit(self._client, "submit", msgspec.to_builtins(spec))
        self._transport.publish(topics.pack(command, self._fleet))
