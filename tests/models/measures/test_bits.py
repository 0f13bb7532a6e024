from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.measures.bits import BitsError, Reader, Writer, most_bits_of_counts, most_bits_of_integer


def test_small_numbers_take_few_bits() -> None:
    for value, bits in ((1, "1"), (2, "010"), (3, "011"), (5, "00101")):
        writer = Writer()
        writer.gamma(value)
        assert writer.to_bytes() == int(bits.ljust(8, "0"), 2).to_bytes(1, "big")


@given(st.lists(st.integers(1, 2**70)), st.lists(st.integers(-(2**300), 2**300)))
def test_what_was_written_is_read(numbers: list[int], sums: list[int]) -> None:
    writer = Writer()
    for number in numbers:
        writer.gamma(number)
        writer.delta(number)
    for sum_ in sums:
        writer.integer(sum_)
    reader = Reader(writer.to_bytes())
    assert [(reader.gamma(2**70), reader.delta(2**70)) for _ in numbers] == [(number, number) for number in numbers]
    assert [reader.integer(2**300) for _ in sums] == sums
    reader.end()


@given(st.lists(st.one_of(st.just(0), st.integers(0, 2**40)), max_size=100))
def test_a_series_of_counts_is_read_as_it_was_and_takes_no_more_than_was_said(counts: list[int]) -> None:
    writer = Writer()
    writer.counts(np.array(counts, np.int64))
    data = writer.to_bytes()
    reader = Reader(data)
    assert reader.counts(len(counts), 2**40).tolist() == counts
    reader.end()
    assert 8 * len(data) <= most_bits_of_counts(len(counts), sum(counts)) + 7


@given(st.integers(0, 2**400), st.integers(0, 200))
def test_a_sum_takes_no_more_bits_than_was_said(size: int, zeros: int) -> None:
    writer = Writer()
    writer.integer(-(size << zeros))
    assert 8 * len(writer.to_bytes()) <= most_bits_of_integer(size << zeros) + 7


def test_a_number_above_its_limit_is_refused() -> None:
    writer = Writer()
    writer.gamma(8)
    data = writer.to_bytes()
    assert Reader(data).gamma(8) == 8
    with pytest.raises(BitsError, match="larger than it can be"):
        Reader(data).gamma(7)
    with pytest.raises(BitsError, match="15 where it can be 14"):
        Reader(b"\x1e").gamma(14)


def test_one_sum_has_one_form() -> None:
    """An even number behind the count of zeros would be a second form of another."""
    writer = Writer()
    for part in ("10",):
        writer._parts.append(part)
    writer.delta(1)
    writer.delta(6)
    with pytest.raises(BitsError, match="another form"):
        Reader(writer.to_bytes()).integer(100)


def test_what_is_behind_the_end_is_refused() -> None:
    writer = Writer()
    writer.gamma(1)
    for behind in (b"\x00", b"\x01"):
        reader = Reader(writer.to_bytes() + behind)
        reader.gamma(1)
        with pytest.raises(BitsError, match="behind the end"):
            reader.end()
