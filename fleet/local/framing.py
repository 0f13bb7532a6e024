"""Packets of MQTT 3.1.1 and 5, recognised as they stream by: what kind, whose, and how much payload.

Only heads are kept, a bounded number of bytes; bodies are skipped by their length and never held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from broker.wire import levels

CONNECT, PUBLISH = 1, 3
_KINDS = (
    *("", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE"),
    *("SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"),
)
_PEEK_BYTES = 70_000  # the most that a topic (65,535 bytes) and what stands around it can need


class SeenPacket(NamedTuple):
    """One packet that went by. client_id: of a CONNECT. word and n_payload: of a PUBLISH."""

    kind: str
    client_id: str | None = None
    word: str | None = None
    n_payload: int = 0


class GarbageError(ValueError):
    """Bytes that are not MQTT."""


class PacketReader:
    """Reads one direction of one connection, in pieces of any size; keeps no more than the head of a packet.

    version: the protocol level of the connection (5, or 4 for 3.1.1); both directions need to be told.
    """

    def __init__(self) -> None:
        self.version = 4
        self._head = bytearray()  # of the packet that is passing
        self._left = 0  # bytes of it that are still to pass, once its head is read
        self._aliases: dict[int, str] = {}  # topic alias to the word of its topic

    def feed(self, data: bytes) -> Iterator[SeenPacket]:
        """Return the packets whose heads these bytes complete. Raises GarbageError; nothing must be fed after that."""
        start = 0
        while start < len(data):
            if self._left:
                passed = min(self._left, len(data) - start)
                self._left -= passed
                start += passed
                continue
            old = len(self._head)
            self._head += data[start : start + _PEEK_BYTES]
            seen = self._read_head()
            if seen is None:
                start += len(self._head) - old
                continue
            packet, n_packet = seen
            yield packet
            self._left = n_packet - old
            self._head.clear()

    def _read_head(self) -> tuple[SeenPacket, int] | None:
        """Read the packet whose first bytes are here, and its whole length; None: they are too few."""
        head = bytes(self._head)
        length = _varint(head, 1)
        if length is None:
            return None
        n_body, start = length
        if head[0] >> 4 == 0:
            raise GarbageError("no packet has type 0")
        if len(head) < min(start + n_body, _PEEK_BYTES) and not self._enough(head, start):
            return None
        return self._describe(head[: start + n_body], start, n_body), start + n_body

    def _enough(self, head: bytes, start: int) -> bool:
        """Return whether the head of this packet is complete, though its body is not."""
        kind = head[0] >> 4
        if kind == CONNECT:
            return False
        if kind != PUBLISH:
            return True
        if len(head) < start + 2:
            return False
        return len(head) >= start + int.from_bytes(head[start : start + 2]) + 32  # packet id, properties

    def _describe(self, head: bytes, start: int, n_body: int) -> SeenPacket:
        kind = head[0] >> 4
        if kind == CONNECT:
            self.version, client_id = _read_connect(head, start)
            return SeenPacket("CONNECT", client_id=client_id)
        if kind == PUBLISH:
            return self._describe_publish(head, start, n_body)
        return SeenPacket(_KINDS[kind])

    def _describe_publish(self, head: bytes, start: int, n_body: int) -> SeenPacket:
        qos = head[0] >> 1 & 3
        if qos == 3:
            raise GarbageError("no quality of service is 3")
        topic, at = _read_text(head, start)
        at += 2 if qos else 0
        alias = None
        if self.version == 5:
            properties = _varint(head, at)
            if properties is None:
                raise GarbageError("a PUBLISH ends within its head")
            at = properties[1] + properties[0]
            alias = _alias(head[properties[1] : at])
        if at > start + n_body:
            raise GarbageError("a PUBLISH is shorter than its head")
        return SeenPacket("PUBLISH", word=self._word(topic, alias), n_payload=start + n_body - at)

    def _word(self, topic: str, alias: int | None) -> str:
        """Return the word of a topic, which an alias may stand for (MQTT 5, section 3.3.2.3.4)."""
        if not topic and alias is not None:
            return self._aliases.get(alias, "other")
        word = next(iter(levels(topic)), "other")
        if alias is not None:
            self._aliases[alias] = word
        return word


_FIXED_BYTES = {0x01: 1, 0x02: 4, 0x23: 2}
"""Length of the properties of a PUBLISH that our own packets have: payload format, expiry, topic alias."""


def _alias(properties: bytes) -> int | None:
    """Find the topic alias among the properties; one behind a property that is not ours is not found."""
    at = 0
    while at < len(properties) and (length := _FIXED_BYTES.get(properties[at])):
        if properties[at] == 0x23:
            return int.from_bytes(properties[at + 1 : at + 3])
        at += 1 + length
    return None


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Read a variable byte integer (section 1.5.5): its value and where it ends; None: it is not all there."""
    value = 0
    for place in range(4):
        if at + place >= len(data):
            return None
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise GarbageError("a length of more than four bytes")


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    """Read a string with its length before it, and where it ends."""
    end = at + 2 + int.from_bytes(data[at : at + 2])
    if end > len(data) or at + 2 > len(data):
        raise GarbageError("a text is longer than its packet")
    try:
        return data[at + 2 : end].decode(), end
    except UnicodeDecodeError as error:
        raise GarbageError("a text is not UTF-8") from error


def _read_connect(data: bytes, start: int) -> tuple[int, str]:
    """Read protocol level and client id of a CONNECT (section 3.1)."""
    name, at = _read_text(data, start)
    if name not in ("MQTT", "MQIsdp") or at + 4 > len(data):
        raise GarbageError("a CONNECT of another protocol")
    version = data[at]
    at += 4  # level, flags, keepalive
    if version == 5:
        properties = _varint(data, at)
        if properties is None:
            raise GarbageError("a CONNECT ends within its head")
        at = properties[1] + properties[0]
    return version, _read_text(data, at)[0]
