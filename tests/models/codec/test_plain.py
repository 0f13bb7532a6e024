from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.coding import Coding
from models.codec.decoded import CodecError
from models.codec.plain import SLAB, Floats, read_float32, read_int8, write_float32, write_int8
from models.codec.terms import FLOAT32, INT8
from models.integers import rescale
from models.params import Spec, TensorSpec, n_parameters

SPEC: Spec = (TensorSpec("w", (20, 5)), TensorSpec("b", (7,)), TensorSpec("s", ()), TensorSpec("none", (0, 4)))


D = n_parameters(SPEC)
HALVES = st.builds(
    lambda n, up: float(np.nextafter(np.float32((n + 0.5) * 2.0**-24), np.float32(up * 9))),
    st.integers(-(2**20), 2**20),
    st.sampled_from([-1, 1]),
)
"""Next to the middle between two multiples of 2**-24."""


def tensors(seed: int = 0, scale: float = 1.0) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    return [np.asarray(scale * rng.uniform(-1, 1, t.shape), np.float32) for t in SPEC]


@pytest.mark.parametrize("scale", [1e-44, 1e-20, 1.0, 3e38])
def test_float32_is_exact_within_27_octaves(scale: float) -> None:
    values = tensors(1, scale)
    for tensor, found in zip(values, read_float32(write_float32(values), D).tensors(SPEC), strict=True):
        keeps = np.abs(tensor) > np.abs(tensor).max(initial=0.0) * 2.0**-27
        assert found.integers.shape == tensor.shape
        assert (found.values() == tensor)[keeps].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_values_that_are_not_finite_are_refused(bad: float, at: int) -> None:
    values = tensors()
    values[at].reshape(-1)[-1] = bad
    with pytest.raises(CodecError, match="finite"):
        read_float32(write_float32(values), D)


@pytest.mark.parametrize("exponent", [-140, -101, -100, -24, 0, 90, 101])
def test_a_row_is_rounded_half_to_even_on_every_lattice(exponent: int) -> None:
    steps = np.random.default_rng(0).uniform(-(2**26), 2**26, 3 * SLAB // 2)
    steps[:101] = np.arange(-50, 51) + 0.5
    row = np.ldexp(steps, exponent).astype(np.float32)
    wanted = np.rint(np.ldexp(row.astype(np.float64), -exponent))
    memory = np.empty(row.size, np.int32)
    assert np.array_equal(Floats(row).rounded(exponent), wanted)
    assert np.array_equal(
        read_float32(row.tobytes(), row.size, memory.view(np.float32)).rounded(exponent, memory), wanted
    )
    assert np.array_equal(memory, wanted)


@pytest.mark.parametrize("change", [-1, 1, 4, -4])
def test_another_length_is_refused(change: int) -> None:
    for body, coding in ((write_float32(tensors()), FLOAT32), (int8(tensors()), INT8)):
        with pytest.raises(CodecError):
            Coding(SPEC, coding, "").decode(body[:change] if change < 0 else body + bytes(change))


def int8(values: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], seed: int = 0) -> bytes:
    return write_int8(values, np.random.default_rng(seed))


@pytest.mark.parametrize("scale", [1e-44, 1e-20, 1.0, 3e38])
def test_int8_is_within_a_step(scale: float) -> None:
    values = tensors(2, scale)
    for tensor, found in zip(values, read_int8(int8(values), SPEC), strict=True):
        largest = float(np.abs(tensor).max(initial=0.0))
        assert np.abs(found.values() - tensor).max(initial=0.0) <= 1.01 * largest / 126


def test_int8_has_no_bias() -> None:
    values, runs = tensors(3), 400
    rng = np.random.default_rng(1)
    decoded = [read_int8(write_int8(values, rng), SPEC)[0].values() for _ in range(runs)]
    off = np.mean(decoded, axis=0) - values[0]
    step = float(np.abs(values[0]).max()) / 126
    assert np.abs(off).max() < 5 * 0.5 * step / np.sqrt(runs)
    assert abs(off.mean()) < 4 * 0.5 * step / np.sqrt(runs * off.size)


def test_int8_says_every_tensor_by_a_step_of_its_own() -> None:
    values = tensors(4)
    values[1] *= np.float32(1e-9)
    found = read_int8(int8(values), SPEC)[1].values()
    assert np.abs(found - values[1]).max() <= 1.01 * float(np.abs(values[1]).max()) / 126


def test_an_all_zero_tensor_is_two_bytes() -> None:
    zeros = [np.zeros_like(tensor) for tensor in tensors()]
    assert int8(zeros) == bytes(2 * len(SPEC))
    assert not any(found.integers.any() for found in read_int8(int8(zeros), SPEC))


@settings(max_examples=200)
@given(st.binary(max_size=130) | st.binary(min_size=116, max_size=116) | st.binary(min_size=432, max_size=432))
def test_any_bytes_are_tensors_or_an_error(body: bytes) -> None:
    for terms in (FLOAT32, INT8):
        coding = Coding(SPEC, terms, "")
        with suppress(CodecError):
            found = coding.tensors(coding.decode(body))
            assert [tensor.integers.shape for tensor in found] == [tensor.shape for tensor in SPEC]


@settings(max_examples=200)
@given(st.lists(st.floats(-4, 4, width=32) | st.integers(-9, 9).map(lambda n: n * 2.0**-13), max_size=20))
def test_float32_is_rounded_half_to_even(values: list[float]) -> None:
    row = np.array(values, np.float32)
    found = Floats(row).rounded(-12)
    assert found is not None
    assert (found == np.rint(np.ldexp(row.astype(np.float64), 12))).all()
    assert found.dtype == np.int32
    assert (
        rescale(np.array([1, 3, -1, -3]), -1).tolist()
        == Floats(np.ldexp([1, 3, -1, -3], -13).astype("f4")).rounded(-12).tolist()
    )


def test_what_an_int32_does_not_hold_is_not_rounded() -> None:
    assert Floats(np.array([1.0, -8.0], np.float32)).rounded(-24) is None
    assert Floats(np.array([7.99, 0.0], np.float32)).rounded(-24) is not None


@settings(max_examples=500)
@given(
    st.floats(2**-7, 7.5, width=32),
    st.lists(st.floats(-8, 8, width=32, exclude_min=True, exclude_max=True) | HALVES, min_size=1, max_size=20),
)
def test_a_row_is_rounded_as_its_tensors_are(largest: float, values: list[float]) -> None:
    row = np.array([largest, *(value for value in values if abs(value) <= largest)], np.float32)
    found = Floats(row).rounded(-24)
    ((integers, exponent),) = Floats(row).tensors((TensorSpec("w", row.shape),))
    assert found is not None
    assert (found == rescale(integers, exponent + 24)).all()


def test_a_step_that_no_encoder_writes_is_refused() -> None:
    body = bytearray(int8(tensors()))
    body[:2] = b"\xff\xff"
    with pytest.raises(CodecError, match="step word"):
        read_int8(bytes(body), SPEC)
