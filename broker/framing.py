"""PUBLISH and PUBACK as bytes (MQTT 5, sections 2.1, 3.3 and 3.4): nearly all that a connection carries. Pure.

    bytes ──feed──▶ next ──▶ Delivery, Answer      what is read here
                         ├─▶ TooLong               a PUBLISH of which only its number is read
                         └─▶ bytes                 one whole packet of another kind, or one that is read elsewhere

1. Nothing is judged here: a packet that is not what it should be is given out as it came, to who refuses it; so is one
   with other properties than a message expiry. After a length that is none, everything is.
2. What is kept is no longer than one packet may be, and what was read with it, whatever length is announced and however
   small the parts that it comes in. A longer PUBLISH is passed over as it comes in: on MQTT 3.1.1 nobody can tell the
   broker what is too long, and to hang up would let whoever publishes one cut everybody off. Nothing else is as long.
"""

from __future__ import annotations

from typing import NamedTuple

from broker import varint

LONGEST = 268_435_455
"""Bytes behind the fixed header (section 1.5.5)."""
_PUBLISH, _PUBACK = 0x30, 0x40
_RETAIN, _QOS, _QOS_1, _QOS_2 = 0x01, 0x06, 0x02, 0x04
_EXPIRY, _ALIAS = 0x02, 0x23
_EXPIRY_BYTES = 5
_SMALL_BYTES = 4096
"""A part below that grows by what comes next: each part takes fifty bytes more than it has."""


class Delivery(NamedTuple):
    """A PUBLISH to us, at QoS 1, or 0 where mid is 0."""

    topic: str
    payload: bytes
    retain: bool
    mid: int
    expiry_s: int | None


class Answer(NamedTuple):
    """A PUBACK. code: its reason (section 3.4.2.1), 0 for success."""

    mid: int
    code: int


class TooLong(NamedTuple):
    """A PUBLISH to us that is longer than we take. mid: as that of a Delivery. n_bytes: of the whole packet."""

    mid: int
    n_bytes: int


