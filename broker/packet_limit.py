"""How large a packet may be that we send: what the broker states, what the operator says, what we had to learn.

1. The smallest of the three holds. MQTT 5 brokers may state theirs (CONNACK Maximum Packet Size, section 3.2.2.3.6);
   the operator's (`max_packet_bytes` in [broker]) is for those that do not.
2. Other brokers hang up on a larger packet without a word, and its owner would send it at every reconnect for ever. So
   when the broker hangs up, the largest packet that was on its way is suspected. Three connections running that end so
   show that the largest of the three is too large: whatever the limit is, it is below all of them. That packet is
   answered by `Denied`, and from the next connection on the limit lies below its size.
3. A bad link must not be mistaken for that. Silence is no hanging up, packets below 8 kB are no suspects, and an
   acknowledgement of as many bytes or more clears one.
4. DISCONNECT "packet too large" (149) names no packet either: it is the largest on its way, unless a larger one was
   acknowledged just before.
5. What is learnt: half of what was too large, at least 2,048 bytes; or the largest size that was acknowledged, where
   that is more. It is kept for the life of the process and only falls, so this ends after a few steps.
"""

from __future__ import annotations

from collections.abc import Collection

from broker.framing import LONGEST
from broker.transport import Denied, Packet, wire_bytes

_TOO_LARGE = 149
_FIXED_BYTES = 5  # of the header of the longest packet
_UNEXPLAINED = (None, 128, 129, 130, 131, 151)
"""DISCONNECT reasons that a packet may be behind: none, unspecified, malformed packet, protocol error, implementation
specific, quota exceeded. The others tell of something else."""

SUSPECT_BYTES = 8192
RUNNING = 3
LEAST_BYTES = 2048

_ADVICE = "set max_packet_bytes in [broker] to what it takes"


class PacketLimit:
    """The limit of one transport. Sizes are those of the whole PUBLISH, as `wire_bytes` gives them.

    told: what the operator says, None for nothing.
    """

    def __init__(self, told: int | None = None) -> None:
        self._told = told
        self._learnt: int | None = None
        self._suspects: list[int] = []  # of each connection running that the broker ended: the largest size on its way
        self._proved = 0  # the largest size that was acknowledged
        self._proved_here = 0  # the same, on this connection
        self._limit: tuple[int | None, str] = (told, "")

    @property
    def most_bytes(self) -> int | None:
        """The limit that holds on this connection, None for none."""
        return self._limit[0]

    def connected(self, stated: int | None) -> None:
        """Begin a connection. stated: the broker's own limit, None or 0 if it stated none."""
        known = [
            (stated, "that the broker takes"),
            (self._told, "of max_packet_bytes in [broker]"),
            (self._learnt, f"that are tried since the broker hung up on larger packets: {_ADVICE}"),
        ]
        self._limit = min([(size, whose) for size, whose in known if size], default=(None, ""))
        self._proved_here = 0

    def allows(self, packet: Packet, more_bytes: int = 0) -> bool:
        """Whether this packet, and so much more, may be sent."""
        limit = self._limit[0]
        return limit is None or wire_bytes(packet) + more_bytes <= limit

    def denial(self, packet: Packet) -> Denied | None:
        """Return the answer to a packet that is too large, None if it is not."""
        limit, whose = self._limit
        if limit is None:
            if len(packet.payload) < LONGEST // 2:  # next to all
                return None
            limit, whose = LONGEST + _FIXED_BYTES, "that MQTT has words for"
        if (size := wire_bytes(packet)) <= limit:
            return None
        return Denied(packet.topic, f"{size} bytes are more than the {limit} {whose}")

    def acknowledged(self, packet: Packet) -> None:
        """Note that the broker has answered for a packet: it was not too large."""
        size = wire_bytes(packet)
        if size > self._proved_here:
            self._proved_here, self._proved = size, max(self._proved, size)
            self._suspects = [suspect for suspect in self._suspects if suspect > size]

    def hung_up(self, on_their_way: Collection[Packet], code: int | None) -> list[Denied]:
        """Learn from what was on its way when the broker hung up; return the answers to packets that are given up.

        code: the reason of its DISCONNECT (MQTT 5, section 3.14.2.1), None if it sent none.
        """
        largest = max(map(wire_bytes, on_their_way), default=0)
        if code == _TOO_LARGE and largest > self._proved_here:
            return self._give_up(
                on_their_way, largest, "more than the broker takes, which does not say how much that is"
            )
        if code not in _UNEXPLAINED:
            return []
        if largest < SUSPECT_BYTES:
            self._suspects.clear()
            return []
        self._suspects.append(largest)
        if len(self._suspects) < RUNNING:
            return []
        why = f"and the broker hung up on such packets on {RUNNING} connections running"
        return self._give_up(on_their_way, max(self._suspects), why)

    def _give_up(self, packets: Collection[Packet], size: int, why: str) -> list[Denied]:
        """Learn that this size is too large."""
        if self._proved >= size:  # by another broker, or before this one was told otherwise
            self._proved = 0
        learnt = min(size - 1, max(size // 2, self._proved, LEAST_BYTES))
        self._learnt = min(learnt, self._learnt or learnt)
        self._suspects = [suspect for suspect in self._suspects if suspect <= self._learnt]
        advice = f"{_ADVICE}; until then no more than {self._learnt} bytes are tried"
        sizes = ((packet.topic, wire_bytes(packet)) for packet in packets)
        return [Denied(topic, f"{n} bytes, {why}: {advice}") for topic, n in sizes if n >= size]
