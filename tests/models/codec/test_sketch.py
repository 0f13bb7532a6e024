from __future__ import annotations

import math
import struct
from contextlib import suppress
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.codec.decoded import CodecError
from models.codec.hadamard import hadamard
from models.codec.levels import ADDED, LEVELS
from models.codec.plan import Hash, plan
from models.codec.sketch import (
    MOST_BESIDE,
    SHARE,
    Sketch,
    decode,
    dominating,
    encode,
    max_bytes,
    n_bytes,
    norm,
    unfold,
    write,
)
from models.codec.steps import read_step, step_near

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
BITS = [1, 2, 3, 4]
D = 700
"""Of most updates here: 384 buckets are three blocks of 128, 512 two of 256, and 768 one for each coordinate."""


@cache
def hashed(d: int = D, m: int = 384, key: str = "0:0") -> Hash:
    return Hash(plan(d, m, key))


def gaussian(d: int = D, seed: int = 0, scale: float = 0.01) -> Float32:
    return np.asarray(scale * np.random.default_rng(seed).standard_normal(d), np.float32)


def uneven(d: int = D) -> Float32:
    """An update as training makes them: a few tenths of its coordinates have most of its energy; its mean is not 0."""
    values = gaussian(d) * np.linspace(0, 2, d, dtype=np.float32) ** 3
    return np.asarray(values + 0.005, np.float32)


def values_of(found: Sketch, hash_: Hash) -> Float64:
    whole = unfold(found, hash_).values()
    whole[found.beside["index"]] += found.beside["value"]
    return whole


def there_and_back(values: Float32, hash_: Hash, bits: int = 1) -> Float64:
    return values_of(decode(encode(values, hash_, bits), hash_.plan, bits), hash_)


def energy(values: npt.NDArray[np.floating]) -> float:
    return float(np.square(values.astype(np.float64)).sum())


# What an update comes to.


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("m", [384, 768])
@pytest.mark.parametrize("update", [gaussian(), uneven()], ids=["gaussian", "uneven"])
def test_the_mean_over_many_bases_is_the_update(bits: int, m: int, update: Float32) -> None:
    runs = 250
    decoded = np.array([there_and_back(update, hashed(m=m, key=f"0:{k}"), bits) for k in range(runs)])
    x = update.astype(np.float64)
    gains = decoded @ x / energy(x)
    assert abs(gains.mean() - 1) < 3.5 * gains.std() / math.sqrt(runs) + 1e-3
    single = float(np.mean([energy(one - x) for one in decoded]))
    assert energy(decoded.mean(axis=0) - x) < 1.25 * single / runs + 1e-4 * energy(x)


@pytest.mark.parametrize("bits", BITS)
def test_the_error_has_the_energy_that_is_documented(bits: int) -> None:
    for d, m in ((4096, 1024), (2048, 2048)):
        update = gaussian(d)
        lost = [energy(there_and_back(update, hashed(d, m, f"1:{k}"), bits) - update) for k in range(12)]
        assert np.mean(lost) / energy(update) == pytest.approx(d / m * (1 + ADDED[bits]) - 1, rel=0.06)


def test_the_error_is_spread_evenly_over_all_coordinates() -> None:
    update = uneven()
    runs = 300
    errors = np.array([there_and_back(update, hashed(m=768, key=f"2:{k}")) - update for k in range(runs)])
    each = np.square(errors).mean(axis=0)
    assert np.abs(each / each.mean() - 1).max() < 7 * math.sqrt(2 / runs)


@pytest.mark.parametrize("bits", BITS)
def test_a_coordinate_just_too_small_to_travel_beside_neither_starves_nor_swells(bits: int) -> None:
    runs, update = 400, gaussian()
    update[5] = math.sqrt(0.9 * SHARE * energy(update))
    assert not dominating(update).size
    found = [there_and_back(update, hashed(m=768, key=f"3:{k}"), bits)[5] / update[5] for k in range(runs)]
    assert abs(np.mean(found) - 1) < 3.5 * np.std(found) / math.sqrt(runs) + 0.01


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1e20, 2e37])
def test_a_scale_changes_nothing_but_the_scale(bits: int, scale: float) -> None:
    signs = np.sign(gaussian())
    update = np.asarray(signs * np.float32(scale), np.float32)
    factor = float(np.abs(update).max())
    plain, scaled = there_and_back(signs, hashed(), bits), there_and_back(update, hashed(), bits)
    assert np.abs(scaled / factor - plain).max() <= np.abs(plain).max() / 64


