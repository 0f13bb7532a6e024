"""Nothing lies at the broker for ever that no store knows, whatever is lost between the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from aggregator.litter import SURE_S, Litter
from aggregator.projection import Clear, Out
from aggregator.store import Store, StoreError
from broker.messages import Body, Version
from broker.transport import Packet
from models.job import JobSpec
from tests.aggregator.conftest import FLEET, WIRE, Fleet

SpecMaker = Callable[..., JobSpec]


def lying(fleet: Fleet) -> set[tuple[str, str]]:
    """Return the bodies at the broker: job and name."""
    looker = fleet.broker.transport("looker")
    looker.subscribe(WIRE.filter_for("body"))
    looker.open()
    found = [event.topic.split("/") for event in iter(looker.take, None) if isinstance(event, Packet)]
    looker.close()
    return {(job, name) for *_, job, name, _ in found}


def known(fleet: Fleet) -> set[tuple[str, str]]:
    return {(row.job, body.name) for row in fleet.store.jobs() for body in fleet.store.bodies(row.job)}


def finished(fleet: Fleet, spec: SpecMaker) -> str:
    """A job that publishes every version whole, so that the first of them leads nobody to the last."""
    fleet.submit(spec(compression="off"))
    return fleet.finish().job


def wait(fleet: Fleet, seconds: float) -> None:
    for _ in range(int(seconds)):
        fleet.step(1.0)


def test_bodies_whose_grace_ends_while_the_broker_is_away_are_cleared_later(fleet: Fleet, spec: SpecMaker) -> None:
    job = finished(fleet, spec)
    assert len(lying(fleet)) > len(known(fleet)) - 1
    fleet.link.drop()
    wait(fleet, fleet.limits.body_grace_s + 10.0)
    assert (job, "1-1-0") in lying(fleet) - known(fleet)
    fleet.link.restore()
    wait(fleet, 10.0)
    assert lying(fleet) == known(fleet)
    assert fleet.store.litter() != [], "it may not have arrived"
    wait(fleet, SURE_S)
    assert fleet.store.litter() == []


def test_what_was_cleared_just_before_the_connection_was_lost_is_cleared_again(fleet: Fleet, spec: SpecMaker) -> None:
    finished(fleet, spec)
    before = lying(fleet)
    wait(fleet, fleet.limits.body_grace_s + SURE_S / 2)
    gone = before - lying(fleet)
    assert gone
    retained = [Packet(f"fedge/1/{FLEET}/body/{job}/{name}/0", b"it was lost", retain=True) for job, name in gone]
    fleet.say(*retained)
    fleet.link.drop()
    fleet.step(1.0)
    fleet.link.restore()
    wait(fleet, 10.0)
    assert lying(fleet) == known(fleet)


def test_nothing_is_held_for_cleared_while_the_broker_is_away_however_long(fleet: Fleet, spec: SpecMaker) -> None:
    job = finished(fleet, spec)
    fleet.link.drop()
    wait(fleet, fleet.limits.body_grace_s + SURE_S + 20.0)
    assert job in {row.job for row in fleet.store.litter()}
    fleet.link.restore()
    wait(fleet, 10.0)
    assert lying(fleet) == known(fleet)


def test_a_connection_that_is_lost_before_it_is_sure_makes_nothing_sure(fleet: Fleet, spec: SpecMaker) -> None:
    finished(fleet, spec)
    while not fleet.store.litter():
        fleet.step(1.0)
    wait(fleet, SURE_S - 10.0)
    fleet.link.drop()
    wait(fleet, 60.0)
    assert fleet.store.litter() != []
    fleet.link.restore()
    wait(fleet, 10.0)
    assert fleet.store.litter() != [], "it was cleared again just now"
    wait(fleet, SURE_S)
    assert fleet.store.litter() == []


def test_a_process_that_dies_before_it_clears_does_so_in_its_next_life(fleet: Fleet, spec: SpecMaker) -> None:
    finished(fleet, spec)
    fleet.link.drop()
    wait(fleet, fleet.limits.body_grace_s + 10.0)
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert lying(fleet) == known(fleet)


def test_the_bodies_of_a_job_that_makes_way_in_the_moment_that_the_link_is_lost_are_cleared(
    fleet: Fleet, spec: SpecMaker
) -> None:
    first = finished(fleet, spec)
    fleet.link.drop()
    fleet.aggregator.submit(spec())
    wait(fleet, 5.0)
    assert first in {job for job, _ in lying(fleet)}
    fleet.link.restore()
    wait(fleet, 5.0)
    assert first not in {job for job, _ in lying(fleet)}


@pytest.mark.parametrize(
    "cells",
    [
        (7, "1-1-0", 1),
        (b"\xff", "1-1-0", 1),
        ("toy-1", "#/+", 1),
        ("toy-1", "1-1-0", 10**9),
        ("toy-1", "1-1-0", "x"),
        ("a", "b", 0),
    ],
)
def test_a_row_that_makes_no_sense_clears_nothing(fleet: Fleet, cells: tuple[object, object, object]) -> None:
    fleet.store._write("INSERT INTO litter (job, name, chunks) VALUES (?, ?, ?)", cells)
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert fleet.aggregator.leads


def test_a_version_that_is_needed_is_never_cleared(fleet: Fleet, spec: SpecMaker) -> None:
    finished(fleet, spec)
    wait(fleet, fleet.limits.body_grace_s + SURE_S + 10.0)
    version = fleet.job().version
    assert version == Version(1, 3)
    assert {name.split("-")[1] for _, name in lying(fleet)} == {"2", "3"}


# The core alone.


class Bench:
    """What is to be cleared, with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder, synced=False)
        self.now = 0.0
        self.cleared: list[str] = []
        self.litter = Litter(self.store, clock=lambda: self.now, send=self._send)

    def _send(self, messages: Iterable[Out]) -> None:
        for message in messages:
            assert isinstance(message, Clear)
            assert isinstance(message.message, Body)
            self.cleared.append(f"{message.message.name}/{message.message.index}")

    def drop(self, name: str, n_chunks: int = 1) -> None:
        """Have a body lie at the broker that nobody needs any more."""
        self.store._write("INSERT INTO litter (job, name, chunks) VALUES (?, ?, ?)", ("j", name, n_chunks))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    whole = Bench(tmp_path / "litter")
    yield whole
    whole.store.close()


