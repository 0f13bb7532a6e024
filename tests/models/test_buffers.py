from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import buffers
from models.buffers import Buffers, BuffersError, decode, encode, named
from models.params import TensorSpec

SPEC = (TensorSpec("0.running_mean", (3,)), TensorSpec("0.running_var", (3,)), TensorSpec("scale", (2, 1)))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
rows = st.lists(finite, min_size=8, max_size=8)


def of(values: list[float]) -> Buffers:
    row = np.array(values, np.float32)
    return named({"0.running_mean": row[:3], "0.running_var": row[3:6], "scale": row[6:].reshape(2, 1)}, SPEC)


def flat(found: Buffers) -> list[float]:
    return [float(x) for value in found.values for x in value.reshape(-1)]


@given(rows, rows, st.booleans(), st.booleans())
def test_every_number_keeps_its_sign_and_two_to_the_minus_eight_of_its_size(
    now: list[float], base: list[float], alone: bool, whole: bool
) -> None:
    before = None if alone else of(base)
    said = encode(of(now), before, whole=whole)
    found = flat(decode(said, SPEC, before))
    assert len(said) <= buffers.max_bytes(SPEC)
    for ours, theirs in zip(map(np.float32, now), found, strict=True):
        assert math.copysign(1, ours) == math.copysign(1, theirs) or ours == theirs == 0
        assert (ours == 0) == (theirs == 0)
        assert abs(theirs - float(ours)) <= 2.0**-8 * abs(float(ours))
        assert not whole or theirs == float(ours)


@given(rows, rows)
@settings(max_examples=50)
def test_what_is_said_leads_all_who_hold_the_base_to_the_same_bits(now: list[float], base: list[float]) -> None:
    said = encode(of(now), of(base))
    assert decode(said, SPEC, of(base)) == decode(said, SPEC, of(list(base)))


def test_what_did_not_change_is_said_in_one_byte_a_tensor_and_is_the_same_array() -> None:
    base = of([1, 2, 3, 4, 5, 6, 7, 8])
    said = encode(of([1, 2, 3, 4, 5, 6, 7, 8]), base)
    assert said == b"\0\0\0"
    assert decode(said, SPEC, base).values[2] is base.values[2]


def test_a_large_mean_that_moves_a_little_is_as_fine_as_what_it_moves_by() -> None:
    base, now = of([1000, 1000, 1000, 1, 1, 1, 0, 0]), of([1001.3, 999.9, 1000.2, 0.9, 1.1, 1, 0, 0])
    said = encode(now, base)
    np.testing.assert_allclose(flat(decode(said, SPEC, base)), flat(now), rtol=0, atol=0.006)
    assert len(said) == 1 + 6 + 1 + 6 + 1


def test_its_bytes_are_these() -> None:
    base, now = of([1, 1, 1, 1, 1, 1, 5, 6]), of([1.5, 1, 1.25, 0.001, 1, 2, 5, 6])
    assert encode(now, base).hex() == "02003f0000803e" + "01833a803f0040" + "00"
    assert encode(now, whole=True).hex()[:8] == "030000c0"


@given(st.binary(max_size=60) | st.binary(min_size=17, max_size=40).map(lambda tail: b"\1" + tail), st.booleans())
def test_bytes_of_somebody_else_are_read_or_refused_and_nothing_else(data: bytes, alone: bool) -> None:
    try:
        found = decode(data, SPEC, None if alone else of([1, 2, 3, 4, 5, 6, 7, 8]))
    except BuffersError:
        return
    assert found.spec == SPEC
    assert np.isfinite(flat(found)).all()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", '"0.running_mean" is said in no way'),
        (b"\4", '"0.running_mean" is said in no way'),
        (b"\1\0\0\0\0", '"0.running_mean" is cut off'),
        (b"\0\0\0\0", "1 bytes stand behind the last"),
        (b"\1\x80\x7f\0\0\0\0\0\0", '"0.running_mean" has numbers that are not finite'),
        (b"\0\3\0\0\xc0\x7f" + bytes(8) + b"\0", '"0.running_var" has numbers that are not finite'),
        (b"\2\x7f\x7f\0\0\0\0\0\0", '"0.running_mean" has numbers that are not finite'),
    ],
)
def test_bytes_that_say_no_buffers_are_refused_by_the_name_of_the_first(data: bytes, why: str) -> None:
    with pytest.raises(BuffersError, match=why):
        decode(data, SPEC, of([3e38, 2, 3, 4, 5, 6, 7, 8]))


def test_without_a_base_nothing_is_said_by_one() -> None:
    for data in (b"\0\0\0", b"\2" + bytes(6)):
        with pytest.raises(BuffersError, match="said in no way"):
            decode(data, SPEC)


def test_they_are_stored_in_float32_and_read_again() -> None:
    found = of([1, 2, 3, 4, 5, 6, 7, 1e-40])
    assert buffers.from_bytes(found.to_bytes(), SPEC) == found
    with pytest.raises(BuffersError, match="28 bytes of buffers, where the net has 8 numbers"):
        buffers.from_bytes(found.to_bytes()[4:], SPEC)


def test_a_mean_and_a_variance_of_one_name_are_batchnorms() -> None:
    assert buffers.statistics(SPEC) == {0: 1}
    assert buffers.statistics((SPEC[0], TensorSpec("0.running_var", (4,)), TensorSpec("1.running_var", (3,)))) == {}
    buffers.check_statistics(of([-1, 0, 0, 0, 1, 1, -1, 0]))
    with pytest.raises(BuffersError, match=r'"0\.running_var" has a variance below 0'):
        buffers.check_statistics(of([0, 0, 0, 0, -1e-30, 1, 0, 0]))
