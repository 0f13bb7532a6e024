import numpy as np
import pytest

from models.codec import CodecError, State, decode, drop, encode, max_body_bytes, settle
from models.job import CompressionSpec
from models.params import Params, TensorSpec

SPEC = (TensorSpec("w", (20, 30)), TensorSpec("b", (20,)), TensorSpec("s", ()))
CODECS = ["float32", "int8", "adaptive"]


def update(seed: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    return {t.name: np.asarray(0.01 * rng.standard_normal(t.shape), np.float32) for t in SPEC}


def coding(codec: str) -> CompressionSpec:
    return CompressionSpec(codec=codec, rounding="nearest", error_feedback=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", CODECS)
def test_a_counted_update_leaves_what_the_body_lost(codec: str) -> None:
    delta = update()
    encoded = encode(delta, SPEC, coding(codec), state=State(), rng=np.random.default_rng(0))
    state = settle(encoded.pending, counted=True, spec=SPEC)
    assert len(encoded.body) <= max_body_bytes(SPEC)
    for tensor, decoded, rest in zip(SPEC, decode(encoded.body, SPEC), state.residual, strict=True):
        assert np.allclose(decoded.values() + rest, delta[tensor.name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("codec", CODECS)
def test_a_refused_update_is_kept_whole_and_sent_again(codec: str) -> None:
    first = encode(update(1), SPEC, coding(codec), state=State(), rng=np.random.default_rng(0))
    state = settle(first.pending, counted=False, spec=SPEC)
    second = encode(update(2), SPEC, coding(codec), state=state, rng=np.random.default_rng(0))
    for tensor, whole in zip(SPEC, second.pending.whole, strict=True):
        assert np.allclose(whole, update(1)[tensor.name] + update(2)[tensor.name], atol=1e-8)


def test_without_error_feedback_nothing_is_kept() -> None:
    without = CompressionSpec(codec="int8", error_feedback=False)
    encoded = encode(update(), SPEC, without, state=State(), rng=np.random.default_rng(0))
    assert encoded.pending.whole == ()
    assert settle(encoded.pending, counted=True, spec=SPEC) == drop()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(codec: str, bad: float) -> None:
    delta = update()
    delta["b"][3] = bad
    with pytest.raises(CodecError, match="tensor b"):
        encode(delta, SPEC, coding(codec), state=State(), rng=np.random.default_rng(0))


def test_a_sum_that_overflows_is_refused_by_name() -> None:
    huge = {name: np.full_like(values, 3e38) for name, values in update().items()}
    state = State(tuple(huge.values()))
    with pytest.raises(CodecError, match="tensor w overflows"):
        encode(huge, SPEC, coding("float32"), state=state, rng=np.random.default_rng(0))


def test_shapes_of_another_net_are_refused() -> None:
    with pytest.raises(CodecError):
        encode(update(), SPEC[:2], coding("int8"), state=State(), rng=np.random.default_rng(0))
    state = State((np.zeros(3, np.float32),))
    with pytest.raises(CodecError, match="residual"):
        encode(update(), SPEC, coding("int8"), state=state, rng=np.random.default_rng(0))


def test_stochastic_rounding_refuses_feedback() -> None:
    with pytest.raises(ValueError, match="error_feedback"):
        CompressionSpec(rounding="stochastic", error_feedback=True)


def test_the_steering_factor_scales_the_step() -> None:
    fine, coarse = (
        encode(update(), SPEC, CompressionSpec(), state=State(), rng=np.random.default_rng(0), step_scale=scale)
        for scale in (0.25, 1.0)
    )
    assert len(fine.body) > len(coarse.body)
    assert fine.nmse < coarse.nmse
