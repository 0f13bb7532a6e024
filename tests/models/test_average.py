from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.average import MOST_APART, mean
from models.job import MOST_AVERAGED
from models.lattice import HIGHEST, LIMIT, LOWEST, LatticeError, Model

EDGES = st.sampled_from([LIMIT, -LIMIT, LIMIT - 1, 1 - LIMIT, 0, 1, -1, 2, 3])
integers = EDGES | st.integers(-LIMIT, LIMIT) | st.integers(-40, 40)


def model(*tensors: tuple[list[int], int]) -> Model:
    return Model(tuple(np.array(ints, np.int32) for ints, _ in tensors), tuple(exponent for _, exponent in tensors))


@st.composite
def windows(draw: st.DrawFn) -> list[Model]:
    """Models of two tensors, whose exponents lie as far apart as they may."""
    lowest = [draw(st.integers(LOWEST, HIGHEST - MOST_APART)) for _ in range(2)]
    exponents = [st.integers(low, low + draw(st.sampled_from([0, 1, 3, MOST_APART]))) for low in lowest]
    sizes = (3, 1)
    tensors = [st.tuples(st.lists(integers, min_size=n, max_size=n), e) for n, e in zip(sizes, exponents, strict=True)]
    return draw(st.lists(st.builds(model, *tensors), min_size=1, max_size=MOST_AVERAGED))


@given(windows())
@example([model(([LIMIT], 0))] * MOST_AVERAGED)
@example([model(([LIMIT, -LIMIT], -100 + MOST_APART * (k % 2))) for k in range(MOST_AVERAGED)])
def test_it_is_the_mean_of_the_fractions_rounded_half_to_even(models: list[Model]) -> None:
    found = mean(models)
    for at, ints in enumerate(found.ints):
        top = max(each.exponents[at] for each in models)
        assert found.exponents[at] == top
        assert ints.dtype == np.int32
        for k, value in enumerate(ints.tolist()):
            total = sum(Fraction(int(each.ints[at][k])) * Fraction(2) ** each.exponents[at] for each in models)
            assert value == round(total / len(models) / Fraction(2) ** top)
            assert abs(value) <= LIMIT


@given(windows(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(models: list[Model], random: object) -> None:
    right = mean(models).sha256()
    random.shuffle(models)  # type: ignore[attr-defined]
    assert mean(models).sha256() == right


def test_the_mean_of_one_is_that_one() -> None:
    one = model(([5, -LIMIT], -24), ([0], 7))
    assert mean([one]) == one


def test_it_is_the_same_on_every_machine() -> None:
    words = [(np.arange(999) * 2654435761 * (k + 1)) % (2 * LIMIT) - LIMIT for k in range(7)]
    models = [model((ints.tolist(), -24 - k % 3), ([k, 1 - k], 0)) for k, ints in enumerate(words)]
    assert mean(models).sha256() == "7d5e13168ecc861b4634b590da7a7fc9eeaffadc7345f554f2bb3a20286bb3d6"


def test_what_is_too_far_apart_has_no_mean() -> None:
    for first, second in ((0, MOST_APART + 1), (MOST_APART + 1, 0), (LOWEST, HIGHEST)):
        with pytest.raises(LatticeError, match="too far apart"):
            mean([model(([1], first)), model(([1], second))])


def test_nothing_and_too_many_have_no_mean() -> None:
    with pytest.raises(LatticeError, match="no models"):
        mean([])
    with pytest.raises(LatticeError, match="more than 16"):
        mean([model(([1], 0))] * (MOST_AVERAGED + 1))


def test_of_many_models_one_is_held_at_a_time() -> None:
    alive: list[weakref.ref[Model]] = []

    def models() -> Iterator[Model]:
        for k in range(MOST_AVERAGED):
            assert sum(ref() is not None for ref in alive) <= 1
            one = model(([k] * 5, 0))
            alive.append(weakref.ref(one))
            yield one
            del one

    mean(models())
    assert len(alive) == MOST_AVERAGED
