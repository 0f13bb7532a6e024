from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import FLOAT32, INT8, CodecError, Coding, Terms, sketch
from models.codec.coding import Update
from models.codec.decoded import Decoded
from models.codec.hadamard import hadamard
from models.codec.levels import ADDED
from models.codec.plain import Floats
from models.codec.sketch import MOST_BESIDE, Sketch, n_bytes
from models.fold import MAX_WEIGHT, FoldError, norm_of_floats
from models.lattice import Model, initial
from models.params import Params, Spec, TensorSpec
from models.sums import Mean, Sum, norm, published

SPEC: Spec = (TensorSpec("w", (30, 12)), TensorSpec("b", (40,)))
D = 400
MODEL = initial(SPEC, 3)
ALL = [FLOAT32, INT8, Terms(64, 1), Terms(256, 1), *(Terms(512, bits) for bits in (1, 2, 3, 4))]
SKETCHES = [terms for terms in ALL if terms.is_sketch]
Row = npt.NDArray[np.float64]


def delta(seed: int = 0, scale: float = 0.01, beside: dict[int, float] | None = None) -> Params:
    rng = np.random.default_rng(seed)
    found = {t.name: np.asarray(scale * rng.standard_normal(t.shape), np.float32) for t in SPEC}
    for index, value in (beside or {}).items():
        found["w"].reshape(-1)[index] = value
    return found


def decoded(coding: Coding, update: Params) -> Update:
    return coding.decode(coding.encode(update, np.random.default_rng(0)))


def row(coding: Coding, body: bytes) -> Row:
    return np.concatenate([t.values().reshape(-1) for t in coding.tensors(coding.decode(body))])


def flat(update: Params) -> Row:
    return np.concatenate([value.reshape(-1) for value in update.values()]).astype(np.float64)


def energy(values: Row) -> float:
    return float(np.square(values).sum())


def said(total: Sum, bits: int = 1, rate: float = 1.0) -> bytes:
    return published(total.mean(), total.coding, bits, rate, np.random.default_rng(0))


def same(a: Mean, b: Mean) -> bool:
    return a.values.tobytes() == b.values.tobytes() and a.beside == b.beside


weights = st.sampled_from([1, 2, MAX_WEIGHT]) | st.integers(1, MAX_WEIGHT)
besides = st.dictionaries(st.integers(0, 359), st.floats(-50, 50, width=32), max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ALL),
    st.lists(st.tuples(st.integers(0, 99), weights, besides), min_size=1, max_size=7),
    st.randoms(use_true_random=False),
)
def test_any_order_gives_the_same_bits(
    terms: Terms, drawn: list[tuple[int, int, dict[int, float]]], order: random.Random
) -> None:
    coding = Coding(SPEC, terms, "3:1")
    updates = [(decoded(coding, delta(seed, 0.01, beside)), weight) for seed, weight, beside in drawn]
    one, other = Sum(coding, MODEL), Sum(coding, MODEL)
    for update, weight in updates:
        one.add(update, weight)
    for update, weight in order.sample(updates, len(updates)):
        other.add(update, weight)
    assert one.weight == other.weight == sum(weight for _, weight in updates)
    assert same(one.mean(), other.mean())
    assert one.mean_energy() == other.mean_energy()
    assert said(one) == said(other)


