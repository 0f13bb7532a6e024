"""A version that is said exactly is the same integers, and so the same SHA-256, for everybody."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.chain import EXACT, Chain, Grids, Held, Step, max_way_bytes, max_way_bytes_of, write
from models.codec import INT8, CodecError, Terms
from models.codec.decoded import Decoded
from models.codec.steps import step_near
from models.deltas import is_snapshot
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec
from models.lattice import HIGHEST, LIMIT, Model, add
from models.params import Spec, TensorSpec
from models.rows import carved
from models.strategies.fixed import MOST_BITS
from models.strategies.state import State

SPEC: Spec = (TensorSpec("0.weight", (9, 7)), TensorSpec("0.bias", (9,)), TensorSpec("s", ()), TensorSpec("no", (0, 3)))
D = 73
RULES = {
    "fedavg": AggregateSpec(),
    "momentum": AggregateSpec(server_momentum=0.9),
    "fedadam": AggregateSpec(strategy="fedadam", server_learning_rate=0.01),
    "median": AggregateSpec(strategy="median"),
    "median with momentum": AggregateSpec(strategy="median", server_momentum=0.5),
}
CODINGS = {"sketch": Terms(64, 1), "full": Terms(128, 3), "int8": INT8}


def chain_of(rules: AggregateSpec, codec: str = "sketch") -> Chain:
    coding = CompressionSpec(codec=codec)  # type: ignore[arg-type]  # one of the three
    return Chain(SPEC, JobSpec("j", ModelSpec(), seed=4, aggregate=rules, compression=coding))


def walked(chain: Chain, terms: Terms, steps: int, scale: float = 0.01) -> Held:
    held = chain.first()
    for number in range(steps):
        rng = np.random.default_rng(number)
        update = {t.name: np.asarray(scale * rng.standard_normal(t.shape), np.float32) for t in SPEC}
        held = chain.step(held, Step(terms, chain.coding(number, terms).encode(update, rng)))
    return held


@pytest.mark.parametrize("terms", CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_whatever_the_codec_and_the_strategy_it_leads_to_the_same_sha256(rules: AggregateSpec, terms: Terms) -> None:
    chain = chain_of(rules, "int8" if rules.strategy == "median" else "sketch")
    held = walked(chain, terms, 5)
    body = chain.exact(held)
    found = chain.take(chain.first(), held.number, body)
    assert found.sha256() == held.sha256()
    assert (found.model, found.state) == (held.model, held.state)
    assert is_snapshot(body)
    # and goes on from there as the one it was made of
    step = Step(
        terms,
        chain.coding(5, terms).encode({t.name: np.ones(t.shape, np.float32) for t in SPEC}, np.random.default_rng(0)),
    )
    assert chain.take(found, 6, write(step)).sha256() == chain.take(held, 6, write(step)).sha256()


def test_in_float32_too() -> None:
    chain = chain_of(AggregateSpec(), "float32")
    model = add(chain.first().model, [Decoded(np.full(t.shape, 3**30, np.int64), -40) for t in SPEC])
    held = Held(7, model)
    assert chain.take(chain.first(), 7, chain.exact(held)).sha256() == held.sha256()


def test_after_a_rounding_to_a_grid_too() -> None:
    chain = chain_of(RULES["momentum"])
    held = walked(chain, Terms(64, 1), 3)
    update = {t.name: np.ones(t.shape, np.float32) for t in SPEC}
    grids = Grids(step_near(0.004), step_near(0.0004))
    rounded = chain.step(
        held, Step(Terms(64, 1), chain.coding(3, Terms(64, 1)).encode(update, np.random.default_rng(0)), (), grids)
    )
    assert chain.take(held, 4, chain.exact(rounded)).sha256() == rounded.sha256()


integers = st.integers(-LIMIT, LIMIT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(integers, min_size=D, max_size=D),
    st.lists(st.integers(-60, 60), min_size=4, max_size=4),
    st.lists(st.integers(-(2**MOST_BITS) + 1, 2**MOST_BITS - 1), min_size=D, max_size=D),
)
def test_any_integers_on_any_lattices(cells: list[int], exponents: list[int], velocity: list[int]) -> None:
    chain = chain_of(RULES["momentum"])
    model = Model(carved(np.array(cells, np.int32), SPEC), tuple(exponents))
    held = Held(3, model, State(tuple(carved(np.array(velocity, np.int64), SPEC))))
    body = chain.exact(held)
    assert len(body) <= min(max_way_bytes(SPEC), max_way_bytes_of(JobSpec("j", ModelSpec()), SPEC))
    assert chain.take(chain.first(), 3, body).sha256() == held.sha256()


def test_what_is_close_to_version_0_is_short() -> None:
    spec: Spec = (TensorSpec("w", (100, 1000)),)
    chain = Chain(spec, JobSpec("j", ModelSpec()))
    near = add(chain.first().model, [Decoded(np.ones(t.shape, np.int64), -20) for t in spec])
    assert len(chain.exact(chain.first())) < 2500
    assert len(chain.exact(Held(1, near))) < 2500


def planes(row: np.ndarray[tuple[int], np.dtype[np.int32]]) -> bytes:
    folded = ((row << 1) ^ (row >> 31)).astype("<u4").view(np.uint8).reshape(-1, 4)
    parts = [zlib.compress(np.ascontiguousarray(folded[:, at])) for at in range(4)]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


ZEROS = np.zeros(D, np.int32)
HEAD = struct.pack("<BB4h", EXACT, 0, *[-24] * 4)
HOSTILE = {
    "nothing": bytes((EXACT,)),
    "another flag": struct.pack("<BB4h", EXACT, 2, *[-24] * 4) + planes(ZEROS),
    "an exponent beyond all": struct.pack("<BB4h", EXACT, 0, -24, HIGHEST + 1, -24, -24) + planes(ZEROS),
    "fewer integers": HEAD + planes(ZEROS[1:]),
    "more integers": HEAD + planes(np.zeros(D + 1, np.int32)),
    "a bomb": HEAD + planes(np.zeros(10**6, np.int32)),
    "beyond the lattice": struct.pack("<BB4h", EXACT, 0, *[0] * 4) + planes(np.full(D, LIMIT + 1, np.int32)),
    "the lowest of all integers": struct.pack("<BB4h", EXACT, 0, *[0] * 4) + planes(np.full(D, -(2**31), np.int32)),
    "bytes behind its end": HEAD + planes(ZEROS) + b"!",
    "a state where there is none": struct.pack("<BB4h", EXACT, 1, *[-24] * 4) + planes(ZEROS) + b"\0" + planes(ZEROS),
    "no deflated bytes": HEAD + struct.pack("<I", 5) + b"hello" + planes(ZEROS),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_no_version_says_is_refused(body: bytes) -> None:
    chain = chain_of(AggregateSpec())
    with pytest.raises(CodecError):
        chain.take(chain.first(), 1, body)


def test_a_state_of_another_form_is_refused() -> None:
    momentum, adam = chain_of(RULES["momentum"]), chain_of(RULES["fedadam"])
    body = momentum.exact(walked(momentum, Terms(64, 1), 1))
    with pytest.raises(CodecError):
        adam.take(adam.first(), 1, body)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_raises_a_codec_error_and_nothing_else(data: st.DataObject) -> None:
    chain = chain_of(RULES["fedadam"])
    body = bytearray(chain.exact(walked(chain, Terms(64, 1), 2)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(1, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(1, len(body)))])
    with suppress(CodecError):
        chain.take(chain.first(), 2, cut)
