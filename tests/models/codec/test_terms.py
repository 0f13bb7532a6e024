import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.body import _packed, _unpacked
from models.codec.plan import FEWEST, MOST_BUCKETS, shape
from models.codec.terms import FLOAT32, INT8, WIDEST, Terms, terms_for

dimensions = st.integers(1, 400) | st.integers(1, 2**27)


@given(dimensions, st.integers(1, 2**28), st.integers(1, WIDEST))
def test_terms_that_are_made_for_a_net_are_good_for_it(d: int, buckets: int, bits: int) -> None:
    found = terms_for(d, buckets, bits)
    assert found.are_for(d)
    assert found.is_sketch == (d >= FEWEST)
    assert not found.is_sketch or found.m >= min(buckets, d, MOST_BUCKETS)


@given(dimensions, st.integers(1, 2**28), st.integers(1, WIDEST))
@example(2**27, 2**28, 1)
@example(2**27, 2**28, 4)
def test_terms_survive_their_word_in_a_step(d: int, buckets: int, bits: int) -> None:
    found = terms_for(d, buckets, bits)
    assert 0 <= _packed(found) < 2**32
    assert _unpacked(_packed(found)) == found


@pytest.mark.parametrize("d", [1, 63, 64, 100, 257, 300, 700, 3000])
def test_terms_for_a_net_are_a_closed_set(d: int) -> None:
    shapes = {shape(wanted)[0] for wanted in range(1, d + 1)} if d >= FEWEST else set()
    found = {(m, bits) for m in range(-64, 4097) for bits in (-1, 0, 1, 2, 3, 4, 5, 8, 32) if Terms(m, bits).are_for(d)}
    assert found == {(m, bits) for m in shapes for bits in (1, 2, 3, 4)} | {(0, 8), (0, 32)}


@pytest.mark.parametrize("terms", [FLOAT32, INT8])
def test_plain_terms_are_for_every_net_and_no_sketch(terms: Terms) -> None:
    assert terms.are_for(0)
    assert terms.are_for(1)
    assert terms.are_for(2**30)
    assert not terms.is_sketch


def test_a_tiny_net_has_int8() -> None:
    assert terms_for(FEWEST - 1, 64) == INT8
    assert terms_for(FEWEST, 1) == Terms(64, 1)