@pytest.mark.parametrize("terms", ALL)
def test_the_mean_is_the_weighted_mean_of_what_the_updates_decode_to(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    wanted = np.zeros(D)
    for seed, weight in ((1, 3), (2, 50), (3, 7)):
        update = decoded(coding, delta(seed, beside={seed: 5.0}))
        total.add(update, weight)
        wanted += weight / 60 * np.concatenate([t.values().reshape(-1) for t in coding.tensors(update)])
    found = coordinates(total)
    assert np.abs(found - wanted).max() < 1e-7


def coordinates(total: Sum) -> Row:
    """Return what the mean says of every coordinate."""
    mean, coding = total.mean(), total.coding
    if not coding.terms.is_sketch:
        return mean.values
    block = coding.plan.block
    spread = np.rint(np.ldexp(mean.values, 44)).astype(np.int64)
    found = np.ldexp(coding.hash.unfold(hadamard(spread, block)).astype(np.float64), -44)
    for index, value in mean.beside.items():
        found[index] += value
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(besides, weights), min_size=1, max_size=6))
def test_coordinates_beside_are_summed_exactly_and_divided_once(drawn: list[tuple[dict[int, float], int]]) -> None:
    coding = Coding(SPEC, Terms(64, 1), "3:1")
    total, exact = Sum(coding, MODEL), dict[int, Fraction]()
    for beside, weight in drawn:
        update = decoded(coding, delta(0, 0.0, {i: v for i, v in beside.items() if v}))
        assert isinstance(update, Sketch)
        total.add(update, weight)
        for index, value in update.beside.tolist():
            exact[index] = exact.get(index, Fraction(0)) + weight * Fraction(value)
    found = total.mean().beside
    assert list(found) == sorted(exact)
    assert found == {i: float(value / total.weight) for i, value in exact.items()}


def test_the_smallest_float_beside_is_not_lost() -> None:
    coding = Coding(SPEC, Terms(64, 1), "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(0, 0.0, {7: 1e-45})), 3)
    assert total.mean().beside == {7: float(np.float32(1e-45))}


@pytest.mark.parametrize("terms", ALL)
@pytest.mark.parametrize("weight", [0, -1, MAX_WEIGHT + 1])
def test_a_weight_out_of_range_is_refused_and_the_sum_is_as_it_was(terms: Terms, weight: int) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(1, beside={3: 9.0})), 5)
    before = total.mean()
    with pytest.raises(FoldError, match="weight"):
        total.add(decoded(coding, delta(2, beside={4: 9.0})), weight)
    assert same(total.mean(), before)
    assert total.weight == 5


@pytest.mark.parametrize("terms", ALL)
@pytest.mark.parametrize("update", [delta(2, 1e9), delta(2, 1e-3, {4: 3e38}), delta(2, 1e-3, {4: -65.0})])
def test_an_update_that_does_not_fit_is_refused_and_the_sum_is_as_it_was(terms: Terms, update: Params) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(1, beside={3: 9.0})), 5)
    before = total.mean()
    with pytest.raises(FoldError, match="too large"):
        total.add(decoded(coding, update), 1)
    assert same(total.mean(), before)
    assert total.weight == 5


@pytest.mark.parametrize("terms", ALL)
def test_a_coordinate_that_just_fits_is_taken(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(2, 1e-3, {4: 63.4})), 1)
    assert coordinates(total)[4] == pytest.approx(63.4, rel=0.01)


def test_a_model_on_a_coarser_lattice_takes_larger_updates() -> None:
    coding = Coding(SPEC, Terms(64, 1), "3:1")
    coarse = Model(MODEL.ints, (-24, -10))
    Sum(coding, coarse).add(decoded(coding, delta(2, 1e3, {4: 5e5})), 1)


@pytest.mark.parametrize("terms", ALL)
def test_an_empty_sum_has_no_mean_and_no_energy(terms: Terms) -> None:
    total = Sum(Coding(SPEC, terms, "3:1"), MODEL)
    assert total.mean_energy() == 0.0
    with pytest.raises(FoldError, match="empty"):
        total.mean()


