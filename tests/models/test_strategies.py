from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import CodecError, Decoded
from models.job import AggregateSpec
from models.strategies import MOST_BITS, STRATEGIES, VELOCITY_EXPONENT, fedavg

PLAIN, MOMENTUM = AggregateSpec(), AggregateSpec(server_momentum=0.9)


def tensor(*integers: int, exponent: int = VELOCITY_EXPONENT) -> Decoded:
    return Decoded(np.array(integers, np.int64), exponent)


def test_every_strategy_that_a_job_may_name_is_there() -> None:
    assert set(STRATEGIES) == {"fedavg"}
    assert STRATEGIES["fedavg"] is fedavg


def test_without_momentum_the_step_is_what_was_published() -> None:
    published = (tensor(5, -7, exponent=3), tensor(exponent=-9))
    velocity, step = fedavg((), published, PLAIN)
    assert velocity == ()
    assert step == published


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
    velocity: tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], ...] = ()
    wanted = 0
    for integer, finer in published:
        exponent = VELOCITY_EXPONENT + finer
        velocity, (step,) = fedavg(velocity, (tensor(integer, exponent=exponent),), rules)
        wanted = round(wanted * factor) + round(integer * Fraction(2) ** finer)
        assert velocity[0].tolist() == step.integers.tolist() == [wanted]
        assert step.exponent == VELOCITY_EXPONENT


def test_halves_go_to_the_even_velocity() -> None:
    half = AggregateSpec(server_momentum=0.5)
    velocity, _ = fedavg((np.array([1, 3, -1, -3]),), (tensor(0, 0, 0, 0),), half)
    assert velocity[0].tolist() == [0, 2, 0, -2]


def test_the_velocity_before_is_left_alone() -> None:
    before = (np.array([4, 5]),)
    fedavg(before, (tensor(1, 1),), MOMENTUM)
    assert before[0].tolist() == [4, 5]


@pytest.mark.parametrize("exponent", [-10_000, -300, 300, 10_000])
def test_zeros_are_zeros_whatever_their_exponent(exponent: int) -> None:
    velocity, (step,) = fedavg((), (tensor(0, 0, exponent=exponent),), MOMENTUM)
    assert velocity[0].tolist() == step.integers.tolist() == [0, 0]


@pytest.mark.parametrize("exponent", [VELOCITY_EXPONENT - 10_000, VELOCITY_EXPONENT - 80])
def test_what_is_far_below_the_lattice_is_nothing(exponent: int) -> None:
    velocity, _ = fedavg((), (tensor(2**60, -(2**60), exponent=exponent),), MOMENTUM)
    assert velocity[0].tolist() == [0, 0]


def test_a_velocity_beyond_its_lattice_is_refused() -> None:
    most = 2**MOST_BITS - 1
    fedavg((), (tensor(most),), MOMENTUM)
    for published in (tensor(most + 1), tensor(1, exponent=VELOCITY_EXPONENT + MOST_BITS), tensor(2**60, exponent=0)):
        with pytest.raises(CodecError, match="too large"):
            fedavg((), (published,), MOMENTUM)
    with pytest.raises(CodecError, match="beyond its lattice"):
        fedavg((np.array([most]),), (tensor(most),), MOMENTUM)
