import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import splitmix
from models.codec.plan import FEWEST, LARGEST_BLOCK, MOST_BUCKETS, PIECE, SLAB, WIDE, Hash, coprimes, plan, shape

sizes = st.integers(64, 3000)


@given(st.integers(1, 2**27))
def test_the_shape_of_a_shape_is_itself(wanted: int) -> None:
    m, block = shape(wanted)
    assert shape(m) == (m, block)


@given(st.integers(1, 2**27))
def test_buckets_are_equal_blocks_of_a_power_of_two(wanted: int) -> None:
    m, block = shape(wanted)
    assert m % block == 0
    assert block & block - 1 == 0
    assert block <= LARGEST_BLOCK
    assert m % 64 == 0


@given(st.integers(FEWEST, MOST_BUCKETS))
def test_there_are_as_many_buckets_as_wanted_and_not_many_more(wanted: int) -> None:
    m, block = shape(wanted)
    assert wanted <= m <= MOST_BUCKETS
    assert m - wanted < (wanted if wanted <= 256 else max(256, wanted / 8))
    assert block <= m / 8 or m <= 2048


@given(st.integers(FEWEST, 2**20), st.integers(FEWEST, 2**20))
def test_more_wanted_are_never_fewer(a: int, b: int) -> None:
    assert (shape(a)[0] <= shape(b)[0]) or a > b


@given(st.integers(257, 2**20))
def test_no_fixed_point_lies_between_the_coordinates_and_their_shape(d: int) -> None:
    assert all(shape(m)[0] != m for m in range(d, shape(d)[0], 64 - d % 64 or 64) if m % 128 == 0)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 1000))
def test_every_bucket_has_its_share_of_coordinates(d: int, wanted: int, number: int) -> None:
    made = plan(d, wanted, f"3:{number}")
    counts = np.bincount(Hash(made).bucket, minlength=made.m)
    assert set(counts.tolist()) <= {d // made.m, -(-d // made.m)}
    assert counts.sum() == d


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 3000))
def test_a_factor_is_the_first_coprime_one(m: int, wanted: int) -> None:
    (found,) = coprimes(np.array([wanted], np.uint64), m)
    steps = (found - wanted) % m
    assert math.gcd(found, m) == 1
    assert all(math.gcd((wanted + k) % m, m) != 1 for k in range(steps))


def test_two_coordinates_meet_about_as_often_as_in_a_random_hash() -> None:
    d, m, runs = 640, 64, 300
    meetings = 0.0
    for number in range(runs):
        bucket = Hash(plan(d, m, f"0:{number}")).bucket.reshape(-1, m)
        first = bucket[0]
        meetings += float((bucket[1:] == first).mean())
    assert abs(meetings / runs * m - 1) < 0.1


def test_signs_are_fair_and_independent_of_each_other() -> None:
    signs = np.array([Hash(plan(256, 64, f"0:{number}")).sign for number in range(2000)], float)
    turns = np.array([Hash(plan(256, 64, f"0:{number}")).turn for number in range(2000)], float)
    for drawn in (signs, turns):
        n = len(drawn)
        assert set(np.unique(drawn).tolist()) == {-1.0, 1.0}
        assert abs(drawn.mean()) < 4 / math.sqrt(drawn.size)
        assert np.abs(drawn.mean(axis=0)).max() < 4.5 / math.sqrt(n)
        together = drawn.T @ drawn / n - np.eye(drawn.shape[1])
        assert np.abs(together).max() < 5.5 / math.sqrt(n)
    assert np.abs(signs[:, :64].T @ turns / len(signs)).max() < 5.5 / math.sqrt(len(signs))


