import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.decoded import CodecError
from models.codec.symbols import LARGEST_INTEGER, POINT, Reader, Writer, classes_of

integer = st.sampled_from([0, 1, -1, 14, -14, 15, -15, 2**24, -(2**24)]) | st.integers(-(2**24), 2**24)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(integer, st.integers(0, 64)), max_size=30))
def test_any_integer_survives_any_class(pairs: list[tuple[int, int]]) -> None:
    values = np.array([value for value, _ in pairs], np.int64)
    classes = np.array([c for _, c in pairs], np.int64)
    writer = Writer()
    writer.integers(values, classes)
    reader = Reader(*opened(writer))
    assert reader.integers(classes).tolist() == values.tolist()
    reader.close()


def opened(writer: Writer) -> tuple[int, memoryview]:
    lanes, stream = writer.stream()
    return lanes, memoryview(stream)


def test_a_writer_knows_its_cost() -> None:
    rng = np.random.default_rng(0)
    writer, rest = Writer(), Writer()
    values = np.rint(rng.laplace(0, 1, 5000)).astype(np.int64)
    writer.integers(values, np.full(5000, 16))
    rest.uniform(rng.integers(0, 512, 100), 9)
    writer.extend(rest)
    assert abs(8 * len(writer.stream()[1]) - writer.bits) < 50


def test_classes_are_half_octaves_of_the_expected_magnitude() -> None:
    magnitudes = 2.0 ** (np.arange(65) / 2 - 8)
    assert classes_of(np.rint(magnitudes * 2**POINT).astype(np.int64)).tolist() == list(range(65))
    assert classes_of(np.array([0, 2**60], np.int64)).tolist() == [0, 64]


def test_the_class_of_the_true_magnitude_is_the_cheapest() -> None:
    values = np.rint(np.random.default_rng(1).laplace(0, 1.0, 4000)).astype(np.int64)
    mean = classes_of(np.array([int(np.abs(values).mean() * 2**POINT)]))[0]
    costs = {}
    for c in (mean - 4, mean, mean + 4):
        writer = Writer()
        writer.integers(values, np.full(4000, c))
        costs[c] = writer.bits
    assert min(costs, key=costs.__getitem__) == mean


def test_an_integer_that_is_too_large_is_refused() -> None:
    classes = np.array([4])
    writer = Writer()
    writer.integers(np.array([LARGEST_INTEGER + 1]), classes)
    with pytest.raises(CodecError, match="too large"):
        Reader(*opened(writer)).integers(classes)
