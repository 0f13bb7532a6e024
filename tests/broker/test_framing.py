import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import framing
from broker.framing import Answer, Delivery, Framing, TooLong

Packet = Delivery | Answer | TooLong | bytes


def read(data: bytes, *, five: bool = True, piece: int = 0, most_bytes: int = framing.LONGEST) -> list[Packet]:
    """Return the packets of a stream, fed in pieces of this size, or whole."""
    here = Framing(five=five, most_bytes=most_bytes)
    found: list[Packet] = []
    for at in range(0, len(data), piece or len(data) or 1):
        here.feed(data[at : at + piece] if piece else data)
        while here.has_next and (packet := here.next()) is not None:
            found.append(packet)
    return found


def test_a_publish_is_these_bytes() -> None:
    said = framing.publish("a/b", b"xyz", 258, retain=True, five=True, expiry_s=7, alias=3)
    assert said == b"\x33\x13" + b"\0\x03a/b" + b"\1\2" + b"\x08\x02\0\0\0\x07\x23\0\x03" + b"xyz"
    assert framing.publish("a/b", b"xyz", 258, retain=False, five=False, expiry_s=7, alias=3) == (
        b"\x32\x0a" + b"\0\x03a/b" + b"\1\2" + b"xyz"
    )
    assert framing.puback(258) == b"\x40\2\1\2"


@pytest.mark.parametrize(("n", "length"), [(127, b"\x7f"), (128, b"\x80\1"), (16_384, b"\x80\x80\1")])
def test_a_length_is_seven_bits_a_byte_the_lowest_first(n: int, length: bytes) -> None:
    said = framing.publish("t", bytes(n - 6), 1, retain=False, five=True)
    assert said[1 : 1 + len(length)] == length
    assert len(said) == 1 + len(length) + n


def test_a_packet_that_mqtt_has_no_length_for_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return framing.LONGEST

    with pytest.raises(ValueError, match="more than an MQTT packet"):
        framing.publish("t", Huge(), 1, retain=False, five=True)


@given(
    st.text("abc/ä", min_size=1, max_size=9),
    st.binary(max_size=300),
    st.integers(1, 65_535),
    st.booleans(),
    st.none() | st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 7, 100]),
)
def test_what_is_written_is_read_however_it_is_cut(
    topic: str, payload: bytes, mid: int, retain: bool, expiry_s: int | None, five: bool, piece: int
) -> None:
    one = framing.publish(topic, payload, mid, retain=retain, five=five, expiry_s=expiry_s)
    came = Delivery(topic, payload, retain, mid, expiry_s if five else None)
    said = one + framing.puback(mid) + b"\xd0\0" + one
    assert read(said, five=five, piece=piece) == [came, Answer(mid, 0), b"\xd0\0", came]


def test_what_is_sent_at_qos_0_needs_no_answer() -> None:
    assert read(b"\x30\x05\0\1t\0x") == [Delivery("t", b"x", False, 0, None)]


def test_a_puback_may_say_why_not() -> None:
    assert read(b"\x40\3\0\1\x87" + b"\x40\4\0\2\x97\0") == [Answer(1, 0x87), Answer(2, 0x97)]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x34\x07\0\1t\0\1\0x",  # at QoS 2
        b"\x36\x07\0\1t\0\1\0x",  # at none
        b"\x32\x06\0\0\0\1\0x",  # under no topic
        b"\x32\x07\0\1t\0\0\0x",  # numbered 0
        b"\x32\x0a\0\1t\0\1\3\x23\0\1x",  # with a topic alias
        b"\x32\x0b\0\1t\0\1\5\x11\0\0\0\1",  # with another property of five bytes
        b"\x32\x09\0\1t\0\1\5\2\0\0",  # with a property that ends behind it
        b"\x32\x05\0\1t\0\1",  # without a length of properties
        b"\x32\x04\0\x09tt",  # whose topic ends behind it
        b"\x32\x01\0",
        b"\x32\0",
        b"\x40\1\0",  # an answer to half a number
        b"\x40\0",
        b"\x90\3\0\1\0",  # a SUBACK
    ],
)
def test_what_is_not_as_ours_are_is_handed_on_as_it_came(packet: bytes) -> None:
    after = framing.publish("t", b"x", 5, retain=False, five=True)
    assert read(packet + after) == [packet, Delivery("t", b"x", False, 5, None)]
    assert read(packet + after, piece=1)[0] == packet


