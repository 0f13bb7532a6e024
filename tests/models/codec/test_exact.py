from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import CodecError, decode, max_body_bytes
from models.codec.adaptive import MAX_OCTAVES
from models.codec.decoded import Decoded
from models.codec.exact import LARGE
from models.codec.frame import write_integers
from models.codec.steps import HIGHEST, LOWEST
from models.codec.symbols import LARGEST_INTEGER
from models.params import Spec, TensorSpec

Int64 = npt.NDArray[np.int64]
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (1, 30), (30, 1), (6, 9), (9, 6), (3, 2, 2, 2), (0, 4), (4, 0)]


def spec_of(tensors: list[Decoded]) -> Spec:
    return tuple(TensorSpec(f"t{n}", tensor.integers.shape) for n, tensor in enumerate(tensors))


def one(values: object, exponent: int = 0) -> list[Decoded]:
    return [Decoded(np.asarray(values, np.int64), exponent)]


def sizes_of(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Int64:
    """Integers of each temper: none, few, small, with outliers, over all magnitudes, at the limit."""
    small = rng.integers(-2, 3, shape)
    most = LARGEST_INTEGER - 1
    found = {
        "zero": np.zeros(shape),
        "sparse": small * (rng.random(shape) < 0.1),
        "small": small,
        "outliers": np.where(rng.random(shape) < 0.1, most, small),
        "broad": np.rint(2.0 ** rng.uniform(0, 23.9, shape)) * rng.choice([-1, 1], shape),
        "half": rng.integers(-most, most + 1, shape) * (rng.random(shape) < 0.5),
        "limit": rng.choice([-most, most], shape),
    }[kind]
    return np.asarray(found, np.int64)


tempers = st.sampled_from(["zero", "sparse", "small", "outliers", "broad", "half", "limit"])
kinds = st.tuples(tempers, st.sampled_from(SHAPES), st.integers(0, MAX_OCTAVES))


@settings(max_examples=150, deadline=None)
@given(st.lists(kinds, min_size=1, max_size=4), st.integers(-150, 130), st.integers(0, 2**32))
def test_what_is_read_is_what_was_written(
    made: list[tuple[str, tuple[int, ...], int]], coarsest: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tensors = [Decoded(sizes_of(kind, shape, rng), coarsest - octaves) for kind, shape, octaves in made]
    body = write_integers(tensors)
    assert len(body) <= max_body_bytes(spec_of(tensors))
    for wrote, read in zip(tensors, decode(body, spec_of(tensors)), strict=True):
        assert read.integers.shape == wrote.integers.shape
        assert np.array_equal(read.values(), wrote.values())


@pytest.mark.parametrize("shape", [(LARGE,), (130, 127), (1, LARGE)])
@pytest.mark.parametrize("kind", ["sparse", "outliers", "limit"])
def test_a_large_tensor_is_read_back_too(shape: tuple[int, ...], kind: str) -> None:
    wrote = sizes_of(kind, shape, np.random.default_rng(1))
    (read,) = decode(write_integers(one(wrote, -9)), (TensorSpec("w", shape),))
    assert np.array_equal(read.values(), np.ldexp(wrote.astype(float), -9))


@pytest.mark.parametrize("factor", [2, 3, 6, 192])
def test_a_common_factor_is_not_written(factor: int) -> None:
    wrote = np.random.default_rng(0).integers(-2, 3, (40, 30))
    times = write_integers(one(factor * wrote))
    assert len(times) == len(write_integers(one(wrote)))
    (read,) = decode(times, (TensorSpec("w", (40, 30)),))
    assert np.array_equal(read.values(), float(factor) * wrote)


def test_the_same_integers_are_the_same_bytes() -> None:
    tensors = one(np.arange(12).reshape(3, 4), -5)
    assert write_integers(tensors) == write_integers([Decoded(tensors[0].integers.copy(), -5)])


def test_integers_that_are_nearly_all_zero_cost_a_fraction_of_a_bit() -> None:
    rng = np.random.default_rng(2)
    sparse = (rng.random((100, 100)) < 0.01) * rng.choice([-1, 1], (100, 100))
    assert 8 * len(write_integers(one(sparse))) < 0.15 * sparse.size


def test_nothing_at_all_costs_next_to_nothing() -> None:
    assert len(write_integers(one(np.zeros((50, 50))))) <= 8


def test_a_zero_tensor_may_lie_on_any_grid() -> None:
    tensors = [*one([1, 2], -5), *one([0, 0], 10**6)]
    assert [read.values().tolist() for read in decode(write_integers(tensors), spec_of(tensors))] == [
        [2.0**-5, 2.0**-4],
        [0.0, 0.0],
    ]


@pytest.mark.parametrize("values", [[LARGEST_INTEGER + 1], [-LARGEST_INTEGER - 1], [0, 2**52 + 1], [1 - 2**63]])
def test_an_integer_that_is_too_large_is_refused(values: list[int]) -> None:
    with pytest.raises(CodecError, match="too large"):
        write_integers(one(values))


@pytest.mark.parametrize("apart", [MAX_OCTAVES, MAX_OCTAVES + 1])
def test_grids_that_are_too_far_apart_are_refused(apart: int) -> None:
    tensors = [*one([1], 3), *one([1], 3 - apart)]
    if apart <= MAX_OCTAVES:
        assert decode(write_integers(tensors), spec_of(tensors))[1].values() == 2.0 ** (3 - apart)
    else:
        with pytest.raises(CodecError, match="octaves"):
            write_integers(tensors)


@pytest.mark.parametrize("exponent", [LOWEST + 7, HIGHEST + 7])
def test_the_outermost_grids_are_read_back(exponent: int) -> None:
    (read,) = decode(write_integers(one([3], exponent)), (TensorSpec("x", (1,)),))
    assert read.values().tolist() == [3 * 2.0**exponent]


@pytest.mark.parametrize(
    "tensors",
    [
        one([1], LOWEST + 6),
        one([1], HIGHEST + 8),
        [*one([1], LOWEST + 7), *one([1], LOWEST + 6)],
        one([1], 10**9),
    ],
)
def test_a_grid_that_no_body_can_name_is_refused(tensors: list[Decoded]) -> None:
    with pytest.raises(CodecError, match="out of range"):
        write_integers(tensors)
