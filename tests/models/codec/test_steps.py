import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec.decoded import CodecError
from models.codec.steps import read_step, step_at_least, step_value


@given(st.floats(2.0**-160, 2.0**136))
def test_the_next_step_is_not_smaller_and_within_a_hundredth(wanted: float) -> None:
    assert wanted <= step_value(step_at_least(wanted)) <= wanted * 1.008


def test_steps_beyond_the_range_are_its_ends() -> None:
    assert step_value(step_at_least(2.0**-500)) == math.ldexp(128, -200)
    assert step_value(step_at_least(2.0**500)) == math.ldexp(255, 130)


@pytest.mark.parametrize("word", [0, 127, -1, (131 + 201) << 7, 65_535])
def test_words_out_of_range_are_refused(word: int) -> None:
    with pytest.raises(CodecError):
        read_step(word)
