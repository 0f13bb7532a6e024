from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from models import average, chain
from models.buffers import NO_BUFFERS
from models.chain import SPAN, Chain, Grids, Held, Step
from models.codec import INT8, CodecError, Terms
from models.codec.steps import step_near
from models.job import AggregateSpec, JobSpec, ModelSpec
from models.params import TensorSpec
from models.trail import Trail

SPEC = (TensorSpec("w", (12, 10)), TensorSpec("b", (12,)))
SNAPSHOTS = (9, 18)
KINDS = {
    "a sketch": (Terms(64, 1), AggregateSpec()),
    "a sketch with momentum": (Terms(64, 1), AggregateSpec(server_momentum=0.5)),
    "a sketch with fedadam": (Terms(64, 1), AggregateSpec(strategy="fedadam", server_learning_rate=0.01)),
    "int8": (INT8, AggregateSpec()),
}
N = 27


class Server(NamedTuple):
    """All versions of a job, and the bodies between them by start and number."""

    chain: Chain
    held: list[Held]
    bodies: dict[tuple[int, int], bytes]

    def mean(self, first: int, last: int) -> str:
        return average.mean(held.model for held in self.held[first : last + 1]).sha256()


@cache
def server(kind: str) -> Server:
    terms, rules = KINDS[kind]
    job = JobSpec("j", ModelSpec(), seed=3, aggregate=rules)
    chain_ = Chain(SPEC, job)
    rng, held, bodies = np.random.default_rng(0), [chain_.first()], {}
    for number in range(1, N + 1):
        delta = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in SPEC}
        grids = Grids(step_near(0.01), step_near(0.005) if held[-1].state else 0) if number in SNAPSHOTS else None
        step = Step(terms, chain_.coding(number - 1, terms).encode(delta, rng), (), grids)
        held.append(chain_.step(held[-1], step))
        bodies[number - 1, number] = chain.write(step)
        if grids is not None:
            bodies[0, number] = chain_.snapshot(held[-1], grids)
        if number % SPAN == 0:
            bodies[number - SPAN, number] = chain.grouped([bodies[k, k + 1] for k in range(number - SPAN, number)])
    return Server(chain_, held, bodies)


def walked(now: Server, *ways: tuple[int, int], wanted: int, start: int = 0) -> Trail:
    one = Trail(now.chain, now.held[start])
    for way in ways:
        one.take(way[1], now.bodies[way], wanted)
    return one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 4, 16])
def test_who_follows_every_version_has_each_mean_and_holds_few_bodies(kind: str, k: int) -> None:
    now = server(kind)
    one = Trail(now.chain, now.chain.first())
    for number in range(1, N + 1):
        first = max(0, number + 1 - k)
        one.take(number, now.bodies[number - 1, number], first)
        assert one.now.sha256() == now.held[number].sha256()
        assert one.since == first
        assert one.mean(first).sha256() == now.mean(first, number)
        assert one.n_bytes == sum(len(now.bodies[m - 1, m]) for m in range(first + 1, number + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_is_walked_through_and_begun_before(kind: str) -> None:
    now = server(kind)
    one = walked(now, (8, 16), (16, 24), (24, 25), wanted=20, start=8)
    assert one.since == 16
    assert [one.mean(first).sha256() for first in (16, 20, 25)] == [now.mean(first, 25) for first in (16, 20, 25)]
    one.take(26, now.bodies[25, 26], 24)
    assert one.since == 24


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_steps_over_what_lies_before_it(kind: str) -> None:
    now = server(kind)
    one = walked(now, (0, 9), (9, 10), (10, 11), wanted=10)
    assert (one.since, one.mean(10).sha256()) == (10, now.mean(10, 11))
    one = walked(now, (8, 16), (16, 17), (0, 18), (18, 19), wanted=16, start=8)
    assert one.now.sha256() == now.held[19].sha256()
    assert (one.since, one.mean(18).sha256()) == (18, now.mean(18, 19))
    for first in (17, 20):
        with pytest.raises(CodecError, match=f"version {first} is not on the way here"):
            one.mean(first)


def test_a_body_that_leads_nowhere_leaves_it_as_it_was() -> None:
    now = server("a sketch")
    one = walked(now, (8, 9), (9, 10), wanted=9, start=8)
    for number, body in ((11, b"\x20"), (12, now.bodies[10, 11]), (11, b"\x99"), (11, b"\x21"), (11, b"")):
        with pytest.raises(CodecError):
            one.take(number, body, 9)
        assert (one.since, one.now.number, one.mean(9).sha256()) == (9, 10, now.mean(9, 10))


def test_bodies_that_weigh_more_than_any_one_may_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device has room for the bodies of one way, whatever somebody sends."""
    now = server("int8")
    length = len(now.bodies[0, 1])
    monkeypatch.setattr(now.chain, "most_bytes", 3 * length + length // 2)
    one = Trail(now.chain, now.held[0])
    for number in range(1, 9):
        one.take(number, now.bodies[number - 1, number], 0)
        assert one.n_bytes <= 3 * length + length // 2
        assert one.now.sha256() == now.held[number].sha256()
    assert one.since > 0


def test_versions_whose_lattices_are_far_apart_are_not_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    one = walked(server("a sketch"), (0, 1), wanted=0)
    monkeypatch.setattr(average, "MOST_APART", -1)
    with pytest.raises(CodecError, match="no mean of versions 0 to 1"):
        one.mean(0)
    served = one.served(0)
    assert (served.model, served.since) == (one.now.model, None)
    assert "no mean of versions 0 to 1" in served.why


def test_what_is_served_is_the_mean_where_there_is_one_and_else_the_version_itself() -> None:
    now = server("a sketch")
    one = walked(now, (8, 9), (9, 10), wanted=9, start=8)
    assert (one.served(9).model.sha256(), one.served(9).since, one.served(9).why) == (now.mean(9, 10), 9, "")
    assert one.served(10) == (one.now.model, None, "", NO_BUFFERS)
    assert one.served(8).model is one.now.model
    assert "version 8 is not on the way here" in one.served(8).why
