from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.errors import WireError
from broker.messages import (
    MOST_WAYS,
    Cleared,
    DeltaAt,
    Head,
    Job,
    Message,
    Offer,
    Query,
    Reply,
    Round,
    Version,
    Want,
)
from broker.payloads import MAX_CONTROL_BYTES
from broker.transport import Packet
from broker.wire import Wire, levels
from tests.broker.golden import GOLDEN, OFFER_TOPIC, SPELT, D

WIRE = Wire("f")


@pytest.mark.parametrize(("message", "packet"), SPELT, ids=lambda value: type(value).__name__)
def test_what_is_short_may_be_spelt_out_all_the_same(message: Message, packet: Packet) -> None:
    assert WIRE.unpack(packet) == message


@pytest.mark.parametrize(("message", "packet"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_message_is_these_very_bytes(message: Message, packet: Packet) -> None:
    assert WIRE.pack(message) == packet
    assert WIRE.unpack(packet) == message


def test_what_only_looks_may_be_asked_under_a_word_of_its_own() -> None:
    asked = [(message, packet) for message, packet in SPELT if isinstance(message, Query)]
    assert len(asked) == 2
    assert all(WIRE.pack_query(message) == packet for message, packet in asked if isinstance(message, Query))


def test_a_filter_leaves_open_what_is_not_given() -> None:
    assert WIRE.filter_for("offer") == "fedge/1/f/offer/+/+/+"
    assert WIRE.filter_for("head", job="j-1") == "fedge/1/f/head/j-1"


def test_an_empty_payload_means_that_the_topic_was_cleared() -> None:
    cleared = WIRE.clear(Job("j-1", 7))
    assert cleared == Packet("fedge/1/f/job/j-1", b"", retain=True)
    assert WIRE.unpack(cleared) == Cleared("fedge/1/f/job/j-1")
    assert WIRE.pack(Cleared("fedge/1/f/job/j-1")) == cleared


def test_a_wire_hears_its_own_fleet_alone() -> None:
    packet = WIRE.pack(Job("j-1", 7))
    assert Wire("f") == WIRE
    with pytest.raises(WireError, match="is not of this fleet"):
        Wire("g").unpack(packet)
    with pytest.raises(AttributeError):
        WIRE.fleet = "g"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("fedge/1/f/body/j-1/1-3-0/2", ["body", "j-1", "1-3-0", "2"]),
        ("fedge/1/f/offer/+/+/+", ["offer", "+", "+", "+"]),
        ("fedge/1/f/aggregator", ["aggregator"]),
        ("fedge/1/f", []),
        ("fedge/2/f/aggregator", []),
        ("fedge", []),
        ("", []),
    ],
)
def test_the_levels_of_a_topic_are_those_behind_its_fleet(topic: str, found: list[str]) -> None:
    assert levels(topic) == found


def test_bytes_that_are_no_json_are_counted_apart() -> None:
    sizes = {packet.topic.split("/")[3]: WIRE.blob_bytes(packet) for _, packet in GOLDEN}
    assert {word: n for word, n in sizes.items() if n} == {"body": 3, "round": 8 + 3, "offer": 3, "chunk": 3}
    assert [WIRE.blob_bytes(packet) for _, packet in SPELT] == [0, 11, 0, 3, 0, 0]


def first(kind: type[Message]) -> Packet:
    return next(packet for message, packet in GOLDEN if isinstance(message, kind))


