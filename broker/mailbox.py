"""Where the owner of an MQTT client and its network thread meet: bounded queues under one lock.

The owner leaves packets, acknowledgements and changes of filters, and rings the waker; the network thread leaves
events. Events wait in a SimpleQueue, whose `put` even a signal handler may call. Knows nothing of MQTT libraries.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from broker.packet_limit import PacketLimit
from broker.transport import Counters, Offline, Online, Packet, TransportEvent


class ClientLimits(NamedTuple):
    """What a client holds at most; a device of 512 MB keeps to these with room to spare.

    outbound: taken for sending and not yet acknowledged. inbox: received and not yet taken; a single packet always
    fits. unread_bytes: with more than that in the inbox, or half of its packets, nothing is read off the connection.
    packet_bytes: the largest packet that we want, told to an MQTT 5 broker. window: publishes on their way to the
    broker. receive_maximum: packets on their way to us, told to an MQTT 5 broker.
    """

    outbound_packets: int = 256
    outbound_bytes: int = 16_777_216
    inbox_packets: int = 1024
    inbox_bytes: int = 67_108_864
    unread_bytes: int = 4_194_304
    packet_bytes: int = 16_777_216
    window: int = 32
    receive_maximum: int = 64


FILTERS_AT_ONCE = 8
"""In one SUBSCRIBE: AWS IoT Core takes no more."""
ACKS_AT_ONCE = 8
"""So many acknowledgements at most wait for others."""
ACK_WAITS_S = 0.05
"""How long an acknowledgement waits for others, and for what is published: each wakes the network thread else."""
COMPANY_S = 0.1
"""How long an UNSUBSCRIBE waits for others: who fetches a version piece by piece forgets piece by piece."""


class Receipt(NamedTuple):
    """What to acknowledge, and on which connection: an old connection's receipts mean nothing to the next."""

    link: object
    mid: int


class Change(NamedTuple):
    """A filter to subscribe to, or (not wanted) to unsubscribe from."""

    wanted: bool
    name: str