def test_signs_are_the_bits_of_the_generator_lowest_first() -> None:
    hashed = Hash(plan(200, 128, "0:1"))
    words = splitmix.outputs(hashed.plan.seed + 0x5349474E53, 0, 4).tolist()
    assert [1 - 2 * (words[i // 64] >> i % 64 & 1) for i in range(200)] == hashed.sign.tolist()


@pytest.mark.parametrize("other", [(500, 128, "1:3"), (500, 128, "2:2"), (501, 128, "1:2"), (500, 256, "1:2")])
def test_another_base_net_or_number_of_buckets_draws_another_plan(other: tuple[int, int, str]) -> None:
    ours, theirs = Hash(plan(500, 128, "1:2")), Hash(plan(*other))
    assert ours.plan.seed != theirs.plan.seed
    assert (ours.sign[:128] != theirs.sign[:128]).any()
    assert (ours.bucket[:128] != theirs.bucket[:128]).any()


def test_the_same_base_draws_the_same() -> None:
    ours, again = Hash(plan(500, 128, "1:2")), Hash(plan(500, 128, "1:2"))
    assert np.array_equal(ours.bucket, again.bucket)
    assert np.array_equal(ours.sign, again.sign)
    assert np.array_equal(ours.turn, again.turn)


@pytest.mark.parametrize(
    ("d", "m"),
    [
        *((300, 64), (97, 97), (3000, 700), (2 * PIECE + 5, 2 * PIECE + 5), (SLAB + 77, 40_000), (3 * SLAB + 5, 384)),
        *((3 * PIECE + 5, 2 * PIECE), (3 * WIDE + 5, WIDE)),
    ],
)
def test_folding_is_a_signed_sum_over_each_bucket(d: int, m: int) -> None:
    hashed = Hash(plan(d, m, "0:0"))
    values = np.random.default_rng(0).integers(-9, 9, d).astype(np.float32)
    sums = np.zeros(hashed.plan.m)
    np.add.at(sums, hashed.bucket, values * hashed.sign)
    assert (hashed.fold(values) == hashed.turn * sums).all()


@pytest.mark.parametrize("m", [384, WIDE - 512, 2 * WIDE, 2 * PIECE])
def test_what_a_sum_is_rounded_to_is_that_of_slab_after_slab(m: int) -> None:
    hashed, d = Hash(plan(2 * SLAB + 99, m, "0:0")), 2 * SLAB + 99
    rng = np.random.default_rng(0)
    values = np.ldexp(rng.standard_normal(d), rng.integers(-60, 20, d)).astype(np.float32)
    sums, n = np.zeros(hashed.plan.m), SLAB // hashed.plan.m * hashed.plan.m
    for at in range(0, d, n):
        slab = np.zeros(hashed.plan.m)
        np.add.at(slab, hashed.bucket[at : at + n], values[at : at + n] * hashed.sign[at : at + n])
        sums += slab
    assert (hashed.fold(values) == hashed.turn * sums).all()


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.integers(0, 2**32))
def test_unfolding_is_the_transpose_of_folding(d: int, wanted: int, seed: int) -> None:
    hashed = Hash(plan(d, wanted, "0:0"))
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-99, 99, d), rng.integers(-99, 99, hashed.plan.m)
    assert int(np.dot(hashed.fold(x.astype(np.float64)), y)) == int(np.dot(x, hashed.unfold(y)))


def test_where_all_have_buckets_of_their_own_nothing_is_lost() -> None:
    hashed = Hash(plan(97, 97, "0:0"))
    x = np.arange(97)
    assert (hashed.unfold(hashed.fold(x.astype(np.float64)).astype(np.int64)) == x).all()


def test_coordinates_fall_evenly_whatever_their_order() -> None:
    hashed = Hash(plan(64 * 50, 64, "0:9"))
    per_row = [Counter(row.tolist()) for row in hashed.bucket.reshape(50, 64)]
    assert all(max(row.values()) == 1 for row in per_row)
    assert len({tuple(row) for row in hashed.bucket.reshape(50, 64).tolist()}) > 45


@pytest.mark.parametrize(("d", "m"), [(1000, 64), (1000, 512), (70, 64), (64, 64), (40_000, 512)])
def test_what_is_unfolded_holds_its_coordinates_and_no_more(d: int, m: int) -> None:
    found = Hash(plan(d, m, "7:3")).unfold(np.arange(plan(d, m, "7:3").m, dtype=np.int64))
    assert found.shape == (d,)
    assert found.base is None
