import math

import numpy as np
import pytest

from models import splitmix
from models.codec.decoded import Decoded, exact
from models.lattice import EXPONENT, LIMIT, LatticeError, Model, add, initial, rescale
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


def test_the_generator_is_splitmix64() -> None:
    # The first output from state 1234567 is published with the reference implementation.
    assert splitmix.outputs(1234567, 0, 2).tolist() == [6457827717110365317, 3203168211198807973]


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


def test_rescaling_rounds_half_to_even() -> None:
    integers = np.array([-7, -6, -5, -2, -1, 0, 1, 2, 3, 5, 6, 7], np.int64)
    for shift in range(1, 5):
        assert rescale(integers, -shift).tolist() == np.rint(integers / 2**shift).tolist()
    assert not rescale(integers, -62).any()
    assert rescale(integers, 2).tolist() == (4 * integers).tolist()


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
