import numpy as np
import pytest

from models.codec.decoded import CodecError
from models.codec.dither import Dither
from models.codec.steps import step_at_least
from models.codec.symbols import Reader, Writer
from models.codec.tensors import LOWRANK, RAW, SCALAR, ZERO, Coder, read_lowrank, read_scalar, rms
from models.codec.vectors import write_vectors

RNG = np.random.default_rng


def mode(values: np.ndarray, step: float, *, stochastic: bool = False) -> int:
    word = step_at_least(step * rms(values.astype(np.float32)))
    return Coder(values.astype(np.float32), word, RNG(0), Dither(1, 0) if stochastic else None).cheapest().mode


def test_each_tensor_is_coded_by_what_it_is() -> None:
    rng = RNG(1)
    low = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 80))
    assert mode(low, 1.0) == LOWRANK
    assert mode(low.reshape(60, 5, 4, 4), 1.0) == LOWRANK
    assert mode(rng.standard_normal((60, 80)), 1.0) == SCALAR
    assert mode(low[:3], 1.0) == SCALAR
    assert mode(rng.standard_normal(500), 1.0) == SCALAR
    assert mode(rng.uniform(-1, 1, 40), 1e-9) == RAW
    assert mode(rng.standard_normal(20), 50.0) == ZERO
    assert mode(np.zeros((20, 20)), 1.0) == ZERO


def test_rounding_without_bias_never_sends_nothing_on_purpose() -> None:
    assert mode(RNG(1).standard_normal(20), 50.0, stochastic=True) == SCALAR


def test_the_rms_of_any_size_is_found() -> None:
    values = RNG(2).standard_normal(1000).astype(np.float32)
    for scale in (1e-30, 1.0, 1e30):
        assert rms(values * np.float32(scale)) == pytest.approx(scale * np.sqrt(np.mean(values**2)), rel=1e-5)
    assert rms(np.zeros((0, 3), np.float32)) == 0.0


def reader(writer: Writer) -> Reader:
    lanes, stream = writer.stream()
    return Reader(lanes, memoryview(stream))


def lowrank_header(rank: int, top: int) -> Writer:
    writer = Writer()
    writer.uniform([rank], 8)
    writer.uniform([top], 6)
    return writer


@pytest.mark.parametrize("dither", [None, Dither(1, 0)])
@pytest.mark.parametrize(("rank", "top"), [(0, 3), (17, 3), (1, 25), (1, 63)])
def test_ranks_and_powers_out_of_range_are_refused(rank: int, top: int, dither: Dither | None) -> None:
    with pytest.raises(CodecError):
        read_lowrank(reader(lowrank_header(rank, top)), (16, 20), (128, -10), dither)


@pytest.mark.parametrize("dither", [None, Dither(1, 0)])
def test_powers_that_fall_below_zero_are_refused(dither: Dither | None) -> None:
    writer = lowrank_header(2, 3)
    writer.raw_symbols(np.array([4]), np.array([14]))
    with pytest.raises(CodecError, match="powers"):
        read_lowrank(reader(writer), (16, 20), (128, -10), dither)


def test_a_product_beyond_the_budget_is_refused() -> None:
    writer = lowrank_header(1, 24)
    for n in (16, 20):
        write_vectors(writer, np.full((1, n), 2**24 - 1), np.array([3072 * 2**24 // int(np.sqrt(n))]))
    with pytest.raises(CodecError):
        read_lowrank(reader(writer), (16, 20), (255, -10), None)


def test_symbols_for_no_coordinates_are_refused() -> None:
    with pytest.raises(CodecError, match="without coordinates"):
        read_scalar(reader(Writer()), (0, 5), (128, -10), None)
