import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec.decoded import CodecError
from models.codec.steps import HIGHEST, LOWEST, read_step, step_at_least, step_near, step_value

WORDS = range((LOWEST + 201) << 7, (HIGHEST + 202) << 7)


@given(st.floats(2.0**-160, 2.0**136))
def test_the_next_step_is_not_smaller_and_within_a_hundredth(wanted: float) -> None:
    assert wanted <= step_value(step_at_least(wanted)) <= wanted * 1.008


@given(st.floats(2.0**-160, 2.0**136))
def test_no_step_is_nearer_than_the_nearest(wanted: float) -> None:
    word = step_near(wanted)
    off = abs(step_value(word) - wanted)
    assert off <= wanted / 256
    assert off <= min(abs(step_value(word + way) - wanted) for way in (-1, 1))


@given(st.sampled_from(WORDS))
def test_a_step_is_its_own_word(word: int) -> None:
    assert step_near(step_value(word)) == step_at_least(step_value(word)) == word


@given(st.sampled_from(WORDS[:-1]))
def test_the_next_word_is_the_next_larger_step(word: int) -> None:
    assert step_value(word) < step_value(word + 1) <= step_value(word) * 129 / 128


def test_a_word_is_mantissa_and_exponent() -> None:
    assert read_step(201 << 7) == (128, 0)
    assert read_step((201 + 5) << 7 | 3) == (131, 5)
    assert step_value(step_near(1.0)) == 1.0


@pytest.mark.parametrize("word_of", [step_at_least, step_near])
def test_steps_beyond_the_range_are_its_ends(word_of: type[int]) -> None:
    assert step_value(word_of(2.0**-500)) == math.ldexp(128, -200)
    assert step_value(word_of(2.0**500)) == math.ldexp(255, 130)


@pytest.mark.parametrize("word", [0, 127, -1, (131 + 201) << 7, 65_535])
def test_words_out_of_range_are_refused(word: int) -> None:
    with pytest.raises(CodecError):
        read_step(word)
