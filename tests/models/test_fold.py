import math
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.decoded import Decoded, exact
from models.fold import MAX_TOTAL_WEIGHT, MAX_WEIGHT, Fold, FoldError, exponents_for, norm
from models.lattice import initial
from models.params import TensorSpec

SPEC = (TensorSpec("w", (2, 2)), TensorSpec("b", (1,)))
EXPONENTS = (-36, -40)

TOP = 2**42
magnitude = st.sampled_from([0, 1, -1, TOP - 1, 1 - TOP, 2**31, -(2**32)]) | st.integers(1 - TOP, TOP - 1)
weight = st.sampled_from([1, 2, MAX_WEIGHT]) | st.integers(1, MAX_WEIGHT)
update = st.tuples(st.lists(magnitude, min_size=5, max_size=5), weight)


def decoded(values: list[int]) -> tuple[Decoded, Decoded]:
    wide = np.array(values, np.int64)
    return Decoded(wide[:4].reshape(2, 2), EXPONENTS[0]), Decoded(wide[4:], EXPONENTS[1])


def folded(updates: list[tuple[list[int], int]]) -> Fold:
    fold = Fold(SPEC, EXPONENTS)
    for values, by in updates:
        fold.add(decoded(values), by)
    return fold


def exact_total(updates: list[tuple[list[int], int]]) -> list[int]:
    return [sum(values[k] * by for values, by in updates) for k in range(5)]


@settings(max_examples=60, deadline=None)
@given(st.lists(update, min_size=1, max_size=9), st.randoms(use_true_random=False), st.data())
def test_any_order_and_grouping_gives_the_same_bytes(updates, random, data) -> None:  # type: ignore[no-untyped-def]
    golden = folded(updates)
    shuffled = random.sample(updates, len(updates))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(updates)), max_size=3)))
    groups = [shuffled[a:b] for a, b in pairwise([0, *cuts, len(updates)])]
    merged = Fold(SPEC, EXPONENTS)
    for group in groups:
        merged.merge(Fold.from_bytes(folded(group).to_bytes(), SPEC))
    assert merged.to_bytes() == golden.to_bytes()
    total = exact_total(updates)
    means = np.concatenate([m.ravel() for m in merged.mean()])
    exponents = [EXPONENTS[0]] * 4 + [EXPONENTS[1]]
    wanted = [np.ldexp(t / golden.weight, e) for t, e in zip(total, exponents, strict=True)]
    assert np.allclose(means, wanted, rtol=1e-14, atol=0)


def test_the_sum_outgrows_an_int64_without_loss() -> None:
    updates = [([TOP - 1, 1 - TOP, 3, -3, 1], MAX_WEIGHT)] * 11
    fold = folded(updates)
    low, high, _ = fold._sums[0]
    assert high is not None
    total = [int(h) * 2**32 + int(lo) for h, lo in zip(high.ravel(), low.ravel(), strict=True)]
    assert total == exact_total(updates)[:4]