def test_on_mqtt_3_a_longer_puback_is_handed_on() -> None:
    assert read(b"\x40\3\0\1\0", five=False) == [b"\x40\3\0\1\0"]


def test_after_a_length_that_is_none_everything_is_handed_on() -> None:
    assert read(b"\x32\xff\xff\xff\xff\1ab") == [b"\x32\xff\xff\xff\xff\1ab"]
    assert b"".join(p for p in read(b"\x32\xff\xff\xff\xff\1ab", piece=1) if isinstance(p, bytes)) == (
        b"\x32\xff\xff\xff\xff\1ab"
    )


def test_a_topic_that_is_not_utf_8_is_an_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        read(b"\x32\x07\0\1\xff\0\1\0x")


@given(st.lists(st.sampled_from([b"\x32", b"\x40", b"\0", b"\1", b"\2", b"\x05", b"\x09", b"t", b"\xff"]), max_size=60))
def test_nothing_is_lost_of_whatever_comes_and_nothing_but_a_topic_is_judged(parts: list[bytes]) -> None:
    here = Framing(five=True)
    here.feed(b"".join(parts))
    while here.has_next:
        try:
            if here.next() is None:
                break
        except UnicodeDecodeError:
            break


@given(st.integers(0, 1), st.booleans(), st.sampled_from([0, 1, 2, 7, 100, 1000]), st.integers(0, 700))
def test_a_publish_that_is_too_long_is_passed_over_but_for_its_number(
    mid: int, five: bool, piece: int, more: int
) -> None:
    small = framing.publish("a/b", b"x", 5, retain=False, five=five)
    long = framing.publish("a/b", bytes(100 + more), mid or 5, retain=True, five=five)
    if not mid:
        long = b"\x30" + long[1:]
    found = read(small + long + small, five=five, piece=piece, most_bytes=100)
    came = Delivery("a/b", b"x", False, 5, None)
    assert found == [came, TooLong(mid, len(long)), came]


def test_a_packet_of_just_so_many_bytes_is_taken() -> None:
    one = framing.publish("a/b", bytes(80), 5, retain=False, five=True)
    assert read(one, most_bytes=len(one)) == [Delivery("a/b", bytes(80), False, 5, None)]
    assert read(one, most_bytes=len(one) - 1) == [TooLong(5, len(one))]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x20\xff\xff\xff\x7f",  # a CONNACK
        b"\x34\xff\xff\xff\x7f",  # a PUBLISH at QoS 2
        b"\x32\x70\0\xff",  # whose topic ends behind it
    ],
)
def test_nothing_else_may_be_too_long(packet: bytes) -> None:
    with pytest.raises(ValueError, match="that nobody sends"):
        read(packet, most_bytes=100)


def test_a_length_is_nothing_to_keep_and_many_small_parts_are_few_large_ones() -> None:
    here = Framing(five=True, most_bytes=1_000_000)
    tracemalloc.start()
    try:
        here.feed(b"\x32\xff\xff\xff\x7f\0\1t\0\1")
        assert here.next() == TooLong(1, framing.LONGEST + 5)
        for _ in range(200):
            here.feed(bytes(100_000))
            assert not here.has_next
        assert tracemalloc.get_traced_memory()[0] < 100_000
        here = Framing(five=True, most_bytes=1_000_000)
        here.feed(b"\x32\xff\xff\x3c")
        for byte in itertools.repeat(b"\1", 100_000):
            here.feed(byte)
            assert here.next() is None
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()
