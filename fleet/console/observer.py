"""Somebody who listens to a fleet, and may speak to it: the one place where what people use meets the broker.

    transport ──event──▶ Observer ──▶ Said      a message
                                  ──▶ Garbage   a packet that nobody understands
                                  ──▶ Online, Offline, Denied, SessionTakenOver   of the connection, as they are

It connects, and connects again for ever, subscribed as before; it says what it hears and decides nothing. What follows
is its owner's: an operator's command fails where the connection is lost (operator.py), a watch where a fleet of this
machine speaks nonsense (watch.py), and whoever looks on while the broker is killed goes on (chaos/lookout.py).
"""

from __future__ import annotations

import secrets
import time

from msgspec import Struct

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.errors import WireError
from broker.messages import Message, Query
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, Transport
from broker.wire import Wire


class Said(Struct, frozen=True):
    """Somebody has said this. retained: it lay at the broker before it was listened for."""

    message: Message
    retained: bool


class Garbage(Struct, frozen=True):
    """Somebody has sent what breaks WIRE.md. why: which rule."""

    topic: str
    why: str
    retained: bool


Heard = Said | Garbage | Online | Offline | Denied | SessionTakenOver


class Observer:
    """A listener on one fleet, for the length of a block. client: its id at the broker, where replies go to."""

    def __init__(self, transport: Transport, wire: Wire, client: str) -> None:
        self.wire = wire
        self.client = client
        self._transport = transport

    def __enter__(self) -> Observer:
        """Start connecting."""
        self._transport.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        self._transport.close()

    def connect(self, patience_s: float) -> str:
        """Wait until connected, this long at most; return why it is not, or nothing. What else comes is passed over."""
        until, why = time.monotonic() + patience_s, "no answer"
        while (left := until - time.monotonic()) > 0:
            match self._transport.take(min(0.2, left)):
                case Online():
                    return ""
                case Offline(reason):
                    why = reason
        return why

    def listen(self, *words: str) -> None:
        """Listen to all topics under these words of the table, from now on."""
        self.subscribe(*(self.wire.filter_for(word) for word in words))

    def listen_for_replies(self) -> None:
        """Listen to what is said to this client alone."""
        self.subscribe(self.wire.filter_for("reply", client=self.client))

    def subscribe(self, *filters: str) -> None:
        """Listen to these topics, from now on."""
        self._transport.subscribe(*filters)

    def leave(self, word: str) -> None:
        """Listen to the topics under this word no more."""
        self._transport.unsubscribe(self.wire.filter_for(word))

    def say(self, message: Message) -> bool:
        """Send a message; return whether it was taken. Only an answer proves that it has arrived."""
        return self._transport.publish(self.wire.pack(message))

    def ask(self, query: Query) -> bool:
        """Ask where those may ask who command nothing; otherwise like `say`."""
        return self._transport.publish(self.wire.pack_query(query))

    def take(self, timeout_s: float = 0.0) -> Heard | None:
        """Return what is heard next, waiting this long at most; None where nothing is."""
        event = self._transport.take(timeout_s)
        if not isinstance(event, Packet):
            return event
        try:
            return Said(self.wire.unpack(event), event.retain)
        except WireError as error:
            return Garbage(event.topic, str(error), event.retain)


def over_mqtt(
    role: str, broker: BrokerSettings, wire: Wire, *, retry_s: tuple[float, float] = (1.0, 120.0)
) -> Observer:
    """Return an observer that is a client of a broker, under an id of its own. role: what that begins with.

    retry_s: the first and the last pause between two tries to connect.
    """
    client = f"{role}-{secrets.token_hex(4)}"
    transport = MqttTransport(broker, client, first_retry_s=retry_s[0], last_retry_s=retry_s[1])
    return Observer(transport, wire, client)
