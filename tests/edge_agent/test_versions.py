from __future__ import annotations

from broker.messages import Head, Round, Version
from edge_agent.announced import Announced
from edge_agent.effects import Drop, FetchVersion, RequestHead
from edge_agent.versions import FIRST_LOOK_S, LAST_LOOK_S, REFETCH_S, Versions
from models.job import JobSpec, ModelSpec

V0, V1, V2, V3 = (Version(1, n) for n in range(4))


def head(version: Version) -> Head:
    return Head("j-1", 1, version, "0" * 32)


def carrying(base: Version) -> Round:
    return Round("j-1", 1, base, 60.0, along=b"12345678way")


def versions(*events: Head | Round) -> Versions:
    announced = Announced("d", JobSpec("j", ModelSpec()), ())
    for event in events:
        announced.hear(event, 0.0)
    return Versions(announced, 0.0)


def having(version: Version, *events: Head | Round, since: int | None = None) -> Versions:
    one = versions(*events)
    one.fetch(version, version.number, head(version), 0.0)
    one.install(version, since)
    return one


def test_a_version_is_got_by_its_head() -> None:
    one = versions(head(V1))
    assert one.source(V1, 1) == head(V1)
    assert one.source(V2, 2) is None
    assert one.fetch(V1, 1, head(V1), 0.0) == [FetchVersion(V1, head(V1))]
    assert one.fetch(V1, 1, head(V1), 0.0) == [], "it is fetched already"
    one.install(V1, None)
    assert (one.here, one.fetching) == (V1, None)
    assert one.is_here(V1, 1)
    assert not one.is_here(V1, 0)


def test_a_round_that_carries_the_way_from_here_is_as_good_as_a_head() -> None:
    assert having(V1, carrying(V2)).source(V2, 2) == carrying(V2)
    assert having(V0, carrying(V2)).source(V2, 2) is None
    assert having(V1, carrying(V2)).source(V2, 0) is None, "those before it would not come with it"
    assert having(V1, carrying(V2), since=0).source(V2, 0) == carrying(V2)
    assert versions(carrying(V0)).source(V0, 0) == carrying(V0), "version 0 needs nothing that is here"


def test_a_round_that_proves_a_whole_version_is_as_good_as_a_head_where_its_length_is_known() -> None:
    proof = Round("j-1", 1, V2, 60.0, along=b"12345678")
    one = versions(proof)
    assert one.source(V2, 2) is None
    one = Versions(one._announced, 0.0, knows_wholes=True)
    assert one.source(V2, 2) == proof
    assert one.source(V2, 1) is None, "those before it would not come with it"
    one.fetch(V2, 2, proof, 0.0)
    one.fail(V2, 1.0)
    assert one.source(V2, 2) is None, "what was wrong once is looked up in a head"
    one._announced.hear(head(V2), 1.0)
    assert one.source(V2, 2) == head(V2)


def test_those_before_a_version_are_asked_for_once() -> None:
    one = versions(head(V3))
    assert one.fetch(V3, 1, head(V3), 0.0) == [FetchVersion(V3, head(V3), 1)]
    one.install(V3, 1)
    assert one.is_here(V3, 1)
    assert not one.is_alone(V3)
    short = versions(head(V3))
    short.fetch(V3, 1, head(V3), 0.0)
    short.install(V3, 3)
    assert short.is_alone(V3)
    failed = versions(head(V3))
    failed.fetch(V3, 1, head(V3), 0.0)
    failed.fail(V3, 0.0)
    assert failed.is_alone(V3)


def test_a_fetch_that_fails_is_tried_again_later_by_a_new_head() -> None:
    one = versions(head(V1))
    one.fetch(V1, 1, head(V1), 0.0)
    one.fail(V1, 5.0)
    assert one.fetching is None
    assert one.source(V1, 1) is None, "that head is doubted"
    assert one.deadlines == (5.0 + REFETCH_S, 5.0 + REFETCH_S)
    assert one.look(5.0, behind=True, online=True) == []
    assert one.look(5.0 + REFETCH_S, behind=True, online=True) == [RequestHead()]
    assert one.fetch(V1, 1, head(V1), 5.0 + REFETCH_S - 0.1) == []
    assert one.fetch(V1, 1, head(V1), 5.0 + REFETCH_S) == [FetchVersion(V1, head(V1))]


def test_a_failure_by_what_a_round_carried_leaves_the_head_as_it_is() -> None:
    one = having(V1, head(V2), carrying(V2))
    one.fetch(V2, 2, carrying(V2), 0.0)
    one.fail(V2, 0.0)
    assert one.here is None
    assert one.source(V2, 2) == head(V2)


def test_word_of_a_fetch_that_was_given_up_may_come_late() -> None:
    one = versions(head(V1))
    assert not one.was_fetched(V1)
    one.fetch(V1, 1, head(V1), 0.0)
    assert one.drop(None) == [Drop()]
    assert one.drop(None) == []
    assert one.was_fetched(V1)
    one.fail(V1, 0.0)
    assert one.deadlines[0] is None, "nothing follows from it"
    one.install(V1, None)
    assert one.here == V1
    one.fetch(V2, 2, head(V2), 0.0)
    one.fetch(V3, 3, head(V3), 0.0)
    assert [one.was_fetched(version) for version in (V0, V1, V2, V3)] == [False, False, True, True]


def test_what_is_still_wanted_is_not_dropped() -> None:
    one = versions(head(V1))
    one.fetch(V1, 1, head(V1), 0.0)
    assert one.drop(V1) == []
    assert one.fetching == V1


def test_the_head_is_asked_for_ever_less_often_while_it_does_not_come() -> None:
    one, now, pauses = versions(), 0.0, []
    for _ in range(8):
        assert one.look(now, behind=True, online=True) == [RequestHead()]
        at = one.deadlines[1]
        assert at is not None
        assert one.look(at - 0.1, behind=True, online=True) == []
        pauses.append(at - now)
        now = at
    assert pauses == [min(FIRST_LOOK_S * 2**n, LAST_LOOK_S) for n in range(8)]
    assert one.look(now, behind=True, online=False) == []
    assert one.look(now, behind=False, online=True) == []
    assert one.deadlines == (None, None)
    one.look(now, behind=True, online=True)
    assert one.deadlines[1] == now + FIRST_LOOK_S
