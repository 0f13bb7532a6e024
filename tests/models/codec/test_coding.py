from __future__ import annotations

import struct
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import FLOAT32, INT8, CodecError, Coding, Terms, max_body_bytes
from models.codec.coding import ROOM, shaped
from models.codec.decoded import Decoded
from models.codec.sketch import n_bytes
from models.codec.terms import terms_for
from models.params import Params, Spec, TensorSpec, zeros
from models.rows import row_of

SPEC: Spec = (TensorSpec("w", (20, 9)), TensorSpec("none", (0, 4)), TensorSpec("s", ()), TensorSpec("b", (20,)))
ALL = [FLOAT32, INT8, Terms(64, 1), Terms(128, 1), *(Terms(256, bits) for bits in (1, 2, 3, 4))]
RNG = np.random.default_rng


def delta(seed: int = 0, scale: float = 0.01) -> Params:
    rng = RNG(seed)
    return {t.name: np.asarray(scale * rng.standard_normal(t.shape), np.float32) for t in SPEC}


def values(tensors: tuple[Decoded, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([tensor.values().reshape(-1) for tensor in tensors])


def exactly(tensors: tuple[Decoded, ...]) -> list[Fraction]:
    return [v * Fraction(2) ** tensor.exponent for tensor in tensors for v in tensor.integers.reshape(-1).tolist()]


@pytest.mark.parametrize("terms", ALL)
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-2, 1e38])
def test_an_update_decodes_to_its_tensors_near_it(terms: Terms, scale: float) -> None:
    coding = Coding(SPEC, terms, "0:1")
    update = delta(scale=min(scale, 1e37))
    body = coding.encode(update, RNG(0))
    tensors = coding.tensors(coding.decode(body))
    assert [tensor.integers.shape for tensor in tensors] == [tensor.shape for tensor in SPEC]
    assert all(tensor.integers.dtype == np.int64 for tensor in tensors)
    assert len(body) <= coding.max_bytes <= max_body_bytes(SPEC)
    x = row_of([update[t.name] for t in SPEC]).astype(np.float64)
    assert float(values(tensors) @ x) >= 0.5 * float(x @ x)