class Framing:
    """The packets in what a connection brings. five: whether it speaks MQTT 5. most_bytes: of one, with its header."""

    def __init__(self, *, five: bool, most_bytes: int = LONGEST) -> None:
        self._five, self._most_bytes = five, most_bytes
        self._passing = 0
        """Bytes that are still to come of what is passed over."""
        self._parts: list[bytes] = []
        """What has come and is not given out: a packet that came in one piece is copied once, its payload alone."""
        self._n_bytes = 0
        """Of all of that."""
        self._at = 0
        """Where the next packet begins in the first part."""
        self._needed = 2
        """Bytes with which the next packet, or more of its length, is here."""
        self._lost = False
        """Whether nobody knows any more where a packet begins."""

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if self._passing:
            n = min(self._passing, len(data))
            self._passing, data = self._passing - n, data[n:]
        if not data:
            return
        self._n_bytes += len(data)
        if self._parts and len(self._parts[-1]) < _SMALL_BYTES:
            self._parts[-1] += data
        else:
            self._parts.append(data)

    @property
    def has_next(self) -> bool:
        """Whether `next` may have something to give."""
        return self._n_bytes >= self._needed

    @property
    def has_part(self) -> bool:
        """Whether a part of a packet has come, and the rest is still to come."""
        return self._n_bytes > 0 or self._passing > 0

    def next(self) -> Delivery | Answer | TooLong | bytes | None:
        """Return the next packet that is whole, or too long; None where there is none.

        Raises UnicodeDecodeError for a topic that is not UTF-8, and ValueError for anything else than a PUBLISH that is
        too long.
        """
        if self._n_bytes < self._needed:
            return None
        if self._lost:
            return self._all()
        here, start = self._joined(), self._at
        n_bytes, at = 0, start + 1
        while True:
            if at == len(here):
                self._needed = at - start + 1
                return None
            byte = here[at]
            n_bytes |= (byte & 127) << 7 * (at - start - 1)
            at += 1
            if byte < 128:
                break
            if at - start > 4:
                return self._all()
        end = at + n_bytes
        if end - start > self._most_bytes:
            return self._pass_over(here, at, end)
        if len(here) < end:
            self._needed = end - start
            return None
        self._go_on_at(end, here)
        return self._read(memoryview(here)[start:end], at - start)

    def _go_on_at(self, end: int, here: bytes) -> None:
        self._needed, self._at, self._n_bytes = 2, end, max(0, len(here) - end)
        if not self._n_bytes:
            self._parts, self._at = [], 0

    def _pass_over(self, here: bytes, at: int, end: int) -> TooLong | None:
        """Keep nothing of a packet but its number; None while that has not come. at, end: of what its length counts."""
        qos = here[self._at] & _QOS
        head = at + 2 if len(here) < at + 2 else at + 4 + _number(here, at)
        if here[self._at] & 0xF0 != _PUBLISH or qos >= _QOS_2 or head > end:
            raise ValueError(f"a packet of {end - self._at} bytes that nobody sends")
        if len(here) < head:
            self._needed = head - self._at
            return None
        found = TooLong(_number(here, head - 2) if qos else 0, end - self._at)
        self._passing = max(0, end - len(here))
        self._go_on_at(end, here)
        return found

    def _joined(self) -> bytes:
        if len(self._parts) > 1:
            first, *others = self._parts
            self._parts, self._at = [b"".join((memoryview(first)[self._at :], *others))], 0
        return self._parts[0]

    def _all(self) -> bytes:
        found = self._joined()[self._at :]
        self._parts, self._at, self._n_bytes, self._lost, self._needed = [], 0, 0, True, 1
        return found

    def _read(self, packet: memoryview, at: int) -> Delivery | Answer | bytes:
        kind, n = packet[0] & 0xF0, len(packet) - at
        found: Delivery | Answer | None = None
        if kind == _PUBLISH and n >= 2 and packet[0] & _QOS < _QOS_2:
            found = self._delivery(packet, at)
        elif kind == _PUBACK and n >= 2 and (self._five or n == 2):
            found = Answer(_number(packet, at), packet[at + 2] if n > 2 else 0)
        return bytes(packet) if found is None else found

    def _delivery(self, packet: memoryview, at: int) -> Delivery | None:
        """Read a PUBLISH; None where it is not as ours are."""
        end = at + 2 + _number(packet, at)
        acknowledged = packet[0] & _QOS == _QOS_1
        start = end + 2 * acknowledged + self._five
        if end == at + 2 or start > len(packet):
            return None
        mid, expiry_s = _number(packet, end) if acknowledged else 0, None
        if acknowledged and not mid:
            return None
        if self._five and (n := packet[start - 1]):
            if n != _EXPIRY_BYTES or start + n > len(packet) or packet[start] != _EXPIRY:
                return None
            expiry_s = int.from_bytes(packet[start + 1 : start + n])
            start += n
        return Delivery(
            str(packet[at + 2 : end], "utf-8"), bytes(packet[start:]), bool(packet[0] & _RETAIN), mid, expiry_s
        )


def publish(
    topic: str, payload: bytes, mid: int, *, retain: bool, five: bool, expiry_s: int | None = None, alias: int = 0
) -> bytes:
    """Return a PUBLISH at QoS 1. alias: 0 for none; it and expiry_s are said on MQTT 5 alone.

    Raises ValueError for one that is longer than MQTT has words for.
    """
    name = topic.encode()
    head = len(name).to_bytes(2) + name + mid.to_bytes(2)
    if five:
        expiry = b"" if expiry_s is None else bytes((_EXPIRY,)) + expiry_s.to_bytes(4)
        said = expiry + (bytes((_ALIAS,)) + alias.to_bytes(2) if alias else b"")
        head += bytes((len(said),)) + said
    return b"".join((bytes((_PUBLISH | _QOS_1 | retain,)), _length(len(head) + len(payload)), head, payload))


def puback(mid: int) -> bytes:
    """Return a PUBACK that says success."""
    return bytes((_PUBACK, 2)) + mid.to_bytes(2)


def _length(n_bytes: int) -> bytes:
    if n_bytes > LONGEST:
        raise ValueError(f"{n_bytes} bytes are more than an MQTT packet may have")
    return varint.write(n_bytes)


def _number(packet: memoryview | bytes, at: int) -> int:
    return packet[at] << 8 | packet[at + 1]
