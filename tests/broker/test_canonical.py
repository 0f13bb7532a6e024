"""The bytes that a signature will cover: the same for all forms of one message, and for no other."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from broker import canonical
from broker.errors import WireError
from broker.messages import (
    Beacon,
    Body,
    Cleared,
    Failure,
    Job,
    Message,
    Offer,
    Presence,
    Round,
    Version,
    along,
)
from broker.topics import WORDS
from broker.transport import Packet
from broker.wire import Wire
from tests.broker.golden import BODY, BODY_DIGEST, GOLDEN, SPELT, D, V

WIRE = Wire("f")
PAGE = Path(__file__).resolve().parent.parent.parent / "broker" / "WIRE.md"

CANONICAL: list[tuple[Message, str]] = [
    (
        Beacon(7, "n0", online=True),
        "94 a7 66656467652f31 a1 66 aa 61676772656761746f72 83 a5 6e6f6e6365 a2 6e30 a6 6f6e6c696e65 c3 a4 7465726d 07",
    ),
    (
        Round("digits-1f", 7, V, 59, along=along(D, BODY)),
        (
            "94 a7 66656467652f31 a1 66 a5 726f756e64 85"
            " a5 616c6f6e67 c4 0b 0011223344556677 000aff"
            " a4 62617365 92 01 03"
            " a3 6a6f62 a9 6469676974732d3166"
            " a6 6c6566745f73 cb 404d800000000000"
            " a4 7465726d 07"
        ),
    ),
    (
        Body("digits-1f", "1-3-0", 2, BODY),
        (
            "94 a7 66656467652f31 a1 66 a4 626f6479 84"
            " a4 64617461 c4 03 000aff"
            " a5 696e646578 02"
            " a3 6a6f62 a9 6469676974732d3166"
            " a4 6e616d65 a5 312d332d30"
        ),
    ),
    (
        Job("j", 1, {"b": 1.0, "a": [-0.0, None, True, -2, "é"]}),
        (
            "94 a7 66656467652f31 a1 66 a3 6a6f62 83"
            " a3 6a6f62 a1 6a"
            " a4 73706563 82 a1 61 95 cb 0000000000000000 c0 c3 fe a2 c3a9 a1 62 cb 3ff0000000000000"
            " a4 7465726d 01"
        ),
    ),
    (
        Presence("d", 4, online=False, failed={"j-1": Failure(V, "no")}),
        (
            "94 a7 66656467652f31 a1 66 a6 646576696365 84"
            " a4 626f6f74 04"
            " a6 646576696365 a1 64"
            " a6 6661696c6564 81 a3 6a2d31 92 92 01 03 a2 6e6f"
            " a6 6f6e6c696e65 c2"
        ),
    ),
]


@pytest.mark.parametrize(("message", "found"), CANONICAL, ids=lambda value: type(value).__name__)
def test_a_message_has_these_very_canonical_bytes(message: Message, found: str) -> None:
    assert WIRE.canonical(message).hex() == found.replace(" ", "")


@pytest.mark.parametrize(("message", "packet"), [*GOLDEN, *SPELT], ids=lambda value: type(value).__name__)
def test_a_row_its_json_and_what_was_never_packed_have_the_same(message: Message, packet: Packet) -> None:
    read_ = WIRE.unpack(packet)
    assert WIRE.canonical(read_) == WIRE.canonical(message) == plain(read_)


def test_a_message_to_another_fleet_is_another_one() -> None:
    beacon = Beacon(7, "n0", online=True)
    assert Wire("g").canonical(beacon) != WIRE.canonical(beacon)


def test_of_an_offer_with_its_body_what_follows_from_that_is_not_written_twice() -> None:
    offer = Offer("j", "d", V, 120, BODY_DIGEST, 3, body=BODY)
    assert WIRE.canonical(offer) == WIRE.canonical(msgspec.structs.replace(offer, digest=D, n_bytes=9))
    bare = msgspec.structs.replace(offer, body=b"")
    assert WIRE.canonical(bare) not in (
        WIRE.canonical(offer),
        WIRE.canonical(msgspec.structs.replace(bare, digest=D)),
    )


def test_neither_what_the_broker_may_change_nor_what_follows_is_covered() -> None:
    packet = WIRE.pack(Round("j", 7, V, 59.2))
    late = Packet(packet.topic, packet.payload, retain=not packet.retain, expiry_s=3)
    assert WIRE.canonical(WIRE.unpack(late)) == WIRE.canonical(WIRE.unpack(packet))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Cleared("fedge/1/f/job/j"), "carries nothing"),
        (Body("j", "1-3-0", 0, b""), "at least one byte"),
        (Body("j", "1-3-0", 10**9, b"x"), "index"),
        (Job("j", 1, {"a": math.nan}), "not finite"),
        (Job("j", 1, {"a": 2**70}), "2\\*\\*64"),
        (Job("j", 1, {"a": [[{1: 2}]]}), "no text"),
        (Job("j.", 1), "pattern|regex|match"),
        (Round("j", 7, V, math.inf), "left_s"),
    ],
    ids=["cleared", "empty", "billion", "nan", "huge", "number", "dot", "inf"],
)
def test_what_no_receiver_would_read_has_none(message: Message, why: str) -> None:
    with pytest.raises(WireError, match=why):
        WIRE.canonical(message)


def test_what_is_nested_too_deeply_has_none() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(WireError, match="no canonical bytes"):
        WIRE.canonical(Job("j", 1, {"a": deep}))
    while deep:  # so that its end needs no recursion either
        deep = deep[0]


# Every message that there may be.

KINDS = sorted((kind for kind in WORDS if isinstance(kind, type)), key=lambda kind: kind.__name__)
WORDS_OF_A_LEVEL = ["a", "ab" * 8, "00" * 8, "0a" * 4, "1-3-0", "_"]
texts = st.sampled_from(["", "a", "a\nb", "\u202ea", "é"]) | st.text(st.characters(codec="utf-8"), max_size=6)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Return what a field of this kind may be, mostly one of few values: so two messages are often nearly the same."""
    match kind:
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=least, le=most):
            least = least or 0
            return st.integers(least, least + 2) | st.integers(least, most)
        case inspect.FloatType(ge=least, le=most):
            whole = st.integers(0, 60)  # a float is often written without its point
            return st.sampled_from([0.0, -0.0, 0.25, 2.0, 1e-7]) | whole | st.floats(least or -1e300, most or 1e300)
        case inspect.StrType(pattern=str(pattern)):
            known = [word for word in WORDS_OF_A_LEVEL if re.search(pattern, word)]
            return (st.sampled_from(known) if known else st.nothing()) | st.from_regex(pattern)
        case inspect.StrType(max_length=most):
            return texts if most is None else texts.filter(lambda text: len(text) <= most)
        case inspect.BytesType():
            return st.binary(max_size=3) | st.binary(max_size=200)
        case inspect.LiteralType(values=found):
            return st.sampled_from(found)
        case inspect.UnionType(types=kinds):
            return st.one_of(*map(values, kinds))
        case inspect.NoneType():
            return st.none()
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=2).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values, items))
        case inspect.StructType(cls=cls):
            return messages(cls)
        case inspect.AnyType():
            return anything
    raise AssertionError(f"no values of {kind}")


