from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import voices
from models.buffers import Buffers, named
from models.params import TensorSpec
from models.voices import Heard, Voice, mean

SPEC = (TensorSpec("0.running_mean", (2,)), TensorSpec("0.running_var", (2,)), TensorSpec("table", (2,)))
BASE = named({t.name: np.ones(2) for t in SPEC}, SPEC)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def of(means: tuple[float, ...] = (0, 0), variances: tuple[float, ...] = (1, 1), table: object = None) -> Buffers:
    cells = {"0.running_mean": np.array(means), "0.running_var": np.array(variances)}
    if table is None:
        found = named({**cells, "table": np.ones(2)}, SPEC)
        return Buffers(SPEC, (*found.values[:2], BASE.values[2]))  # as `decode` gives what has not changed
    return named({**cells, "table": np.array(table)}, SPEC)


def fleet(seed: int, n: int) -> list[Voice]:
    rng = np.random.default_rng(seed)
    return [
        Voice(f"d{i}", int(rng.integers(1, 2**40)), of(tuple(rng.normal(1e3, 1, 2)), tuple(rng.gamma(2, 1, 2))))
        for i in range(n)
    ]


def by_fractions(said: list[Voice], at: int, cell: int) -> np.float32:
    weight = sum(voice.weight for voice in said)
    total = sum(voice.weight * Fraction(float(voice.buffers.values[at][cell])) for voice in said)
    return np.float32(float(total / weight))


@given(st.integers(0, 2**32), st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_it_is_the_mean_by_weight_rounded_once_in_whatever_order(seed: int, n: int, rng: random.Random) -> None:
    said = fleet(seed, n)
    outcome = mean(said, BASE)
    for at in (0, 1):
        for cell in (0, 1):
            assert outcome.buffers.values[at][cell] == by_fractions(said, at, cell)
    assert outcome.far == ()
    assert outcome.buffers.values[2] is BASE.values[2]
    heard = Heard(BASE, 3)
    for voice in rng.sample(said, n):
        heard.add(voice.device, voice.buffers)
    assert heard.mean({voice.device: voice.weight for voice in said}) == outcome


@given(st.lists(st.tuples(st.integers(1, 2**53), finite, finite), min_size=1, max_size=2))
def test_numbers_of_any_size_are_added_exactly(told: list[tuple[int, float, float]]) -> None:
    said = [Voice(f"d{i}", weight, of((one, other))) for i, (weight, one, other) in enumerate(told)]
    found = mean(said, BASE).buffers
    for cell in (0, 1):
        assert found.values[0][cell] == by_fractions(said, 0, cell)


@given(st.lists(st.floats(2.0**-140, 2.0**100, width=32), min_size=1, max_size=9), st.booleans())
def test_a_mean_of_variances_above_zero_is_above_zero(variances: list[float], median: bool) -> None:
    said = [Voice(f"d{i}", 1 + i, of((0, 0), (one, one))) for i, one in enumerate(variances)]
    assert (mean(said, BASE, median=median).buffers.values[1] > 0).all()


@pytest.mark.parametrize("cell", [0, 1])
def test_of_a_channel_one_device_is_left_out_whose_numbers_are_absurd(cell: int) -> None:
    honest = fleet(1, 5)
    for means, variances in (((1e30, 1e3), (1, 1)), ((1e3, 1e3), (1e30, 1))):
        liar = of(means[::-1] if cell else means, variances[::-1] if cell else variances)
        outcome = mean([*honest, Voice("liar", 2**50, liar)], BASE)
        for at in (0, 1):
            assert outcome.buffers.values[at][cell] == by_fractions(honest, at, cell)
            assert outcome.buffers.values[at][1 - cell] != by_fractions(honest, at, 1 - cell)
        assert outcome.far == (("0.running_mean", ("liar",)), ("0.running_var", ("liar",)))


def test_a_small_channel_beside_a_large_one_is_watched_on_its_own_scale() -> None:
    honest = [Voice(f"d{i}", 1, of((1e6 + i, 1e-3 * i), (1e12, 1e-6))) for i in range(5)]
    outcome = mean([*honest, Voice("liar", 1, of((1e6, 100.0), (1e12, 1e-6)))], BASE)
    assert outcome.buffers.values[0][1] == by_fractions(honest, 0, 1)
    assert outcome.far[0][1] == ("liar",)


def test_devices_that_are_merely_different_all_count() -> None:
    means, variances = (0, 0.1, 5, -3, 4), (1e-5, 0.3, 1, 1, 2)
    said = [
        Voice(f"d{i}", 1 + i, of((one, -one), (two, 1)))
        for i, (one, two) in enumerate(zip(means, variances, strict=True))
    ]
    assert mean(said, BASE).far == ()
    assert mean(said[:3], BASE).far == ()


def test_a_constant_stays_what_it_is_whatever_one_device_says_of_it() -> None:
    honest = [Voice(f"d{i}", 1, of()) for i in range(3)]
    outcome = mean([*honest, Voice("liar", 9, of(table=(1e20, 1)))], BASE)
    assert outcome.buffers.values[2].tolist() == [1, 1]
    assert outcome.far == (("table", ("liar",)),)


def test_of_two_devices_both_count() -> None:
    outcome = mean([Voice("a", 1, of((0, 0))), Voice("b", 3, of((1e6, 4)))], BASE)
    assert outcome.buffers.values[0].tolist() == [7.5e5, 3]


def test_where_nobody_has_spoken_they_stay_the_same() -> None:
    assert mean([], BASE).buffers is BASE
    assert Heard(BASE, 0).mean({}).buffers is BASE


def test_the_median_goes_by_no_weight() -> None:
    said = [Voice(f"d{i}", 10**i, of((i, i * i))) for i in range(5)]
    assert mean(said, BASE, median=True).buffers.values[0].tolist() == [2, 4]
    assert mean(said[:4], BASE, median=True).buffers.values[0].tolist() == [1.5, 2.5]


def test_of_more_devices_than_are_heard_it_does_not_matter_who_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "MOST_VOICES", 4)
    said = fleet(2, 9)
    weights = {voice.device: voice.weight for voice in said}
    found = []
    for order in (said, said[::-1], said[3:] + said[:3]):
        heard = Heard(BASE, 7)
        for voice in order:
            heard.add(voice.device, voice.buffers)
        found.append(heard.mean(weights))
    assert found[0] == found[1] == found[2]
    assert found[0] != mean(said, BASE)


def test_it_does_not_matter_how_many_numbers_are_added_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    said = fleet(3, 5)
    at_once = mean(said, BASE)
    monkeypatch.setattr(voices, "CELLS_AT_ONCE", 1)
    assert mean(said, BASE) == at_once