def test_every_chunk_is_cleared_and_once_on_a_connection(bench: Bench) -> None:
    bench.drop("1-1-0", n_chunks=3)
    bench.litter.clear()
    bench.now = 10.0
    bench.litter.clear()
    assert bench.cleared == ["1-1-0/0", "1-1-0/1", "1-1-0/2"]
    assert bench.litter.deadline == SURE_S, "nothing new was cleared, and so nothing is surer later"


def test_what_was_cleared_is_forgotten_when_that_has_surely_arrived_and_nothing_else_is(bench: Bench) -> None:
    bench.drop("1-1-0")
    bench.litter.clear()
    bench.drop("1-2-0")
    bench.litter.tick(SURE_S)
    assert [row.name for row in bench.store.litter()] == ["1-2-0"]
    assert bench.litter.deadline == math.inf
    bench.litter.clear()
    assert bench.cleared == ["1-1-0/0", "1-2-0/0"]


def test_where_there_is_always_more_to_clear_what_was_cleared_long_ago_is_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgettings: list[int] = []
    forget = bench.store.forget_litter
    monkeypatch.setattr(bench.store, "forget_litter", lambda rows: forgettings.append(len(rows)) or forget(rows))
    for n in range(1000):
        bench.now = 10.0 * n
        bench.drop(f"1-{n}-0")
        bench.litter.clear()
        bench.litter.tick(bench.now)
        assert len(bench.store.litter()) <= 2 * SURE_S / 10.0 + 1
    assert len(bench.cleared) == 1000
    assert len(forgettings) <= bench.now / SURE_S + 1, "each is a transaction"
    bench.now += 2 * SURE_S
    bench.litter.tick(bench.now)
    assert bench.store.litter() == []


def test_a_body_that_lies_there_again_is_cleared_again(bench: Bench) -> None:
    bench.drop("1-1-0")
    bench.litter.clear()
    bench.litter.tick(SURE_S)
    bench.drop("1-1-0")
    bench.litter.clear()
    assert bench.cleared == ["1-1-0/0", "1-1-0/0"]


def test_a_connection_that_was_lost_makes_nothing_sure(bench: Bench) -> None:
    bench.drop("1-1-0")
    bench.litter.clear()
    bench.litter.doubt()
    assert bench.litter.deadline == math.inf
    bench.litter.tick(2 * SURE_S)
    assert [row.name for row in bench.store.litter()] == ["1-1-0"]


def test_a_store_that_cannot_be_used_now_costs_a_later_clearing_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StoreError("disk I/O error")

    bench.drop("1-1-0")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "litter", broken)
        bench.litter.clear()
    assert (bench.cleared, bench.litter.deadline) == ([], math.inf)
    bench.litter.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "forget_litter", broken)
        bench.litter.tick(SURE_S)
    bench.litter.clear()
    bench.litter.tick(bench.litter.deadline)
    assert bench.store.litter() == []
