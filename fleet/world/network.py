"""The broker of a world: the in-memory one, with what it may do to those who trust it.

1. A delivery may be lost or doubled, as `delays` says, and a copy may come after what was sent later; but what a
   subscription asks for (retained) comes once, as long as the connection lasts.
2. A connection may be half open. The client's side: what it publishes is taken and gone, what it is sent never comes.
   The broker's side: the session lives on, deliveries to it are gone, and its last will is published when it `lapse`s,
   or when somebody (the same client, too) connects under its id.
3. A broker that stops keeps what is retained, or loses it; and publishes wills, as by SIGTERM, or not, as by kill -9.
4. Nobody reconnects by himself: `restore` says when a client's next attempt succeeds.

`heard` is told of every packet that the broker takes, and from whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from broker.memory import MemoryBroker, MemoryTransport
from broker.topic_tree import Level, topics_matching
from broker.transport import Packet
from fleet.world.agenda import Agenda

WillMode = Literal["now", "late", "never"]
Delays = Callable[["WorldTransport", Packet], tuple[float, ...]]
"""In how many seconds each copy of a packet reaches a client; () for a packet that is lost."""


class WorldBroker(MemoryBroker):
    """One broker, and everybody who has ever connected to it."""

    def __init__(self, agenda: Agenda, heard: Callable[[Packet], None]) -> None:
        super().__init__(lambda: agenda.now)
        self.agenda = agenda
        self.heard = heard
        self.delays: Delays = lambda _client, _packet: (0.0,)

    @property
    def running(self) -> bool:
        """Whether it can be reached."""
        return self._running

    def transport(self, client_id: str, will: Packet | None = None) -> WorldTransport:
        """Return a new client."""
        return WorldTransport(self, client_id, will)

    def halt(self, *, keep: bool, wills: bool) -> None:
        """Stop. keep: what is retained is there at the next start. wills: of those who are connected, now."""
        for transport in list(self._online.values()):
            self._disconnect(transport, with_will=wills)
            transport._went_offline("the broker is gone")
        self._running = False
        if not keep:
            self._root = Level()

    def start(self) -> None:
        """Run again; clients come when they are `restore`d."""
        self._running = True

    def connected(self, transport: WorldTransport) -> bool:
        """Return whether this connection is whole, on both sides."""
        return self._running and not transport.deaf and self._online.get(transport.client_id) is transport

    def lapse(self, client_id: str) -> None:
        """Give up a session that has been silent for too long: its will is published."""
        transport = self._online.get(client_id)
        if isinstance(transport, WorldTransport) and transport.deaf:
            self._disconnect(transport, with_will=True)
        super().lapse(client_id)

    def bury(self) -> None:
        """Give up the sessions of all whose processes are no more."""
        for transport in list(self._online.values()):
            if isinstance(transport, WorldTransport) and transport.muted:
                self.lapse(transport.client_id)

    def retained(self, topic: str) -> Packet | None:
        """Return what lies at a topic."""
        level: Level[MemoryTransport] | None = self._root
        for word in topic.split("/"):
            level = level.below.get(word) if level else None
        return level.retained if level and self._clock() < level.retained_until else None

    def lying(self, filter_: str) -> list[Packet]:
        """Return what lies at the topics of a filter."""
        levels = topics_matching(self._root, filter_.split("/"))
        return [level.retained for level in levels if level.retained and self._clock() < level.retained_until]

    def _connect(self, transport: MemoryTransport) -> None:
        if isinstance(transport, WorldTransport) and transport.deaf:
            if not (self._running and transport._cable):
                return
            self._disconnect(transport, with_will=True)  # its own session from before, taken over by itself
            transport.deaf = False
        super()._connect(transport)

    def _publish(self, packet: Packet) -> None:
        self.heard(packet)
        super()._publish(packet)


class WorldTransport(MemoryTransport):
    """One client. poke: called whenever there is something to take."""

    def __init__(self, broker: WorldBroker, client_id: str, will: Packet | None) -> None:
        super().__init__(broker, client_id, will)
        self.world_broker = broker
        self.poke: Callable[[], None] = lambda: None
        self._connection = 0
        self.deaf = False
        """Half open: nothing passes, in either direction."""
        self.muted = False
        """Its process is dead, and what its ruins still call has no effect."""

    def publish(self, packet: Packet) -> bool:
        """See `Transport.publish`."""
        if self.muted:
            return False
        if self.deaf and self._online:
            return True
        return super().publish(packet)

    def subscribe(self, *filters: str, as_published: bool = False, again: bool = False) -> None:
        """See `Transport.subscribe`."""
        if not self.muted:
            super().subscribe(*filters, as_published=as_published, again=again)

    def unsubscribe(self, *filters: str) -> None:
        """See `Transport.unsubscribe`."""
        if not self.muted:
            super().unsubscribe(*filters)

    def close(self, timeout_s: float = 2.0) -> None:
        """See `Transport.close`. Where the link is gone no goodbye arrives: the session lapses, with its will."""
        if self.deaf and not self.muted:
            self._open = self._online = False
            self._next = self._later = None
        elif not self.muted:
            super().close(timeout_s)

    def renew(self, will: Packet | None, *, hurry: bool = False) -> None:
        """See `Transport.renew`. Where the link is gone, the broker has the old will until this session lapses."""
        if self.muted:
            return
        if self.deaf and self._online:
            self.world_broker._cut(self, noticed=False)
            self.will, self.deaf = will, False
            self._went_offline("it was to connect with another will")
            return
        super().renew(will, hurry=hurry)

    def part(self, will: WillMode, reason: str, *, client_knows: bool = True) -> None:
        """Lose the link. client_knows: it has noticed; the broker notices now, or `lapse`s later, or forgets it all."""
        self._cable = False
        if self.world_broker._online.get(self.client_id) is not self:
            return
        if will == "late":
            self.deaf = True
        else:
            self.world_broker._disconnect(self, with_will=will == "now")
        if client_knows and self._online:
            self._went_offline(reason)

    def notice(self, reason: str) -> None:
        """Find out, on the client's side, that a half-open connection is dead."""
        if self._online and (self.deaf or self.world_broker._online.get(self.client_id) is not self):
            self._went_offline(reason)

    def restore(self) -> None:
        """Let the next attempt to connect succeed, if the broker runs."""
        if not self.muted and not self._online:
            super().restore()

    @property
    def filters(self) -> list[str]:
        """What is subscribed to."""
        return list(self._filters)

    @property
    def online(self) -> bool:
        """Whether the client believes that it is connected."""
        return self._online

    def _deliver(self, packet: Packet, n_wire: int) -> None:
        if self.deaf or self.muted:
            return
        for after_s in (0.0,) if packet.retain else self.world_broker.delays(self, packet):
            if after_s:
                self.world_broker.agenda.later(after_s, self._come_late, packet, n_wire, self._connection)
            else:
                super()._deliver(packet, n_wire)
        self.poke()

    def _come_late(self, packet: Packet, n_wire: int, connection: int) -> None:
        if self._online and not self.muted and connection == self._connection:
            super()._deliver(packet, n_wire)
            self.poke()

    def _came_online(self) -> None:
        self._connection += 1
        super()._came_online()
        self.poke()

    def _went_offline(self, reason: str) -> None:
        super()._went_offline(reason)
        self.poke()

    def _was_taken_over(self) -> None:
        super()._was_taken_over()
        self.poke()
