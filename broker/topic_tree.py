"""A tree of topic levels that holds both filters and retained packets: what a broker in memory finds its way by.

A publish costs only the subscriptions that match, and a subscribe only the retained packets that match, whatever the
size of the fleet.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from sys import intern
from typing import Any, Generic, TypeVar

from broker.transport import Packet

Client = TypeVar("Client", bound=Hashable)
"""Who subscribes."""


class Level(Generic[Client]):
    """One level of the tree: what is subscribed and retained at exactly this path.

    Most levels are leaves, and most of those are one client's alone: such a one has no dict of its own.
    """

    __slots__ = ("_others", "_subscriber", "below", "retained", "retained_until")

    def __init__(self) -> None:
        self.below: dict[str, Level[Client]] = _NO_LEVELS
        self._subscriber: Client | None = None
        self._others: dict[Client, None] | None = None  # a dict for its order
        self.retained: Packet | None = None
        self.retained_until = math.inf

    @property
    def subscribers(self) -> Iterable[Client]:
        """Return them in the order in which they came."""
        first = () if self._subscriber is None else (self._subscriber,)
        return first if self._others is None else (*first, *self._others)

    def add(self, client: Client) -> None:
        """Add a subscriber that is not there yet."""
        if self._subscriber is None and not self._others:
            self._subscriber = client
        else:
            self._others = self._others or {}
            self._others[client] = None

    def discard(self, client: Client) -> None:
        """Remove a subscriber, if it is there."""
        if self._subscriber is client:
            self._subscriber = None
        elif self._others is not None:
            self._others.pop(client, None)

    @property
    def bare(self) -> bool:
        """Nothing here and nothing below."""
        return not (self.below or self._subscriber or self._others) and self.retained is None


_NO_LEVELS: dict[str, Level[Any]] = {}
"""What is below a new level: never changed, but replaced by a dict of the level's own."""


def reach(root: Level[Client], path: str) -> Level[Client]:
    """Return the level at this path, made where it is missing."""
    level = root
    for word in path.split("/"):
        below = level.below.get(word)
        if below is None:
            below = Level()
            if level.below is _NO_LEVELS:
                level.below = {}
            level.below[intern(word)] = below  # the same word stands in many places: a device's at each kind of topic
        level = below
    return level


def find(root: Level[Client], path: str) -> Level[Client] | None:
    """Return the level at this path, if there is one."""
    level: Level[Client] | None = root
    for word in path.split("/"):
        level = level.below.get(word) if level else None
    return level


def prune(root: Level[Client], path: str) -> None:
    """Remove this path's level, and those above it, while they are bare."""
    words = path.split("/")
    levels = [root]
    for word in words:
        if word not in levels[-1].below:
            return
        levels.append(levels[-1].below[word])
    for word, parent in zip(reversed(words), reversed(levels[:-1]), strict=True):
        if not parent.below[word].bare:
            return
        del parent.below[word]


def filters_matching(root: Level[Client], topic: str) -> Iterator[Level[Client]]:
    """Return the levels whose filters match a topic; `$SYS` and its like need their first word spelt out.

    MQTT 5, section 4.7.
    """
    words = topic.split("/")
    levels = [root]
    for depth, word in enumerate(words):
        wild = depth > 0 or not word.startswith("$")
        deeper = []
        for level in levels:
            if wild and "#" in level.below:
                yield level.below["#"]
            deeper += [level.below[step] for step in ((word, "+") if wild else (word,)) if step in level.below]
        levels = deeper
    for level in levels:
        yield level
        if "#" in level.below:  # `a/#` matches `a` itself
            yield level.below["#"]


def retained_at(root: Level[Client], name: str) -> list[Level[Client]]:
    """Return the levels with a retained packet whose topic matches a filter, in order of first appearance."""
    if "+" in name or "#" in name:
        return topics_matching(root, name.split("/"))
    level = find(root, name)
    return [] if level is None or level.retained is None else [level]


def topics_matching(root: Level[Client], words: list[str]) -> list[Level[Client]]:
    """Return the levels with a retained packet whose topic matches a filter, in order of first appearance."""
    levels = [root]
    for depth, word in enumerate(words):
        if word == "#":  # which matches the level above it too
            levels = [below for level in levels for below in _all_of(level, top=not depth)]
            break
        if word == "+":
            levels = [
                below for level in levels for name, below in level.below.items() if depth or not name.startswith("$")
            ]
        else:
            levels = [level.below[word] for level in levels if word in level.below]
    return [level for level in levels if level.retained is not None]


def _all_of(level: Level[Client], *, top: bool) -> Iterator[Level[Client]]:
    """Return a level and all below it. top: without those whose first word begins with a $."""
    yield level
    for name, below in level.below.items():
        if not (top and name.startswith("$")):
            yield from _all_of(below, top=False)


def matches(name: str, topic: str) -> bool:
    """Return whether a topic filter holds for a topic (MQTT 5, section 4.7)."""
    wanted, levels = name.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        levels, is_deep_enough = levels[: len(wanted)], len(levels) >= len(wanted)
    else:
        is_deep_enough = len(levels) == len(wanted)
    return is_deep_enough and all(step in ("+", level) for step, level in zip(wanted, levels, strict=True))
