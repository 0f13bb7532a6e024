import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.decoded import CodecError
from models.codec.rans import LANES, TOTAL, Puller, Slices, lanes_for, push, tables_of

TABLES = tables_of(np.array([[TOTAL - 3, 1, 1, 1], [4096, 4096, 4096, 4096], [1, 1, 1, TOTAL - 3]], np.int64))


def slices(classes: np.ndarray, symbols: np.ndarray) -> Slices:
    return Slices(TABLES.frequency[classes, symbols], TABLES.cumulative[classes, symbols])


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, n), rng.integers(0, 4, n)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=6), st.sampled_from(LANES), st.integers(0, 99))
def test_whatever_is_pushed_is_pulled(sizes: list[int], lanes: int, seed: int) -> None:
    batches = [drawn(n, seed + i) for i, n in enumerate(sizes)]
    puller = Puller(push([slices(*batch) for batch in batches], lanes), lanes)
    for classes, symbols in batches:
        assert puller.symbols(classes, TABLES).tolist() == symbols.tolist()
    puller.close()


@pytest.mark.parametrize("lanes", LANES)
def test_numbers_of_every_width_survive(lanes: int) -> None:
    rng = np.random.default_rng(0)
    numbers = {bits: rng.integers(0, 1 << bits, 200) for bits in range(1, 15)}
    batches = [Slices(np.full(200, TOTAL >> bits), values * (TOTAL >> bits)) for bits, values in numbers.items()]
    puller = Puller(push(batches, lanes), lanes)
    for bits, values in numbers.items():
        assert puller.uniform(200, bits).tolist() == values.tolist()
    puller.close()


def test_the_loop_and_the_vector_steps_write_the_same_stream() -> None:
    from models.codec.rans import _push_many, _push_one

    batches = [slices(*drawn(500, 1)), slices(*drawn(77, 2))]
    assert _push_one(batches) == _push_many(batches, 1)


def test_a_stream_costs_its_entropy_and_two_bytes() -> None:
    classes, symbols = drawn(20_000, 3)
    batch = slices(classes, symbols)
    entropy = float(-np.log2(batch.frequency / TOTAL).sum()) / 8
    assert entropy + 2 <= len(push([batch], 1)) <= entropy * 1.001 + 5


def test_longer_streams_have_more_lanes() -> None:
    assert [lanes_for(n) for n in (0, 65_535, 65_536, 1 << 20)] == [1, 1, 128, 1024]


@pytest.mark.parametrize("lanes", LANES)
def test_every_truncation_and_every_extra_word_is_refused(lanes: int) -> None:
    classes, symbols = drawn(3000, 4)
    stream = push([slices(classes, symbols)], lanes)
    cuts = [*range(0, len(stream), 1 + len(stream) // 200), len(stream) - 2]
    for damaged in [stream[:cut] for cut in cuts] + [stream + b"\0\0"]:
        with pytest.raises(CodecError):
            read(damaged, lanes, classes)


def read(stream: bytes, lanes: int, classes: np.ndarray) -> None:
    puller = Puller(stream, lanes)
    puller.symbols(classes, TABLES)
    puller.close()


@pytest.mark.parametrize("lanes", LANES)
def test_a_lane_that_does_not_end_where_it_began_is_refused(lanes: int) -> None:
    stream = bytearray(push([slices(np.array([1]), np.array([2]))], lanes))
    stream[2] ^= 0x40  # the symbol, in the low bits, is still the same
    with pytest.raises(CodecError, match="end"):
        read(bytes(stream), lanes, np.array([1]))


@pytest.mark.parametrize("lanes", LANES)
def test_a_lane_below_its_range_is_refused(lanes: int) -> None:
    stream = push([slices(*drawn(10, 5))], lanes)
    with pytest.raises(CodecError, match="range"):
        Puller(b"\xff\xff\0\0" + stream[4:], lanes)
