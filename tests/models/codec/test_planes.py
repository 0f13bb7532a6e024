import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.decoded import CodecError
from models.codec.planes import max_bytes, read, write
from models.integers import Int64

MOST = 2**47 - 1
integers = st.sampled_from([0, 1, -1, 127, -128, 128, 32767, -32768, 32768, MOST, -MOST]) | st.integers(-MOST, MOST)


def normal(n: int, sigma: float) -> Int64:
    return np.rint(sigma * np.random.default_rng(0).standard_normal(n)).astype(np.int64)


@settings(max_examples=100)
@given(st.lists(integers, max_size=40))
def test_integers_come_back(values: list[int]) -> None:
    row = np.array(values, np.int64)
    assert (read(write(row), len(values)) == row).all()


@pytest.mark.parametrize(
    ("largest", "planes"), [(0, 1), (127, 1), (-128, 1), (128, 2), (32767, 2), (-(2**39), 5), (MOST, 6)]
)
def test_there_are_no_more_planes_than_the_largest_needs(largest: int, planes: int) -> None:
    assert write(np.array([0, largest, 1]))[0] == planes


@pytest.mark.parametrize("sigma", [2.0, 5.0, 20.0])
def test_a_gaussian_costs_little_more_than_it_holds(sigma: float) -> None:
    row = normal(40_000, sigma)
    _, counts = np.unique(row, return_counts=True)
    share = counts / row.size
    entropy = -float((share * np.log2(share)).sum())
    assert 8 * len(write(row)) / row.size < entropy + 0.12


@pytest.mark.parametrize("n", [0, 1, 1000, 70_000])
def test_no_row_takes_more_than_the_most(n: int) -> None:
    rng = np.random.default_rng(n)
    assert len(write(rng.integers(-MOST, MOST, n))) <= max_bytes(n)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 20))
def test_any_bytes_are_integers_or_an_error(body: bytes, n: int) -> None:
    for damaged in (body, b"\x01" + body, b"\x01" + len(body).to_bytes(4, "little") + body):
        with suppress(CodecError):
            assert read(damaged, n).shape == (n,)


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_gives_other_integers(at: int, bit: int) -> None:
    row = normal(200, 40.0)
    damaged = bytearray(write(row))
    damaged[at % len(damaged)] ^= 1 << bit
    with suppress(CodecError):
        assert (read(bytes(damaged), 200) == row).all()


@pytest.mark.parametrize("n", [199, 201])
def test_another_number_of_integers_is_refused(n: int) -> None:
    with pytest.raises(CodecError, match="length"):
        read(write(normal(200, 3.0)), n)


def test_what_is_missing_or_left_over_is_refused() -> None:
    body = write(normal(200, 300.0))
    for cut in range(len(body)):
        with pytest.raises(CodecError):
            read(body[:cut], 200)
    with pytest.raises(CodecError, match="goes on"):
        read(body + b"\0", 200)


def plane(packed: bytes, count: int = 1) -> bytes:
    return bytes((count,)) + (len(packed).to_bytes(4, "little") + packed) * count


def test_something_after_the_end_of_a_plane_is_refused() -> None:
    with pytest.raises(CodecError, match="length"):
        read(plane(zlib.compress(bytes(50)) + b"\0"), 50)


@pytest.mark.parametrize("short", [1, 4, 5])
def test_a_plane_without_its_end_is_refused(short: int) -> None:
    with pytest.raises(CodecError, match="length"):
        read(plane(zlib.compress(bytes(50))[:-short]), 50)


@pytest.mark.parametrize("count", [0, 7, 255])
def test_another_number_of_planes_is_refused(count: int) -> None:
    with pytest.raises(CodecError, match="planes"):
        read(plane(zlib.compress(bytes(50)), count), 50)


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = plane(zlib.compress(bytes(2**26), 9))
    tracemalloc.start()
    with pytest.raises(CodecError, match="length"):
        read(bomb, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(bomb) < 2**17
    assert peak < 2**20
