from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from broker import chunks
from broker.errors import WireError
from broker.messages import Body, Head, Round, Version, Way, along, body_name
from edge_agent.fetch import MOST_CHUNKS, Fetch, FetchError
from models import codec, downlink
from models.downlink import Offset
from models.job import CompressionSpec
from models.params import TensorSpec

SPEC = (TensorSpec("w", (40, 20)), TensorSpec("b", (40,)))
CODING = CompressionSpec(downlink_step=0.5)
SEED, CHUNK = 3, 100


def state(n: int) -> downlink.ServerState:
    """The server after n steps."""
    rng, now = np.random.default_rng(0), downlink.start(SPEC, SEED)
    for _ in range(n):
        now = downlink.advance(now, [0.01 * rng.standard_normal(t.shape) for t in SPEC], SPEC, CODING)
    return now


def head(now: downlink.ServerState) -> Head:
    ways = tuple(Way(way.start, len(way.body)) for way in now.ways)
    return Head("j", 1, Version(1, now.version), now.model.sha256()[:32], ways=ways, chunk_bytes=CHUNK)


def carrying(now: downlink.ServerState) -> Round:
    """The round that leaves a version and carries the way from the one before it."""
    return Round("j", 1, Version(1, now.version), 60.0, along=along(now.model.sha256(), now.ways[0].body))


def begin(source: Head | Round, held: Version | None = None) -> Fetch:
    return Fetch(source.base if isinstance(source, Round) else source.version, source, SPEC, held)


def pieces(now: downlink.ServerState, start: int) -> list[Body]:
    (body,) = [way.body for way in now.ways if way.start == start]
    name = body_name(Version(1, now.version), start)
    return [Body("j", name, index, piece) for index, piece in enumerate(chunks.cut(body, CHUNK))]


def fetched(now: downlink.ServerState, held: Version | None, offset: Offset = ()) -> Offset:
    """Fetch and install a version, and give its offset."""
    fetch = begin(head(now), held)
    for piece in pieces(now, fetch.start):
        fetch.add(piece)
    model, offset = fetch.install(SPEC, SEED, offset)
    assert model.sha256() == now.model.sha256()
    return offset


def test_version_0_comes_from_the_seed() -> None:
    now = state(0)
    fetch = begin(head(now))
    assert fetch.done
    assert fetch.filters("f") == []
    assert fetch.install(SPEC, SEED, ()) == (now.model, ())


def test_whoever_holds_nothing_reads_one_body_from_version_0() -> None:
    now = state(3)
    fetch = begin(head(now))
    whole = pieces(now, 0)
    assert len(whole) > 2
    assert fetch.filters("f") == [f"fedge/1/f/body/j/1-3-0/{n}" for n in range(len(whole))]
    for piece in reversed(whole):
        assert not fetch.done
        fetch.add(piece)
    assert fetch.done
    assert fetch.install(SPEC, SEED, ())[0] == now.model


@pytest.mark.parametrize("near", [1, 2])
def test_whoever_was_here_before_reads_the_way_from_there(near: int) -> None:
    offset = fetched(state(near), None)
    now = state(3)
    fetch = begin(head(now), Version(1, near))
    assert fetch.start == near
    assert fetch.filters("f")[0] == f"fedge/1/f/body/j/1-3-{near}/0"
    assert len(fetch.filters("f")) == len(pieces(now, near))
    fetched(now, Version(1, near), offset)


@pytest.mark.parametrize("held", [Version(1, 0), Version(1, 6), Version(1, 99), Version(0, 17), Version(2, 17)])
def test_where_no_way_starts_here_it_is_the_one_from_version_0(held: Version) -> None:
    assert begin(head(state(18)), held).start == 0


def test_an_offset_that_is_held_does_not_disturb_the_way_from_version_0() -> None:
    fetched(state(18), Version(1, 6), fetched(state(6), None))


@pytest.mark.parametrize("n", [1, 3])
def test_a_way_that_came_with_its_round_is_there_at_once(n: int) -> None:
    before, now = state(n - 1), state(n)
    fetch = begin(carrying(now), Version(1, n - 1))
    assert fetch.done
    assert fetch.filters("f") == []
    assert fetch.install(SPEC, SEED, before.offset)[0] == now.model


