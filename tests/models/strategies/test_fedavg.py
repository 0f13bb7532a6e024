from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import CodecError, Decoded
from models.job import AggregateSpec
from models.params import TensorSpec
from models.strategies.fedavg import FEDAVG
from models.strategies.fixed import EXPONENT, MOST_BITS
from models.strategies.state import State, StateError

PLAIN, MOMENTUM = AggregateSpec(), AggregateSpec(server_momentum=0.9)


def tensor(*integers: int, exponent: int = EXPONENT) -> Decoded:
    return Decoded(np.array(integers, np.int64), exponent)


def begun(published: tuple[Decoded, ...], rules: AggregateSpec) -> State:
    return FEDAVG.init(tuple(TensorSpec(str(k), p.integers.shape) for k, p in enumerate(published)), rules)


def test_without_momentum_the_step_is_what_was_published() -> None:
    published = (tensor(5, -7, exponent=3), tensor(exponent=-9))
    assert FEDAVG.is_plain(PLAIN)
    assert not begun(published, PLAIN)
    step, state = FEDAVG.step(published, State(), PLAIN)
    assert (step, state) == (published, State())


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(-60, 3)), min_size=1, max_size=12),
    st.floats(0.001, 0.9999),
)
def test_with_momentum_it_is_a_velocity_rounded_to_its_lattice(
    published: list[tuple[int, int]], momentum: float
) -> None:
    rules = AggregateSpec(server_momentum=momentum)
    factor = Fraction(round(momentum * 2**16), 2**16)
    state = begun((tensor(0),), rules)
    wanted = 0
    for integer, finer in published:
        exponent = EXPONENT + finer
        (step,), state = FEDAVG.step((tensor(integer, exponent=exponent),), state, rules)
        wanted = round(wanted * factor) + round(integer * Fraction(2) ** finer)
        assert state.arrays[0].tolist() == step.integers.tolist() == [wanted]
        assert step.exponent == EXPONENT


def test_halves_go_to_the_even_velocity() -> None:
    half = AggregateSpec(server_momentum=0.5)
    _, state = FEDAVG.step((tensor(0, 0, 0, 0),), State((np.array([1, 3, -1, -3]),)), half)
    assert state.arrays[0].tolist() == [0, 2, 0, -2]


def test_the_velocity_before_is_left_alone() -> None:
    before = State((np.array([4, 5]),))
    FEDAVG.step((tensor(1, 1),), before, MOMENTUM)
    assert before.arrays[0].tolist() == [4, 5]


@pytest.mark.parametrize("exponent", [-10_000, -300, 300, 10_000])
def test_zeros_are_zeros_whatever_their_exponent(exponent: int) -> None:
    zeros = (tensor(0, 0, exponent=exponent),)
    (step,), state = FEDAVG.step(zeros, begun(zeros, MOMENTUM), MOMENTUM)
    assert state.arrays[0].tolist() == step.integers.tolist() == [0, 0]


@pytest.mark.parametrize("exponent", [EXPONENT - 10_000, EXPONENT - 80])
def test_what_is_far_below_the_lattice_is_nothing(exponent: int) -> None:
    published = (tensor(2**60, -(2**60), exponent=exponent),)
    _, state = FEDAVG.step(published, begun(published, MOMENTUM), MOMENTUM)
    assert state.arrays[0].tolist() == [0, 0]


def test_a_velocity_beyond_its_lattice_is_refused() -> None:
    most, still = 2**MOST_BITS - 1, State((np.array([0]),))
    FEDAVG.step((tensor(most),), still, MOMENTUM)
    for published in (tensor(most + 1), tensor(1, exponent=EXPONENT + MOST_BITS), tensor(2**60, exponent=0)):
        with pytest.raises(CodecError, match="too large"):
            FEDAVG.step((published,), still, MOMENTUM)
    with pytest.raises(CodecError, match="beyond its lattice"):
        FEDAVG.step((tensor(most),), State((np.array([most]),)), MOMENTUM)


def test_a_velocity_is_stored_without_a_name_as_it_ever_was() -> None:
    spec, state = (TensorSpec("a", (2,)), TensorSpec("b", ())), State((np.array([1, -2]), np.array(3)))
    parts = [bytes.fromhex("0100000000000000feffffffffffffff"), bytes.fromhex("0300000000000000")]
    assert state.parts() == parts
    assert FEDAVG.read(parts, spec) == state
    assert FEDAVG.read([], spec) == State()
    for damaged in ([b"fedadam 1", *parts], parts[:1], parts[::-1]):
        with pytest.raises(StateError, match="its velocity has other shapes than the net"):
            FEDAVG.read(damaged, spec)
