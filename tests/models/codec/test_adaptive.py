import numpy as np
import pytest

from models.codec.adaptive import MAX_OCTAVES, read_adaptive, write_adaptive
from models.codec.decoded import CodecError
from models.codec.symbols import Writer
from models.params import Spec, TensorSpec

SPEC: Spec = (TensorSpec("big", (40, 50)), TensorSpec("small", (60,)))


def tensors(ratio: float) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [np.asarray(s * rng.standard_normal(t.shape), np.float32) for t, s in zip(SPEC, (1, ratio), strict=True)]


def errors(update: list[np.ndarray], step: float, units: list[np.ndarray] | None = None) -> list[float]:
    rng = np.random.default_rng(0)
    lanes, stream = write_adaptive(update, units or update, step, rng, stochastic=False)
    decoded = read_adaptive(lanes, memoryview(stream), SPEC, stochastic=False)
    return [float(np.sqrt(np.mean(np.square(t - d.values())))) for t, d in zip(update, decoded, strict=True)]


def test_larger_tensors_share_the_step_and_so_the_error() -> None:
    big, small = errors(tensors(8.0), 0.5)
    assert big / 2.5 < small < 2.5 * big


def test_a_tensor_of_small_entries_has_a_step_of_its_own() -> None:
    big, small = errors(tensors(1 / 64), 0.5)
    assert small == pytest.approx(big / 64, rel=0.5)


def test_a_tensor_far_too_small_still_decodes() -> None:
    update = tensors(1e-12)
    assert errors(update, 0.5)[1] <= 1e-11


def test_the_step_counts_in_units_of_the_raw_update() -> None:
    update = tensors(1.0)
    twice = [2 * t for t in update]
    fine, coarse = errors(twice, 0.5, update), errors(twice, 0.5)
    assert fine[0] == pytest.approx(coarse[0] / 2, rel=0.1)


def test_a_tensor_is_coded_even_when_what_gives_the_unit_is_zero() -> None:
    update = tensors(1.0)
    nothing = [np.zeros_like(t) for t in update]
    assert errors(update, 0.5, nothing) == errors(update, 0.5)


@pytest.mark.parametrize("octaves", [-1, MAX_OCTAVES + 1])
def test_octaves_out_of_range_are_refused(octaves: int) -> None:
    writer = Writer()
    writer.uniform([100, 0], 8)
    writer.uniform([1], 2)
    writer.integers(np.array([octaves]), np.array([10]))
    lanes, stream = writer.stream()
    with pytest.raises(CodecError, match="octaves"):
        read_adaptive(lanes, memoryview(stream), SPEC, stochastic=False)