@pytest.mark.parametrize("held", [None, Version(1, 1), Version(1, 3), Version(0, 2)])
def test_a_way_that_came_with_its_round_is_of_no_use_elsewhere(held: Version | None) -> None:
    with pytest.raises(FetchError, match="does not start from what is here"):
        begin(carrying(state(3)), held)


def test_version_0_needs_its_proof_and_nothing_else() -> None:
    round_ = Round("j", 1, Version(1, 0), 60.0, along=along(state(0).model.sha256(), b""))
    fetch = begin(round_)
    assert fetch.done
    assert fetch.install(SPEC, SEED, ())[0] == state(0).model
    with pytest.raises(FetchError):
        begin(structs.replace(round_, along=bytes(8))).install(SPEC, SEED, ())
    for wrong in (b"", bytes(7), bytes(9)):
        with pytest.raises(FetchError):
            begin(structs.replace(round_, along=wrong))


@pytest.mark.parametrize("n_bytes", [0, 7, 8])
def test_a_proof_without_a_way_is_refused(n_bytes: int) -> None:
    carried = carrying(state(3))
    with pytest.raises(FetchError):
        begin(structs.replace(carried, along=carried.along[:n_bytes]), Version(1, 2))


def lying(*ways: Way, chunk_bytes: int = CHUNK, number: int = 1, sha256: str = "0" * 32) -> Head:
    return Head("j", 1, Version(1, number), sha256, ways=ways, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("ways", [(), (Way(1, 10), Way(2, 10))])
def test_a_head_without_a_way_from_version_0_is_refused(ways: tuple[Way, ...]) -> None:
    with pytest.raises(FetchError, match="no way from version 0"):
        begin(lying(*ways, number=9))


def test_a_body_larger_than_any_version_is_refused_before_it_is_fetched() -> None:
    for n_bytes in (codec.max_body_bytes(SPEC) + 1, 2**40):
        with pytest.raises(FetchError, match="more than any version"):
            begin(lying(Way(0, n_bytes), chunk_bytes=2**28))
    begin(lying(Way(0, codec.max_body_bytes(SPEC)), chunk_bytes=2**28))


def test_a_body_cut_too_finely_is_refused() -> None:
    begin(lying(Way(0, MOST_CHUNKS), chunk_bytes=1))
    with pytest.raises(FetchError):
        begin(lying(Way(0, MOST_CHUNKS + 1), chunk_bytes=1))


def test_a_wrong_chunk_is_refused() -> None:
    now = state(1)
    fetch = begin(head(now))
    first = pieces(now, 0)[0]
    with pytest.raises(WireError):
        fetch.add(Body("j", first.name, 0, first.data[:-1]))
    with pytest.raises(WireError):
        fetch.add(Body("j", first.name, 4000, first.data))


def test_a_chunk_that_nobody_waits_for_is_passed_over() -> None:
    now = state(3)
    fetch = begin(head(now))
    missing = fetch.filters("f")
    fetch.add(Body("j", "1-2-0", 0, b"x"))
    fetch.add(pieces(now, 2)[0])
    assert fetch.filters("f") == missing


def test_a_chunk_that_has_come_is_not_asked_for_again() -> None:
    now = state(3)
    fetch = begin(head(now))
    first, *rest = fetch.filters("f")
    fetch.add(pieces(now, 0)[0])
    assert fetch.filters("f") == rest
    assert first not in rest


def test_a_body_that_makes_another_model_is_refused() -> None:
    now, later = state(1), state(3)
    fetch = begin(lying(Way(0, len(now.ways[0].body)), sha256=later.model.sha256()[:32]))
    for piece in pieces(now, 0):
        fetch.add(piece)
    with pytest.raises(FetchError, match="another model"):
        fetch.install(SPEC, SEED, ())


def test_a_way_from_an_offset_that_is_not_held_is_refused() -> None:
    now = state(3)
    fetch = begin(carrying(now), Version(1, 2))
    with pytest.raises(FetchError, match="another model"):
        fetch.install(SPEC, SEED, state(1).offset)


def test_a_body_that_does_not_decode_is_refused() -> None:
    junk = b"junk" * 100
    fetch = begin(lying(Way(0, len(junk)), chunk_bytes=len(junk)))
    fetch.add(Body("j", "1-1-0", 0, junk))
    with pytest.raises(FetchError, match="does not decode"):
        fetch.install(SPEC, SEED, ())
