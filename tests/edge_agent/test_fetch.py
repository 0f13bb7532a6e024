from __future__ import annotations

import sys
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
from msgspec import structs

from broker import chunks
from broker.errors import WireError
from broker.messages import MOST_WAYS, PROOF_BYTES, Body, DeltaAt, Head, Round, Version, along, body_name
from broker.wire import Wire
from edge_agent.fetch import MOST_CHUNKS, Fetch, FetchError
from edge_agent.work import Work
from edge_agent.workspace import Unsubscribe
from models import average, chain
from models import deltas as ways
from models.chain import SPAN, Chain, Grids, Held, Step
from models.codec import FLOAT32, Terms
from models.codec.steps import step_near
from models.job import AggregateSpec, JobSpec, ModelSpec
from models.lattice import add
from models.params import TensorSpec
from models.trail import Trail
from tests import counting
from tests.counting import Name, Number

WIRE = Wire("f")

SPEC = (TensorSpec("w", (40, 20)), TensorSpec("b", (40,)))
D = 840
TERMS = Terms(256, 1)
JOB = JobSpec("j", ModelSpec(), seed=3, aggregate=AggregateSpec(server_momentum=0.5))
CHUNK = 100
SNAPSHOTS = (21, 42)


class Server(NamedTuple):
    """A job that has come to some version: all versions, and the bodies between them by start and number."""

    held: list[Held]
    bodies: dict[tuple[int, int], bytes]

    @property
    def number(self) -> int:
        return self.held[-1].number

    @property
    def sha256(self) -> str:
        return self.held[-1].sha256()


@cache
def server(n: int, snapshots: tuple[int, ...] = SNAPSHOTS) -> Server:
    """A server after n steps, which has let nothing go."""
    chain_ = Chain(SPEC, JOB)
    rng, held, bodies = np.random.default_rng(0), [chain_.first()], {}
    for number in range(1, n + 1):
        delta = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in SPEC}
        grids = Grids(step_near(0.01), step_near(0.005)) if number in snapshots else None
        step = Step(TERMS, chain_.coding(number - 1, TERMS).encode(delta, rng), (), grids)
        held.append(chain_.step(held[-1], step))
        bodies[number - 1, number] = chain.write(step)
        if grids is not None:
            bodies[0, number] = chain_.snapshot(held[-1], grids)
        if number % SPAN == 0:
            bodies[number - SPAN, number] = chain.grouped([bodies[k, k + 1] for k in range(number - SPAN, number)])
    return Server(held, bodies)


def head(now: Server, *starts: tuple[int, int], chunk_bytes: int = CHUNK) -> Head:
    """What a server names: all, or these."""
    named = tuple(DeltaAt(*which, len(now.bodies[which])) for which in starts or now.bodies)
    return Head("j", 1, Version(1, now.number), now.sha256[:32], ways=named, chunk_bytes=chunk_bytes)


def kept(now: Server, since: int | None = None) -> Head:
    """What a server names that lets go of what leads nobody anywhere."""
    whole = {which: ways.is_snapshot(body) for which, body in now.bodies.items()}
    snapshots = [number for (_, number), is_whole in whole.items() if is_whole]
    groups = {number for (start, number), is_whole in whole.items() if number - start == SPAN and not is_whole}
    needed = [
        way
        for way, is_whole in whole.items()
        if ways.Needs(now.number, snapshots, groups, since).include(way, whole=is_whole)
    ]
    return head(now, *needed)


def carrying(now: Server) -> Round:
    """The round that leaves a version and carries the step to it from the one before."""
    step = now.bodies[now.number - 1, now.number]
    return Round("j", 1, Version(1, now.number), 60.0, along=along(now.sha256, step))


def begin(source: Head | Round, held: Version | None = None) -> Fetch:
    return Fetch(source.base if isinstance(source, Round) else source.version, source, SPEC, held)


def pieces(now: Server, start: int, number: int) -> list[Body]:
    name = body_name(Version(1, number), start)
    cut = chunks.cut(now.bodies[start, number], CHUNK)
    return [Body("j", name, index, piece) for index, piece in enumerate(cut)]


