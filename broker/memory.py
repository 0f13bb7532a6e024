"""A broker and its clients within one process: the twin of broker/client.py, held to the same contract.

It is for tests and for simulating a whole fleet, so it has no thread, no socket and no clock of its own, and
the same calls always give the same events in the same order. Its law, beyond that of broker/transport.py:

1. Everything happens inside the call that causes it: when `publish` returns, every subscriber's queue holds
   the packet. One thread drives the broker and all its transports; only `wake` may come from elsewhere.
2. `take` never waits. Nothing could arrive while the only thread slept: an empty queue gives None at once.
3. A transport that is `drop`ped lost its link, and stays offline until `restore` plugs the cable in again; a process
   that died is one whose cable stays out. `close` is a goodbye: no will.
4. The broker notices a lost link at once and publishes the will; or, where the drop says so, not yet: the connection is
   half open. Then nothing reaches the client, and its will waits until `lapse` (its keepalive ran out) or until a
   client of its id connects, which is a takeover.
5. `stop` is a broker killed: no wills, nothing retained survives, half open connections are forgotten. Where it says
   so, what is retained is kept (a broker with persistence), and wills are published before everybody is cut off (one
   ended by SIGTERM: mosquitto does so, to those still connected too). `start` brings back every open transport that
   has its cable.
6. `policy` loses or doubles live packets on their way to one subscriber, as QoS 1 does over bad networks and full
   brokers. It must not call the broker or its transports. What is retained arrives.
7. As in mosquitto, a packet reaches a client once for each of its filters that match, and a session that is
   taken over has its will published.

What is subscribed and retained lies in one tree of topic levels (topic_tree.py).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from broker import reasons
from broker.topic_tree import Level, filters_matching, find, matches, prune, reach, retained_at
from broker.transport import (
    Counters,
    Denied,
    Offline,
    Online,
    Packet,
    SessionTakenOver,
    TransportEvent,
    about_wire_bytes,
    check_filter,
    check_topic,
    wire_bytes,
)

_PULLED = "the cable was pulled"
_ROOM = 1000  # what `room` says while online: nothing ever waits to be sent, so any number would do


class MemoryBroker:
    """Passes packets between its transports.

    clock: seconds that never go back; retained packets expire by it.
    max_packet_bytes: a larger publish is answered by `Denied`.
    max_queued: packets that may wait in one transport; those beyond are dropped and counted.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_packet_bytes: int | None = None,
        max_queued: int = 100_000,
    ) -> None:
        self.max_packet_bytes = max_packet_bytes
        self.max_queued = max_queued
        self.policy: Callable[[MemoryTransport, Packet], int] | None = None
        """How many copies of a live packet reach a subscriber: 0 lost, 1, 2 doubled. None: one each."""
        self.roused: Callable[[MemoryTransport], None] | None = None
        """Told of a transport that had nothing to take and now has: who drives many clients need not ask each. It must
        not call the broker or its transports."""
        self._clock = clock
        self._root: Level[MemoryTransport] = Level()
        self._transports: dict[MemoryTransport, None] = {}  # open and with a cable, online or not
        self._online: dict[str, MemoryTransport] = {}
        self._half_open: dict[str, Packet | None] = {}  # client id to will: their links are lost, unnoticed
        self._running = True

    def transport(self, client_id: str, will: Packet | None = None) -> MemoryTransport:
        """Return a new client. `will` is published when it is dropped, or its id is taken over."""
        return MemoryTransport(self, client_id, will)

    def stop(self, keep: bool = False, wills: bool = False) -> None:
        """Die, and cut everybody off.

        keep: what is retained survives to the next `start`. wills: everybody's are published before, as at SIGTERM.
        """
        online = list(self._online.values())
        if wills:
            for will in [*(transport.will for transport in online), *self._half_open.values()]:
                if will is not None:
                    self._publish(will)
        self._running = False
        self._half_open.clear()
        for transport in online:
            self._disconnect(transport, with_will=False)
            transport._went_offline("the broker is gone")
        if not keep:
            self._root = Level()

    def start(self) -> None:
        """Run again: every open transport reconnects, in the order in which they were opened (or plugged in again)."""
        self._running = True
        for transport in list(self._transports):
            self._connect(transport)

    def lapse(self, client_id: str) -> None:
        """Notice that this client's connection is lost, if it is half open: publish its will."""
        will = self._half_open.pop(client_id, None)
        if will is not None:
            self._publish(will)

    def _connect(self, transport: MemoryTransport) -> None:
        self._transports[transport] = None
        if not self._running:
            transport._went_offline("the broker is gone")
        elif self._online.get(transport.client_id) is not transport:
            self.lapse(transport.client_id)
            self._take_over(transport.client_id)
            self._online[transport.client_id] = transport
            transport._came_online()

    def _take_over(self, client_id: str) -> None:
        older = self._online.get(client_id)
        if older is not None:
            self._disconnect(older, with_will=True)
            self._transports.pop(older, None)
            older._was_taken_over()

    def _disconnect(self, transport: MemoryTransport, with_will: bool) -> None:
        if self._online.get(transport.client_id) is not transport:
            return
        del self._online[transport.client_id]
        for name in transport._filters:
            self._unsubscribe(transport, name)
        if with_will and transport.will is not None:
            self._publish(transport.will)

    def _cut(self, transport: MemoryTransport, noticed: bool) -> None:
        """The link is lost, and with it the transport until it is plugged in again."""
        self._transports.pop(transport, None)
        if self._online.get(transport.client_id) is transport:
            self._disconnect(transport, with_will=noticed)
            if not noticed:
                self._half_open[transport.client_id] = transport.will

    def _forget(self, transport: MemoryTransport) -> None:
        self._disconnect(transport, with_will=False)
        self._transports.pop(transport, None)

    def _subscribe(self, transport: MemoryTransport, name: str) -> None:
        own = reach(self._root, name)
        own.add(transport)
        self._bring(transport, name, own)

    def _bring(self, transport: MemoryTransport, name: str, own: Level[MemoryTransport]) -> None:
        """Send what is retained where a filter says. own: its place in the tree."""
        now = self._clock()
        for level in retained_at(self._root, name) if "+" in name or "#" in name else (own,):
            packet = level.retained
            if packet is None or now >= level.retained_until:
                continue
            left = None if packet.expiry_s is None else math.ceil(level.retained_until - now)
            if left != packet.expiry_s:
                packet = Packet(packet.topic, packet.payload, retain=True, expiry_s=left)
            transport._deliver(packet, about_wire_bytes(packet))

    def _unsubscribe(self, transport: MemoryTransport, name: str) -> None:
        level = find(self._root, name)
        if level is not None:
            level.discard(transport)
            prune(self._root, name)

    def _publish(self, packet: Packet) -> None:
        if packet.retain:
            self._retain(packet)
        live = Packet(packet.topic, packet.payload, expiry_s=packet.expiry_s) if packet.retain else packet
        policy, n_wire = self.policy, about_wire_bytes(packet)
        for level in list(filters_matching(self._root, packet.topic)):
            for transport in level.subscribers:
                said = packet if packet.retain and transport._hears_as_published(packet.topic) else live
                for _ in range(1 if policy is None else policy(transport, said)):
                    transport._deliver(said, n_wire)

    def _retain(self, packet: Packet) -> None:
        level = reach(self._root, packet.topic)
        level.retained = packet if packet.payload else None
        level.retained_until = math.inf if packet.expiry_s is None else self._clock() + packet.expiry_s
        if level.retained is None:
            prune(self._root, packet.topic)