@pytest.mark.parametrize("terms", ALL)
def test_updates_that_are_all_zero_publish_zero(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    body = published(Sum(coding, MODEL).zero(), coding, 1, 1.0, np.random.default_rng(0))
    down = Coding(SPEC, Terms(terms.m, 1) if terms.is_sketch else INT8, "3:1")
    assert not row(down, body).any()


# What is published.


@pytest.mark.parametrize("terms", SKETCHES)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("rate", [1.0, 0.25, 1000.0])
def test_a_published_sum_says_the_rate_times_the_mean(terms: Terms, bits: int, rate: float) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    for seed in range(9):
        total.add(decoded(coding, delta(seed)), 1 + seed)
    body, mean = said(total, bits, rate), rate * coordinates(total)
    assert len(body) == n_bytes(coding.plan, bits)
    found = (
        row(Coding(SPEC, Terms(coding.terms.m, bits), "3:1"), body) if terms.m == 512 else spread(coding, body, bits)
    )
    assert float(found @ mean) / energy(mean) == pytest.approx(1, rel=0.05)
    assert energy(found - mean) / energy(mean) == pytest.approx(ADDED[bits], rel=0.5)


def spread(coding: Coding, body: bytes, bits: int) -> Row:
    return sketch.unfold(sketch.decode(body, coding.plan, bits), coding.hash).values()


def test_what_dominates_the_mean_is_published_beside_exactly() -> None:
    coding = Coding(SPEC, Terms(64, 1), "3:1")
    total = Sum(coding, MODEL)
    for seed in range(4):
        total.add(decoded(coding, delta(seed, 0.001, {11: 3.0, 300: -2.0})), 1)
    update = coding.decode(said(total, rate=0.5))
    assert isinstance(update, Sketch)
    assert update.beside.tolist() == [(11, 1.5), (300, -1.0)]


def test_what_does_not_dominate_the_mean_goes_into_the_buckets() -> None:
    runs, devices = 60, 40
    index = [9 * k for k in range(devices)]
    gains = []
    for key in range(runs):
        coding = Coding(SPEC, Terms(256, 1), f"3:{key}")
        total = Sum(coding, MODEL)
        for k in index:
            total.add(decoded(coding, delta(0, 0.0, {k: 1.0})), 1)
        update = coding.decode(said(total))
        assert isinstance(update, Sketch)
        assert not update.beside.size
        gains.append(float(spread(coding, said(total), 1)[index].sum()))
    assert abs(np.mean(gains) - 1) < 3.5 * np.std(gains) / math.sqrt(runs) + 0.01


@pytest.mark.parametrize("rate", [1.0, 1e-3, 30.0])
def test_the_most_that_are_published_beside_are_the_sixteen_largest(rate: float) -> None:
    coding = Coding(SPEC, Terms(256, 1), "3:1")
    total = Sum(coding, MODEL)
    for k in range(20):
        total.add(decoded(coding, delta(0, 0.0, {10 * k: 1.0 + 0.01 * k})), 1)
    update = coding.decode(said(total, rate=rate))
    assert isinstance(update, Sketch)
    assert update.beside["index"].tolist() == [10 * k for k in range(20 - MOST_BESIDE, 20)]
    assert update.beside["value"] == pytest.approx([rate * (1 + 0.01 * k) / 20 for k in range(4, 20)])
    assert update.levels.any()


@pytest.mark.parametrize("terms", [INT8, FLOAT32])
def test_where_there_are_no_buckets_the_sum_is_published_in_int8(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(1)), 2)
    found = [
        row(Coding(SPEC, INT8, "3:1"), published(total.mean(), coding, 1, 2.0, np.random.default_rng(k)))
        for k in range(80)
    ]
    wanted = 2.0 * coordinates(total)
    step = np.abs(wanted).max() / 126
    assert np.abs(found - wanted).max() <= 1.01 * step
    assert np.abs(np.mean(found, axis=0) - wanted).max() < 5 * 0.5 * step / math.sqrt(80)


@pytest.mark.parametrize("terms", ALL)
def test_a_mean_that_is_far_too_large_is_not_published(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(1, 1.0)), 2)
    with pytest.raises(FoldError, match="too large"):
        said(total, rate=1e33)


def test_a_coordinate_beside_that_is_far_too_large_is_not_published() -> None:
    coding = Coding(SPEC, Terms(64, 1), "3:1")
    mean = Mean(np.full(64, 1e-3), {5: 1e37})
    with pytest.raises(FoldError, match="too large"):
        published(mean, coding, 1, 1.0, np.random.default_rng(0))


# Norms and energies.


@pytest.mark.parametrize("terms", ALL)
def test_the_norm_of_an_update_is_about_that_of_what_was_coded(terms: Terms) -> None:
    found = []
    for key in range(12):
        coding = Coding(SPEC, terms, f"3:{key}")
        found.append(norm(decoded(coding, delta(1, beside={5: 0.2})), coding))
    assert np.mean(found) == pytest.approx(math.sqrt(energy(flat(delta(1, beside={5: 0.2})))), rel=0.06)