WANT = first(Want)
OFFER = SPELT[2][1]
HEAD = next(packet for _, packet in GOLDEN if b'"ways"' in packet.payload)
ROUND = SPELT[0][1]
SHORT = next(packet for message, packet in GOLDEN if isinstance(message, Offer) and message.body)
REFUSED: dict[str, Packet] = {
    "of another fleet": Packet("fedge/1/g/aggregator", b"{}"),
    "of another protocol version": Packet("fedge/2/f/aggregator", b"{}"),
    "without a word": Packet("fedge/1/f", b"{}"),
    "of an unknown word": Packet("fedge/1/f/secrets/d1", b"{}"),
    "of too few levels": Packet("fedge/1/f/offer/j-1", b"{}"),
    "of too many levels": Packet("fedge/1/f/want/j/d1/d2", b"{}"),
    "of a device with a dot": Packet("fedge/1/f/verdict/j/d.1", b'{"base":[1,3],"digest":"00112233"}'),
    "of an empty device": Packet("fedge/1/f/verdict/j/", b'{"base":[1,3],"digest":"00112233"}'),
    "of a chunk at minus one": Packet(f"fedge/1/f/chunk/j/d/{D}/-1", b"x"),
    "of a chunk at a billion": Packet(f"fedge/1/f/chunk/j/d/{D}/1000000000", b"x"),
    "of a chunk at a superscript": Packet(f"fedge/1/f/chunk/j/d/{D}/²", b"x"),
    "that is cut": Packet(OFFER.topic, OFFER.payload[:-5]),
    "that is shorter than its row": Packet(OFFER_TOPIC, SHORT.payload[:6]),
    "whose row ends early": Packet(OFFER_TOPIC, b"\x07" + SHORT.payload[1:]),
    "whose row goes on": Packet(OFFER_TOPIC, b"\x09" + SHORT.payload[1:]),
    "whose row is none": Packet(OFFER_TOPIC, b"\x01\x07"),
    "whose row is empty": Packet(OFFER_TOPIC, b"\x01\x90"),
    "with a row of no length": Packet(OFFER_TOPIC, b"\x00"),
    "as a row where there is none": Packet("fedge/1/f/want/digits-1f/d1", b"\x03\x92\x01\x02"),
    "with a row of words": Packet(OFFER_TOPIC, b"\x04\xa3abc"),
    "with a row by name": Packet(OFFER_TOPIC, b"\x0a\x81\xa4base\x92\x01\x03"),
    "with a number in a row that is not finite": Packet(
        OFFER_TOPIC, b"\x0d\x92\x92\x01\x03\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"
    ),
    "with an infinite number in a list": Packet(
        OFFER_TOPIC, b"\x0f\x93\x92\x01\x03\xc0\x91\xcb\xff\xf8\x00\x00\x00\x00\x00\x00"
    ),
    "with an extension that nobody knows": Packet(OFFER_TOPIC, b"\x08\x92\x92\x01\x03\xd5\x02\x1f\x55"),
    "with an extension of one byte": Packet(OFFER_TOPIC, b"\x07\x92\x92\x01\x03\xd4\x01\x1f"),
    "with a row of a date": Packet(OFFER_TOPIC, b"\x0a\x92\x92\x01\x03\xd6\xff\x00\x00\x00\x00"),
    "with a row nested to its end": Packet(OFFER_TOPIC, b"\x7a" + b"\x91" * 122),
    "with a row of more than there is": Packet(OFFER_TOPIC, b"\x05\xdd\xff\xff\xff\xff"),
    "with a digest in a row that is none": Packet(OFFER_TOPIC, b"\x09\x93\x92\x01\x03\xa2\xff\xfe\x05"),
    "that says its device twice": Packet(OFFER.topic, OFFER.payload[:-1] + b',"device":"d2"}'),
    "whose digest contradicts its body": Packet(OFFER.topic, OFFER.payload + b"\nbody"),
    "with a float as version": Packet(OFFER.topic, OFFER.payload.replace(b"[1,3]", b"[1,3.5]")),
    "with a negative version": Packet(OFFER.topic, OFFER.payload.replace(b"[1,3]", b"[1,-3]")),
    "with a huge version": Packet(OFFER.topic, OFFER.payload.replace(b"[1,3]", b"[1,9007199254740993]")),
    "with no examples": Packet(OFFER.topic.replace("/120", "/0"), OFFER.payload),
    "with more examples than can be counted": Packet(OFFER.topic.replace("/120", "/9007199254740993"), OFFER.payload),
    "with a fraction of an example": Packet(OFFER.topic.replace("/120", "/0_5"), OFFER.payload),
    "with an infinite loss": Packet(OFFER.topic, OFFER.payload.replace(b"0.25", b"1e999")),
    "with a loss that is no number": Packet(OFFER.topic, OFFER.payload.replace(b"0.25", b"NaN")),
    "with a way that is no pair": Packet(HEAD.topic, HEAD.payload.replace(b"[2,3,3100]", b"[2]")),
    "with a way from before version 0": Packet(HEAD.topic, HEAD.payload.replace(b"[2,3,3100]", b"[-2,3,3100]")),
    "with a way to nowhere": Packet(HEAD.topic, HEAD.payload.replace(b"[2,3,3100]", b"[2,3100]")),
    "with a way beyond all numbers": Packet(HEAD.topic, HEAD.payload.replace(b"[2,3,", b"[2,9007199254740993,")),
    "with a way of no bytes": Packet(HEAD.topic, HEAD.payload.replace(b"[2,3,3100]", b"[2,3,0]")),
    "with a way of more bytes than there are": Packet(
        HEAD.topic, HEAD.payload.replace(b"[2,3,3100]", b"[2,3,1099511627777]")
    ),
    "with more ways than there are": Packet(
        HEAD.topic, HEAD.payload.replace(b"[[2,3,3100]", b"[" + b",".join([b"[2,3,3100]"] * MOST_WAYS))
    ),
    "with fewer buckets than none": Packet(ROUND.topic, ROUND.payload.replace(b"6144", b"-1")),
    "with buckets beyond all numbers": Packet(ROUND.topic, ROUND.payload.replace(b"6144", b"9007199254740993")),
    "with half a bucket": Packet(ROUND.topic, ROUND.payload.replace(b"6144", b"0.5")),
    "with no bits": Packet(ROUND.topic, ROUND.payload.replace(b",1,-12", b",0,-12")),
    "with too many bits": Packet(ROUND.topic, ROUND.payload.replace(b",1,-12", b",33,-12")),
    "with a noise that is none": Packet(ROUND.topic, ROUND.payload.replace(b",1,-12", b",1,-201")),
    "with a noise beyond all": Packet(ROUND.topic, ROUND.payload.replace(b",1,-12", b",1,201")),
    "with a former name of another number": Packet(ROUND.topic, ROUND.payload[:-1] + b',"aliases":[[0,4]]}'),
    "with its own name as a former one": Packet(ROUND.topic, ROUND.payload[:-1] + b',"aliases":[[1,3]]}'),
    "with terms that are a pair": Packet(ROUND.topic, ROUND.payload.replace(b",1,-12", b",1")),
    "with terms that are words": Packet(ROUND.topic, ROUND.payload.replace(b"6144", b'"6144"')),
    "with a report that says nothing": Packet(OFFER.topic, OFFER.payload[:-1] + b',"report":[null]}'),
    "with a report without end": Packet(OFFER.topic, OFFER.payload[:-1] + b',"report":[1e999]}'),
    "with a report of three": Packet(OFFER.topic, OFFER.payload[:-1] + b',"report":[1,2,3]}'),
    "cut into chunks of nothing": Packet(HEAD.topic, HEAD.payload.replace(b"65536", b"0")),
    "of a body with a dot": Packet("fedge/1/f/body/j/1.3.0/0", b"x"),
    "with capitals in a digest": Packet(OFFER.topic, OFFER.payload.replace(b"aabb", b"AABB")),
    "with an empty body to come": Packet(OFFER.topic, OFFER.payload.replace(b"250000", b"0")),
    "that is a list": Packet("fedge/1/f/aggregator", b"[1,2]"),
    "that is deeply nested": Packet("fedge/1/f/job/j", b'{"term":1,"spec":{"a":' + b"[" * 100_000),
    "that is not UTF-8": Packet("fedge/1/f/aggregator", b'{"term":1,"nonce":"\xff","online":true}'),
    "with half a surrogate": Packet("fedge/1/f/aggregator", rb'{"term":1,"nonce":"\ud800","online":true}'),
    "with bytes after its JSON": Packet("fedge/1/f/want/digits-1f/d1", WANT.payload + b"\nmore"),
    "with more JSON than there may be": Packet(
        "fedge/1/f/job/j", json.dumps({"term": 1, "spec": {"a": "x" * MAX_CONTROL_BYTES}}).encode()
    ),
    "with a command where one may only ask": Packet(
        "fedge/1/f/query/cli", b'{"command":"stop","request":"r","name":"x"}'
    ),
    "with an unknown command": Packet("fedge/1/f/command/cli", b'{"command":"rm","request":"r","name":"x"}'),
    "with a bitmap of half a byte": Packet("fedge/1/f/want/digits-1f/d1", WANT.payload.replace(b'"05"', b'"5"')),
}


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED)
def test_a_message_is_refused(packet: Packet) -> None:
    with pytest.raises(WireError):
        WIRE.unpack(packet)


