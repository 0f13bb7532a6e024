from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.local.framing import GarbageError, PacketReader, SeenPacket

CONNECT_3 = bytes([0x10, 14, 0, 4, *b"MQTT", 4, 2, 0, 60, 0, 2, *b"me"])
CONNECT_5 = bytes([0x10, 18, 0, 4, *b"MQTT", 5, 2, 0, 60, 3, 0x21, 0, 7, 0, 2, *b"me"])
PINGREQ = b"\xc0\0"


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def publish(topic: bytes, payload: bytes, *, qos: int = 1, properties: bytes | None = None) -> bytes:
    body = len(topic).to_bytes(2) + topic + (b"\0\7" if qos else b"")
    if properties is not None:
        body += varint(len(properties)) + properties
    body += payload
    return bytes([0x30 | qos << 1]) + varint(len(body)) + body


def read(data: bytes, version: int = 4) -> list[SeenPacket]:
    reader = PacketReader()
    reader.version = version
    return list(reader.feed(data))


def test_a_connect_tells_its_client_and_version() -> None:
    for packet, version in ((CONNECT_3, 4), (CONNECT_5, 5)):
        reader = PacketReader()
        assert list(reader.feed(packet)) == [SeenPacket("CONNECT", client_id="me")]
        assert reader.version == version


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_tells_its_word_and_payload(qos: int) -> None:
    topic = b"fedge/1/home/offer/job/device"
    expected = [SeenPacket("PUBLISH", word="offer", n_payload=5)]
    assert read(publish(topic, b"hello", qos=qos)) == expected
    assert read(publish(topic, b"hello", qos=qos, properties=b""), version=5) == expected
    assert read(publish(topic, b"hello", qos=qos, properties=b"\2\0\0\0\x09"), version=5) == expected


@pytest.mark.parametrize("topic", [b"a", b"a/b/c/d", b"fedge/2/home/offer", b"fedge/1/home", b""])
def test_a_topic_of_another_tree_is_other(topic: bytes) -> None:
    assert read(publish(topic, b"x")) == [SeenPacket("PUBLISH", word="other", n_payload=1)]


def test_large_and_empty_payloads_are_counted_alike() -> None:
    data = publish(b"fedge/1/f/body/x", bytes(800_000)) + publish(b"fedge/1/f/body/x", b"") + PINGREQ
    assert [seen.n_payload for seen in read(data)] == [800_000, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x36\4\0\0\0\0",
        b"\x32\2\0\0",
        b"\x30\3\0\5a",
        b"\x30\4\0\2\xff\xfe",
        b"\x10\4\0\2ab",
        b"GET / HTTP/1.1\r\n\r\n\0",
    ],
)
def test_what_is_not_mqtt_is_garbage(data: bytes) -> None:
    with pytest.raises(GarbageError):
        read(data * 20)


packets = st.one_of(
    st.just(PINGREQ),
    st.just(b"\x40\2\0\1"),
    st.just(b"\x82\6\0\1\0\1a\1"),
    st.builds(
        publish,
        st.sampled_from([b"a", b"fedge/1/f/chunk/x", b"t" * 300]),
        st.integers(0, 3000).map(bytes),
        qos=st.integers(0, 2),
        properties=st.sampled_from([b"", b"\2\0\0\0\1", bytes(200)]),
    ),
)


@given(st.lists(packets, max_size=8), st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_any_cutting_of_the_stream_reads_the_same(stream: list[bytes], cuts: list[int]) -> None:
    data = CONNECT_5 + b"".join(stream)
    reader, start = PacketReader(), 0
    found: list[SeenPacket] = []
    while start < len(data):
        step = cuts[start % len(cuts)]
        found += reader.feed(data[start : start + step])
        start += step
    assert found == read(data)
    assert len(found) == len(stream) + 1


@given(st.binary(max_size=400), st.sampled_from([4, 5]))
@settings(max_examples=300)
def test_no_bytes_raise_anything_but_garbage(data: bytes, version: int) -> None:
    with contextlib.suppress(GarbageError):
        read(data, version)


def test_the_reader_holds_heads_and_never_bodies() -> None:
    reader = PacketReader()
    packet = publish(b"a", bytes(1_000_000))
    for start in range(0, len(packet), 10_000):
        list(reader.feed(packet[start : start + 10_000]))
        assert len(reader._head) <= 70_000


def test_a_topic_alias_is_counted_under_the_word_that_it_stands_for() -> None:
    def publish(topic: bytes, payload: bytes) -> bytes:
        properties = b"\x02\x00\x00\x00\x3c\x23\x00\x01"
        body = len(topic).to_bytes(2) + topic + b"\x00\x07" + bytes((len(properties),)) + properties + payload
        return bytes((0x32, len(body))) + body

    reader = PacketReader()
    reader.version = 5
    stream = publish(b"fedge/1/f/offer/j/d", b"abc") + publish(b"", b"de") + publish(b"", b"")
    seen = [packet for byte in stream for packet in reader.feed(bytes((byte,)))]
    assert [(packet.word, packet.n_payload) for packet in seen] == [("offer", 3), ("offer", 2), ("offer", 0)]
