from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import sums
from models.clip import BITS, Factor, clipped, factor_for
from models.codec.coding import Coding, Update
from models.codec.decoded import Decoded
from models.codec.terms import FLOAT32, INT8, Terms
from models.fold import FoldError
from models.lattice import initial
from models.params import TensorSpec
from models.sums import Sum

SPEC = (TensorSpec("W", (40, 10)), TensorSpec("b", (10,)))
MODEL = initial(SPEC, 0)
CODINGS = {
    "float32": Coding(SPEC, FLOAT32, "0:0"),
    "int8": Coding(SPEC, INT8, "0:0"),
    "signs": Coding(SPEC, Terms(128, 1), "0:0"),
    "bits": Coding(SPEC, Terms(512, 3), "0:0"),
}


def update(coding: Coding, seed: int, size: float = 0.01) -> Update:
    rng = np.random.default_rng(seed)
    delta = {tensor.name: (size * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in SPEC}
    delta["b"][seed % 10] = 30 * size  # one that travels beside the buckets
    return coding.decode(coding.encode(delta, rng))


def values(update: Update, coding: Coding) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([tensor.values().reshape(-1) for tensor in coding.tensors(update)])


@given(norm=st.floats(1e-30, 1e30), share=st.floats(1e-6, 0.999))
def test_a_factor_brings_a_norm_to_the_most_that_is_let_in_or_a_hair_below(norm: float, share: float) -> None:
    factor = factor_for(norm, share * norm)
    assert 2 ** (BITS - 1) <= factor.mantissa < 2**BITS
    assert (1 - 2 ** (1 - BITS)) * share <= factor.value <= share * (1 + 1e-15)


@pytest.mark.parametrize(
    ("norm", "most"),
    [(1.0, 1.0), (1.0, 2.0), (1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan), (1e200, 1)],
)
def test_what_no_factor_brings_down_is_an_error(norm: float, most: float) -> None:
    with pytest.raises(ValueError, match="not brought"):
        factor_for(norm, most)


@pytest.mark.parametrize("name", CODINGS)
def test_an_update_is_scaled_as_its_coordinates_and_its_norm_are(name: str) -> None:
    coding, factor = CODINGS[name], Factor(171, -11)
    whole = update(coding, 3)
    scaled = clipped(whole, factor)
    assert type(scaled) is type(whole)
    assert sums.norm(scaled, coding) == pytest.approx(sums.norm(whole, coding) * factor.value, rel=1e-6)
    assert values(scaled, coding) == pytest.approx(values(whole, coding) * factor.value, rel=1e-4, abs=1e-9)


def test_integers_are_scaled_exactly() -> None:
    whole = update(CODINGS["int8"], 4)
    assert isinstance(whole, tuple)
    scaled = clipped(whole, Factor(171, -11))
    for before, after in zip(whole, scaled, strict=True):
        assert isinstance(before, Decoded)
        assert isinstance(after, Decoded)
        assert (before.integers * 171 == after.integers).all()
        assert before.exponent - 11 == after.exponent


@pytest.mark.parametrize("name", CODINGS)
def test_scaled_updates_add_up_to_the_same_bits_in_any_order_and_nothing_scaled_is_changed_in_place(name: str) -> None:
    coding = CODINGS[name]
    terms = [(update(coding, k), 5 + k, Factor(128 + 17 * k, -9 - k)) for k in range(4)]
    found = set()
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        total = Sum(coding, MODEL)
        for k in order:
            one, weight, factor = terms[k]
            total.add(clipped(one, factor), weight)
        mean = total.mean()
        found.add((mean.values.tobytes(), tuple(mean.beside.items())))
    assert len(found) == 1


@pytest.mark.parametrize("name", CODINGS)
def test_weight_that_is_taken_out_is_as_if_it_had_never_been_in(name: str) -> None:
    coding = CODINGS[name]
    light, heavy = Sum(coding, MODEL), Sum(coding, MODEL)
    for k in range(4):
        light.add(update(coding, k), 10)
    for k in (2, 0, 3, 1):
        heavy.add(update(coding, k), 2**20 if k == 2 else 10)
    heavy.take_out(update(coding, 2), 2**20 - 10)
    assert heavy.weight == light.weight
    assert heavy.mean_energy() == light.mean_energy()
    assert heavy.mean().values.tobytes() == light.mean().values.tobytes()
    assert heavy.mean().beside == light.mean().beside
    assert heavy._fold.to_bytes() == light._fold.to_bytes()


@pytest.mark.parametrize("name", CODINGS)
def test_what_no_update_of_the_sum_has_is_not_taken_out(name: str) -> None:
    coding = CODINGS[name]
    total = Sum(coding, MODEL)
    total.add(update(coding, 0), 10)
    total.add(update(coding, 1), 1)
    before = total._fold.to_bytes()
    for weight in (0, 10, 2**20 + 1):
        with pytest.raises(FoldError):
            total.take_out(update(coding, 0), weight)
    assert total._fold.to_bytes() == before
