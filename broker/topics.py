"""The one table of topics: for each message its topic, whether it is retained, and which of its bytes are not JSON.

Nobody else writes a "/". Everything lies under fedge/1/<fleet>/ and is sent at QoS 1; a topic has at most seven
slashes (the least that a known broker allows), and nothing needs a retained message on a wildcard but `job/+`,
`head/+`, `round/+` and `device/+`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar, get_args

import msgspec
from msgspec import NODEFAULT, Struct

from broker import rows
from broker.chunks import digest
from broker.errors import WireError
from broker.messages import (
    CHUNK_BYTES,
    Beacon,
    Body,
    Candidate,
    Chunk,
    Cleared,
    Command,
    Failure,
    Head,
    Job,
    Message,
    Offer,
    Presence,
    Reply,
    Round,
    Status,
    Verdict,
    Want,
)
from broker.transport import Packet
from runtime.words import clean

M = TypeVar("M", bound=Struct)

PREFIX = ("fedge", "1")
MAX_CONTROL_BYTES = 262_144
"""Longest JSON that is parsed at all: a roomy job specification."""


class Route(NamedTuple):
    """A row of the table. kind: what the payload decodes to. levels: fields in the topic. blob: the binary field.

    Fields beside a blob are written as a row (rows.py) where they are short, and are read in either form.
    """

    kind: type[Message] | type[Command]
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
    "offer": Route(Offer, ("job", "device", "n_examples"), blob="body"),
    "chunk": Route(Chunk, ("job", "device", "digest", "index"), blob="data", json=False),
    "command": Route(Command, ("client",)),  # type: ignore[arg-type]  # a tagged union is no `type`
}
_WORDS: dict[type, str] = {route.kind: word for word, route in ROUTES.items()} | dict.fromkeys(
    get_args(Command), "command"
)

_encoder = msgspec.json.Encoder()


def filter_for(fleet: str, word: str, **levels: str) -> str:
    """Return the topic filter of a word of the table; a level that is not given is a "+"."""
    return _join(fleet, word, *(levels.get(name, "+") for name in ROUTES[word].levels))


def pack(message: Message, fleet: str) -> Packet:
    """Turn a message into the packet that carries it."""
    if isinstance(message, Cleared):
        return Packet(message.topic, b"", retain=True)
    word = _WORDS[type(message)]
    route = ROUTES[word]
    topic = _join(fleet, word, *(str(getattr(message, name)) for name in route.levels))
    expiry_s = math.ceil(message.seconds_left) + 1 if isinstance(message, Round) else None
    return Packet(topic, _payload(message, word), route.retain, expiry_s)


def clear(message: Message, fleet: str) -> Packet:
    """Return the packet that clears the retained topic of this message."""
    return Packet(pack(message, fleet).topic, b"", retain=True)


def blob_bytes(packet: Packet) -> int:
    """Count the bytes of a packet of this tree that are not JSON: a piece of an update or of a version."""
    word = packet.topic.split("/")[len(PREFIX) + 1]
    route = ROUTES[word]
    if not route.json:
        return len(packet.payload)
    return len(_parts(packet.payload, route)[1]) if route.blob and packet.payload else 0


def unpack(packet: Packet, fleet: str) -> Message:
    """Turn a packet into its message. Raises WireError and nothing else, whatever the bytes."""
    word, levels = _split(packet.topic, fleet)
    if not packet.payload:
        return Cleared(packet.topic)
    route = ROUTES[word]
    fields: dict[str, object] = {
        name: _natural(name, level) if name in _NUMBERS else level
        for name, level in zip(route.levels, levels, strict=True)
    }
    try:
        head, blob = _parts(packet.payload, route)
        if route.blob is not None:
            fields |= _implied(route, blob)
        tree = _by_name(head, _columns(word, bool(blob))) if _is_row(packet.payload, route) else _parsed(head)
        if not tree.keys().isdisjoint(fields):
            clash = ", ".join(name for name in fields if name in tree)
            raise WireError(f"{clash} stands in the topic and must not stand in the JSON")
        message: Message = msgspec.convert(tree | fields, route.kind)
        return _cleaned(message)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, WireError) as error:
        raise WireError(f"{word}: {error}") from error


def _payload(message: Message, word: str) -> bytes:
    route = ROUTES[word]
    blob: bytes = getattr(message, route.blob) if route.blob else b""
    if not route.json:
        return blob
    columns = _columns_of(type(message), word, bool(blob))
    if route.blob and (row := _row(message, columns)):
        return row + blob
    text = _encoder.encode(_said(message, columns))
    return text + b"\n" + blob if blob else text


def _row(message: Message, columns: Sequence[_Column]) -> bytes | None:
    values = [getattr(message, column.name) for column in columns]
    while values and values[-1] == columns[len(values) - 1].default:
        values.pop()
    return rows.write(values)


def _said(message: Struct, columns: Sequence[_Column]) -> dict[str, object]:
    """Return the fields that are not at their defaults; the decoder puts those back."""
    config = type(message).__struct_config__
    said: dict[str, object] = {config.tag_field: config.tag} if config.tag_field else {}
    for name, key, default in columns:
        value = getattr(message, name)
        if value != default:
            said[key] = value
    return said


class _Column(NamedTuple):
    """A field that is written down. key: what it is called there. default: NODEFAULT, which nothing equals, if none."""

    name: str
    key: str
    default: object


@functools.cache
def _columns_of(kind: type, word: str, with_blob: bool) -> tuple[_Column, ...]:
    """Return the fields of a message that are written, in its own order: those of a row, and of JSON."""
    route = ROUTES[word]
    unsaid = {*route.levels, route.blob, *(_IMPLIED.get(kind, ()) if with_blob else ())}
    return tuple(
        _Column(
            field.name,
            field.encode_name,
            field.default if field.default_factory is NODEFAULT else field.default_factory(),
        )
        for field in msgspec.structs.fields(kind)
        if field.name not in unsaid
    )


def _columns(word: str, with_blob: bool) -> tuple[_Column, ...]:
    return _columns_of(ROUTES[word].kind, word, with_blob)


def _is_row(payload: bytes, route: Route) -> bool:
    return route.json and route.blob is not None and payload[0] < rows.END


def _parts(payload: bytes, route: Route) -> tuple[bytes, bytes]:
    """Return the fields of a payload that is not empty, as JSON or as a row, and the bytes along. Raises WireError."""
    if not route.json:
        return b"{}", payload
    if _is_row(payload, route):
        return rows.split(payload)
    head, separator, blob = payload.partition(b"\n")
    if route.blob is None and separator:
        raise WireError("bytes after its JSON")
    if len(head) > MAX_CONTROL_BYTES:
        raise WireError(f"{len(head)} bytes of JSON are more than {MAX_CONTROL_BYTES}")
    return head, blob


def _parsed(head: bytes) -> dict[str, object]:
    tree: dict[str, object] = msgspec.json.decode(head, type=dict[str, object])
    return tree


def _by_name(row: bytes, columns: Sequence[_Column]) -> dict[str, object]:
    """Return the fields of a row; what comes after the last that is known is ignored."""
    return {column.key: value for column, value in zip(columns, rows.read(row), strict=False)}


_IMPLIED: dict[type, tuple[str, ...]] = {Offer: ("digest", "n_bytes", "chunk_bytes")}
"""What follows from the bytes of a message, and is not written down when there are any."""


def _implied(route: Route, blob: bytes) -> dict[str, object]:
    """Return the fields that follow from the bytes, and the bytes themselves."""
    found: dict[str, object] = {str(route.blob): blob}
    if blob and route.kind is Offer:
        found |= {"digest": digest(blob), "n_bytes": len(blob), "chunk_bytes": max(len(blob), CHUNK_BYTES)}
    return found


def _cleaned(message: Message) -> Message:
    """Make what somebody says for people fit for their screens, here at the door; nobody else need think of it.

    Raises WireError for what no field can say alone.
    """
    match message:
        case Presence():
            return _with(
                message,
                unready=_clean(message.unready),
                trouble=_clean(message.trouble),
                failed={job: Failure(failure.base, clean(failure.why)) for job, failure in message.failed.items()},
                software=clean(message.software),
                incarnation=clean(message.incarnation),
                nonce=clean(message.nonce),
            )
        case Verdict():
            return _with(message, refused=clean(message.refused))
        case Status():
            return _with(message, reason=clean(message.reason))
        case Reply():
            return _with(message, text=clean(message.text))
        case Round():
            if any(name.number != message.base.number or name == message.base for name in message.aliases):
                raise WireError(f"no former name of {message.base}: a backup that is restored changes no number")
        case Beacon():
            return _with(message, nonce=clean(message.nonce), store=clean(message.store))
    return message


def _with(message: M, **fields: object) -> M:
    """Return a message with these fields: itself where it has them already, as it nearly always does."""
    changed = {name: value for name, value in fields.items() if value != getattr(message, name)}
    return msgspec.structs.replace(message, **changed) if changed else message


def _clean(words: dict[str, str]) -> dict[str, str]:
    return {name: clean(text) for name, text in words.items()}


@functools.lru_cache(maxsize=128)
def _join(fleet: str, *levels: str) -> str:
    """Return a topic or a filter: the same string again where it was asked for lately, as by a fleet in one process."""
    return "/".join((*PREFIX, fleet, *levels))


def _split(topic: str, fleet: str) -> tuple[str, list[str]]:
    levels = topic.split("/")
    if tuple(levels[:2]) != PREFIX or len(levels) < 4 or levels[2] != fleet:
        raise WireError(f"topic {topic[:200]!r} is not of this fleet")
    word, *rest = levels[3:]
    if word not in ROUTES or len(rest) != len(ROUTES[word].levels):
        raise WireError(f"topic {topic[:200]!r} is not in the table")
    return word, rest


_NUMBERS = {"index": 9, "n_examples": 16}
"""Levels that are numbers, and how many digits they may have."""


def _natural(name: str, level: object) -> int:
    text = str(level)
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBERS[name]):
        raise WireError(f"{name} {text[:40]!r} is no number")
    return int(text)
