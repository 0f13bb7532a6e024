"""What moves packets: the one interface that the MQTT client and its in-memory twin both keep.

A transport speaks whole packets and knows nothing of their meaning. Its law:

1. One owner thread calls everything here; whatever threads lie behind it never call the owner.
2. Nothing is promised. `publish` returns False when the packet was not taken (offline, queue full): the
   caller keeps the truth elsewhere and sends again. What was taken may still be lost; only an answer proves
   arrival.
3. Subscriptions are remembered and made again at every connect, before `Online` is given out.
4. After `Online`, everything the owner wants retained or answered is sent again by the owner (reconcile).
5. It reconnects for ever, with backoff and jitter, except after `SessionTakenOver`: then another session has its name.
6. Received packets wait in a bounded queue; on a real broker a packet is acknowledged when the owner takes
   it, or a moment later, so that a slow owner slows the broker down and memory stays bounded. One that is longer than
   a client takes is acknowledged and dropped: nobody can stop the rest with it.
7. `Online` is the first event of every connection: what the broker sends earlier is held back until then.
8. A packet that the broker would never take (too large, or forbidden) counts as taken and is answered by
   `Denied`, so that False always means "again later". A broker may hang up on what is too large instead of saying so: a
   transport learns from that, so that no packet is sent for ever. Topics and filters that MQTT does not allow are the
   owner's own mistake: ValueError.
9. A will goes with a connection: another one needs another connection. `renew` leaves the old one with a goodbye, so
   that nobody is told of a loss; its owner sees `Offline` and `Online` as ever.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Packet(Struct, frozen=True):
    """One MQTT PUBLISH at QoS 1, in either direction.

    topic: a topic name without wildcards. payload: opaque bytes; empty and retained clears the topic.
    retain: to send: keep it at the broker; received: it was retained before we subscribed, or, for a filter that was
    asked for `as_published`, it was sent to be kept.
    expiry_s: MQTT 5 message expiry in seconds (section 3.3.2.3.3), None for never; not sent on 3.1.1.
    """

    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: int | None = None


class Online(Struct, frozen=True):
    """Connected, and every remembered subscription acknowledged by the broker."""

    max_packet_bytes: int | None
    """The largest packet that `publish` takes, where that is known: the smallest of what the broker states, what the
    operator says, and what it had to learn from a broker that hung up on larger ones. From one connection to the next
    it may change."""


class Offline(Struct, frozen=True):
    """The connection ended or could not be made; the transport goes on trying."""

    reason: str


class SessionTakenOver(Struct, frozen=True):
    """Another client took our id over (MQTT 5 reason 142). The transport stops for good."""


class Denied(Struct, frozen=True):
    """The broker refused a publish (MQTT 5 PUBACK >= 128, or it takes no packet as large) or a filter."""

    topic: str
    reason: str


TransportEvent = Packet | Online | Offline | SessionTakenOver | Denied


class Counters(Struct):
    """What passed, for people and benchmarks; payload bytes, without MQTT or TCP headers, unless it says otherwise."""

    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    dropped_packets: int = 0
    """Received while the inbound queue was full, longer than is taken, or not taken for sending."""
    wire_sent_bytes: int = 0
    """All that MQTT has sent, over all connections: every packet, with its headers; not those of TLS or TCP."""
    wire_received_bytes: int = 0
    """The same of what was received."""


def check_topic(topic: str) -> None:
    """Raise ValueError unless a packet may be published to this topic (MQTT 5, section 4.7)."""
    if not 0 < len(topic.encode()) <= 65_535 or "\0" in topic or "+" in topic or "#" in topic:
        raise ValueError(f"{topic[:80]!r} is not a topic name")


def check_filter(name: str) -> None:
    """Raise ValueError unless this is a topic filter (MQTT 5, section 4.7.1).

    A wildcard is a whole word, and `#` the last one.
    """
    fits = 0 < len(name.encode()) <= 65_535 and "\0" not in name
    if "+" in name or "#" in name:
        words = name.split("/")
        alone = all(word in ("+", "#") or ("+" not in word and "#" not in word) for word in words)
        fits = fits and alone and "#" not in words[:-1]
    if not fits:
        raise ValueError(f"{name[:80]!r} is not a topic filter")


def wire_bytes(packet: Packet) -> int:
    """Return the length of the MQTT 5 PUBLISH that carries this packet at QoS 1, the fixed header included."""
    properties = 1 + (0 if packet.expiry_s is None else 5)
    rest = 2 + len(packet.topic.encode()) + 2 + properties + len(packet.payload)
    return 1 + max(1, (rest.bit_length() + 6) // 7) + rest


def about_wire_bytes(packet: Packet) -> int:
    """Return about what a packet and its PUBACK take: cheaper to say than exactly, as a fleet in memory needs it."""
    return len(packet.topic) + len(packet.payload) + _AROUND_BYTES


_AROUND_BYTES = 14
"""Two fixed headers, the length of a topic, two packet ids, properties, the PUBACK's."""


class Transport(Protocol):
    """A connection to a broker under one client id."""

    counters: Counters

    def open(self) -> None:
        """Start connecting. Returns at once; `Online` or `Offline` follow from `take`."""

    def subscribe(self, *filters: str, as_published: bool = False, again: bool = False) -> None:
        """Remember these topic filters; if online, ask the broker now. Known filters are not asked again.

        Filters may overtake packets that still wait to be sent. as_published: have the broker tell what is sent to be
        kept, when it is sent, too (MQTT 5, section 3.8.3.1: retain as published; 3.1.1 has no such thing). again: ask
        for known filters, too, so that what is retained comes once more and nothing else changes (MQTT 3.1.1, section
        3.8.4).

        Raises ValueError for a filter that MQTT does not allow.
        """

    def unsubscribe(self, *filters: str) -> None:
        """Forget these filters; if online, tell the broker."""

    def publish(self, packet: Packet) -> bool:
        """Take a packet for sending. False: not taken (offline, or the queue is full).

        Raises ValueError for a topic with wildcards.
        """

    @property
    def room(self) -> int:
        """How many packets `publish` would still take; 0 when offline."""

    def renew(self, will: Packet | None, *, hurry: bool = False) -> None:
        """From now on have the broker publish this when the connection is lost; None: nothing. Returns at once.

        A connection that stands sends what was taken before (for 2 s at most) and ends with a clean DISCONNECT, so that
        its own will is not published; another one is made without backoff: `Offline`, then `Online`. Before `open`,
        and while offline, it changes what the next connection carries and nothing else. hurry: what was taken may be
        lost, and the old will may be published: for who has to get rid of what the broker still has for him.

        Raises ValueError for a topic with wildcards.
        """

    def take(self, timeout_s: float | None = 0.0) -> TransportEvent | None:
        """Return the next event, waiting at most timeout_s (None: for ever), else None."""

    def wake(self) -> None:
        """Make a waiting `take` return None now. The one call that any thread or signal handler may make."""

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what was taken, say a clean DISCONNECT (so that no will is published) and end every thread."""
