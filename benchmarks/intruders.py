"""What a device can do to the others with nothing but its own credentials: an attack a name, for benchmarks.attackers.

    python -m benchmarks.intruders ATTACK FOLDER PORT USER JOB     # until it is ended

The floods write MQTT 3.1.1 by hand, as fast as the broker takes it and their link allows, and connect again at once
when they are cut off, as often as deploy/nftables/fedge.nft lets one address. Each has said before that it is there.
In the field a device burns its own processor, not the server's: here it has what the others leave of this one
(SCHED_IDLE). An attack waits for the file USER.go in its folder, and writes into USER.reached what it has come to.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, json

from benchmarks.attacked import MODEL
from broker.chunks import digest, from_bitmap
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.messages import Chunk, Offer, Presence, Round, Want
from broker.transport import Packet
from broker.wire import Wire
from fleet.local.stage import FLEET
from models.nets.mlp import spec_of_mlp
from models.params import n_parameters

BATCH = 65_536
"""Bytes that are written in one go, at least."""
LINK_BYTES_S = 125_000_000
"""Of its network: 1 Gbit/s."""
LINK_BURST = 12_500_000
READY_BYTES = 16_000_000
"""What is made before the attack begins, and said again and again where that does as well."""
CONNECTIONS_S, CONNECTIONS_BURST = 20, 2000
"""Of one address, in deploy/nftables/fedge.nft."""
TELL_S = 0.25
DRIBBLE_S = 2.0
BODY_BYTES = 4 * n_parameters(spec_of_mlp(MODEL))
LARGE_CLAIM = 2**20
Messages = Iterator[tuple[str, bytes]]


class Reached(Struct):
    """What an attack has come to: what it has handed to the kernel, and how often it was let in."""

    seconds: float = 0.0
    bytes: int = 0
    packets: int = 0
    connections: int = 0


class Allowance:
    """So many a second, and a burst before that."""

    def __init__(self, a_second: float, burst: float) -> None:
        self._a_second, self._burst = a_second, burst
        self._left, self._at = burst, time.monotonic()

    def use(self, n: float) -> None:
        """Take so many, and wait until they were there."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._a_second) - n
        self._at = now
        if self._left < 0:
            time.sleep(-self._left / self._a_second)


class Ledger:
    """Counts what an attack has come to, and writes it down now and then."""

    def __init__(self, path: Path) -> None:
        self.reached = Reached()
        self._path = path
        self._began = self._told_at = time.monotonic()

    def note(self, n_bytes: int, n_packets: int) -> None:
        """Note that so much was sent."""
        self.reached.bytes += n_bytes
        self.reached.packets += n_packets
        self.tell()

    def tell(self) -> None:
        """Write it down, unless that was just done."""
        now = time.monotonic()
        if now >= self._told_at + TELL_S:
            self._told_at, self.reached.seconds = now, now - self._began
            new = self._path.with_suffix(".new")
            new.write_bytes(json.encode(self.reached))
            new.replace(self._path)


class Place(NamedTuple):
    """Where an attack is, and whose. folder: the arena's, with the passwords."""

    folder: Path
    port: int
    user: str
    job: str

    def ledger(self) -> Ledger:
        """Wait for the word to begin; return where to count."""
        parent = os.getppid()
        while not (self.folder / f"{self.user}.go").exists() and os.getppid() == parent:
            time.sleep(0.005)
        return Ledger(self.folder / f"{self.user}.reached")


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(kind: int, body: bytes) -> bytes:
    head, left = bytearray([kind]), len(body)
    while True:
        left, digit = left >> 7, left & 127
        head.append(digit | (128 if left else 0))
        if not left:
            return bytes(head) + body


def _connection(port: int, user: str) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    start = _text("MQTT") + bytes([4, 0b1100_0010]) + (60).to_bytes(2, "big")
    link.sendall(_packet(0x10, start + _text(user) + _text(user) + _text(user)))
    link.recv(4)
    return link


