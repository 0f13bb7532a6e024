"""The one table of topics: for each message its topic, whether it is retained, and which of its bytes are not JSON.

Nobody else writes a "/". Everything lies under fedge/1/<fleet>/ and is sent at QoS 1; a topic has at most seven
slashes (the least that a known broker allows), and nothing needs a retained message on a wildcard but `job/+`,
`head/+`, `round/+`, `device/+` and, for people, `vitals/+`; a job that comes so shows a device that it may use other
wildcards. Who speaks to a fleet does so by its `Wire` (wire.py), which alone stands on this.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, get_args

from broker.errors import WireError
from broker.messages import (
    Beacon,
    Body,
    Candidate,
    Chunk,
    Command,
    Head,
    Job,
    Message,
    Notice,
    Offer,
    Presence,
    Query,
    Reply,
    Round,
    Status,
    Verdict,
    Vitals,
    Want,
)

PREFIX = ("fedge", "1")


class Route(NamedTuple):
    """A row of the table. kind: what the payload decodes to. levels: fields in the topic. blob: the binary field.

    Fields beside a blob are written as a row (rows.py) where they are short, and are read in either form.
    """

    kind: type[Message] | type[Command] | type[Query]
    levels: tuple[str, ...]
    retain: bool = False
    blob: str | None = None
    json: bool = True


ROUTES: dict[str, Route] = {
    "aggregator": Route(Beacon, (), retain=True),
    "candidate": Route(Candidate, ()),
    "job": Route(Job, ("job",), retain=True),
    "head": Route(Head, ("job",), retain=True),
    "status": Route(Status, ("job",), retain=True),
    "round": Route(Round, ("job",), retain=True, blob="along"),
    "body": Route(Body, ("job", "name", "index"), retain=True, blob="data", json=False),
    "want": Route(Want, ("job", "device")),
    "verdict": Route(Verdict, ("job", "device")),
    "reply": Route(Reply, ("client",)),
    "device": Route(Presence, ("device",), retain=True),
    "vitals": Route(Vitals, ("device",), retain=True),
    "notice": Route(Notice, ()),
    "offer": Route(Offer, ("job", "device", "n_examples"), blob="body"),
    "chunk": Route(Chunk, ("job", "device", "digest", "index"), blob="data", json=False),
    "command": Route(Command, ("client",)),  # type: ignore[arg-type]  # a tagged union is no `type`
    "query": Route(Query, ("client",)),  # type: ignore[arg-type]
}
WORDS: dict[type, str] = {route.kind: word for word, route in ROUTES.items()} | dict.fromkeys(
    get_args(Command), "command"
)
"""Kind of message to its word."""
_NUMBERS = {"index": 9, "n_examples": 16}
"""Levels that are numbers, and how many digits they may have."""
_LEVELS = {
    word: (route.levels, tuple((name, at) for at, name in enumerate(route.levels) if name in _NUMBERS))
    for word, route in ROUTES.items()
}
"""Word to its levels, and which of them are numbers."""


@functools.lru_cache(maxsize=128)
def join(fleet: str, *levels: str) -> str:
    """Return a topic or a filter: the same string again where it was asked for lately, as by a fleet in one process."""
    return "/".join((*PREFIX, fleet, *levels))


def topic_of(message: Message, word: str, fleet: str) -> str:
    """Return the topic of a message that stands under this word of the table."""
    return join(fleet, word, *(str(getattr(message, name)) for name in ROUTES[word].levels))


def split(topic: str, fleet: str) -> tuple[str, dict[str, object]]:
    """Return the word of a topic of this fleet, and the fields that stand in it.

    Raises WireError for a topic of another fleet, or of none.
    """
    start = _start(fleet)
    if not topic.startswith(start):
        raise WireError(f"topic {topic[:200]!r} is not of this fleet")
    word, *rest = topic[len(start) :].split("/")
    names, numbers = _LEVELS.get(word, (None, ()))
    if names is None or len(rest) != len(names):
        raise WireError(f"topic {topic[:200]!r} is not in the table")
    fields: dict[str, object] = dict(zip(names, rest, strict=True))
    for name, at in numbers:
        fields[name] = _natural(name, rest[at])
    return word, fields


@functools.cache
def _start(fleet: str) -> str:
    return "/".join((*PREFIX, fleet, ""))


def _natural(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBERS[name]) or (text[0] == "0" and text != "0"):
        raise WireError(f"{name} {text[:40]!r} is no number")
    return int(text)
