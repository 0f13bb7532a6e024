from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.hadamard import hadamard

BLOCKS = [1, 2, 4, 8, 32, 64, 128, 512]


def matrix(n: int) -> npt.NDArray[np.int64]:
    """Sylvester's construction."""
    found = np.ones((1, 1), np.int64)
    while len(found) < n:
        found = np.block([[found, found], [found, -found]])
    return found


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_every_block_is_multiplied_by_sylvesters_matrix(block: int, dtype: type[np.number[Any]]) -> None:
    values = np.random.default_rng(block).integers(-50, 50, 3 * block)
    wanted = (values.reshape(3, block) @ matrix(block)).reshape(-1)
    found = hadamard(values.astype(dtype), block)
    assert found.dtype == dtype
    assert found.shape == values.shape
    assert (found == wanted).all()


@pytest.mark.parametrize("block", [1, 2, 64, 4096, 8192])
def test_twice_is_the_length_of_a_block_times_once(block: int) -> None:
    values = np.random.default_rng(1).integers(-213, 214, 2 * block).astype(np.int32)
    assert (hadamard(hadamard(values, block), block) == block * values).all()


@pytest.mark.parametrize("block", [1, 2, 8, 256])
def test_what_goes_in_is_left_alone(block: int) -> None:
    values = np.arange(2 * block)
    found = hadamard(values, block)
    found[:] = 7
    assert (values == np.arange(2 * block)).all()


@settings(max_examples=30)
@given(st.integers(0, 7), st.integers(0, 2**32))
def test_it_is_linear_and_keeps_energy(power: int, seed: int) -> None:
    block = 1 << power
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-99, 99, (2, 2 * block))
    assert (hadamard(a + b, block) == hadamard(a, block) + hadamard(b, block)).all()
    assert int(np.square(hadamard(a, block)).sum()) == block * int(np.square(a).sum())