def flood(place: Place, messages: Messages, *, qos: int = 0, retain: bool = False) -> None:
    """Publish until the process is ended. OSError of a connection that is cut begins another one."""
    kind = 0x30 | qos << 1 | retain
    batches = _batches(messages, kind, itertools.cycle(range(1, 65_536)) if qos else None)
    if not retain:
        batches = itertools.cycle([next(batches) for _ in range(READY_BYTES // BATCH)])
    _announce(place)
    parent, ledger = os.getppid(), place.ledger()
    connections, link_bytes = Allowance(CONNECTIONS_S, CONNECTIONS_BURST), Allowance(LINK_BYTES_S, LINK_BURST)
    while os.getppid() == parent:
        connections.use(1)
        try:
            with _connection(place.port, place.user) as link:
                ledger.reached.connections += 1
                while os.getppid() == parent:
                    batch, n = next(batches)
                    link_bytes.use(len(batch))
                    _write(link, batch)
                    ledger.note(len(batch), n)
        except OSError:
            ledger.tell()
            time.sleep(0.01)


def _announce(place: Place) -> None:
    """Say that it is there, as every device of the fleet has: before the attack, and like the agent that it was."""
    presence = Wire(FLEET).pack(Presence(place.user, 1, online=True))
    with _connection(place.port, place.user) as link:
        link.sendall(_packet(0x33, _text(presence.topic) + (1).to_bytes(2, "big") + presence.payload))
        link.recv(4)


def _batches(messages: Messages, kind: int, ids: Iterator[int] | None) -> Iterator[tuple[bytes, int]]:
    """Return packets for one write each, and how many they are."""
    while True:
        batch, n = bytearray(), 0
        while len(batch) < BATCH:
            topic, payload = next(messages)
            batch += _packet(kind, _text(topic) + (next(ids).to_bytes(2, "big") if ids else b"") + payload)
            n += 1
        yield bytes(batch), n


def _write(link: socket.socket, batch: bytes) -> None:
    link.sendall(batch)
    link.setblocking(False)
    try:
        while link.recv(BATCH):  # what the broker answers is not looked at, and must not fill the connection
            pass
        raise ConnectionResetError
    except BlockingIOError:
        pass
    finally:
        link.settimeout(10.0)


def _offers(place: Place, n_bytes: int) -> Messages:
    return (
        (f"fedge/1/{FLEET}/offer/{place.job}/{place.user}/{number}", bytes(n_bytes)) for number in itertools.count()
    )


def _chunks(place: Place, n_bytes: int) -> Messages:
    return (
        (f"fedge/1/{FLEET}/chunk/{place.job}/{place.user}/{number:016x}/0", bytes(n_bytes))
        for number in itertools.count()
    )


def _presences(place: Place, n_bytes: int) -> Messages:
    return ((f"fedge/1/{FLEET}/device/{place.user}", b"%0*d" % (n_bytes, number)) for number in itertools.count())


class _Insider:
    """A device that hears rounds and takes part in its own way."""

    def __init__(self, place: Place) -> None:
        folder, port, user, job = place
        self.wire = Wire(FLEET)
        broker = BrokerSettings(port=port, username=user, password_file=str(folder / f"{user}.password"))
        self.transport = MqttTransport(broker, user)
        self.transport.subscribe(
            self.wire.filter_for("round", job=job), self.wire.filter_for("want", job=job, device=user)
        )
        self.transport.open()

    def hear(self, timeout_s: float) -> Round | Want | None:
        """Return what is heard, None for nothing within so long."""
        event = self.transport.take(timeout_s)
        message = self.wire.unpack(event) if isinstance(event, Packet) else None
        return message if isinstance(message, Round | Want) else None

    def say(self, message: Offer | Chunk, ledger: Ledger) -> None:
        """Publish this, and count it."""
        packet = self.wire.pack(message)
        if self.transport.publish(packet):
            ledger.note(len(packet.payload), 1)


def dribble(place: Place) -> None:
    """Offer an update in every round, and send a chunk of it every two seconds."""
    ledger = place.ledger()
    insider, parent, user, job = _Insider(place), os.getppid(), place.user, place.job
    offer: Offer | None = None
    missing: list[int] = []
    sends_at = time.monotonic()
    body = os.urandom(BODY_BYTES)
    while os.getppid() == parent:
        match insider.hear(0.05):
            case Round(base=base):
                if offer is None or offer.base != base:
                    body = os.urandom(BODY_BYTES)
                    offer = Offer(job, user, base, 100, digest(body), BODY_BYTES, 100_000)
                    missing = []
                insider.say(offer, ledger)
            case Want(missing=bitmap):
                missing = sorted(from_bitmap(bitmap, 4096))
        if offer is not None and missing and time.monotonic() >= sends_at:
            sends_at = time.monotonic() + DRIBBLE_S
            index = missing.pop(0)
            piece = body[100_000 * index : 100_000 * (index + 1)]
            insider.say(Chunk(job, user, offer.digest, index, piece), ledger)
        ledger.tell()


def claim(place: Place) -> None:
    """Offer an update of many rows in every round, in one piece, and of junk."""
    ledger = place.ledger()
    insider, parent, user, job = _Insider(place), os.getppid(), place.user, place.job
    while os.getppid() == parent:
        match insider.hear(0.05):
            case Round(base=base):
                body = os.urandom(BODY_BYTES)
                offer = Offer(job, user, base, LARGE_CLAIM, digest(body), BODY_BYTES, BODY_BYTES, body=body)
                insider.say(offer, ledger)
        ledger.tell()


ATTACKS: dict[str, Callable[[Place], None]] = {
    "retained": lambda place: flood(place, _offers(place, 1024), qos=1, retain=True),
    "chunks": lambda place: flood(place, _chunks(place, 20_000), qos=0, retain=True),
    "qos0": lambda place: flood(place, _offers(place, 20_000), qos=0),
    "qos1": lambda place: flood(place, _offers(place, 100), qos=1),
    "unasked": lambda place: flood(place, _chunks(place, 100_000), qos=1),
    "huge": lambda place: flood(place, _offers(place, 1_048_000), qos=1),
    "dribble": dribble,
    "claims": claim,
    "presence": lambda place: flood(place, _presences(place, 300), qos=0),
}
"""Name to what it does at a place, until its process is ended."""


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _attack, _folder, _port, _user, _job = sys.argv[1:]
    ATTACKS[_attack](Place(Path(_folder), int(_port), _user, _job))
