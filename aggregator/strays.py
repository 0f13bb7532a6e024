"""Retained offers and chunks: junk that its sender leaves at the broker, where nobody needs it and all pay for it.

An offer and a chunk are said once. mosquitto has no access rule on retaining, so a device may fill the broker's memory
under its own topics, and each aggregator that connects is sent all of it. So every retained one is cleared. Pure.

1. At most CLEARS_S are cleared in a second, so that a round goes on meanwhile.
2. So many topics are remembered as MOST_BYTES hold. What is beyond, and what the broker has dropped on its way, is
   found by reading again: after each clearing, until nothing is found.
3. What we clear comes back to us as an empty packet, once for each filter that holds for it: that is no word of the
   device.
"""

from __future__ import annotations

import math

CLEARS_S = 1000
EVERY_S = 0.05
"""How often some are cleared."""
MOST_BYTES = 8 * 2**20
TOPIC_BYTES = 200
"""What a topic takes beside its own bytes, about."""
ECHOES = 2
"""Filters that may hold for one topic."""
READ_AGAIN_S = 20.0
"""How long after a clearing is read again."""


class Strays:
    """The topics that are still to be cleared."""

    def __init__(self) -> None:
        self.cleared = 0
        """So far."""
        self.read_at = math.inf
        """When to read again what is retained."""
        self._waiting: dict[str, None] = {}
        self._bytes = 0
        self._next_at = -math.inf
        self._echoes: dict[str, int] = {}
        self._echo_bytes = 0

    def add(self, topic: str, now: float) -> None:
        """Note a topic under which something is retained."""
        if topic in self._waiting:
            return
        if self._bytes + len(topic) + TOPIC_BYTES <= MOST_BYTES:
            self._waiting[topic] = None
            self._bytes += len(topic) + TOPIC_BYTES
        self.read_at = now + READ_AGAIN_S

    def take(self, now: float) -> list[str]:
        """Return the topics to clear now."""
        if now < self._next_at or not self._waiting:
            return []
        self._next_at = now + EVERY_S
        topics = [topic for topic, _ in zip(self._waiting, range(int(CLEARS_S * EVERY_S)), strict=False)]
        for topic in topics:
            del self._waiting[topic]
            self._bytes -= len(topic) + TOPIC_BYTES
            self._expect(topic)
        self.cleared += len(topics)
        self.read_at = now + READ_AGAIN_S
        return topics

    def _expect(self, topic: str) -> None:
        if self._echo_bytes > MOST_BYTES:
            self._echoes.clear()
            self._echo_bytes = 0
        if topic not in self._echoes:
            self._echo_bytes += len(topic) + TOPIC_BYTES
        self._echoes[topic] = ECHOES

    def is_echo(self, topic: str) -> bool:
        """Return whether an empty packet under this topic is our own."""
        left = self._echoes.get(topic, 0)
        if left:
            self._echoes[topic] = left - 1
        return left > 0

    def doubt(self) -> None:
        """Wait for no echoes any more: the connection is a new one. It brings all that is retained."""
        self._echoes.clear()
        self._echo_bytes = 0
        self.read_at = math.inf

    @property
    def waits(self) -> bool:
        """Whether something is to be cleared."""
        return bool(self._waiting)

    @property
    def deadline(self) -> float:
        """When there is something to clear or to read; inf for never."""
        return self._next_at if self._waiting else self.read_at