def test_a_head_has_room_for_as_many_ways_as_there_may_be() -> None:
    head = Head("j" * 80, 2**53, Version(2**53, 2**53), D, ways=(DeltaAt(2**53, 2**53, 2**40),) * MOST_WAYS)
    packet = WIRE.pack(head)
    assert WIRE.unpack(packet) == head
    assert len(packet.payload) < MAX_CONTROL_BYTES


def test_a_round_without_terms_is_one_without_compression() -> None:
    found = WIRE.unpack(Packet("fedge/1/f/round/j-1", b'{"term":1,"base":[1,3],"left_s":60}'))
    assert isinstance(found, Round)
    assert found.terms == (0, 32, 0)


def test_what_comes_after_its_topic_is_of_any_length() -> None:
    body = bytes(2 * MAX_CONTROL_BYTES)
    offer = WIRE.unpack(Packet("fedge/1/f/offer/j-1/d1/1", b'{"base":[1,3]}\n' + body))
    assert isinstance(offer, Offer)
    assert offer.n_bytes == len(body)
    assert offer.chunk_bytes >= len(body)


bits = st.binary(max_size=60)
edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 5), bits), max_size=4)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([*GOLDEN, *SPELT]), edits, st.lists(st.tuples(st.integers(0, 80), st.text(max_size=3)), max_size=2)
)
def test_a_damaged_message_is_refused_or_understood(
    golden: tuple[Message, Packet], wounds: list[tuple[int, int, bytes]], slips: list[tuple[int, str]]
) -> None:
    topic, payload = golden[1].topic, golden[1].payload
    for at, n, put in wounds:
        payload = payload[:at] + put + payload[at + n :]
    for at, text in slips:
        topic = topic[:at] + text + topic[at + 1 :]
    unpack_or_refuse(Packet(topic, payload))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([D, D[:8], "05"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*GOLDEN, *SPELT]), st.data())
