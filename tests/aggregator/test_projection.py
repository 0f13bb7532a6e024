"""What lies at the broker of a job, from a store that is filled by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator import run as runs
from aggregator.config import AggregatorConfig, Limits
from aggregator.effects import Announce, Attempt
from aggregator.inbox import Inbox
from aggregator.projection import (
    FETCH_BYTES,
    LONGEST_WAY,
    MOST_ALIASES,
    SETTLED_BYTES,
    _way_along,
    head,
    needed,
    round_,
)
from aggregator.run import Run
from aggregator.store import BodyRow, Store
from broker import draw, topics
from broker.faults import Marks
from broker.messages import MOST_SETTLED, MOST_WAYS, Head, Round, Verdict, Version
from models.chain import GROUP, SNAPSHOT, SPAN, STEP, WHOLE
from models.job import JobSpec, ModelSpec
from models.ways import SINGLES, Way

SPEC = JobSpec("toy", ModelSpec(inputs=4, outputs=2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, synced=False)
    yield made
    made.close()


def renamed(store: Store, devices: list[str], chunk_bytes: int = 100_000, times: int = 1) -> Run:
    """A job whose current version has former names, and these devices are done with it."""
    config = AggregatorConfig(fleet="f", limits=Limits(chunk_bytes=chunk_bytes))
    row = runs.create("toy-1", SPEC, store, config)
    for device in devices:
        store.add_verdict(Verdict(device, "toy-1", Version(1, 0), "a" * 8, refused="absurd"))
    for _ in range(times):
        store.raise_generation("toy-1", 0)
    return Run(row, store, config, Inbox(10**6), 1, 0.0, marks=Marks(Path("/dev/null/none")))


def announced(run: Run) -> Round:
    """Give the round as a device reads it."""
    attempt = Attempt(run.version, 1, draw.salt(0, 0), draw.MOST, None, ())
    message = topics.unpack(topics.pack(round_(run, Announce(attempt, 60.0)), "f"), "f")
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


# What is needed.


def body(start: int, number: int, kind: int = STEP, generation: int = 1) -> BodyRow:
    return BodyRow(f"{generation}-{number}-{start}", number, 100, bytes((kind,)) + b"body")


def steps(n: int) -> list[BodyRow]:
    return [body(number - 1, number) for number in range(1, n + 1)]


def names(rows: list[BodyRow], number: int) -> set[str]:
    return needed(rows, Version(1, number))


def test_steps_that_nothing_replaces_are_needed_back_to_the_first() -> None:
    rows = steps(50)
    assert names(rows, 50) == {row.name for row in rows}


def test_what_is_of_another_generation_or_of_a_later_version_leads_nobody_here() -> None:
    rows = [body(0, 1, generation=2), body(1, 2, SNAPSHOT, generation=2), body(2, 3), body(0, 3, SNAPSHOT)]
    assert names([*steps(2), *rows], 2) == {"1-1-0", "1-2-1"}


def test_a_name_that_is_not_that_of_its_version_leads_nobody_here() -> None:
    odd = [BodyRow("1-7-1", 2, 100, b" way"), BodyRow("1-2-x", 2, 100, b" way"), BodyRow("1-2-1-1", 2, 100, b" way")]
    assert names([*steps(2), *odd], 2) == {"1-1-0", "1-2-1"}


def test_a_group_takes_the_place_of_its_steps_once_they_are_far_behind() -> None:
    """Also the first one, which begins where snapshots do."""
    rows = [*steps(40), *(body(end - SPAN, end, GROUP) for end in range(SPAN, 41, SPAN))]
    singles = {row.name for row in steps(40) if row.number > 40 - SINGLES}
    assert names(rows, 40) == singles | {row.name for row in rows[40:]}


def test_a_snapshot_lets_go_of_what_lies_before_the_one_before_it() -> None:
    rows = [*steps(30), body(0, 10, SNAPSHOT), body(0, 20, SNAPSHOT)]
    assert names(rows[:-1], 19) == {row.name for row in rows[:19]} | {"1-10-0"}
    assert names(rows, 20) == {row.name for row in rows[10:20]} | {"1-20-0"}
    assert names([*rows, body(0, 30, SNAPSHOT)], 30) == {row.name for row in rows[20:30]} | {"1-30-0"}


def test_a_snapshot_at_the_end_of_the_first_eight_is_no_group_of_them() -> None:
    """Who holds one of them has no other way than along the steps."""
    rows = [*steps(30), body(0, SPAN, SNAPSHOT)]
    assert names(rows, 30) == {row.name for row in rows}


def test_a_snapshot_is_left_lying_for_one_more_version() -> None:
    rows = [*steps(21), body(0, 20, SNAPSHOT), body(0, 21, SNAPSHOT)]
    assert {"1-20-0", "1-21-0"} <= names(rows, 21)
    assert "1-20-0" not in names([*rows, body(21, 22)], 22)


def test_of_versions_that_are_published_whole_the_last_two_are_needed() -> None:
    rows = [body(0, number, WHOLE) for number in range(1, 7)]
    assert names(rows, 6) == {"1-5-0", "1-6-0"}


def test_a_head_names_no_more_ways_than_a_device_takes_and_fits_a_packet(store: Store) -> None:
    run = renamed(store, [], times=0)
    run._ways = [Way(10**9 + number, 10**9 + number + 1, 100_000) for number in range(MOST_WAYS + 500)]
    packet = topics.pack(head(run), "f")
    assert len(packet.payload) < 262_144
    said = topics.unpack(packet, "f")
    assert isinstance(said, Head)
    assert [tuple(way) for way in map(_cells, said.ways)] == run._ways[-MOST_WAYS:]


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
