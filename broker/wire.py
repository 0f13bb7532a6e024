"""What a process says to its fleet and hears of it: messages in, packets out, and the other way round.

    message ──pack──▶ packet ──transport──▶ broker ──transport──▶ packet ──unpack──▶ message
                                                                             └─────▶ WireError, whatever the bytes

One is made a process, at its door, and handed down to all who speak or listen. It knows the fleet, and by its seal who
signs and who checks (seal.py); nobody else does.
"""

from __future__ import annotations

import math

from msgspec import Struct

from broker import canonical, envelope, payloads, topics
from broker.messages import Cleared, Job, Message, Presence, Query, Round, Vitals
from broker.seal import Seal
from broker.transport import Packet

OPEN = Seal()
"""Of a process without keys."""


class Wire(Struct, frozen=True, dict=True):
    """The wire of one fleet. (It has a dict, so that a kind that many share may keep there what it has read.)

    >>> Wire("barn").filter_for("want", device="d1")
    'fedge/1/barn/want/+/d1'
    """

    fleet: str
    seal: Seal = OPEN

    def filter_for(self, word: str, **levels: str) -> str:
        """Return the topic filter of a word of the table; a level that is not given is a "+"."""
        return topics.join(self.fleet, word, *(levels.get(name, "+") for name in topics.ROUTES[word].levels))

    def filter_below(self, word: str) -> str:
        """Return another topic filter for all of a word: beside `filter_for`, it has what is retained sent again.

        >>> Wire("barn").filter_below("offer")
        'fedge/1/barn/offer/#'
        """
        return topics.join(self.fleet, word, "#")

    def pack(self, message: Message) -> Packet:
        """Return the packet that carries a message."""
        if isinstance(message, Cleared):
            return Packet(message.topic, b"", retain=True)
        return self._packet(message, topics.WORDS[type(message)])

    def pack_query(self, query: Query) -> Packet:
        """Return the packet that asks this where those may ask who command nothing."""
        return self._packet(query, "query")

    def _packet(self, message: Message, word: str) -> Packet:
        said = self.seal.complete(message)
        expiry_s = math.ceil(said.seconds_left) + 1 if isinstance(said, Round) else _EXPIRY_S.get(type(said))
        closed = self.seal.close(said, lambda: self.canonical(said))
        payload = payloads.write(said, word)
        if closed is not None:
            payload = closed.to_bytes() + payload
        return Packet(topics.topic_of(said, word, self.fleet), payload, topics.ROUTES[word].retain, expiry_s)

    def clear(self, message: Message) -> Packet:
        """Return the packet that clears the retained topic of this message."""
        topic = topics.topic_of(message, topics.WORDS[type(message)], self.fleet)
        return Packet(topic, b"", retain=True)

    def unpack(self, packet: Packet) -> Message:
        """Return the message of a packet. Raises WireError and nothing else, whatever the bytes: ForgedError where it
        is not proved to be of who should have said it.
        """
        word, fields = topics.split(packet.topic, self.fleet)
        if not packet.payload:
            return Cleared(packet.topic)
        closed, payload = envelope.split(packet.payload) if topics.ROUTES[word].json else (None, packet.payload)
        message = payloads.read(payload, word, fields)
        self.seal.check(message, closed, lambda: self.canonical(message))
        return message

    def is_fresh(self, presence: Presence) -> bool:
        """Return whether a presence was said to this very aggregator, and is no hint of former times."""
        return self.seal.is_fresh(presence)

    def is_signed_spec(self, job: Job) -> bool:
        """Return whether one whom this process trusts with jobs has signed the specification of this one."""
        return self.seal.is_signed_spec(job)

    def blob_bytes(self, packet: Packet) -> int:
        """Count the bytes of a packet of this fleet that are not JSON: a piece of an update or of a version.

        Raises WireError for a broken one.
        """
        word = levels(packet.topic)[0]
        payload = envelope.split(packet.payload)[1] if topics.ROUTES[word].json else packet.payload
        return payloads.blob_bytes(payload, word)

    def canonical(self, message: Message) -> bytes:
        """Return the bytes that say in one way alone what this message says to this fleet.

        Raises WireError for a message that has none (canonical.py).
        """
        return canonical.write(message, self.fleet)


_EXPIRY_S: dict[type, int] = {Vitals: 3 * 86_400}
"""What a broker forgets by itself, over MQTT 5: what a device says of itself at least once a day."""


def levels(topic: str) -> list[str]:
    """Return the levels of a topic or a filter behind its fleet, the word first; nothing of one that is not ours."""
    parts = topic.split("/")
    return parts[3:] if tuple(parts[:2]) == topics.PREFIX else []
