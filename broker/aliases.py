"""Topic aliases of one connection: a topic that is published again and again travels as two bytes.

MQTT 5, section 3.3.2.3.4. A device offers under one topic all its life; on a metered link the forty bytes of its name
would be a fifth of a small update.
"""

from __future__ import annotations

REMEMBERED = 64
"""Topics seen once, of which one that comes a second time gets an alias."""
ALIAS_BYTES = 3
"""What an alias adds to a packet that still has its topic."""
AT_ONCE = 2
"""The first topics get theirs without waiting: what a device says first it says again, its presence and its offers."""


class Aliases:
    """Which topics have an alias here; most: how many the broker takes (Topic Alias Maximum), 0 for none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, None] = {}

    def name(self, topic: str) -> tuple[str, int | None]:
        """Return the topic to write down (empty: the alias says it) and the alias to send with it, if any."""
        if number := self._numbers.get(topic):
            return "", number
        due = topic in self._seen or len(self._numbers) < AT_ONCE
        if due and len(self._numbers) < self._most:
            self._seen.pop(topic, None)
            self._numbers[topic] = len(self._numbers) + 1
            return topic, self._numbers[topic]
        self._seen[topic] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return topic, None