@pytest.mark.parametrize("terms", ALL)
def test_the_energy_of_the_mean_is_that_of_its_buckets_and_what_is_beside(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    for seed in range(3):
        total.add(decoded(coding, delta(seed, beside={5: 0.5, 7: -0.25})), 1)
    mean = total.mean()
    wanted = energy(mean.values) * (coding.plan.block if terms.is_sketch else 1) + sum(
        v * v for v in mean.beside.values()
    )
    assert total.mean_energy() == pytest.approx(wanted, rel=1e-12)
    if terms.m > D:
        assert wanted == pytest.approx(energy(coordinates(total)), rel=0.3 if terms.bits == 1 else 0.1)


@pytest.mark.parametrize("terms", SKETCHES)
def test_the_energy_of_one_update_is_its_own_and_what_its_bits_add(terms: Terms) -> None:
    found = []
    for key in range(16):
        coding = Coding(SPEC, terms, f"3:{key}")
        total = Sum(coding, MODEL)
        total.add(decoded(coding, delta(1)), 7)
        found.append(total.mean_energy())
    assert np.mean(found) == pytest.approx((1 + ADDED[terms.bits]) * energy(flat(delta(1))), rel=0.08)


def test_an_update_of_another_kind_is_no_part_of_the_sum() -> None:
    ours, theirs = Coding(SPEC, Terms(64, 1), "3:1"), Coding(SPEC, Terms(256, 1), "3:1")
    with pytest.raises(FoldError):
        Sum(ours, MODEL).add(decoded(theirs, delta()), 1)
    with pytest.raises(CodecError):
        ours.decode(theirs.encode(delta(), np.random.default_rng(0)))


# The short way.


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([FLOAT32, Terms(64, 1), Terms(512, 1)]),
    st.lists(st.tuples(st.integers(0, 99), weights, st.floats(1e-9, 1.0)), min_size=1, max_size=6),
)
def test_signs_and_floats_add_up_as_the_integers_that_they_stand_for(
    terms: Terms, drawn: list[tuple[int, int, float]]
) -> None:
    coding = Coding(SPEC, terms, "3:1")
    short, long = Sum(coding, MODEL), Sum(coding, MODEL)
    (exponent,) = short._fold.exponents
    for seed, weight, scale in drawn:
        update = decoded(coding, delta(seed, scale))
        short.add(update, weight)
        if isinstance(update, Sketch):
            on_lattice = update.z()
        else:
            assert isinstance(update, Floats)
            scaled = np.ldexp(update.row.astype(np.float64), -exponent)
            on_lattice = Decoded(np.rint(scaled).astype(np.int64), exponent)
        long._fold.add((on_lattice,), weight)
    assert short._fold.to_bytes() == long._fold.to_bytes()


@pytest.mark.parametrize("terms", [FLOAT32, Terms(64, 1)])
def test_what_is_too_large_for_the_lattice_is_refused_on_the_short_way_too(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "3:1")
    total = Sum(coding, MODEL)
    total.add(decoded(coding, delta(1)), 5)
    before = total._fold.to_bytes()
    for weight in (0, MAX_WEIGHT + 1):
        with pytest.raises(FoldError, match="weight"):
            total.add(decoded(coding, delta(2)), weight)
    with pytest.raises(FoldError, match="too large for the fold lattice"):
        total.add(decoded(coding, delta(2, 1e6)), 1)
    assert total._fold.to_bytes() == before


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("peak", [1.0, 1e4])
def test_the_norm_of_floats_is_theirs(scale: float, peak: float) -> None:
    row = (scale * np.random.default_rng(0).standard_normal(50_000)).astype(np.float32)
    row[17] *= np.float32(peak)
    wanted = math.sqrt(math.fsum(float(value) ** 2 for value in row.astype(np.float64).tolist()))
    assert norm_of_floats(Floats(row)) == pytest.approx(wanted, rel=2**-20)
    assert norm_of_floats(Floats(np.zeros(5, np.float32))) == 0.0
    shuffled = np.random.default_rng(1).permutation(row)
    assert norm_of_floats(Floats(shuffled)) == norm_of_floats(Floats(row))
