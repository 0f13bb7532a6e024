import numpy as np
import pytest

from models.codec.decoded import CodecError, exact
from models.codec.plain import float32_bytes, int8_bytes, read_float32, read_int8


def test_float32_is_exact_within_27_octaves() -> None:
    values = np.array([1.5, -3.1415927, 2.0**-26, 0.0, 1e-7], np.float32)
    assert (read_float32(memoryview(float32_bytes(values)), (5,)).values() == values).all()


def test_what_is_far_below_the_largest_is_rounded_to_its_lattice() -> None:
    decoded = exact(np.array([1e30, 1e-40, 3e14]))
    assert np.allclose(decoded.values(), [1e30, 0, 3e14], rtol=0, atol=1e30 * 2.0**-50)
    assert np.abs(decoded.integers).max() <= 2**52


def test_denormals_are_exact() -> None:
    values = np.array([1e-45, -3e-45, 1e-40], np.float32)
    assert (read_float32(memoryview(float32_bytes(values)), (3,)).values() == values).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(CodecError, match="finite"):
        read_float32(memoryview(float32_bytes(np.array([1, bad], np.float32))), (2,))


@pytest.mark.parametrize("scale", [1e-44, 1e-20, 1.0, 3e38])
def test_int8_is_within_half_a_step(scale: float) -> None:
    values = (np.random.default_rng(0).uniform(-1, 1, (20, 5)) * scale).astype(np.float32)
    decoded = read_int8(memoryview(int8_bytes(values)), (20, 5))
    assert np.abs(decoded.values() - values).max() <= 1.01 * float(np.abs(values).max()) / 254


def test_an_all_zero_tensor_is_two_bytes() -> None:
    assert int8_bytes(np.zeros(1000, np.float32)) == b"\0\0"
