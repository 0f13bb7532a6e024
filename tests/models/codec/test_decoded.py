import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.codec.decoded import BUDGET, SLAB, exact, rounded
from models.integers import rescale

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


halves = st.integers(-(2**20), 2**20).map(lambda n: n * 2.0**-11)  # many of them in the middle between two multiples


@given(st.lists(st.floats(-8.0, 8.0) | halves, max_size=20), st.integers(-30, 4))
def test_a_row_is_rounded_as_what_it_decodes_to(values: list[float], exponent: int) -> None:
    row = np.array(values, np.float64)
    decoded = exact(row)
    wanted, found = rescale(decoded.integers, decoded.exponent - exponent), rounded(row, exponent)
    if found is None:
        assert np.abs(row).max() >= 2.0 ** (exponent + 30) - 2.0**exponent
        return
    assert found.dtype == np.int32
    assert found.tolist() == wanted.tolist()


def test_a_row_is_rounded_beyond_its_first_slab_too_and_twice_where_it_is_rounded_to_51_bits_first() -> None:
    row = np.random.default_rng(0).standard_normal(SLAB + 5)
    row[-1], row[-2] = 0.5 + 2.0**-53, 3.0  # below the last of 51 bits of 3: first to 0.5, and then to 0
    found = rounded(row, 0)
    assert found is not None
    assert found.tolist() == rescale(exact(row).integers, exact(row).exponent).tolist()
    assert found[-2:].tolist() == [3, 0]
    assert rounded(np.array([2.0**30]), 0) is None
    assert rounded(np.array([np.nan]), 0) is None
