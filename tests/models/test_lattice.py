import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec.decoded import Decoded, exact
from models.lattice import EXPONENT, LIMIT, LatticeError, Model, add, initial
from models.params import TensorSpec

SPEC = (
    TensorSpec("0.weight", (5, 3)),
    TensorSpec("0.bias", (5,)),
    TensorSpec("norm.weight", (4,)),
    TensorSpec("gain", ()),
    TensorSpec("conv.weight", (2, 3, 2, 2)),
)


def test_version_0_is_the_same_everywhere() -> None:
    golden = "72a63e429900c50c045d1a21eadcdec90af6fa69ce5930774962d6dceb787ea9"
    assert initial(SPEC, 7).sha256() == golden


def test_weights_are_uniform_within_the_he_bound() -> None:
    spec = (TensorSpec("w", (300, 200)),)
    values = initial(spec, 0).params(spec)["w"]
    bound = math.sqrt(6 / 200)
    assert np.abs(values).max() <= bound
    assert abs(values.std() / (bound / math.sqrt(3)) - 1) < 0.01


def test_biases_are_zero_and_norm_scales_one() -> None:
    params = initial(SPEC, 3).params(SPEC)
    assert not params["0.bias"].any()
    assert (params["norm.weight"] == 1).all()
    assert params["gain"] == 0
    assert params["gain"].shape == ()


def test_models_are_equal_by_value() -> None:
    assert initial(SPEC, 1) == initial(SPEC, 1)
    assert initial(SPEC, 1) != initial(SPEC, 2)
    assert hash(initial(SPEC, 1)) == hash(initial(SPEC, 1))


def test_a_model_survives_its_bytes() -> None:
    model = initial(SPEC, 1)
    assert Model.from_bytes(model.to_bytes(), SPEC) == model


@pytest.mark.parametrize("data", [b"", b"\x92\xa0\xa0", initial(SPEC, 1).to_bytes()[:-1]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LatticeError):
        Model.from_bytes(data, SPEC)


def test_bytes_of_another_spec_are_refused() -> None:
    with pytest.raises(LatticeError, match="shapes"):
        Model.from_bytes(initial(SPEC, 1).to_bytes(), SPEC[:-1])


def one(value: float) -> tuple[tuple[TensorSpec, ...], Model]:
    spec = (TensorSpec("w", (1,)),)
    return spec, Model((np.array([round(value * 2**24)], np.int32),), (EXPONENT,))


def test_an_exponent_rises_before_the_integers_overflow() -> None:
    spec, model = one(60.0)
    risen = add(model, [exact(np.array([60.0]))])
    assert risen.exponents == (EXPONENT + 1,)
    assert risen.params(spec)["w"][0] == 120.0
    assert np.abs(risen.ints[0]).max() <= LIMIT


def test_a_huge_step_raises_the_exponent_at_once() -> None:
    spec, model = one(1.0)
    assert add(model, [exact(np.array([1e30]))]).params(spec)["w"][0] == pytest.approx(1e30, rel=1e-6)


def test_a_step_beyond_every_lattice_is_refused() -> None:
    _, model = one(1.0)
    with pytest.raises(LatticeError, match="exponent"):
        add(model, [Decoded(np.array([2**51], np.int64), 200)])


def test_zeros_change_nothing_whatever_their_exponent() -> None:
    _, model = one(1.0)
    assert add(model, [Decoded(np.zeros(1, np.int64), 250)]) == model


def test_a_sum_is_rounded_half_to_even_onto_the_lattice() -> None:
    model = Model((np.array([0, 0, 0, 0, 5], np.int32),), (EXPONENT,))
    step = Decoded(np.array([1, 3, -1, -3, 1], np.int64), EXPONENT - 1)
    assert add(model, [step]).ints[0].tolist() == [0, 2, 0, -2, 5]


def test_a_sum_that_just_fits_keeps_its_exponent() -> None:
    model = Model((np.array([LIMIT - 2], np.int32),), (EXPONENT,))
    at_most = add(model, [Decoded(np.array([1], np.int64), EXPONENT)])
    beyond = add(model, [Decoded(np.array([2], np.int64), EXPONENT)])
    assert (at_most.ints[0].tolist(), at_most.exponents) == ([LIMIT - 1], (EXPONENT,))
    assert (beyond.ints[0].tolist(), beyond.exponents) == ([LIMIT // 2], (EXPONENT + 1,))


@given(st.lists(st.integers(1 - LIMIT, LIMIT - 1), min_size=3, max_size=3), st.data())
def test_a_sum_is_within_a_unit_of_the_exact_one(ints: list[int], data: st.DataObject) -> None:
    exponent = data.draw(st.integers(-30, 30))
    step = data.draw(st.lists(st.integers(-(2**52), 2**52), min_size=3, max_size=3))
    at = data.draw(st.integers(-90, 60))
    found = add(Model((np.array(ints, np.int32),), (exponent,)), [Decoded(np.array(step, np.int64), at)])
    unit = Fraction(2) ** found.exponents[0]
    wanted = [a * Fraction(2) ** exponent + b * Fraction(2) ** at for a, b in zip(ints, step, strict=True)]
    assert max(abs(v * unit - w) for v, w in zip(found.ints[0].tolist(), wanted, strict=True)) <= Fraction(3, 2) * unit
    assert found.exponents[0] >= exponent
    assert np.abs(found.ints[0]).max() <= LIMIT


def test_the_norm_is_exact_where_floats_would_lose_the_small_ones() -> None:
    ints = np.ones(2**16 + 1, np.int32)
    ints[0] = 2**30
    assert Model((ints,), (-3,)).norm == math.sqrt(2**60 + 2**16) / 8


def test_the_norm_is_over_tensors_of_any_exponents() -> None:
    model = Model((np.array([3, -4], np.int32), np.array([[-(2**30)]], np.int32)), (2, -29))
    assert model.norm == math.sqrt(25 * 16 + 4)
    assert Model((), ()).norm == 0.0
    assert Model((np.zeros(3, np.int32),), (5,)).norm == 0.0


def test_what_is_beyond_float32_is_infinite_and_warns_of_nothing() -> None:
    first = initial(SPEC, 3)
    found = Model(first.ints, (200,) * len(SPEC)).params(SPEC)
    assert np.isinf(found["norm.weight"]).all()
