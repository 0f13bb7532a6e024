"""What a device can do to the others with nothing but its own credentials: an attack a name, for benchmarks.attackers.

    python -m benchmarks.intruders ATTACK FOLDER PORT USER JOB     # until it is ended

The floods write MQTT 3.1.1 by hand, as fast as the broker takes it, and connect again at once when they are cut off.
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

from benchmarks.attacked import MODEL
from broker.chunks import digest, from_bitmap
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.messages import Chunk, Offer, Round, Want
from broker.transport import Packet
from broker.wire import Wire
from fleet.local.stage import FLEET
from models.nets.mlp import spec_of_mlp
from models.params import n_parameters

BATCH = 65_536
"""Bytes that are written in one go, at least."""
DRIBBLE_S = 2.0
BODY_BYTES = 4 * n_parameters(spec_of_mlp(MODEL))
LARGE_CLAIM = 2**20
Messages = Iterator[tuple[str, bytes]]


class Place(NamedTuple):
    """Where an attack is, and whose. folder: the arena's, with the passwords."""

    folder: Path
    port: int
    user: str
    job: str


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
    ids = itertools.cycle(range(1, 65_536))
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            with _connection(place.port, place.user) as link:
                while os.getppid() == parent:
                    _write(link, kind, qos, messages, ids)
        except OSError:
            time.sleep(0.01)


def _write(link: socket.socket, kind: int, qos: int, messages: Messages, ids: Iterator[int]) -> None:
    batch = bytearray()
    while len(batch) < BATCH:
        topic, payload = next(messages)
        batch += _packet(kind, _text(topic) + (next(ids).to_bytes(2, "big") if qos else b"") + payload)
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


def dribble(place: Place) -> None:
    """Offer an update in every round, and send a chunk of it every two seconds."""
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
                insider.transport.publish(insider.wire.pack(offer))
            case Want(missing=bitmap):
                missing = sorted(from_bitmap(bitmap, 4096))
        if offer is not None and missing and time.monotonic() >= sends_at:
            sends_at = time.monotonic() + DRIBBLE_S
            index = missing.pop(0)
            piece = body[100_000 * index : 100_000 * (index + 1)]
            insider.transport.publish(insider.wire.pack(Chunk(job, user, offer.digest, index, piece)))


def claim(place: Place) -> None:
    """Offer an update of many rows in every round, in one piece, and of junk."""
    insider, parent, user, job = _Insider(place), os.getppid(), place.user, place.job
    while os.getppid() == parent:
        match insider.hear(0.05):
            case Round(base=base):
                body = os.urandom(BODY_BYTES)
                offer = Offer(job, user, base, LARGE_CLAIM, digest(body), BODY_BYTES, BODY_BYTES, body=body)
                insider.transport.publish(insider.wire.pack(offer))


ATTACKS: dict[str, Callable[[Place], None]] = {
    "retained": lambda place: flood(place, _offers(place, 1024), qos=1, retain=True),
    "chunks": lambda place: flood(place, _chunks(place, 20_000), qos=0, retain=True),
    "qos0": lambda place: flood(place, _offers(place, 20_000), qos=0),
    "qos1": lambda place: flood(place, _offers(place, 100), qos=1),
    "unasked": lambda place: flood(place, _chunks(place, 100_000), qos=1),
    "presence": lambda place: flood(place, _presences(place, 300), qos=0),
    "huge": lambda place: flood(place, _offers(place, 1_048_000), qos=1),
    "dribble": dribble,
    "claims": claim,
}
"""Name to what it does at a place, until its process is ended."""


if __name__ == "__main__":
    _attack, _folder, _port, _user, _job = sys.argv[1:]
    ATTACKS[_attack](Place(Path(_folder), int(_port), _user, _job))
