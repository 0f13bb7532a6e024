import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec.levels import ADDED, KEPT, LEVELS, UNITS, levels_of, quantised

BITS = [1, 2, 3, 4]
BLOCK = 2048


def restored(z: npt.NDArray[np.float64], bits: int, block: int = BLOCK) -> npt.NDArray[np.float64]:
    symbols, scales = quantised(z, bits, block)
    return (levels_of(symbols, bits).reshape(-1, block) * scales[:, None]).reshape(-1)


def gaussian(seed: int, n: int = 32 * BLOCK, scale: float = 1.0) -> npt.NDArray[np.float64]:
    return np.asarray(scale * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("bits", BITS)
def test_the_error_of_a_gaussian_is_the_one_that_is_documented(bits: int) -> None:
    z = gaussian(bits)
    error = float(np.square(restored(z, bits) - z).sum() / np.square(z).sum())
    assert error == pytest.approx(ADDED[bits], rel=0.03)


@pytest.mark.parametrize("bits", BITS)
def test_what_is_kept_of_a_gaussian_is_its_share_of_the_decoded_energy(bits: int) -> None:
    z = gaussian(bits)
    assert KEPT[bits] * float(np.square(restored(z, bits)).sum()) == pytest.approx(float(np.square(z).sum()), rel=0.01)


@pytest.mark.parametrize("bits", BITS)
@given(seed=st.integers(0, 2**32), power=st.integers(-100, 100))
def test_the_part_along_the_vector_is_the_vector_in_every_block(bits: int, seed: int, power: int) -> None:
    z = gaussian(seed, 192, 2.0**power).reshape(3, 64)
    z[1] *= 1e-6
    z[2] = np.abs(z[2])
    along = np.einsum("ij,ij->i", restored(z.reshape(-1), bits, 64).reshape(3, 64), z)
    assert along == pytest.approx(np.einsum("ij,ij->i", z, z), rel=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_are_the_best_ones_of_a_gaussian_within_a_hundredth(bits: int) -> None:
    z = np.abs(gaussian(9, 2**17)) * UNITS[bits]
    levels = np.array(LEVELS[bits], float)
    for _ in range(60):
        cell = np.searchsorted((levels[:-1] + levels[1:]) / 2, z)
        levels = np.bincount(cell, z) / np.bincount(cell)
    assert np.abs(levels - LEVELS[bits]).max() < 0.01 * LEVELS[bits][-1] + 0.5


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_symbol_is_that_of_the_nearest_level(bits: int) -> None:
    z = gaussian(3, BLOCK)
    symbols, _ = quantised(z, bits, BLOCK)
    unit = math.sqrt(float(np.square(z).mean())) / UNITS[bits]
    table = np.array([s * level for s in (1, -1) for level in LEVELS[bits]], float)
    nearest = np.abs(z[:, None] / unit - table).argmin(axis=1)
    assert (symbols == nearest).all()


@pytest.mark.parametrize("bits", BITS)
def test_symbols_have_the_sign_on_top(bits: int) -> None:
    half = 1 << bits - 1
    found = levels_of(np.arange(2 * half, dtype=np.uint8), bits)
    assert found.dtype == np.int32
    assert (found[:half] == LEVELS[bits]).all()
    assert (found[half:] == -found[:half]).all()


@pytest.mark.parametrize("bits", BITS)
def test_zero_has_the_positive_sign_whichever_zero_it_is(bits: int) -> None:
    z = np.array([0.0, -0.0] * 31 + [1.0, -1.0])
    symbols, _ = quantised(z, bits, 64)
    assert (levels_of(symbols, bits)[:62] == LEVELS[bits][0]).all()
    assert levels_of(symbols, bits)[63] == -LEVELS[bits][-1]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_block_of_zeros_has_scale_0_and_leaves_the_others_alone(bits: int, dtype: type[np.floating]) -> None:
    z = gaussian(4, 192).astype(dtype)
    z[64:128] = 0
    _, scales = quantised(z, bits, 64)
    _, alone = quantised(np.concatenate([z[:64], z[128:]]), bits, 64)
    assert scales[1] == 0.0
    assert scales[[0, 2]].tolist() == alone.tolist()
