"""The one way of writing down what a message says to a fleet: the bytes that a signature will cover.

    [ "fedge/1", fleet, word of the topic, { name of a field: its value, … } ]        as MessagePack

A message travels as JSON or as a row, with its fields in the topic, in the payload or implied by the bytes along; a
receiver knows only what it has read. So what is signed is what is read, in one order and one writing, and never the
payload. WIRE.md, "Canonical bytes", is the rule, with an example.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from broker.errors import WireError
from broker.messages import Cleared, Message
from broker.payloads import check, cleaned, columns_of, said
from broker.topics import PREFIX, ROUTES, WORDS, split, topic_of

_encoder = msgspec.msgpack.Encoder()


def write(message: Message, fleet: str) -> bytes:
    """Return the canonical bytes of a message to a fleet: the same before it is packed and after it was unpacked.

    Two messages that say different things to whoever reads them have different ones. Raises WireError for what has
    none: a cleared topic, a piece of a body without a byte, and what no receiver would understand.
    """
    if isinstance(message, Cleared):
        raise WireError("a topic that is cleared carries nothing, and so no signature: it has no canonical bytes")
    word = WORDS[type(message)]
    try:
        read = _as_read(message)
        _, levels = split(topic_of(read, word, fleet), fleet)
        fields = _value(levels | _fields(read, word))
        return _encoder.encode(["/".join(PREFIX), fleet, word, fields])
    except (ValueError, TypeError, OverflowError, RecursionError, WireError) as error:
        raise WireError(f"{word}: no canonical bytes: {error}") from error


def of_spec(job: str, spec: dict[str, Any], fleet: str) -> bytes:
    """Return the bytes that an operator signs: that this fleet shall work on this specification under this id.

    Raises WireError for a specification that has none.
    """
    try:
        return _encoder.encode(["/".join(PREFIX), fleet, "spec", _value({"job": job, "spec": spec})])
    except (ValueError, TypeError, OverflowError, RecursionError, WireError) as error:
        raise WireError(f"job {job[:100]}: no canonical bytes: {error}") from error


def _as_read(message: Message) -> Message:
    """Return a message as its receiver has it: words cleaned, and a whole number a float where a float belongs."""
    tree = msgspec.to_builtins(cleaned(message), builtin_types=(bytes,))
    found: Message = msgspec.convert(tree, type(message), builtin_types=(bytes,))
    check(found)
    return found


def _fields(message: Message, word: str) -> dict[str, object]:
    """Return by name the fields that do not stand in the topic: those of the JSON, and the bytes along."""
    route = ROUTES[word]
    blob: bytes = getattr(message, route.blob) if route.blob else b""
    if not (route.json or blob):
        raise WireError("a piece of a body has at least one byte")
    fields = said(message, columns_of(type(message), word, bool(blob)))
    if route.blob and blob:
        fields[route.blob] = blob
    return msgspec.to_builtins(fields, builtin_types=(bytes,))  # type: ignore[no-any-return]  # a dict stays one


def _value(value: object) -> object:
    """Return a value in the one way in which it is written. Raises WireError for a number that is not finite."""
    match value:
        case float():
            if not math.isfinite(value):
                raise WireError("a number that is not finite")
            return value + 0.0  # the zero that has a sign is the other one
        case dict():
            return {name: _value(value[name]) for name in sorted(value, key=_bytes_of)}
        case list() | tuple():
            return [_value(one) for one in value]
    return value


def _bytes_of(name: object) -> bytes:
    if not isinstance(name, str):
        raise WireError(f"a name that is no text: {name!r}")
    return name.encode()
