"""Nothing lies at the broker for ever that no store knows, whatever is lost between the two."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aggregator.litter import SURE_S
from broker import topics
from broker.messages import Version
from broker.transport import Packet
from models.job import JobSpec
from tests.aggregator.conftest import FLEET, Fleet

SpecMaker = Callable[..., JobSpec]


def lying(fleet: Fleet) -> set[tuple[str, str]]:
    """Return the bodies at the broker: job and name."""
    looker = fleet.broker.transport("looker")
    looker.subscribe(topics.filter_for(FLEET, "body"))
    looker.open()
    found = [event.topic.split("/") for event in iter(looker.take, None) if isinstance(event, Packet)]
    looker.close()
    return {(job, name) for *_, job, name, _ in found}


def known(fleet: Fleet) -> set[tuple[str, str]]:
    return {(row.job, body.name) for row in fleet.store.jobs() for body in fleet.store.bodies(row.job)}


def finished(fleet: Fleet, spec: SpecMaker) -> str:
    fleet.submit(spec())
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
