from __future__ import annotations

import numpy as np
import pytest

from models.params import Spec, TensorSpec
from models.strategies.state import State, StateError, read

SPEC: Spec = (TensorSpec("a", (2,)), TensorSpec("b", ()))
ARRAYS = (np.array([1, -2]), np.array(3), np.array([4, 5]), np.array(-(2**45)))
STATE = State(ARRAYS, "mine 7")


def test_a_state_is_its_name_and_then_its_arrays() -> None:
    assert STATE.parts()[:2] == [b"mine 7", bytes.fromhex("0100000000000000feffffffffffffff")]
    assert STATE.parts()[1:] == list(STATE.digested()) == State(ARRAYS).parts()
    assert read(STATE.parts(), SPEC, form="mine 7", rows=2, what="state") == STATE
    assert STATE.n_bytes == 8 * 6


def test_no_state_is_no_bytes_whatever_its_name() -> None:
    assert State((), "mine 7").parts() == []
    assert not read([], SPEC, form="mine 7", rows=2, what="state")
    assert (bool(State()), bool(STATE)) == (False, True)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([b"mine 6", *STATE.parts()[1:]], 'its state is of the form "mine 6", where this fedge reads "mine 7"'),
        ([b"\xff" * 10_000], "of the form"),
        (STATE.parts()[1:], "of the form"),
        (STATE.parts()[:-1], "other shapes than the net"),
        ([*STATE.parts(), b""], "other shapes than the net"),
        ([b"mine 7"], "other shapes than the net"),
    ],
)
def test_the_state_of_another_strategy_form_or_net_is_refused(parts: list[bytes], why: str) -> None:
    with pytest.raises(StateError, match=why) as refused:
        read(parts, SPEC, form="mine 7", rows=2, what="state")
    assert len(str(refused.value)) < 300


def test_states_are_equal_by_value() -> None:
    same = State(tuple(array.copy() for array in ARRAYS), "mine 7")
    assert same == STATE
    assert hash(same) == hash(STATE)
    others = [State(ARRAYS), State(ARRAYS[:3], "mine 7"), State((*ARRAYS[:3], np.array(0)), "mine 7")]
    assert not any(other == STATE for other in others)
    assert STATE != ARRAYS


def test_nobody_writes_to_a_state_that_is_frozen() -> None:
    state = State((np.array([1, 2]),))
    state.freeze()
    with pytest.raises(ValueError, match="read-only"):
        state.arrays[0][0] = 5
