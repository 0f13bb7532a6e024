from __future__ import annotations

import numpy as np
import pytest

from broker import chunks
from broker.errors import WireError
from broker.messages import Body, BodyRef, Head, Version
from edge_agent.fetch import MOST_CHUNKS, Fetch, FetchError
from models import downlink
from models.job import CompressionSpec
from models.params import TensorSpec

SPEC = (TensorSpec("w", (40, 20)), TensorSpec("b", (40,)))
CODING = CompressionSpec(codec="int8", key_every=2, downlink_step=1.0)
SEED, CHUNK = 3, 200


def state(n: int) -> downlink.ServerState:
    """The server after n steps: version 2 is a key frame, version 3 a delta against it."""
    rng, now = np.random.default_rng(0), downlink.start(SPEC, SEED)
    for _ in range(n):
        now, _, _ = downlink.advance(now, [0.01 * rng.standard_normal(t.shape) for t in SPEC], SPEC, CODING)
    return now


def ref(body: bytes | None) -> BodyRef | None:
    return BodyRef(chunks.digest(body), len(body), CHUNK) if body else None


def head(now: downlink.ServerState, inline: bytes = b"") -> Head:
    key, delta = (ref(body) for body in now.bodies)
    return Head("j", 1, Version(1, now.version), now.model.sha256()[:32], key=key, delta=delta, inline=inline)


def nothing(_: str) -> bytes | None:
    return None


def pieces(body: bytes) -> list[Body]:
    return [Body("j", chunks.digest(body), index, piece) for index, piece in enumerate(chunks.cut(body, CHUNK))]


def test_version_0_comes_from_the_seed() -> None:
    now = state(0)
    fetch = Fetch(head(now), SPEC, nothing)
    assert fetch.done
    assert fetch.install(SPEC, SEED) == now.model


def test_a_version_is_two_bodies_at_most() -> None:
    now = state(3)
    key, delta = now.bodies
    assert key
    assert delta
    fetch = Fetch(head(now), SPEC, nothing)
    wanted = fetch.filters("f")
    assert len(wanted) == chunks.count(len(key), CHUNK) + chunks.count(len(delta), CHUNK)
    assert wanted[0] == f"fedge/1/f/body/j/{chunks.digest(key)}/0"
    for piece in reversed([*pieces(key), *pieces(delta)]):
        assert not fetch.done
        fetch.add(piece)
    assert fetch.done
    assert fetch.install(SPEC, SEED).sha256() == now.model.sha256()
    assert fetch.key_body == key


def test_a_key_frame_that_is_kept_is_not_fetched_again() -> None:
    now = state(3)
    key, delta = now.bodies
    assert key
    assert delta
    fetch = Fetch(head(now), SPEC, {chunks.digest(key): key}.get)
    assert len(fetch.filters("f")) == chunks.count(len(delta), CHUNK)


def test_a_delta_that_came_with_the_head_is_there_at_once() -> None:
    now = state(1)
    fetch = Fetch(head(now, inline=now.bodies.delta or b""), SPEC, nothing)
    assert fetch.done
    assert fetch.install(SPEC, SEED) == now.model


def test_a_body_larger_than_any_version_is_refused_before_it_is_fetched() -> None:
    huge = Head("j", 1, Version(1, 1), "0" * 32, delta=BodyRef("f" * 32, 2**40, 2**28))
    with pytest.raises(FetchError, match="more than any version"):
        Fetch(huge, SPEC, nothing)


def test_a_body_cut_too_finely_is_refused() -> None:
    fine = Head("j", 1, Version(1, 1), "0" * 32, delta=BodyRef("f" * 32, MOST_CHUNKS + 1, 1))
    with pytest.raises(FetchError):
        Fetch(fine, SPEC, nothing)


def test_an_inline_delta_of_another_length_is_refused() -> None:
    now = state(1)
    lie = Head("j", 1, Version(1, 1), "0" * 32, delta=ref(now.bodies.delta), inline=b"short")
    with pytest.raises(FetchError):
        Fetch(lie, SPEC, nothing)


def test_a_wrong_chunk_is_refused() -> None:
    now = state(1)
    fetch = Fetch(head(now), SPEC, nothing)
    first = pieces(now.bodies.delta or b"")[0]
    with pytest.raises(WireError):
        fetch.add(Body("j", first.digest, 0, first.data[:-1]))


def test_a_chunk_that_nobody_waits_for_is_passed_over() -> None:
    fetch = Fetch(head(state(1)), SPEC, nothing)
    fetch.add(Body("j", "f" * 32, 0, b"x"))
    assert not fetch.done


def test_bodies_that_make_another_model_are_refused() -> None:
    now, later = state(1), state(3)
    lie = Head("j", 1, Version(1, 1), later.model.sha256()[:32], delta=ref(now.bodies.delta))
    fetch = Fetch(lie, SPEC, nothing)
    for piece in pieces(now.bodies.delta or b""):
        fetch.add(piece)
    with pytest.raises(FetchError, match="another model"):
        fetch.install(SPEC, SEED)


def test_a_body_that_does_not_decode_is_refused() -> None:
    junk = b"junk" * 100
    fetch = Fetch(Head("j", 1, Version(1, 1), "0" * 32, delta=ref(junk)), SPEC, nothing)
    for piece in pieces(junk):
        fetch.add(piece)
    with pytest.raises(FetchError, match="does not decode"):
        fetch.install(SPEC, SEED)