@functools.cache
def fields(kind: type) -> dict[str, st.SearchStrategy[Any]]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return {
        field.name: values(field.type) if field.required else values(field.type) | st.just(default_of(field))
        for field in found.fields
    }


def default_of(field: inspect.Field) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def messages(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(kind, **fields(kind))


def read(message: Message) -> Message | None:
    """Return the message that its receiver has; None where it refuses it, or hears that a topic was cleared."""
    try:
        found = WIRE.unpack(WIRE.pack(message))
    except WireError:
        return None
    return None if isinstance(found, Cleared) else found


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS).flatmap(messages))
def test_to_pack_and_unpack_a_message_does_not_change_them(message: Message) -> None:
    found = read(message)
    if found is None:
        with pytest.raises(WireError):
            WIRE.canonical(message)
    else:
        assert WIRE.canonical(found) == WIRE.canonical(message)
        assert WIRE.canonical(found) == plain(found)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS).flatmap(messages), st.data())
def test_two_messages_that_say_different_things_never_have_the_same(message: Message, data: st.DataObject) -> None:
    name, values_ = data.draw(st.sampled_from(sorted(fields(type(message)).items(), key=lambda item: item[0])))
    other = msgspec.structs.replace(message, **{name: data.draw(values_)})
    one, two = read(message), read(other)
    if one is not None and two is not None and one != two:
        assert WIRE.canonical(message) != WIRE.canonical(other)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS).flatmap(messages), st.sampled_from(KINDS).flatmap(messages))
