from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.envelope import MOST_COUNT_BYTES, WIDTH, Envelope, Window, proved, split
from broker.errors import WireError

MOST_COUNT = 2 ** (7 * MOST_COUNT_BYTES) - 1
SIGNATURE, MAC = bytes(range(64)), bytes(range(16))


@pytest.mark.parametrize(
    ("envelope", "found"),
    [
        (Envelope(1, MAC), b"\xfd\x01" + MAC),
        (Envelope(127, MAC), b"\xfd\x7f" + MAC),
        (Envelope(300, MAC), b"\xfd\xac\x02" + MAC),
        (Envelope(5, SIGNATURE), b"\xfe\x05" + SIGNATURE),
        (Envelope(MOST_COUNT, SIGNATURE), b"\xfe\xff\xff\xff\xff\x7f" + SIGNATURE),
    ],
)
def test_an_envelope_is_these_very_bytes(envelope: Envelope, found: bytes) -> None:
    assert envelope.to_bytes() == found
    assert split(found + b"{}") == (envelope, b"{}")


@given(st.integers(0, MOST_COUNT), st.sampled_from([MAC, SIGNATURE]), st.binary(min_size=1))
def test_what_was_wrapped_is_found_again(count: int, proof: bytes, payload: bytes) -> None:
    envelope = Envelope(count, proof)
    assert split(envelope.to_bytes() + payload) == (envelope, payload)


@pytest.mark.parametrize("payload", [b"{}", b"\x04\x93", b"", b"\x7a"])
def test_a_payload_without_one_is_left_as_it_is(payload: bytes) -> None:
    assert split(payload) == (None, payload)


@pytest.mark.parametrize(
    "broken",
    [
        b"\xfe",
        b"\xfd\x80",
        b"\xfd\x81\x00" + MAC + b"{}",
        b"\xfd\xff\xff\xff\xff\xff\x01" + MAC + b"{}",
        b"\xfd\x01" + MAC,
        b"\xfe\x01" + SIGNATURE[:-1] + b"{}"[:1],
    ],
    ids=["no count", "half a count", "a count too long", "a count too large", "no payload", "half a signature"],
)
def test_a_broken_one_is_refused(broken: bytes) -> None:
    with pytest.raises(WireError, match="envelope"):
        split(broken)


@given(st.binary(max_size=100))
def test_whatever_the_bytes_nothing_but_a_wire_error_escapes(payload: bytes) -> None:
    try:
        envelope, rest = split(payload)
    except WireError:
        return
    assert payload == (envelope.to_bytes() if envelope else b"") + rest


def test_a_message_with_another_count_is_another_one() -> None:
    assert len({proved(b"said", count) for count in (0, 1, 256, MOST_COUNT)}) == 4


@given(st.lists(st.integers(1, 3 * WIDTH), max_size=200))
def test_each_count_is_taken_once_and_a_late_one_if_it_is_not_too_late(counts: list[int]) -> None:
    window, taken = Window(), set[int]()
    for count in counts:
        late = bool(taken) and count <= max(taken) - WIDTH
        assert window.take(count) == (count not in taken and not late)
        if not late:
            taken.add(count)


def test_a_count_of_nothing_is_never_taken() -> None:
    assert not Window().take(0)
