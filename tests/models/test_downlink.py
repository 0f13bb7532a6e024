import numpy as np
import pytest

from models.codec import CodecError
from models.downlink import Bodies, DownlinkError, ServerState, advance, install, start
from models.job import CompressionSpec
from models.params import TensorSpec

SPEC = (TensorSpec("w", (20, 30)), TensorSpec("b", (20,)), TensorSpec("s", ()))
CODECS = ["float32", "int8", "adaptive"]


def steps(n: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(3)
    return [[0.01 * rng.standard_normal(t.shape) for t in SPEC] for _ in range(n)]


@pytest.mark.parametrize("codec", CODECS)
def test_two_bodies_lead_anybody_to_the_published_model(codec: str) -> None:
    coding = CompressionSpec(codec=codec, key_every=3)  # type: ignore[arg-type]
    state = start(SPEC, 5)
    for number, mean in enumerate(steps(8), 1):
        state, bodies, model = advance(state, mean, SPEC, coding)
        assert install(SPEC, 5, *bodies).sha256() == model.sha256()
        assert (state.version, state.key_version) == (number, number // 3 * 3)
        assert (bodies.key is None, bodies.delta is None) == (number < 3, number % 3 == 0)


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_version_rounds_away_is_not_lost(codec: str) -> None:
    coding = CompressionSpec(codec=codec, key_every=4)  # type: ignore[arg-type]
    state = start(SPEC, 5)
    for mean in steps(9):
        state, _, _ = advance(state, mean, SPEC, coding)
    still = [np.zeros(t.shape) for t in SPEC]
    wanted = [old + sum(parts) for old, parts in zip(start(SPEC, 5).fine, zip(*steps(9), strict=True), strict=True)]
    for mine, theirs in zip(advance(state, still, SPEC, coding)[0].fine, wanted, strict=True):
        assert np.allclose(mine, theirs, rtol=0, atol=1e-15)


def test_the_lossless_downlink_is_within_the_lattice() -> None:
    state = start(SPEC, 5)
    for mean in steps(4):
        state, _, model = advance(state, mean, SPEC, CompressionSpec(downlink_step=0.0, key_every=3))
        for fine, value in zip(state.fine, model.values(), strict=True):
            assert np.abs(fine - value).max() <= 2.0**-25 + 2.0**-28


def test_a_restart_changes_nothing() -> None:
    coding = CompressionSpec(key_every=3)
    through = resumed = start(SPEC, 5)
    for mean in steps(7):
        through, _, _ = advance(through, mean, SPEC, coding)
        resumed, _, _ = advance(ServerState.from_bytes(resumed.to_bytes(), SPEC), mean, SPEC, coding)
    assert through.to_bytes() == resumed.to_bytes()


def test_steps_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf, 1e38):
        mean = steps(1)[0]
        mean[1][4] = bad
        with pytest.raises(DownlinkError, match="tensor b"):
            advance(start(SPEC, 5), mean, SPEC, CompressionSpec())


def test_steps_of_another_net_are_refused() -> None:
    with pytest.raises(DownlinkError, match="shapes"):
        advance(start(SPEC, 5), steps(1)[0][:2], SPEC, CompressionSpec())


def test_damaged_state_is_refused() -> None:
    stored = advance(start(SPEC, 5), steps(1)[0], SPEC, CompressionSpec())[0].to_bytes()
    for data in (b"", stored[:-1], stored[1:]):
        with pytest.raises(DownlinkError):
            ServerState.from_bytes(data, SPEC)
    with pytest.raises(DownlinkError):
        ServerState.from_bytes(stored, SPEC[:2])


@pytest.mark.parametrize("bodies", [Bodies(b"", None), Bodies(None, b"\x00junk"), Bodies(b"\x10" + bytes(9), None)])
def test_anything_wrong_on_the_way_is_a_codec_error(bodies: Bodies) -> None:
    with pytest.raises(CodecError):
        install(SPEC, 5, *bodies)