def test_nor_do_two_of_different_kinds(message: Message, other: Message) -> None:
    if type(message) is not type(other) and None not in (read(message), read(other)):
        assert WIRE.canonical(message) != WIRE.canonical(other)


def test_what_an_operator_signs_is_an_array_of_its_own() -> None:
    spec = {"b": 1, "a": [-0.0, {"z": None, "y": True}]}
    found = msgspec.msgpack.decode(canonical.of_spec("toy-0000000a", spec, "f"))
    assert found == ["fedge/1", "f", "spec", {"job": "toy-0000000a", "spec": spec}]
    assert list(found[3]["spec"]) == ["a", "b"]
    assert canonical.of_spec("j", {"a": 1}, "f") != canonical.of_spec("j", {"a": 1.0}, "f")
    with pytest.raises(WireError, match="job j: no canonical bytes"):
        canonical.of_spec("j", {"a": math.inf}, "f")


# The rule once more, by hand.


def plain(message: Message) -> bytes:
    """Write a message that was read as WIRE.md says, with nothing of the code but the table of topics."""
    word = WORDS[type(message)]
    tree: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    if isinstance(message, Offer) and message.body:
        tree = {name: value for name, value in tree.items() if name not in ("digest", "n_bytes", "chunk_bytes")}
    optional = {field.encode_name: default_of(field) for field in inspect.type_info(type(message)).fields}
    tree = {name: value for name, value in tree.items() if name not in optional or value != plain_of(optional[name])}
    return packed(["fedge/1", "f", word, tree])


def plain_of(default: object) -> object:
    return default if default is msgspec.NODEFAULT else msgspec.to_builtins(default, builtin_types=(bytes,))


def packed(value: Any) -> bytes:
    """Return a value as MessagePack, in its shortest form; names in the order of their UTF-8."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case float():
            return b"\xcb" + struct.pack(">d", value or 0.0)
        case int() if -32 <= value < 128:
            return struct.pack(">b", value)
        case int():
            sizes = (("d0", "b"), ("d1", "h"), ("d2", "i"), ("d3", "q"))
            if value > 0:
                sizes = (("cc", "B"), ("cd", "H"), ("ce", "I"), ("cf", "Q"))
            for code, size in sizes:
                with contextlib.suppress(struct.error):
                    return bytes.fromhex(code) + struct.pack(">" + size, value)
        case bytes():
            return sized(len(value), (("c4", 1), ("c5", 2), ("c6", 4))) + value
        case str():
            text = value.encode()
            head = bytes((0xA0 | len(text),)) if len(text) < 32 else b""
            return (head or sized(len(text), (("d9", 1), ("da", 2), ("db", 4)))) + text
        case list() | tuple():
            head = bytes((0x90 | len(value),)) if len(value) < 16 else sized(len(value), (("dc", 2), ("dd", 4)))
            return head + b"".join(map(packed, value))
        case dict():
            head = bytes((0x80 | len(value),)) if len(value) < 16 else sized(len(value), (("de", 2), ("df", 4)))
            names = sorted(value, key=lambda name: name.encode())
            return head + b"".join(packed(name) + packed(value[name]) for name in names)
    raise AssertionError(f"nothing stands for {value!r}")


def sized(n: int, sizes: tuple[tuple[str, int], ...]) -> bytes:
    code, size = next((code, size) for code, size in sizes if n < 256**size)
    return bytes.fromhex(code) + n.to_bytes(size)


# The page.


def test_the_example_of_the_page_is_true() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Canonical bytes")[2].partition("\n## ")[0]
    blocks = re.findall(r"^\*(row|JSON|canonical)\*.*?\n\n```\n(.*?)```", section, flags=re.MULTILINE | re.DOTALL)
    hexadecimal = re.compile(r"^ {4}((?:[0-9a-f]{2} ?)+?)(?: {2,}.*)?$", flags=re.MULTILINE)
    parts = {title: bytes.fromhex("".join(hexadecimal.findall(block))) for title, block in blocks}
    topic = re.search(r"`(fedge/1/[^`<]+)`", section)
    assert topic is not None
    packet = Packet(topic[1], parts["row"], retain=True, expiry_s=61)
    message = Round("digits-1f", 7, Version(1, 3), 59.5, attempt=2)
    assert WIRE.pack(message) == packet
    assert WIRE.unpack(Packet(topic[1], parts["JSON"])) == message
    assert WIRE.canonical(message) == parts["canonical"]
