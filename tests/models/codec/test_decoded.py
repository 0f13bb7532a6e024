import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.codec.decoded import BUDGET, exact

floats = st.floats(-(2.0**127), 2.0**127, width=32)


@given(st.lists(floats, min_size=1, max_size=20))
def test_floats_are_exact_to_51_bits_of_the_largest(values: list[float]) -> None:
    row = np.array(values)
    found = exact(row)
    assert np.abs(found.integers).max() <= 2 ** (BUDGET - 1)
    assert np.abs(found.values() - row).max() <= np.abs(row).max() * 2.0**-51


@given(st.lists(floats, min_size=1, max_size=20))
def test_what_is_within_27_octaves_of_the_largest_is_exact(values: list[float]) -> None:
    row = np.array([value if abs(value) > 2.0**-27 * max(map(abs, values)) else 0.0 for value in values])
    assert (exact(row).values() == row).all()


def test_rounding_is_half_to_even() -> None:
    row = np.array([2.0**51 - 1, 0.5, 1.5, 2.5, -0.5, -1.5])
    assert exact(row).exponent == 0
    assert exact(row).integers.tolist() == [2**51 - 1, 0, 2, 2, 0, -2]


def test_denormals_are_exact() -> None:
    row = np.array([1e-45, -3e-45, 1e-40], np.float32).astype(np.float64)
    assert exact(row).exponent == -149
    assert (exact(row).values() == row).all()


def test_nothing_is_nothing() -> None:
    assert exact(np.zeros((0, 3))).integers.shape == (0, 3)
    assert not exact(np.zeros(4)).integers.any()
