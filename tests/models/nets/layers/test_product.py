from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.nets.layers import product


@given(m=st.integers(1, 300), k=st.integers(1, 40), n=st.integers(1, 300), small=st.sampled_from([1, 2000, 40_000]))
def test_a_product_in_pieces_is_the_product(m: int, k: int, n: int, small: int) -> None:
    generator = np.random.default_rng(m)
    left, right = (generator.integers(-9, 9, shape).astype(np.float32) for shape in ((m, k), (k, n)))
    out = np.full((m, n), np.nan, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "SMALL_PRODUCT", small)
        assert product.multiply(left, right, out) is out
    np.testing.assert_array_equal(out, left @ right)
