import numpy as np
import pytest

from models.codec import CodecError, decode, encode, max_body_bytes
from models.job import CompressionSpec
from models.params import Params, TensorSpec

SPEC = (TensorSpec("w", (20, 30)), TensorSpec("b", (20,)), TensorSpec("s", ()))
CODECS = ["float32", "int8", "adaptive"]


def update(seed: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    return {t.name: np.asarray(0.01 * rng.standard_normal(t.shape), np.float32) for t in SPEC}


def coding(codec: str) -> CompressionSpec:
    return CompressionSpec(codec=codec, step=1.0, rounding="nearest")  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_lost_of_an_update_is_what_its_body_does_not_say(codec: str) -> None:
    delta = update()
    encoded = encode(delta, SPEC, coding(codec), rng=np.random.default_rng(0))
    assert len(encoded.body) <= max_body_bytes(SPEC)
    pairs = [(delta[tensor.name], each.values()) for tensor, each in zip(SPEC, decode(encoded.body, SPEC), strict=True)]
    lost = sum(float(np.square(whole - decoded).sum()) for whole, decoded in pairs)
    energy = sum(float(np.square(whole.astype(np.float64)).sum()) for whole, _ in pairs)
    assert encoded.nmse == pytest.approx(lost / energy, abs=1e-12)
    assert encoded.nmse < (0.5 if codec == "adaptive" else 1e-3)


@pytest.mark.parametrize("codec", CODECS)
def test_an_update_is_coded_alike_whatever_was_coded_before(codec: str) -> None:
    first = encode(update(1), SPEC, coding(codec), rng=np.random.default_rng(0))
    encode(update(2), SPEC, coding(codec), rng=np.random.default_rng(0))
    assert encode(update(1), SPEC, coding(codec), rng=np.random.default_rng(0)) == first


def test_nothing_is_lost_of_nothing() -> None:
    nothing = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in SPEC}
    assert encode(nothing, SPEC, CompressionSpec(), rng=np.random.default_rng(0)).nmse == 0.0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(codec: str, bad: float) -> None:
    delta = update()
    delta["b"][3] = bad
    with pytest.raises(CodecError, match="tensor b"):
        encode(delta, SPEC, coding(codec), rng=np.random.default_rng(0))


def test_shapes_of_another_net_are_refused() -> None:
    with pytest.raises(CodecError):
        encode(update(), SPEC[:2], coding("int8"), rng=np.random.default_rng(0))


def test_the_steering_factor_scales_the_step() -> None:
    fine, coarse = (
        encode(update(), SPEC, CompressionSpec(), rng=np.random.default_rng(0), step_scale=scale)
        for scale in (0.25, 1.0)
    )
    assert len(fine.body) > len(coarse.body)
    assert fine.nmse < coarse.nmse