def test_a_total_has_one_form_whether_or_not_it_ever_spilt() -> None:
    top = [TOP - 1] * 5
    straight = folded([(top, MAX_WEIGHT), (top, MAX_WEIGHT // 2)])
    around = folded([(top, MAX_WEIGHT), (top, MAX_WEIGHT), ([1 - TOP] * 5, MAX_WEIGHT // 2)])
    around.weight, around.count = straight.weight, straight.count
    assert straight._sums[0].high is None
    assert around._sums[0].high is not None
    assert straight.to_bytes() == around.to_bytes()


def test_updates_are_rounded_half_even_onto_the_fold() -> None:
    fold = Fold((TensorSpec("w", (4,)),), (-10,))
    fold.add([Decoded(np.array([1, 3, 5, -3], np.int64), -11)], 1)
    assert (fold.mean()[0] * 2**10).tolist() == [0, 2, 2, -2]


@pytest.mark.parametrize("by", [0, -1, MAX_WEIGHT + 1])
def test_a_weight_out_of_range_is_refused(by: int) -> None:
    with pytest.raises(FoldError, match="weight"):
        Fold(SPEC, EXPONENTS).add(decoded([0] * 5), by)


def test_a_coordinate_too_large_is_refused_and_leaves_the_fold_alone() -> None:
    fold = folded([([1, 2, 3, 4, 5], 6)])
    before = fold.to_bytes()
    for values in ([TOP, 0, 0, 0, 0], [0, 0, 0, 0, -TOP]):
        with pytest.raises(FoldError, match="too large"):
            fold.add(decoded(values), 1)
    assert fold.to_bytes() == before


def test_shapes_of_another_net_are_refused() -> None:
    with pytest.raises(FoldError, match="shapes"):
        Fold(SPEC, EXPONENTS).add(decoded([0] * 5)[:1], 1)


def test_a_total_weight_that_could_overflow_is_refused() -> None:
    fold = folded([([0] * 5, 1)])
    fold.weight = MAX_TOTAL_WEIGHT
    with pytest.raises(FoldError, match="total weight"):
        fold.add(decoded([0] * 5), 1)


def test_folds_of_different_rounds_do_not_merge() -> None:
    with pytest.raises(FoldError, match="different rounds"):
        Fold(SPEC, EXPONENTS).merge(Fold(SPEC, (-36, -41)))


def test_an_empty_fold_has_no_mean() -> None:
    with pytest.raises(FoldError, match="empty"):
        Fold(SPEC, EXPONENTS).mean()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.just(folded([([5, 4, 3, 2, 1], 9)]).to_bytes()), st.integers(0, 60))
def test_damaged_bytes_are_a_fold_or_an_error(data: bytes, cut: int) -> None:
    with suppress(FoldError):
        Fold.from_bytes(data[cut:], SPEC).mean()


def test_stored_sums_beyond_their_weight_are_refused() -> None:
    fold = folded([([TOP - 1] * 5, 1)] * 3)
    fold.weight = 2
    with pytest.raises(FoldError):
        Fold.from_bytes(fold.to_bytes(), SPEC)


def test_the_lattice_of_a_round_lies_below_the_models() -> None:
    assert exponents_for(initial(SPEC, 0)) == (-36, -36)


def test_the_norm_is_the_norm() -> None:
    values = np.array([[3.0, 0.0], [0.0, 4.0]])
    assert norm([exact(values), exact(np.array([12.0]))]) == pytest.approx(13.0)
    assert norm([exact(1e30 * values)]) == pytest.approx(5e30)
    assert norm([Decoded(np.zeros(3, np.int64), 0)]) == 0.0
    assert norm([Decoded(np.array([2**51], np.int64), 2000)]) == np.inf


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 52))
def test_the_norm_has_the_same_bits_in_any_order(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-(2**bits), 2**bits, 20_000)
    found = norm([Decoded(values, -40), Decoded(values[:7], 3)])
    assert found == norm([Decoded(values[:7][::-1].copy(), 3), Decoded(rng.permutation(values).reshape(100, -1), -40)])
    energy = sum(int(v) ** 2 for v in values) * Fraction(4) ** -40 + sum(int(v) ** 2 for v in values[:7]) * 4**3
    assert abs(Fraction(found) ** 2 - energy) <= 2 * Fraction(math.ulp(found)) * Fraction(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(update, min_size=1, max_size=9))
def test_the_energy_of_the_mean_is_exact_to_the_last_bit(updates: list[tuple[list[int], int]]) -> None:
    exponents = [EXPONENTS[0]] * 4 + [EXPONENTS[1]]
    fold = folded(updates)
    total = exact_total(updates)
    energy = sum((t * Fraction(2) ** e) ** 2 for t, e in zip(total, exponents, strict=True)) / fold.weight**2
    assert fold.mean_energy() == float(energy)


def test_an_empty_fold_has_no_energy() -> None:
    assert Fold(SPEC, EXPONENTS).mean_energy() == 0.0