class MemoryTransport:
    """One client of a MemoryBroker; see broker/transport.py for what it promises."""

    __slots__ = (
        "_as_published",
        "_broker",
        "_cable",
        "_filters",
        "_later",
        "_next",
        "_online",
        "_open",
        "client_id",
        "counters",
        "will",
    )

    def __init__(self, broker: MemoryBroker, client_id: str, will: Packet | None) -> None:
        self.client_id = client_id
        self.will = will
        self.counters = Counters()
        self._broker = broker
        self._filters: dict[str, None] = {}
        self._as_published: tuple[str, ...] = ()
        self._next: TransportEvent | None = None
        self._later: deque[TransportEvent] | None = (
            None  # a deque weighs more than all else here, and one event is the rule
        )
        self._open = self._online = False
        self._cable = True

    def open(self) -> None:
        """Connect; `Online` (or `Offline`, where the broker is stopped or the cable out) is there at once."""
        self._open = True
        if self._cable:
            self._broker._connect(self)
        else:
            self._went_offline(_PULLED)

    def subscribe(self, *filters: str, as_published: bool = False, again: bool = False) -> None:
        """Remember these topic filters. Raises ValueError for a filter that MQTT does not allow.

        again: ask for known ones as well.
        """
        for name in filters:
            check_filter(name)
            if name not in self._filters:
                self._filters[name] = None
                if as_published:
                    self._as_published += (name,)
                if self._online:
                    self._broker._subscribe(self, name)
            elif again and self._online:
                self._broker._bring(self, name, reach(self._broker._root, name))

    def unsubscribe(self, *filters: str) -> None:
        """Forget these filters."""
        for name in filters:
            if name in self._filters:
                del self._filters[name]
                self._as_published = tuple(other for other in self._as_published if other != name)
                if self._online:
                    self._broker._unsubscribe(self, name)

    def publish(self, packet: Packet) -> bool:
        """Hand a packet to every subscriber. False while offline.

        Raises ValueError for a topic with wildcards.
        """
        check_topic(packet.topic)
        if not self._online:
            self.counters.dropped_packets += 1
            return False
        limit = self._broker.max_packet_bytes
        if limit is not None and wire_bytes(packet) > limit:
            self._put(Denied(packet.topic, f"{wire_bytes(packet)} bytes, the broker takes {limit}"))
            return True
        self.counters.sent_packets += 1
        self.counters.sent_bytes += len(packet.payload)
        self.counters.wire_sent_bytes += about_wire_bytes(packet)
        self._broker._publish(packet)
        return True

    @property
    def room(self) -> int:
        """How many packets `publish` would still take; 0 when offline."""
        return _ROOM if self._online else 0

    @property
    def waiting(self) -> int:
        """How many events `take` has to give: who drives many clients in one thread calls only those with some."""
        return (self._next is not None) + (0 if self._later is None else len(self._later))

    def take(self, timeout_s: float | None = 0.0) -> TransportEvent | None:  # noqa: ARG002 -- it never waits: see the law
        """Return the next event, or None at once."""
        event, later = self._next, self._later
        if later is None:
            self._next = None
            return event
        self._next = later.popleft()
        if not later:
            self._later = None
        return event

    def wake(self) -> None:
        """Do nothing: `take` never waits."""

    def close(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002 -- nothing is left to send
        """Say goodbye: no will. Events that were not taken are gone."""
        self._broker._forget(self)
        self._open = self._online = False
        self._next = self._later = None

    def drop(self, reason: str = _PULLED, will: bool = True) -> None:
        """Lose the link, and stay offline until `restore`.

        will: the broker notices at once, and publishes it. False: the connection is half open, see the law.
        """
        self._cable = False
        self._broker._cut(self, noticed=will)
        if self._online:
            self._went_offline(reason)

    def restore(self) -> None:
        """Plug the cable in again; an open transport reconnects at once."""
        self._cable = True
        if self._open:
            self._broker._connect(self)

    def renew(self, will: Packet | None, *, hurry: bool = False) -> None:  # noqa: ARG002 -- nothing waits here
        """From now on have the broker publish this when the link is lost; online, reconnect with it at once.

        Raises ValueError for a topic with wildcards.
        """
        if will is not None:
            check_topic(will.topic)
        self.will, online = will, self._online
        if online:
            self._broker._disconnect(self, with_will=False)
            self._went_offline(reasons.RENEWED)
            self._broker._connect(self)

    def _came_online(self) -> None:
        self._online = True
        self._put(Online(self._broker.max_packet_bytes))
        for name in self._filters:
            self._broker._subscribe(self, name)

    def _went_offline(self, reason: str) -> None:
        self._online = False
        self._put(Offline(reason))

    def _was_taken_over(self) -> None:
        self._open = self._online = False
        self._put(SessionTakenOver())

    def _hears_as_published(self, topic: str) -> bool:
        names = self._as_published
        return bool(names) and any(matches(name, topic) for name in names)

    def _deliver(self, packet: Packet, n_wire: int) -> None:
        """Queue a packet. n_wire: about the bytes that it takes."""
        counters = self.counters
        if self._next is not None and self.waiting >= self._broker.max_queued:
            counters.dropped_packets += 1
            return
        counters.received_packets += 1
        counters.received_bytes += len(packet.payload)
        counters.wire_received_bytes += n_wire
        self._put(packet)

    def _put(self, event: TransportEvent) -> None:
        if self._next is None:
            self._next = event
            if self._broker.roused is not None:
                self._broker.roused(self)
        elif self._later is None:
            self._later = deque((event,))
        else:
            self._later.append(event)
