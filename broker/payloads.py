"""What a message is as bytes, beside its topic: one line of JSON or a row, and the bytes that are neither.

    ├ one line of JSON ──────┼ line feed and bytes along, maybe      what a person can read
    ├ n ┼ MessagePack array ─┼ bytes along, maybe                    a row (rows.py): Round and Offer, where short
    ├ bytes                                                          Body and Chunk

Fields that stand in the topic, that are at their defaults, or that follow from the bytes along are not written.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct

from broker import rows
from broker.chunks import digest
from broker.errors import WireError
from broker.messages import (
    CHUNK_BYTES,
    Beacon,
    Failure,
    Message,
    Notice,
    Offer,
    Presence,
    Reply,
    Round,
    Status,
    Verdict,
    Vitals,
)
from broker.topics import ROUTES, Route
from runtime.words import clean

M = TypeVar("M", bound=Struct)

MAX_CONTROL_BYTES = 262_144
"""Longest JSON that is parsed at all: a roomy job specification."""

_encoder = msgspec.json.Encoder()


def write(message: Message, word: str) -> bytes:
    """Return the payload of a message that stands under this word of the table."""
    route = ROUTES[word]
    blob: bytes = getattr(message, route.blob) if route.blob else b""
    if not route.json:
        return blob
    columns = columns_of(type(message), word, bool(blob))
    if route.blob and (row := _row(message, columns)):
        return row + blob
    text = _encoder.encode(said(message, columns))
    return text + b"\n" + blob if blob else text


def read(payload: bytes, word: str, fields: dict[str, object]) -> Message:
    """Return the message of a payload that is not empty. word, fields: what its topic says.

    Raises WireError and nothing else, whatever the bytes.
    """
    route = ROUTES[word]
    try:
        if not route.json:  # a piece of a body: all else that it says stands in its topic
            piece: Message = msgspec.convert(fields | {str(route.blob): payload}, route.kind)
            return piece
        head, blob = _parts(payload, route)
        if route.blob is not None:
            fields = fields | _implied(route, blob)
        tree = _by_name(head, _columns(word, bool(blob))) if _is_row(payload, route) else _parsed(head)
        if not tree.keys().isdisjoint(fields):
            clash = ", ".join(name for name in fields if name in tree)
            raise WireError(f"{clash} stands in the topic and must not stand in the JSON")
        message: Message = msgspec.convert(tree | fields, route.kind)
        check(message)
        return cleaned(message)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, WireError) as error:
        raise WireError(f"{word}: {error}") from error


def blob_bytes(payload: bytes, word: str) -> int:
    """Count the bytes of a payload that are not JSON: a piece of an update or of a version."""
    route = ROUTES[word]
    if not route.json:
        return len(payload)
    return len(_parts(payload, route)[1]) if route.blob and payload else 0


def _row(message: Message, columns: Sequence[Column]) -> bytes | None:
    values = [getattr(message, column.name) for column in columns]
    while values and values[-1] == columns[len(values) - 1].default:
        values.pop()
    return rows.write(values)


def said(message: Struct, columns: Sequence[Column]) -> dict[str, object]:
    """Return by name the fields that are not at their defaults; the decoder puts those back."""
    config = type(message).__struct_config__
    found: dict[str, object] = {config.tag_field: config.tag} if config.tag_field else {}
    for name, key, default in columns:
        value = getattr(message, name)
        if value != default:
            found[key] = value
    return found


class Column(NamedTuple):
    """A field that is written down. key: what it is called there. default: NODEFAULT, which nothing equals, if none."""

    name: str
    key: str
    default: object


@functools.cache
def columns_of(kind: type, word: str, with_blob: bool) -> tuple[Column, ...]:
    """Return the fields of a message that are written, in its own order: those of a row, and of JSON."""
    route = ROUTES[word]
    unsaid = {*route.levels, route.blob, *(_IMPLIED.get(kind, ()) if with_blob else ())}
    return tuple(
        Column(
            field.name,
            field.encode_name,
            field.default if field.default_factory is NODEFAULT else field.default_factory(),
        )
        for field in msgspec.structs.fields(kind)
        if field.name not in unsaid
    )


def _columns(word: str, with_blob: bool) -> tuple[Column, ...]:
    return columns_of(ROUTES[word].kind, word, with_blob)


def _is_row(payload: bytes, route: Route) -> bool:
    return route.blob is not None and payload[0] < rows.END


def _parts(payload: bytes, route: Route) -> tuple[bytes, bytes]:
    """Return the fields of a payload that is not empty, as JSON or as a row, and the bytes along. Raises WireError."""
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


def _by_name(row: bytes, columns: Sequence[Column]) -> dict[str, object]:
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


def check(message: Message) -> None:
    """Raise WireError for what no field can say alone."""
    if isinstance(message, Round) and any(
        name.number != message.base.number or name == message.base for name in message.aliases
    ):
        raise WireError(f"no former name of {message.base}: a backup that is restored changes no number")


def cleaned(message: Message) -> Message:
    """Make what somebody says for people fit for their screens, here at the door; nobody else need think of it."""
    match message:
        case Presence():
            return msgspec.structs.replace(
                message,
                labels=message.labels or _NOTHING,
                ready=message.ready or _NOTHING,
                unready=_clean(message.unready),
                software=clean(message.software),
                incarnation=clean(message.incarnation),
                nonce=clean(message.nonce),
                failed={job: Failure(failure.base, clean(failure.why)) for job, failure in message.failed.items()}
                or _NOTHING,
                done=message.done or _NOTHING,
                ahead=message.ahead or _NOTHING,
                trouble=_clean(message.trouble),
                int8={job: msgspec.structs.replace(one, why=clean(one.why)) for job, one in message.int8.items()}
                or _NOTHING,
            )
        case Verdict():
            return _with(message, refused=clean(message.refused))
        case Status():
            return _with(message, reason=clean(message.reason))
        case Reply():
            return _with(message, text=clean(message.text))
        case Vitals():
            return _with(message, why=clean(message.why))
        case Notice():
            return _with(message, kind=clean(message.kind), text=clean(message.text))
        case Beacon():
            return _with(message, nonce=clean(message.nonce), store=clean(message.store))
    return message


def _with(message: M, **fields: object) -> M:
    """Return a message with these fields: itself where it has them already, as it nearly always does."""
    changed = {name: value for name, value in fields.items() if value != getattr(message, name)}
    return msgspec.structs.replace(message, **changed) if changed else message


_NOTHING: dict[str, Any] = {}
"""What is empty in a presence: one for all, and nobody changes it. Whoever leads a fleet holds one of each device."""


def _clean(words: dict[str, str]) -> dict[str, str]:
    return {name: clean(text) for name, text in words.items()} if words else _NOTHING