def wanted(fetch: Fetch) -> set[tuple[int, int]]:
    """The bodies that a fetch asks for, by start and number."""
    names = {name.split("/")[-2] for name in fetch.filters(WIRE)}
    return {(int(name.split("-")[2]), int(name.split("-")[1])) for name in names}


def install(fetch: Fetch, held: Held | None = None) -> Held:
    chain_ = Chain(SPEC, JOB)
    return fetch.install(chain_, None if held is None else Trail(chain_, held)).now


def fetched(now: Server, source: Head, held: Held | None = None) -> set[tuple[int, int]]:
    """Fetch and install a version; give the bodies that this took."""
    fetch = begin(source, None if held is None else Version(1, held.number))
    took = wanted(fetch)
    came = [piece for which in took for piece in pieces(now, *which)]
    for piece in reversed(came):
        assert not fetch.done
        fetch.add(piece)
    assert fetch.done
    found = install(fetch, held)
    assert (found.number, found.sha256()) == (now.number, now.sha256)
    return took


def test_version_0_comes_from_the_seed() -> None:
    fetch = begin(head(server(0)))
    assert fetch.done
    assert fetch.filters(WIRE) == []
    assert install(fetch).model == server(0).held[0].model


def test_whoever_holds_nothing_reads_the_steps_while_they_are_short() -> None:
    assert fetched(server(3), head(server(3))) == {(0, 1), (1, 2), (2, 3)}