def test_the_largest_floats_everywhere_are_sent() -> None:
    update = np.full(2000, np.finfo(np.float32).max, np.float32)
    update[::2] *= -1
    found = there_and_back(update, hashed(2000, 512))
    assert np.isfinite(found).all()
    assert float(found @ update.astype(np.float64)) > 0


@pytest.mark.parametrize("m", [384, 512, 768])
@pytest.mark.parametrize("bits", BITS)
def test_zeros_are_zeros(m: int, bits: int) -> None:
    body = encode(np.zeros(D, np.float32), hashed(m=m), bits)
    found = decode(body, hashed(m=m).plan, bits)
    assert len(body) == n_bytes(hashed(m=m).plan, bits)
    assert not found.z().integers.any()
    assert not unfold(found, hashed(m=m)).integers.any()
    assert norm(found, bits) == 0.0


@pytest.mark.parametrize("bits", BITS)
def test_a_block_of_zeros_stays_zero_beside_others(bits: int) -> None:
    made = hashed().plan
    z = gaussian(made.m)
    z[128:256] = 0
    found = decode(write(z, made, bits, dominating(np.zeros(1))), made, bits)
    assert not found.z().integers[128:256].any()
    assert found.z().integers[:128].all()
    assert found.z().integers[256:].all()


def test_each_block_has_a_scale_of_its_own() -> None:
    made = hashed().plan
    z = gaussian(made.m)
    z[128:256] *= np.float32(1e-3)
    z[256:] *= np.float32(1e3)
    found = decode(write(z, made, 4, dominating(np.zeros(1))), made, 4).z().values()
    for at in (0, 128, 256):
        block = slice(at, at + 128)
        assert energy(found[block] - z[block]) < 0.02 * energy(z[block])