@pytest.mark.parametrize("terms", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_at_the_door(terms: Terms, bad: float) -> None:
    update = delta()
    update["b"][3] = bad
    with pytest.raises(CodecError, match="tensor b has values that are not finite"):
        Coding(SPEC, terms, "0:1").encode(update, RNG(0))


@pytest.mark.parametrize("terms", ALL)
def test_another_nets_update_is_refused(terms: Terms) -> None:
    for wrong in (delta() | {"b": np.zeros(19, np.float32)}, {"w": delta()["w"]}, {}):
        with pytest.raises(CodecError):
            Coding(SPEC, terms, "0:1").encode(wrong, RNG(0))


@pytest.mark.parametrize("terms", [(64, 0), (64, 5), (64, 8), (0, 1), (0, 0), (65, 1), (320, 1), (512, 1), (-64, 1)])
def test_impossible_terms_are_refused(terms: tuple[int, int]) -> None:
    with pytest.raises(CodecError, match="201 coordinates"):
        Coding(SPEC, Terms(*terms), "0:1")


def test_a_net_too_small_for_a_sketch_has_none() -> None:
    with pytest.raises(CodecError):
        Coding(SPEC[1:], Terms(64, 1), "0:1")


@pytest.mark.parametrize("terms", [terms for terms in ALL if terms.is_sketch])
def test_a_body_is_decoded_in_its_own_round_alone(terms: Terms) -> None:
    update = delta()
    ours = Coding(SPEC, terms, "0:1")
    body = ours.encode(update, RNG(0))
    ours_again = Coding(SPEC, terms, "0:1")
    assert exactly(ours.tensors(ours.decode(body))) == exactly(ours_again.tensors(ours_again.decode(body)))
    for key in ("0:2", "1:1"):
        other = Coding(SPEC, terms, key)
        assert exactly(other.tensors(other.decode(body))) != exactly(ours.tensors(ours.decode(body)))


def test_no_rounding_at_random_where_none_is_needed() -> None:
    for terms in ALL:
        bodies = {Coding(SPEC, terms, "0:1").encode(delta(), RNG(seed)) for seed in range(3)}
        assert len(bodies) == (3 if terms == INT8 else 1)


@given(st.integers(1, 3000), st.integers(1, 4000), st.integers(1, 4))
def test_no_terms_allow_more_than_the_most(d: int, buckets: int, bits: int) -> None:
    spec = (TensorSpec("w", (d,)),)
    assert max_body_bytes(spec, terms_for(d, buckets, bits)) <= max_body_bytes(spec)


def test_a_row_is_cut_as_it_was_put_together() -> None:
    row = np.arange(201)
    tensors = shaped(Decoded(row, -3), SPEC)
    assert [tensor.integers.shape for tensor in tensors] == [tensor.shape for tensor in SPEC]
    assert (row_of([tensor.values() for tensor in tensors]) == row / 8).all()


def test_an_empty_net_has_an_empty_update() -> None:
    for terms in (FLOAT32, INT8):
        coding = Coding((), terms, "0:1")
        assert coding.tensors(coding.decode(coding.encode(zeros(()), RNG(0)))) == ()


# Beside the buckets.


def test_what_is_beside_nothing_is_exact() -> None:
    for terms in (Terms(64, 1), Terms(256, 4)):
        update = zeros(SPEC)
        update["w"][3, 4], update["b"][2], update["s"][...] = 0.1, -0.05, 0.07
        coding = Coding(SPEC, terms, "0:1")
        tensors = coding.tensors(coding.decode(coding.encode(update, RNG(0))))
        x = row_of([update[t.name] for t in SPEC]).astype(np.float64)
        assert np.abs(values(tensors) - x).max() <= 0.1 * 2.0**-51


cell = st.tuples(st.integers(0, 200), st.floats(width=32, allow_nan=False, allow_infinity=False))
word = st.sampled_from([0, 128, (201 + 130) << 7 | 127]) | st.integers(128, (201 + 130) << 7)


@settings(max_examples=150)
@given(word, st.binary(min_size=8, max_size=8), st.lists(cell, max_size=16))
def test_what_is_beside_is_added_as_finely_as_there_is_room_for(
    word: int, symbols: bytes, cells: list[tuple[int, float]]
) -> None:
    coding = Coding(SPEC, Terms(64, 1), "0:1")
    unique = sorted(dict(cells).items())
    bare = struct.pack("<H", word) + symbols
    alone = exactly(coding.tensors(coding.decode(bare)))
    found = coding.tensors(coding.decode(bare + b"".join(struct.pack("<If", *one) for one in unique)))
    wanted = list(alone)
    for index, value in unique:
        wanted[index] += Fraction(value)
    top = max(abs(value) for value in wanted)
    unit = Fraction(2) ** ((word >> 7) - 201) if word else 0
    assert max(int(np.abs(tensor.integers).max(initial=0)) for tensor in found) <= 2 ** (ROOM + 1)
    assert max(abs(a - b) for a, b in zip(exactly(found), wanted, strict=True)) <= max(unit, top / 2**50)


@settings(max_examples=150)
@given(st.sampled_from(ALL), st.data())
def test_any_bytes_are_tensors_or_an_error(terms: Terms, data: st.DataObject) -> None:
    coding = Coding(SPEC, terms, "0:1")
    size = n_bytes(coding.plan, terms.bits) if terms.is_sketch else {32: 804, 8: 209}[terms.bits]
    extra = data.draw(st.sampled_from([0, 0, 8, 16, 1, -1]))
    body = RNG(data.draw(st.integers(0, 2**32))).bytes(size + extra)
    if data.draw(st.booleans()):
        body = b"\x00\x60" * 10 + body[20:]  # scales that are some, more often than chance makes them
    with suppress(CodecError):
        tensors = coding.tensors(coding.decode(body))
        assert max(int(np.abs(tensor.integers).max(initial=0)) for tensor in tensors) <= 2**61
