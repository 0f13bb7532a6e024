from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import chunks
from broker.chunks import Assembly
from broker.errors import WireError

BODY = b"0123456789"


def assembly(body: bytes = BODY, chunk_bytes: int = 4) -> Assembly:
    return Assembly(chunks.digest(body), len(body), chunk_bytes)


@given(st.binary(min_size=1, max_size=200), st.integers(1, 50), st.randoms(use_true_random=False))
def test_pieces_in_any_order_make_the_body(body: bytes, chunk_bytes: int, random) -> None:  # type: ignore[no-untyped-def]
    pieces = list(enumerate(chunks.cut(body, chunk_bytes)))
    random.shuffle(pieces)
    whole = assembly(body, chunk_bytes)
    assert whole.n_chunks == len(pieces) == chunks.count(len(body), chunk_bytes)
    for index, piece in pieces:
        assert whole.body() is None
        whole.add(index, piece)
    assert whole.body() == body
    assert whole.missing == set()


@given(st.sets(st.integers(0, 99)), st.integers(1, 100))
def test_a_bitmap_says_which_chunks(indices: set[int], n_chunks: int) -> None:
    here = {index for index in indices if index < n_chunks}
    assert chunks.from_bitmap(chunks.to_bitmap(here, n_chunks), n_chunks) == here


def test_the_lowest_bit_of_the_first_byte_is_chunk_0() -> None:
    assert chunks.to_bitmap({0, 2, 8}, 9) == "0501"


def test_bits_beyond_the_last_chunk_mean_nothing() -> None:
    assert chunks.from_bitmap("ffff", 3) == {0, 1, 2}


def test_a_chunk_beyond_the_last_is_refused() -> None:
    with pytest.raises(WireError, match="chunk 3 of a body that has 3"):
        assembly().add(3, b"4567")


@pytest.mark.parametrize(("index", "data"), [(0, b"012"), (0, b"01234"), (2, b"8"), (2, b"8901"), (1, b"")])
def test_a_chunk_of_another_length_is_refused(index: int, data: bytes) -> None:
    with pytest.raises(WireError, match="bytes where"):
        assembly().add(index, data)


def test_a_chunk_that_comes_twice_is_passed_over() -> None:
    whole = assembly()
    whole.add(0, b"0123")
    whole.add(0, b"XXXX")
    whole.add(1, b"4567")
    whole.add(2, b"89")
    assert whole.body() == BODY


def test_without_a_digest_any_body_of_that_length_is_taken() -> None:
    whole = Assembly(None, len(BODY), 4)
    for index, piece in enumerate(chunks.cut(b"0123456780", 4)):
        whole.add(index, piece)
    assert whole.body() == b"0123456780"
    with pytest.raises(WireError, match="bytes where"):
        Assembly(None, len(BODY), 4).add(0, b"0123456789")


def test_chunks_that_make_another_body_are_refused_and_asked_for_again() -> None:
    whole = assembly()
    for index, piece in enumerate(chunks.cut(b"0123456780", 4)):
        whole.add(index, piece)
    with pytest.raises(WireError, match="do not make that body"):
        whole.body()
    assert whole.missing == {0, 1, 2}


def test_an_assembly_is_complete_when_nothing_is_missing_and_says_which_chunks_were() -> None:
    whole = Assembly(None, 10, 4)
    for index, data in ((1, b"4567"), (2, b"89")):
        assert whole.add(index, data)
        assert not whole.add(index, data)
        assert not whole.complete
    assert whole.add(0, b"0123")
    assert whole.complete
    assert whole.missing == set()


@given(st.binary(max_size=40), st.integers(1, 300))
def test_a_bitmap_is_read_bit_by_bit(bits: bytes, n_chunks: int) -> None:
    number = int.from_bytes(bits, "little")
    assert chunks.from_bitmap(bits.hex(), n_chunks) == {index for index in range(n_chunks) if number >> index & 1}


@given(st.integers(1, 300), st.data())
def test_a_bitmap_is_written_bit_by_bit(n_chunks: int, data: st.DataObject) -> None:
    indices = data.draw(st.sets(st.integers(0, n_chunks - 1)))
    written = sum(1 << index for index in indices).to_bytes(max(1, -(-n_chunks // 8)), "little").hex()
    assert chunks.to_bitmap(indices, n_chunks) == written
