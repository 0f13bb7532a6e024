"""What a process says to its fleet and hears of it: messages in, packets out, and the other way round.

    message ──pack──▶ packet ──transport──▶ broker ──transport──▶ packet ──unpack──▶ message
                                                                             └─────▶ WireError, whatever the bytes

One is made a process, at its door, and handed down to all who speak or listen. It knows the fleet; who is to sign and
to check will be known here too, and nowhere else (WIRE.md says which bytes a signature will cover).
"""

from __future__ import annotations

import math

from msgspec import Struct

from broker import canonical, payloads, topics
from broker.messages import Cleared, Message, Query, Round
from broker.transport import Packet


class Wire(Struct, frozen=True, dict=True):
    """The wire of one fleet. (It has a dict, so that a kind that many share may keep there what it has read.)

    >>> Wire("barn").filter_for("want", device="d1")
    'fedge/1/barn/want/+/d1'
    """

    fleet: str

    def filter_for(self, word: str, **levels: str) -> str:
        """Return the topic filter of a word of the table; a level that is not given is a "+"."""
        return topics.join(self.fleet, word, *(levels.get(name, "+") for name in topics.ROUTES[word].levels))

    def pack(self, message: Message) -> Packet:
        """Return the packet that carries a message."""
        if isinstance(message, Cleared):
            return Packet(message.topic, b"", retain=True)
        word = topics.WORDS[type(message)]
        expiry_s = math.ceil(message.seconds_left) + 1 if isinstance(message, Round) else None
        topic, retain = topics.topic_of(message, word, self.fleet), topics.ROUTES[word].retain
        return Packet(topic, payloads.write(message, word), retain, expiry_s)

    def pack_query(self, query: Query) -> Packet:
        """Return the packet that asks this where those may ask who command nothing."""
        return Packet(topics.topic_of(query, "query", self.fleet), payloads.write(query, "query"))

    def clear(self, message: Message) -> Packet:
        """Return the packet that clears the retained topic of this message."""
        return Packet(self.pack(message).topic, b"", retain=True)

    def unpack(self, packet: Packet) -> Message:
        """Return the message of a packet. Raises WireError and nothing else, whatever the bytes."""
        word, fields = topics.split(packet.topic, self.fleet)
        return payloads.read(packet.payload, word, fields) if packet.payload else Cleared(packet.topic)

    def blob_bytes(self, packet: Packet) -> int:
        """Count the bytes of a packet of this fleet that are not JSON: a piece of an update or of a version."""
        return payloads.blob_bytes(packet.payload, levels(packet.topic)[0])

    def canonical(self, message: Message) -> bytes:
        """Return the bytes that say in one way alone what this message says to this fleet.

        Raises WireError for a message that has none (canonical.py).
        """
        return canonical.write(message, self.fleet)


def levels(topic: str) -> list[str]:
    """Return the levels of a topic or a filter behind its fleet, the word first; nothing of one that is not ours."""
    parts = topic.split("/")
    return parts[3:] if tuple(parts[:2]) == topics.PREFIX else []
