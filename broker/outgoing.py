"""What an owner of a transport still has to publish: a queue that does not grow while nobody can hear it.

1. Offline nothing is kept: everything that matters is sent again at the next connect, from what its owner holds.
2. A retained packet takes the place of one that waits for the same topic: only the last one would stay at the broker.
   It leaves in its own turn, behind all that was put before it: a head names what is at the broker already.
3. A packet that is equal to one that waits adds nothing, and is not queued.
4. Of packets that are not retained at most `MOST` wait. Beyond that the newest is dropped and counted: whoever needs an
   answer asks again. Retained ones are as many as their topics.
5. Every operation takes the same time, however many wait.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from broker.transport import Packet, Transport
from runtime import failpoints
from runtime.tally import Tally

logger = logging.getLogger(__name__)

MOST = 20_000
SHORT_BYTES = 1024
"""A longer payload is not hashed, which costs as much as to send it: it goes by its topic and length, and is compared
with what waits under these. Only beside another one of both it is hashed all the same."""

_Key = str | tuple[str, int] | Packet


_NOTHING: OrderedDict[_Key, Packet] = OrderedDict()
"""Where nothing waits, as in nearly every device of a fleet in one process: one for all, never changed."""


class Outgoing:
    """The packets that wait for a transport. point: the failpoint that is reached when it has taken one."""

    __slots__ = ("_n_beside", "_n_live", "_online", "_point", "_tally", "_transport", "_waiting", "dropped")

    def __init__(self, transport: Transport, point: str) -> None:
        self.dropped = 0
        """Packets that were one too many."""
        self._transport, self._point = transport, point
        self._waiting: OrderedDict[_Key, Packet] = _NOTHING
        self._n_live = 0  # of them, those that are not retained
        self._n_beside = 0  # of them, those that are long and go by all that they are
        self._online = False
        self._tally: Tally | None = None

    @property
    def online(self) -> bool:
        """Whether the owner was told that it is online; it says so here. False forgets what waits."""
        return self._online

    @online.setter
    def online(self, online: bool) -> None:
        self._online = online
        if not online:
            self.clear()

    def put(self, packet: Packet) -> None:
        """Queue a packet; see the law for when it is not."""
        if not self._online:
            return
        key = self._key(packet)
        if key not in self._waiting and not packet.retain:
            if self._n_live >= MOST:
                self._drop(packet)
                return
            self._n_live += 1
            self._n_beside += _is_beside(key)
        if self._waiting is _NOTHING:
            self._waiting = OrderedDict()
        self._waiting[key] = packet
        if packet.retain:
            self._waiting.move_to_end(key)

    def _key(self, packet: Packet) -> _Key:
        """Return what is the same for packets of which one is enough."""
        if packet.retain:
            return packet.topic
        if len(packet.payload) <= SHORT_BYTES:
            return packet
        key = packet.topic, len(packet.payload)
        if self._waiting.get(key, packet) != packet:
            return packet
        return packet if self._n_beside and packet in self._waiting else key

    def pump(self) -> None:
        """Hand to the transport what it takes now, in order."""
        if not self._waiting:
            return
        while self._online and self._waiting:
            packet = next(iter(self._waiting.values()))
            if not self._transport.publish(packet):
                return
            key, _ = self._waiting.popitem(last=False)
            self._n_live -= not packet.retain
            self._n_beside -= _is_beside(key)
            failpoints.reach(self._point, packet.topic)
        if not self._waiting:
            self._waiting = _NOTHING  # an emptied one keeps the room that it had

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting = _NOTHING
        self._n_live = self._n_beside = 0

    def __len__(self) -> int:
        """Return how many packets wait."""
        return len(self._waiting)

    def _drop(self, packet: Packet) -> None:
        self.dropped += 1
        self._tally = self._tally or Tally()
        if self._tally.count("dropped"):
            logger.warning("%d packets wait to be sent; dropped topic=%s (%d so far)", MOST, packet.topic, self.dropped)


def _is_beside(key: _Key) -> bool:
    return isinstance(key, Packet) and len(key.payload) > SHORT_BYTES