class Mailbox:
    """The queues of one client. Its first half is for the owner's thread, its second for the network thread."""

    def __init__(
        self,
        limits: ClientLimits,
        packet_limit: PacketLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self.packet_limit = packet_limit or PacketLimit()
        self.counters = Counters()
        self.waker = Waker()
        self.acks: deque[Receipt] = deque()
        self.acks_wait = False
        """Whether the network thread looks for them by itself, within ACK_WAITS_S."""
        self.acks_at_once = ACKS_AT_ONCE
        """With so many it is woken all the same."""
        self.changes: deque[Change] = deque()
        self._alone_until: float | None = None
        """Until when filters to unsubscribe from wait for company; None where none waits."""
        self.outbound: deque[Packet] = deque()
        self.n_held = 0
        """Packets taken for sending, up to their PUBACK."""
        self._held_bytes = 0
        self._inbox: queue.SimpleQueue[tuple[TransportEvent | None, Receipt | None]] = queue.SimpleQueue()
        self._inbox_packets = self._inbox_bytes = 0
        self._filters: dict[str, bool] = {}
        """Filter to whether its packets are to come flagged as they were published."""
        self._early: list[Packet] = []
        """Received before the owner was told of the connection."""
        self._told_online = False
        self._linked = False  # the broker has let us in: changes of filters go to it
        self._online = False
        self._last_reason: str | None = None
        self._is_held_up = False
        """Whether the network thread reads nothing until the owner has taken more."""
        self._lock = threading.Lock()

    def subscribe(self, filters: tuple[str, ...], *, as_published: bool = False, again: bool = False) -> None:
        """Remember the filters that are new, and whether their packets are to come flagged as they were published.

        again: ask for the others, too.
        """
        with self._lock:
            fresh = [name for name in dict.fromkeys(filters) if name not in self._filters]
            self._filters.update(dict.fromkeys(fresh, as_published))
            asked = dict.fromkeys(filters) if again else fresh
            self.changes.extend(Change(True, name) for name in asked if self._linked)
        self.waker.wake()

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Forget the filters that are known."""
        with self._lock:
            known = [name for name in dict.fromkeys(filters) if name in self._filters]
            for name in known:
                del self._filters[name]
            self.changes.extend(Change(False, name) for name in known if self._linked)
            is_waited_for = self._alone_until is not None and len(self.changes) < FILTERS_AT_ONCE
            if self.changes and self._alone_until is None:
                self._alone_until = self._clock() + COMPANY_S
        if not (known and is_waited_for):  # the network thread knows until when it waits
            self.waker.wake()

    def post(self, packet: Packet) -> bool:
        """Take a packet for sending, or not."""
        with self._lock:
            if self._online and (denied := self.packet_limit.denial(packet)) is not None:
                self.tell(denied)
                return True
            if not self._has_room_for(len(packet.payload)):
                self.counters.dropped_packets += 1
                return False
            self.outbound.append(packet)
            self.n_held += 1
            self._held_bytes += len(packet.payload)
        if len(self.outbound) == 1:  # else the network thread has not taken all before it, and looks again when it has
            self.waker.wake()
        return True

    @property
    def room(self) -> int:
        """How many packets `post` would still take."""
        with self._lock:
            return self.limits.outbound_packets - self.n_held if self._has_room_for(1) else 0

    def take(self, timeout_s: float | None) -> TransportEvent | None:
        """Return the next event; a packet is acknowledged by that."""
        try:
            event, receipt = self._inbox.get(timeout_s is None or timeout_s > 0, timeout_s)
        except queue.Empty:
            return None
        if isinstance(event, Packet):
            self.give_back(event)
            if receipt is not None:
                self.acks.append(receipt)
                if not self.acks_wait or len(self.acks) >= self.acks_at_once:
                    self.waker.wake()
        return event

    def wake(self) -> None:
        """Make a waiting `take` return None. For any thread and any signal handler."""
        self._inbox.put((None, None))

    # From here on: for the network thread.

    def tell(self, event: TransportEvent, receipt: Receipt | None = None) -> None:
        """Return the owner an event."""
        self._inbox.put((event, receipt))

    def arrive(self, packet: Packet, receipt: Receipt | None) -> bool:
        """Keep a received packet for the owner, who acknowledges it by taking it. False: acknowledge it now.

        That is so when the inbox is full and the packet lost, and before `Online`: it is told after that, and amqtt
        sends no further SUBACK while one of these is open.
        """
        if not self._reserve(packet):
            return False
        if not self._told_online:
            self._early.append(packet)
            return False
        self.tell(packet, receipt)
        return True

    def wants_more(self) -> bool:
        """Return whether to read on: mosquitto 2.0.11 sends more than is acknowledged, and what is dropped is lost.

        The rest waits in the connection, and at the broker. Not while the owner takes nothing: before `Online`, and in
        the end.
        """
        with self._lock:
            self._is_held_up = self._online and not self._is_calm(1)
        return not self._is_held_up

    def _is_calm(self, part: int) -> bool:
        """Return whether what waits is no more than one part in so many of what may."""
        limits = self.limits
        few = self._inbox_packets <= limits.inbox_packets // 2 // part
        return few and self._inbox_bytes <= limits.unread_bytes // part

    def _reserve(self, packet: Packet) -> bool:
        size = len(packet.payload)
        with self._lock:
            fits = self._inbox_bytes + size <= self.limits.inbox_bytes or not self._inbox_packets
            if not fits or self._inbox_packets >= self.limits.inbox_packets:
                self.counters.dropped_packets += 1
                return False
            self._inbox_packets += 1
            self._inbox_bytes += size
            self.counters.received_packets += 1
            self.counters.received_bytes += size
        return True

    def give_back(self, packet: Packet) -> None:
        """Count a received packet out: it was taken, or its connection ended before the owner could see it."""
        with self._lock:
            self._inbox_packets -= 1
            self._inbox_bytes -= len(packet.payload)
            goes_on = self._is_held_up and self._is_calm(2)
        if goes_on:
            self.waker.wake()

    def note_sent(self, packet: Packet) -> None:
        """Count a packet that is on its way."""
        self.counters.sent_packets += 1
        self.counters.sent_bytes += len(packet.payload)

    def release(self, packet: Packet) -> None:
        """Count a sent packet out: the broker has answered for it."""
        with self._lock:
            self.n_held -= 1
            self._held_bytes -= len(packet.payload)

    @property
    def changes_at(self) -> float | None:
        """When `next_changes` has something that waits for company now."""
        return self._alone_until

    def next_changes(self) -> tuple[bool, list[str]]:
        """Take what to subscribe to (True) or unsubscribe from next: changes of one kind, for one packet; none: [].

        Filters to unsubscribe from wait a little for more of them, but never where something else is to be said.
        """
        with self._lock:  # the owner adds to them at any time, which no walk through a deque bears
            if (
                self._alone_until is not None
                and self._clock() < self._alone_until
                and len(self.changes) < FILTERS_AT_ONCE
                and not self.outbound
                and not any(change.wanted for change in self.changes)
            ):
                return True, []
            self._alone_until = None
            wanted = True
            names: list[str] = []
            while self.changes and len(names) < FILTERS_AT_ONCE and (not names or self.changes[0].wanted == wanted):
                wanted, name = self.changes.popleft()
                names.append(name)
        return wanted, names

    def is_as_published(self, name: str) -> bool:
        """Return whether packets of this filter are to come flagged as they were published."""
        with self._lock:
            return self._filters.get(name, False)

    def link_up(self, max_packet_bytes: int | None) -> None:
        """The broker let us in: all filters are to be asked for, and changes of them are queued from now on.

        max_packet_bytes: what the broker takes, if it said so.
        """
        with self._lock:
            self._linked, self._alone_until = True, None
            self.packet_limit.connected(max_packet_bytes)
            self.changes = deque(Change(True, name) for name in self._filters)

    def go_online(self) -> None:
        """Tell the owner that every subscription is acknowledged, and what came before; take packets from now on."""
        with self._lock:
            self._online = self._told_online = True
            self._last_reason = None
        self.tell(Online(self.packet_limit.most_bytes))
        for packet in self._early:
            self.tell(packet)
        self._early.clear()

    def go_offline(self) -> None:
        """Forget what was meant for the connection that ended, and what came from it before the owner heard of it."""
        for packet in self._early:
            self.give_back(packet)
        self._early.clear()
        with self._lock:
            self._online = self._told_online = self._linked = False
            self.changes.clear()
            self._alone_until = None  # else the next connection looks for them without a pause until it is let in
            self.outbound.clear()
            self.acks.clear()
            self.acks_wait, self.acks_at_once = False, ACKS_AT_ONCE
            self.n_held = self._held_bytes = 0

    def complain(self, reason: str) -> None:
        """Tell the owner why there is no connection: once, though attempts go on for ever."""
        if reason != self._last_reason:
            self._last_reason = reason
            self.tell(Offline(reason))

    def shut(self) -> None:
        """Take no more packets for sending."""
        with self._lock:
            self._online = False

    def _has_room_for(self, n_bytes: int) -> bool:
        fits = self._held_bytes + n_bytes <= self.limits.outbound_bytes or not self.n_held
        return self._online and fits and self.n_held < self.limits.outbound_packets


class Waker:
    """Lets one thread interrupt another's wait; a `poll` can wait for it beside a connection."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._lock = threading.Lock()
        self._is_woken = self._closed = False

    def fileno(self) -> int:
        """Return the descriptor that is readable from a `wake` until the next `clear`."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Interrupt the wait, or the next one."""
        with self._lock:
            if not self._is_woken and not self._closed:
                self._is_woken = True
                self._writer.send(b"\0")

    def clear(self) -> None:
        """Note that the waiting thread has gone on."""
        if not self._is_woken:  # who wakes just now interrupts the next wait
            return
        with self._lock:
            if self._is_woken and not self._closed:
                self._reader.recv(1)
                self._is_woken = False

    def wait(self, timeout_s: float) -> None:
        """Wait for a `wake`."""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        poller.poll(timeout_s * 1000)
        self.clear()

    def close(self) -> None:
        """Close both ends; `wake` does nothing any more."""
        with self._lock:
            self._closed = True
            self._reader.close()
            self._writer.close()
