"""What lies at the broker of a job, from a store that is filled by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator import creation
from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.effects import Announce, Attempt
from aggregator.inbox import Inbox
from aggregator.projection import (
    FETCH_BYTES,
    LONGEST_WAY,
    MOST_ALIASES,
    SETTLED_BYTES,
    _way_along,
    head,
    round_,
)
from aggregator.run import Run
from aggregator.store import Judgement, Store
from broker.messages import MOST_SETTLED, MOST_WAYS, Head, Round, Verdict, Version
from broker.wire import Wire
from models import draw
from models.deltas import Delta
from models.job import JobSpec, ModelSpec
from runtime.faults import Marks

WIRE = Wire("f")
SPEC = JobSpec("toy", ModelSpec(inputs=4, outputs=2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, synced=False)
    yield made
    made.close()


def renamed(store: Store, devices: list[str], chunk_bytes: int = 100_000, times: int = 1) -> Run:
    """A job whose current version has former names, and these devices are done with it."""
    config = AggregatorConfig(fleet="f", limits=ServerLimits(chunk_bytes=chunk_bytes))
    row = creation.create("toy-1", SPEC, store, config)
    for device in devices:
        store.add_verdicts("toy-1", [Judgement(Verdict(device, "toy-1", Version(1, 0), "a" * 8, refused="absurd"))])
    for _ in range(times):
        store.raise_generation("toy-1", 0)
    return Run(row, store, config, Inbox(10**6), 1, 0.0, marks=Marks(Path("/dev/null/none")))


def announced(run: Run) -> Round:
    """Return the round as a device reads it."""
    attempt = Attempt(run.version, 1, draw.salt(0, 0), draw.MAX_TICKET, None, ())
    message = WIRE.unpack(WIRE.pack(round_(run, Announce(attempt, 60.0))))
    assert isinstance(message, Round)
    return message


def test_the_round_of_a_version_with_another_name_says_who_is_done_with_it(store: Store) -> None:
    run = renamed(store, ["d2", "d0", "d1"])
    assert announced(run).aliases == (Version(1, 0),)
    assert announced(run).settled == ("d0", "d1", "d2")


def test_the_round_of_a_version_that_kept_its_name_names_nobody(store: Store) -> None:
    run = renamed(store, ["d2", "d0", "d1"], times=0)
    assert (announced(run).aliases, announced(run).settled) == ((), ())


def test_no_more_former_names_are_said_than_a_device_takes(store: Store) -> None:
    run = renamed(store, [], times=MOST_ALIASES + 3)
    assert announced(run).aliases == run.aliases[-MOST_ALIASES:]


@pytest.mark.parametrize(
    ("length", "n", "chunk_bytes", "fits"),
    [
        (5, MOST_SETTLED + 5, 100_000, MOST_SETTLED),
        (60, 500, 100_000, SETTLED_BYTES // 63),
        (60, 500, 4096, 4096 // 63),
    ],
    ids=["of many, as many as a device takes", "of long names, as many as have room", "as the broker takes packets"],
)
def test_who_is_done_with_it_is_said_as_far_as_a_packet_has_room(
    store: Store, length: int, n: int, chunk_bytes: int, fits: int
) -> None:
    devices = [f"{number:0{length}}" for number in range(n)]
    assert announced(renamed(store, devices, chunk_bytes)).settled == tuple(devices[:fits])


def test_a_head_names_no_more_ways_than_a_device_takes_and_fits_a_packet(store: Store) -> None:
    run = renamed(store, [], times=0)
    run._shelf.ways = [Delta(10**9 + number, 10**9 + number + 1, 100_000) for number in range(MOST_WAYS + 500)]
    packet = WIRE.pack(head(run))
    assert len(packet.payload) < 262_144
    said = WIRE.unpack(packet)
    assert isinstance(said, Head)
    assert [tuple(way) for way in map(_cells, said.ways)] == run._shelf.ways[-MOST_WAYS:]


def _cells(way: Any) -> tuple[int, int, int]:
    return way.start, way.number, way.n_bytes


@pytest.mark.parametrize(
    ("n_bytes", "drawn", "chunk_bytes", "along"),
    [
        (LONGEST_WAY, 1.0, 100_000, True),
        (LONGEST_WAY + 1, 1.0, 100_000, False),
        (5000, 1.0, 4999, False),
        (5000, 1.0, 5000, True),
        (0, 1.0, 5000, False),
        (FETCH_BYTES, 0.71, 5000, True),
        (FETCH_BYTES, 0.70, 5000, False),
        (3 * FETCH_BYTES, 0.87, 5000, True),
        (3 * FETCH_BYTES, 0.86, 5000, False),
    ],
)
def test_a_step_comes_along_where_that_is_cheaper_for_all_who_listen(
    n_bytes: int, drawn: float, chunk_bytes: int, along: bool
) -> None:
    """It is of use to who was drawn for both versions."""
    run: Any = SimpleNamespace(step=bytes(n_bytes), chunk_bytes=chunk_bytes)
    assert _way_along(run, drawn) == (bytes(n_bytes) if along else b"")