def test_a_scale_far_below_the_largest_is_nothing() -> None:
    made = hashed().plan
    words = [step_near(2.0**40), step_near(2.0**-40), 0]
    body = struct.pack("<HHH", *words) + bytes(made.m // 8)
    found = decode(body, made, 1)
    assert found.scales.tolist() == [128 << 24, 0, 0]
    assert found.exponent == read_step(words[0])[1] - 24


def test_scales_between_are_rounded_half_to_even() -> None:
    made = hashed().plan
    top, low = (201 + 30) << 7, (201 + 5) << 7  # 2**25 apart: one bit below the finest
    for fraction, wanted in ((1, 64), (2, 65), (3, 66), (5, 66), (7, 68)):
        body = struct.pack("<HHH", top, low | fraction, 0) + bytes(made.m // 8)
        assert decode(body, made, 1).scales.tolist() == [128 << 24, wanted, 0]


# What dominates.


def equal(n: int, scale: float = 1.0) -> Float32:
    update = np.zeros(D, np.float32)
    update[7 : 7 * n + 7 : 7] = scale
    update[7 : 7 * n + 7 : 14] *= -1
    return update


@pytest.mark.parametrize("n", [1, 2, 15, 16])
@pytest.mark.parametrize("scale", [1e-45, 1e-38, 0.1, 3e38])
def test_up_to_sixteen_coordinates_that_are_all_there_is_arrive_exactly(n: int, scale: float) -> None:
    update = equal(n, scale)
    body = encode(update, hashed())
    assert len(body) == n_bytes(hashed().plan, 1) + 8 * n
    assert (there_and_back(update, hashed()) == update).all()


def test_the_seventeenth_goes_into_the_buckets() -> None:
    update = equal(17)
    update[7 * 5] = 0.99
    found = dominating(update)
    assert found["index"].tolist() == [i for i in np.flatnonzero(update).tolist() if i != 35]
    assert len(encode(update, hashed())) == max_bytes(hashed().plan, 1)
    assert there_and_back(update, hashed())[35] == pytest.approx(0.99, rel=1 / 256)


def test_of_equal_ones_the_first_sixteen_travel_beside() -> None:
    assert dominating(equal(20))["index"].tolist() == [7 * k for k in range(1, 17)]


def test_where_none_dominates_none_travels_beside() -> None:
    assert dominating(equal(31)).size == MOST_BESIDE
    assert dominating(equal(33)).size == 0


@pytest.mark.parametrize("ratio", [1e6, 1e20, 1e38])
def test_one_tensor_that_is_far_larger_than_the_rest_arrives_as_well_as_alone(ratio: float) -> None:
    update = gaussian(scale=1.0)
    update[:200] *= np.float32(ratio / 8)
    alone = update.copy()
    alone[200:] = 0
    found = there_and_back(update, hashed(m=768), 4)
    assert energy((found[:200] - alone[:200]) / ratio) < 0.02 * energy(alone / ratio)


@settings(max_examples=60)
@given(st.sampled_from([64, 97, 300]), st.integers(0, 2**32), st.integers(1, 60), st.floats(0, 6))
def test_what_travels_beside_has_its_share_and_what_does_not_has_less(d: int, seed: int, n: int, power: float) -> None:
    rng = np.random.default_rng(seed)
    update = gaussian(d, seed)
    update[rng.choice(d, n, replace=False)] *= np.float32(10**power)
    share = np.square(update, dtype=np.float64) / energy(update)
    index = dominating(update)["index"].astype(np.int64)
    assert (share[index] > max(1 / 32, 8 / d)).all()
    assert (np.diff(index) > 0).all()
    assert (dominating(update)["value"] == update[index]).all()
    assert np.delete(share, index).max() <= max(1 / 32, 8 / d) or len(index) == MOST_BESIDE


def test_few_travel_beside_by_mere_chance() -> None:
    for d in (64, 97, 200, 400, 1000):
        found = [dominating(gaussian(d, seed)).size for seed in range(100)]
        assert np.mean(found) < 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    update = gaussian()
    update[600] = bad
    with pytest.raises(CodecError, match="not finite"):
        encode(update, hashed())


def test_another_number_of_coordinates_is_refused() -> None:
    with pytest.raises(CodecError, match="coordinates"):
        encode(gaussian(D - 1), hashed())


def test_the_update_is_left_alone() -> None:
    update = equal(3)
    encode(update, hashed())
    assert (update == equal(3)).all()


# Norms, and the sum's numbers.


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("m", [384, 768])
def test_the_norm_is_about_that_of_the_update(bits: int, m: int) -> None:
    for update in (gaussian(), uneven(), gaussian(scale=1e-30), gaussian(scale=1e30)):
        found = [norm(decode(encode(update, hash_, bits), hash_.plan, bits), bits) for hash_ in some(m)]
        scale = float(np.abs(update).max())
        assert np.mean(found) / scale == pytest.approx(math.sqrt(energy(update / scale)), rel=0.06)


def some(m: int) -> list[Hash]:
    return [hashed(m=m, key=f"0:{k}") for k in range(8)]


def test_the_norm_counts_what_is_beside() -> None:
    update = gaussian(scale=1e-3)
    update[3], update[9] = 3.0, -4.0
    assert norm(decode(encode(update, hashed()), hashed().plan), 1) == pytest.approx(5.0, rel=1e-3)
    assert norm(decode(encode(equal(16, 3e38), hashed()), hashed().plan), 1) == pytest.approx(12e38, rel=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_the_transformed_buckets_are_what_the_coordinates_come_from(bits: int) -> None:
    hash_ = hashed()
    found = decode(encode(uneven(), hash_, bits), hash_.plan, bits)
    z, whole = found.z(), unfold(found, hash_)
    assert z.exponent == whole.exponent
    assert (hash_.unfold(hadamard(z.integers, hash_.plan.block)) == whole.integers).all()


# Bodies.


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("d", "m", "wanted"), [(700, 384, 6 + 48), (700, 512, 4 + 64), (64, 64, 2 + 8), (700, 700, 6 + 96)]
)
def test_a_body_is_a_scale_a_block_and_its_bits_a_bucket(bits: int, d: int, m: int, wanted: int) -> None:
    made = hashed(d, m).plan
    scales = 2 * made.n_blocks
    assert n_bytes(made, bits) == scales + bits * (wanted - scales)
    update = np.where(np.arange(d) % 2, 1, -1).astype(np.float32)
    assert len(encode(update, hashed(d, m), bits)) == n_bytes(made, bits)


@pytest.mark.parametrize("bits", BITS)
def test_any_symbols_come_back(bits: int) -> None:
    made = hashed().plan
    raw = np.random.default_rng(bits).bytes(bits * made.m // 8)
    found = decode(struct.pack("<HHH", *[201 << 7] * 3) + raw, made, bits)
    table = [s * level for s in (1, -1) for level in LEVELS[bits]]
    for b in (0, 1, 7, 8, 9, 200, 383):
        symbol = sum((raw[p * (made.m // 8) + b // 8] >> b % 8 & 1) << p for p in range(bits))
        assert found.levels[b] == table[symbol]


def test_a_body_means_nothing_under_another_plan() -> None:
    update = uneven()
    body = encode(update, hashed(m=512))
    for other in (hashed(m=512, key="0:1"), hashed(m=512, key="1:0"), Hash(plan(D - 1, 512, "0:0"))):
        found = values_of(decode(body, other.plan), other)
        assert abs(float(found @ update[: len(found)])) < 0.5 * energy(update)
    for m, bits in ((384, 1), (768, 1), (512, 2)):
        with pytest.raises(CodecError, match="bytes"):
            decode(body, hashed(m=m).plan, bits)


@pytest.mark.parametrize("cells", [[(5, 1.0), (5, 2.0)], [(6, 1.0), (5, 2.0)], [(D, 1.0)], [(2**32 - 1, 1.0)]])
def test_coordinates_beside_out_of_order_or_range_are_refused(cells: list[tuple[int, float]]) -> None:
    body = encode(gaussian(), hashed()) + b"".join(struct.pack("<If", *cell) for cell in cells)
    with pytest.raises(CodecError, match="order"):
        decode(body, hashed().plan)


@pytest.mark.parametrize("bad", [b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\0\0\x81\x7f"])
def test_a_coordinate_beside_that_is_not_finite_is_refused(bad: bytes) -> None:
    with pytest.raises(CodecError, match="finite"):
        decode(encode(gaussian(), hashed()) + struct.pack("<I", 3) + bad, hashed().plan)


def test_the_last_coordinate_may_be_beside_and_seventeen_may_not() -> None:
    body = encode(np.zeros(D, np.float32), hashed())
    cells = [struct.pack("<If", D - 17 + k, 1.0) for k in range(17)]
    assert decode(body + b"".join(cells[1:]), hashed().plan).beside.size == MOST_BESIDE
    with pytest.raises(CodecError, match="bytes"):
        decode(body + b"".join(cells), hashed().plan)


@pytest.mark.parametrize("bits", BITS)
def test_truncated_and_extended_bodies_are_refused_but_for_whole_cells_beside(bits: int) -> None:
    body = encode(equal(3), hashed(), bits)
    for cut in range(len(body)):
        if (len(body) - cut) % 8 or cut < n_bytes(hashed().plan, bits):
            with pytest.raises(CodecError):
                decode(body[:cut], hashed().plan, bits)
    for more in (1, 7, 9, 8 * MOST_BESIDE):
        with pytest.raises(CodecError):
            decode(body + bytes(more), hashed().plan, bits)


def holds(body: bytes, hash_: Hash, bits: int) -> None:
    """Decode to numbers within their bounds, or raise CodecError; nothing else."""
    with suppress(CodecError):
        found = decode(body, hash_.plan, bits)
        assert np.abs(found.z().integers).max() < 2**40
        assert np.abs(unfold(found, hash_).integers).max() < 2**53
        assert norm(found, bits) >= 0


@settings(max_examples=150)
@given(st.data(), st.sampled_from(BITS), st.integers(0, 17))
def test_any_bytes_are_numbers_or_an_error(data: st.DataObject, bits: int, n_beside: int) -> None:
    made = hashed(64, 64).plan
    size = n_bytes(made, bits) + 8 * n_beside + data.draw(st.sampled_from([0, 0, 0, 1, -1]))
    holds(data.draw(st.binary(min_size=size, max_size=size)), hashed(64, 64), bits)


@settings(max_examples=150)
@given(st.sampled_from(BITS), st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=3))
@example(1, [(1, 7), (3, 7)])
def test_flipped_bits_are_harmless(bits: int, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(encode(equal(3), hashed(), bits))
    for at, bit in flips:
        damaged[at % len(damaged)] ^= 1 << bit
    holds(bytes(damaged), hashed(), bits)


def test_no_body_makes_more_than_an_int64_holds() -> None:
    hash_ = hashed(200_000, 150_000)
    block = hash_.plan.block
    along = hadamard(np.eye(1, block, 77, dtype=np.int32)[0], block)  # what H brings together on one bucket
    symbols = np.tile(np.where(along > 0, 7, 15), hash_.plan.n_blocks).astype(np.uint8)  # 213, and -213
    scales = np.full(hash_.plan.n_blocks, 255 << 24, np.int64)
    scales[0] = 128
    found = unfold(Sketch(symbols, 4, scales, 0, dominating(np.zeros(1))), hash_)
    assert block == 8192
    assert int(np.abs(found.integers).max()) == 213 * 8192 * 255 << 24