def test_every_chunk_of_every_body_of_the_way_has_its_topic() -> None:
    now = server(3)
    fetch = begin(head(now), Version(1, 1))
    assert fetch.start == 1
    assert fetch.filters(WIRE) == [
        f"fedge/1/f/body/j/1-{number}-{number - 1}/{index}"
        for number in (2, 3)
        for index in range(-(-len(now.bodies[number - 1, number]) // CHUNK))
    ]
    assert not fetch.done


@pytest.mark.parametrize("near", [1, 2])
def test_whoever_was_here_before_reads_the_steps_from_there(near: int) -> None:
    now = server(3)
    assert fetched(now, head(now), now.held[near]) == {(number - 1, number) for number in range(near + 1, 4)}


def test_whoever_has_missed_many_reads_groups_and_the_steps_around_them() -> None:
    now = server(20)
    wide = head(now, *((start, number) for start, number in now.bodies if number - start in (1, SPAN)))
    assert fetched(now, wide, now.held[6]) == {(6, 7), (7, 8), (8, 16), (16, 17), (17, 18), (18, 19), (19, 20)}
    assert fetched(now, wide) == {(0, 8), (8, 16), (16, 17), (17, 18), (18, 19), (19, 20)}


def test_whoever_is_new_reads_the_last_snapshot_and_the_steps_after_it() -> None:
    now = server(45)
    assert fetched(now, head(now)) == {(0, 42), (42, 43), (43, 44), (44, 45)}


def test_a_device_that_has_missed_forty_versions_and_two_snapshots_finds_a_way() -> None:
    now = server(45)
    assert fetched(now, kept(now), now.held[5]) == {(0, 42), (42, 43), (43, 44), (44, 45)}


@pytest.mark.parametrize("n", [8, 9, 21, 22, 30, 42, 44, 50])
def test_from_every_version_there_was_there_is_a_way(n: int) -> None:
    now = server(n)
    for held in now.held[:-1]:
        fetched(now, kept(now), held)


def test_whoever_has_just_missed_a_snapshot_goes_on_along_the_steps() -> None:
    now = server(43)
    assert fetched(now, kept(now), now.held[41]) == {(41, 42), (42, 43)}


def test_of_two_ways_the_cheaper_one_is_taken() -> None:
    now = server(16, ())
    group, steps = len(now.bodies[8, 16]), sum(len(now.bodies[k, k + 1]) for k in range(8, 16))
    assert steps < group < steps + 8 * ways.ENVELOPE_BYTES, "a group saves envelopes and nothing else"
    assert fetched(now, head(now), now.held[8]) == {(8, 16)}
    costly = [structs.replace(way, n_bytes=9999) if way.number - way.start == SPAN else way for way in head(now).ways]
    assert (8, 16) not in wanted(begin(structs.replace(head(now), ways=tuple(costly)), Version(1, 8)))


@pytest.mark.parametrize("held", [Version(1, 99), Version(0, 17), Version(2, 17)])
def test_where_no_way_starts_here_it_is_the_one_from_version_0(held: Version) -> None:
    now = server(18)
    assert begin(head(now), held).start == 0
    assert begin(head(now), Version(1, 17)).start == 17


def test_a_version_that_is_held_does_not_disturb_a_way_that_begins_with_nothing() -> None:
    now = server(45)
    fetch = begin(head(now, (0, 42), (42, 43), (43, 44), (44, 45)), Version(1, 20))
    assert fetch.start == 0
    for which in wanted(fetch):
        for piece in pieces(now, *which):
            fetch.add(piece)
    assert install(fetch, now.held[20]).sha256() == now.sha256


def test_a_version_of_another_number_than_the_way_begins_with_is_not_built_upon() -> None:
    now = server(3)

    def fetched() -> Fetch:
        fetch = begin(head(now), Version(1, 2))
        for piece in pieces(now, 2, 3):
            fetch.add(piece)
        return fetch

    for other in (None, now.held[1], now.held[3]):
        with pytest.raises(FetchError, match=r"another model|leads to version"):
            install(fetched(), other)
    assert install(fetched(), now.held[2]).sha256() == now.sha256


# Ways that pass every version from one on.


def trail_of(now: Server, fetch: Fetch, trail: Trail | None = None, since: int | None = None) -> Trail:
    """Fetch and install; give what is held then."""
    for which in wanted(fetch):
        for piece in pieces(now, *which):
            fetch.add(piece)
    found = fetch.install(Chain(SPEC, JOB), trail, since)
    assert found.now.sha256() == now.sha256
    return found


def averaging(now: Server, source: Head, since: int, held: int | None = None, held_since: int | None = None) -> Fetch:
    here = None if held is None else Version(1, held)
    return Fetch(Version(1, now.number), source, SPEC, here, held_since=held_since, since=since)


def test_who_has_nothing_begins_at_a_snapshot_before_the_first_version_that_is_averaged() -> None:
    now = server(45)
    fetch = averaging(now, kept(now, 40), 40)
    assert wanted(fetch) == {
        (0, 21),
        (21, 22),
        (22, 23),
        (23, 24),
        (24, 32),
        (32, 40),
        *((k, k + 1) for k in range(40, 45)),
    }
    found = trail_of(now, fetch)
    assert found.since == 40
    assert found.mean(40) == average.mean(held.model for held in now.held[40:])


def test_who_holds_a_later_version_than_the_first_that_is_averaged_begins_anew() -> None:
    now = server(45)
    assert wanted(averaging(now, head(now), 43, held=44)) == {(0, 42), (42, 43), (43, 44), (44, 45)}
    assert wanted(averaging(now, head(now), 43, held=45)) == {(0, 42), (42, 43), (43, 44), (44, 45)}


def test_who_holds_that_version_or_has_come_by_it_goes_on() -> None:
    now = server(45)
    assert wanted(averaging(now, head(now), 43, held=43)) == {(43, 44), (44, 45)}
    assert wanted(averaging(now, head(now), 43, held=44, held_since=43)) == {(44, 45)}
    fetch = averaging(now, head(now), 43, held=45, held_since=40)
    assert fetch.done
    held = Trail(Chain(SPEC, JOB), now.held[45])
    assert trail_of(now, fetch, held) is held


@pytest.mark.parametrize("n", [8, 16, 22, 30, 42, 44, 50, 64])
def test_of_what_a_server_keeps_everybody_can_average(n: int) -> None:
    now = server(n)
    for averaged in (2, 5, 16):
        since = structs.replace(JOB, deploy_average=averaged).averaged_from(n)
        for held in (None, *range(0, n, 3)):
            fetch = averaging(now, kept(now, since), since, held=held)
            trail = None if held is None else Trail(Chain(SPEC, JOB), now.held[held])
            assert trail_of(now, fetch, trail).mean(since) == average.mean(held.model for held in now.held[since:])


def test_a_snapshot_is_not_leapt_to_over_versions_that_are_averaged() -> None:
    """Though it is the cheapest way."""
    now = server(44)
    cheap = structs.replace(
        head(now), ways=tuple(structs.replace(way, n_bytes=1) if way.start == 0 else way for way in head(now).ways)
    )
    assert (0, 42) in wanted(averaging(now, cheap, 44, held=36))
    assert wanted(averaging(now, cheap, 38, held=36)) == {(k, k + 1) for k in range(36, 44)}


@pytest.mark.parametrize(
    "named", [((0, 42), (42, 43), (43, 44), (44, 45)), ((0, 42), (42, 43), (43, 44), (44, 45), (39, 40))]
)
def test_where_what_is_averaged_cannot_be_had_the_version_is_fetched_without(
    named: tuple[tuple[int, int], ...],
) -> None:
    now = server(45)
    for held in (None, 44):
        fetch = averaging(now, head(now, *named), 41, held=held)
        assert fetch.since == 45
        assert wanted(fetch) == ({(44, 45)} if held else {(0, 42), (42, 43), (43, 44), (44, 45)})


def test_more_bodies_than_a_device_has_room_for_are_not_fetched_to_be_averaged() -> None:
    now = server(45)
    most, lying_there = chain.max_way_bytes(SPEC), kept(now, 40)
    far = {(21, 22), (22, 23), (23, 24)}
    large = tuple(
        structs.replace(way, n_bytes=most if (way.start, way.number) in far else way.n_bytes)
        for way in lying_there.ways
    )
    fetch = averaging(now, structs.replace(lying_there, ways=large), 40)
    assert (fetch.since, wanted(fetch)) == (45, {(0, 42), (42, 43), (43, 44), (44, 45)})


def test_who_deploys_every_version_keeps_what_it_walks_by() -> None:
    one: Trail | None = None
    for number in range(1, 31):
        now = server(number)
        held = None if one is None else Version(1, one.now.number)
        since = max(0, number - 3)
        fetch = Fetch(Version(1, number), head(now), SPEC, held, held_since=one and one.since, since=since)
        assert wanted(fetch) == {(number - 1, number)}, "and nothing is fetched twice"
        one = trail_of(now, fetch, one, since)
        assert one.mean(since) == average.mean(held.model for held in server(30).held[since : number + 1])


# Ways that come along.


@pytest.mark.parametrize("n", [1, 3, 21])
def test_a_step_that_came_with_its_round_is_there_at_once(n: int) -> None:
    now = server(n)
    fetch = begin(carrying(now), Version(1, n - 1))
    assert fetch.done
    assert fetch.filters(WIRE) == []
    assert install(fetch, now.held[n - 1]).sha256() == now.sha256


@pytest.mark.parametrize("held", [None, Version(1, 1), Version(1, 3), Version(0, 2)])
def test_a_step_that_came_with_its_round_is_of_no_use_elsewhere(held: Version | None) -> None:
    with pytest.raises(FetchError, match="does not start from what is here"):
        begin(carrying(server(3)), held)


def test_version_0_needs_its_proof_and_nothing_else() -> None:
    round_ = Round("j", 1, Version(1, 0), 60.0, along=along(server(0).sha256, b""))
    fetch = begin(round_)
    assert fetch.done
    assert install(fetch).model == server(0).held[0].model
    with pytest.raises(FetchError):
        install(begin(structs.replace(round_, along=bytes(PROOF_BYTES))))
    for wrong in (b"", bytes(7), bytes(9)):
        with pytest.raises(FetchError):
            begin(structs.replace(round_, along=wrong))


@pytest.mark.parametrize("n_bytes", [0, 7, 8])
def test_a_proof_without_a_way_is_refused(n_bytes: int) -> None:
    carried = carrying(server(3))
    with pytest.raises(FetchError):
        begin(structs.replace(carried, along=carried.along[:n_bytes]), Version(1, 2))


# What lies.


def lying(*named: DeltaAt, chunk_bytes: int = CHUNK, number: int = 1, sha256: str = "0" * 32) -> Head:
    return Head("j", 1, Version(1, number), sha256, ways=named, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize(
    "named",
    [
        (),
        (DeltaAt(1, 2, 10), DeltaAt(2, 9, 10)),
        (DeltaAt(0, 8, 10),),
        (DeltaAt(0, 10, 10),),
        (DeltaAt(0, 3, 10), DeltaAt(4, 9, 10)),
        (DeltaAt(9, 9, 10), DeltaAt(5, 3, 10)),
    ],
)
def test_a_head_without_a_way_from_version_0_is_refused(named: tuple[DeltaAt, ...]) -> None:
    with pytest.raises(FetchError, match="no way from version 0"):
        begin(lying(*named, number=9))


def test_a_body_larger_than_any_version_is_refused_before_it_is_fetched() -> None:
    most = chain.max_way_bytes(SPEC)
    for n_bytes in (most + 1, 2**40):
        with pytest.raises(FetchError, match="more than any version"):
            begin(lying(DeltaAt(0, 1, n_bytes), chunk_bytes=2**28))
        with pytest.raises(FetchError, match="more than any version"):
            begin(lying(DeltaAt(0, 1, 10), DeltaAt(1, 2, n_bytes), chunk_bytes=2**28, number=2))
    begin(lying(DeltaAt(0, 1, most), chunk_bytes=2**28))


def test_many_large_bodies_are_refused_before_they_are_fetched() -> None:
    most = chain.max_way_bytes(SPEC)
    begin(lying(DeltaAt(0, 1, most), DeltaAt(1, 2, most), chunk_bytes=2**28, number=2))
    with pytest.raises(FetchError, match="more than any version"):
        begin(lying(DeltaAt(0, 1, most), DeltaAt(1, 2, most), DeltaAt(2, 3, 1), chunk_bytes=2**28, number=3))


def test_every_body_that_a_server_makes_is_small_enough() -> None:
    most = chain.max_way_bytes(SPEC)
    assert max(map(len, server(45).bodies.values())) < most
    assert most > 4 * D + 1


def test_bodies_cut_too_finely_are_refused_counted_together() -> None:
    begin(lying(DeltaAt(0, 1, MOST_CHUNKS), chunk_bytes=1))
    with pytest.raises(FetchError):
        begin(lying(DeltaAt(0, 1, MOST_CHUNKS + 1), chunk_bytes=1))
    half = MOST_CHUNKS // 2
    begin(lying(DeltaAt(0, 1, half), DeltaAt(1, 2, half), chunk_bytes=1, number=2))
    with pytest.raises(FetchError):
        begin(lying(DeltaAt(0, 1, half), DeltaAt(1, 2, half + 1), chunk_bytes=1, number=2))


def test_a_head_with_as_many_ways_as_there_may_be_is_looked_through() -> None:
    steps = tuple(DeltaAt(number, number + 1, 50) for number in range(MOST_WAYS // 2))
    maze = tuple(DeltaAt(number, number + 2, 60) for number in range(MOST_WAYS // 2))
    fetch = begin(lying(*steps, *maze, number=MOST_WAYS // 2))
    assert len(wanted(fetch)) == MOST_WAYS // 4


def test_a_wrong_chunk_is_refused() -> None:
    now = server(3)
    fetch = begin(head(now), Version(1, 1))
    for first in (pieces(now, 1, 2)[0], pieces(now, 2, 3)[0]):
        with pytest.raises(WireError):
            fetch.add(Body("j", first.name, 0, first.data[:-1]))


def test_a_chunk_that_nobody_waits_for_is_passed_over() -> None:
    now = server(8)
    fetch = begin(head(now), Version(1, 6))
    missing = fetch.filters(WIRE)
    for other in ("1-2-0", "1-8-0", "2-8-7", "1-8-6", "8-7"):
        fetch.add(Body("j", other, 0, b"x"))
    fetch.add(pieces(now, 2, 3)[0])
    assert fetch.filters(WIRE) == missing


def test_what_a_finer_cut_has_left_at_the_broker_disturbs_no_fetch() -> None:
    """A filter brings it along at every fetch, and nobody ever writes over it."""
    now = server(3)
    fetch = begin(head(now), Version(1, 1))
    came = [*pieces(now, 1, 2), *pieces(now, 2, 3)]
    for name in {piece.name for piece in came}:
        n = sum(piece.name == name for piece in came)
        assert not fetch.add(Body("j", name, Number(n), b"left"))
        assert not fetch.add(Body("j", name, Number(4095), b"left"))
    assert [fetch.add(piece) for piece in came] == [True] * len(came)
    assert fetch.done
    install(fetch, now.held[1])


def test_a_chunk_that_has_come_is_not_asked_for_again() -> None:
    now = server(45)
    fetch = begin(head(now))
    fetch.forget()
    assert len(pieces(now, 0, 42)) > 2
    first, *rest = fetch.filters(WIRE)
    fetch.add(pieces(now, 0, 42)[0])
    assert fetch.filters(WIRE) == rest
    assert first not in rest
    for piece in pieces(now, 43, 44):
        fetch.add(piece)
    assert fetch.filters(WIRE) == [name for name in rest if "/1-44-43/" not in name]


def test_bodies_that_lead_elsewhere_are_refused() -> None:
    now, later = server(2), server(3)
    fetch = begin(structs.replace(head(now), sha256=later.sha256[:32]))
    for which in wanted(fetch):
        for piece in pieces(now, *which):
            fetch.add(piece)
    with pytest.raises(FetchError, match="another model"):
        install(fetch)


def test_a_body_that_leads_to_another_version_than_it_is_named_for_is_refused() -> None:
    now = server(16)
    group = now.bodies[8, 16]
    for start, number, body in ((8, 15, group), (8, 16, now.bodies[8, 9]), (0, 15, now.bodies[8, 16])):
        named = DeltaAt(start, number, len(body))
        fetch = begin(lying(named, number=number, chunk_bytes=10**5), Version(1, start) if start else None)
        fetch.add(Body("j", body_name(Version(1, number), start), 0, body))
        with pytest.raises(FetchError, match="does not decode"):
            install(fetch, now.held[start])


def test_a_snapshot_with_another_velocity_is_refused() -> None:
    """All later versions hang on it."""
    now = server(42)
    body = bytearray(now.bodies[0, 42])
    body[4:6] = int.to_bytes(int.from_bytes(body[4:6], "little") + 1, 2, "little")  # the grid of the velocity
    fetch = begin(head(now, (0, 42), chunk_bytes=10**5))
    fetch.add(Body("j", "1-42-0", 0, bytes(body)))
    with pytest.raises(FetchError, match="another model"):
        install(fetch)


def test_a_way_from_another_model_than_was_left_is_refused() -> None:
    now = server(3)
    fetch = begin(carrying(now), Version(1, 2))
    with pytest.raises(FetchError, match="another model"):
        install(fetch, Held(2, now.held[1].model, now.held[2].state))
    with pytest.raises(FetchError, match="another model"):
        install(fetch, Held(2, now.held[2].model, now.held[1].state))


def test_a_body_that_does_not_decode_is_refused() -> None:
    for junk in (b"junk" * 100, b"\x20", b"\x21", b"\x22\x01", b"\x10" + bytes(7), b"\x21" + b"\xff" * 9):
        fetch = begin(lying(DeltaAt(0, 1, len(junk)), chunk_bytes=len(junk)))
        fetch.add(Body("j", "1-1-0", 0, junk))
        with pytest.raises(FetchError, match="does not decode"):
            install(fetch)


def test_a_version_that_is_published_whole_is_read_from_anywhere() -> None:
    whole = JobSpec("j", ModelSpec(), seed=3, compression="off")
    chain_ = Chain(SPEC, whole)
    rng = np.random.default_rng(1)
    delta = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in SPEC}
    coding = chain_.coding(0, FLOAT32)
    model = add(chain_.first().model, coding.tensors(coding.decode(coding.encode(delta, rng))))
    body = chain_.whole(model)
    later = chain_.take(chain_.first(), 7, body)
    for held in (None, Version(1, 6)):
        fetch = begin(lying(DeltaAt(0, 7, len(body)), number=7, chunk_bytes=10**4, sha256=later.sha256()[:32]), held)
        fetch.add(Body("j", "1-7-0", 0, body))
        trail = None if held is None else Trail(chain_, Held(6, model))
        assert fetch.install(chain_, trail).now.model == later.model


# What a chunk costs.


def work_of_chunks(n_chunks: int, n_bodies: int = 1) -> counting.Work:
    """Return what the first 20 chunks of so many take, as a job takes them."""
    named = tuple(DeltaAt(number, number + 1, n_chunks // n_bodies) for number in range(n_bodies))
    work = Work.__new__(Work)  # nothing of a job but what takes chunks
    work.job, work._wire = "j", WIRE
    work._fetch = fetch = Fetch(version(n_bodies), _ones(n_bodies, named), BIG, None)
    fetch.forget()
    names = fetch.filters(WIRE)
    assert len(names) == n_chunks
    told = [_name_and_index(name) for name in names[:20]]
    pieces = [Body("j", Name(name), Number(index), b"x") for name, index in told]
    said: list[list[object]] = []
    found = counting.work_of(partial(lambda piece: said.append([*work.take(piece, 0.0)]), piece) for piece in pieces)
    assert said == [[Unsubscribe((name,))] for name in names[:20]]
    assert work.subscribed == tuple(names[20:])
    return found


BIG = (TensorSpec("w", (1000, 100)),)


def version(number: int) -> Version:
    return Version(1, number)


def _ones(number: int, named: tuple[DeltaAt, ...]) -> Head:
    """A head whose bodies are cut into single bytes."""
    return Head("j", 1, version(number), "ab" * 16, ways=named, chunk_bytes=1)


def _name_and_index(topic: str) -> tuple[str, int]:
    *_, name, index = topic.split("/")
    return name, int(index)


@pytest.mark.parametrize("each", [256, 4096, 1])
def test_a_chunk_costs_the_same_of_sixteen_times_as_many(each: int) -> None:
    """each: chunks that a body is cut into, at most."""
    few, many = (work_of_chunks(n, max(1, n // each)) for n in (256, 4096))
    assert many.is_about(few), f"{few} of 256 chunks, {many} of 4,096"


def test_a_chunk_that_comes_twice_is_unsubscribed_from_once_and_keeps_the_fetch_going() -> None:
    work = Work.__new__(Work)
    work.job, work._wire, work._stalled = "j", WIRE, True
    work._fetch = Fetch(version(1), _ones(1, (DeltaAt(0, 1, 3),)), BIG, None)
    work._fetch.forget()
    name, _ = _name_and_index(work.subscribed[0])
    (gone,) = work.take(Body("j", name, 1, b"x"), 5.0)
    assert isinstance(gone, Unsubscribe)
    assert [_name_and_index(topic)[1] for topic in gone.filters] == [1]
    work._stalled = True
    assert work.take(Body("j", name, 1, b"x"), 7.0) == []
    assert not work._stalled
    assert [_name_and_index(topic)[1] for topic in work.subscribed] == [0, 2]
    assert not work._fetch.done


def test_a_device_lets_in_what_its_job_writes_and_not_much_more() -> None:
    most = chain.max_way_bytes_of(JOB, SPEC)
    assert max(map(len, server(45).bodies.values())) < most
    now = lying(DeltaAt(0, 1, most + 1), chunk_bytes=2**28)
    with pytest.raises(FetchError, match="more than any version"):
        Fetch(now.version, now, SPEC, None, most_bytes=most)
    assert Fetch(now.version, now, SPEC, None, most_bytes=most + 1).filters(WIRE)


def test_what_is_let_in_is_a_small_part_of_what_a_device_has_room_for() -> None:
    large = (TensorSpec("w", (10_000, 100)), TensorSpec("b", (10_000,)))
    n = 1_010_000
    for job in (JOB, structs.replace(JOB, compression="off", aggregate=AggregateSpec())):
        assert 4 * n < chain.max_way_bytes_of(job, large) < 14 * n
    assert chain.max_way_bytes(large) > 100 * n


def test_the_pieces_of_a_body_are_let_go_of_once_the_version_is_made() -> None:
    now = server(3)
    fetch = begin(head(now, (2, 3)), Version(1, 2))
    came = pieces(now, 2, 3)
    for piece in came:
        fetch.add(piece)
    held = [sys.getrefcount(piece.data) for piece in came]
    install(fetch, now.held[2])
    assert all(after < before for after, before in zip([sys.getrefcount(p.data) for p in came], held, strict=True))


def test_the_pieces_of_a_way_are_counted_together_and_those_of_its_longest_body_by_themselves() -> None:
    ways_ = tuple(DeltaAt(n, n + 1, 4 if n == 3 else 1) for n in range(6))
    fetch = Fetch(version(6), _ones(6, ways_), BIG, None)
    assert (fetch.n_missing, fetch.most_pieces) == (9, 4)
