from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.dither import STEPS, UNIT, Dither, to_levels, to_symbols
from models.codec.lowrank import scales
from models.codec.symbols import Reader, Writer
from models.codec.tables import FIRST_DITHERED
from models.codec.vectors import dither_vectors, read_dithered, write_vectors

ALL = np.arange(STEPS)


class Still(np.random.Generator):
    """A generator that never rounds up: only the dither is left."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def random(self, size: object = None, *_: object, **__: object) -> np.ndarray:  # type: ignore[override]
        return np.zeros(size)  # type: ignore[call-overload,no-any-return]


@given(st.integers(-10_000, 10_000), st.integers(FIRST_DITHERED, 40))
def test_the_mean_over_all_numbers_is_the_value_exactly(sixteenths: int, c: int) -> None:
    values, classes = np.full(STEPS, sixteenths / STEPS), np.full(STEPS, c)
    levels = to_levels(to_symbols(values, classes, ALL, Still()), classes, ALL)
    assert levels.sum() * STEPS == STEPS * sixteenths << UNIT
    assert np.abs(levels - (sixteenths << UNIT) // STEPS).max() <= STEPS


@given(st.integers(-10_000, 10_000))
def test_a_number_and_its_mirror_make_mirrored_symbols(sixteenths: int) -> None:
    classes = np.full(STEPS, 15)
    there = to_symbols(np.full(STEPS, sixteenths / STEPS), classes, ALL, Still())
    back = to_symbols(np.full(STEPS, -sixteenths / STEPS), classes, STEPS - 1 - ALL, Still())
    assert (there == -back).all()


def test_entries_of_a_low_class_are_left_alone() -> None:
    values, classes = np.array([0.0, 3.0, -2.0]), np.full(3, FIRST_DITHERED - 1)
    symbols = to_symbols(values, classes, np.array([0, 7, 15]), np.random.default_rng(0))
    assert symbols.tolist() == [0, 3, -2]
    assert to_levels(symbols, classes, np.array([0, 7, 15])).tolist() == [0, 3 << UNIT, -2 << UNIT]


def test_the_error_is_half_that_of_rounding_at_random() -> None:
    rng, n = np.random.default_rng(0), 200_000
    values, classes, numbers = rng.normal(size=n), np.full(n, 15), Dither(3, 0).take(n)
    levels = to_levels(to_symbols(values, classes, numbers, rng), classes, numbers)
    plain = np.floor(values + rng.random(n))
    assert np.var(levels / 2**UNIT - values) == pytest.approx(1 / 12, rel=0.05)
    assert np.var(plain - values) > 1.9 / 12


def test_numbers_are_even_and_differ_by_seed_and_tensor() -> None:
    streams = [Dither(seed, tensor).take(16_000) for seed in (1, 2) for tensor in (0, 1)]
    for stream in streams:
        counts = np.bincount(stream, minlength=STEPS)
        assert len(counts) == STEPS
        assert np.abs(counts - 1000).max() < 150
    for other in streams[1:]:
        assert np.mean(streams[0] == other) < 0.08
    dither = Dither(1, 0)
    assert np.concatenate([dither.take(3), dither.take(5)]).tolist() == dither.again().take(8).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 70), st.integers(0, 12), st.integers(0, 2**32))
def test_dithered_vectors_survive(r: int, n: int, power: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = scales(np.full(r, power), n)
    values = rng.standard_normal((r, n)) * 2.0**power / np.sqrt(n)
    symbols, levels = dither_vectors(values, z, Dither(seed, 1), rng)
    writer = Writer()
    write_vectors(writer, symbols, z, Dither(seed, 1))
    lanes, stream = writer.stream()
    reader = Reader(lanes, memoryview(stream))
    assert (read_dithered(reader, n, z, Dither(seed, 1)) == levels).all()
    reader.close()


def test_knowing_the_dither_makes_symbols_cheaper() -> None:
    rng, z = np.random.default_rng(1), scales(np.full(20, 5), 400)
    values = rng.standard_normal((20, 400)) * 2.0**5 / 20 / 2
    symbols, _ = dither_vectors(values, z, Dither(7, 0), rng)
    known, unknown = Writer(), Writer()
    write_vectors(known, symbols, z, Dither(7, 0))
    write_vectors(unknown, symbols, z)
    assert known.bits < 0.96 * unknown.bits