def test_a_field_of_another_kind_is_refused_or_understood(golden: tuple[Message, Packet], data: st.DataObject) -> None:
    head, separator, blob = golden[1].payload.partition(b"\n")
    try:
        fields = json.loads(head)
    except ValueError:
        return  # a bare body has no fields
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(values)
    unpack_or_refuse(Packet(golden[1].topic, json.dumps(fields).encode() + separator + blob))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.sampled_from([packet.topic for _, packet in GOLDEN]), st.binary(max_size=200))
@example("fedge/1/f/job/j", b'{"term":1,"spec":{"n":1' + b"0" * 5000 + b"}}")
@example("fedge/1/f/head/j", b"\n")
def test_noise_is_refused(topic: str, payload: bytes) -> None:
    unpack_or_refuse(Packet(topic, payload))


def unpack_or_refuse(packet: Packet) -> None:
    """Only WireError may escape, and what is understood can be said again."""
    try:
        message = WIRE.unpack(packet)
    except WireError:
        return
    assert WIRE.unpack(WIRE.pack(message)) == message


def test_words_for_people_are_cleaned_at_the_door_and_refused_for_nothing() -> None:
    said = Reply("cli", "r", ok=True, text="a\x1b[2Jb\n" + "x" * 600)
    heard = WIRE.unpack(WIRE.pack(said))
    assert isinstance(heard, Reply)
    assert heard.text == "a\ufffdb " + "x" * 495 + "…"
