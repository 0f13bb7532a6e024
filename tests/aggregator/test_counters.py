"""What an aggregator counts, and the file that says it: whole, or of no account."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.counters import (
    FILE,
    MOST_BYTES,
    MOST_JOBS,
    MOST_KINDS,
    SECONDS,
    WRITE_S,
    CountersFile,
    Counting,
    Totals,
    read,
    totals_of,
)
from aggregator.events import Events
from broker.messages import Verdict, Version
from broker.transport import Counters

V1, V2 = Version(1, 1), Version(1, 2)


def verdict(base: Version, refused: str = "") -> Verdict:
    return Verdict("d", "j", base, "ab" * 4, refused)


def test_verdicts_are_counted_late_or_refused() -> None:
    counting = Counting()
    counting.judge("j", [verdict(V2), verdict(V2), verdict(V1), verdict(V1, "stale"), verdict(V2, "far off")], V2)
    assert counting.jobs["j"].updates == {"counted": 2, "late": 1, "refused": 2}


def test_rounds_are_counted_with_how_long_they_took_where_that_is_known() -> None:
    counting = Counting()
    counting.close_round("j", "committed", 5.0)
    counting.open_round("j", 10.0)
    counting.close_round("j", "abandoned", 12.0)
    counting.open_round("j", 20.0)
    counting.close_round("j", "committed", 20.0 + 2 * SECONDS[-1])
    of = counting.jobs["j"]
    assert of.rounds == {"committed": 2, "abandoned": 1}
    assert {i: n for i, n in enumerate(of.seconds) if n} == {SECONDS.index(2.0): 1, len(SECONDS): 1}
    assert of.sum_s == 2.0 + 2 * SECONDS[-1]


def test_of_too_many_jobs_those_not_heard_of_for_longest_are_forgotten() -> None:
    counting = Counting()
    for n in range(MOST_JOBS):
        counting.open_round(f"j{n}", 0.0)
    counting.open_round("j0", 1.0)
    counting.open_round("new", 1.0)
    assert len(counting.jobs) == MOST_JOBS
    assert {"j0", "new"} <= counting.jobs.keys()
    assert "j1" not in counting.jobs


def test_events_are_counted_told_one_by_one_or_not_and_those_that_fail_are_not() -> None:
    events = Events(clock=lambda: 0.0, wall=lambda: 0.0)
    for _ in range(1000):
        events.note("device.gone", "d is gone")
    with pytest.raises(OSError, match="full"), events.told("version.made", "version 1"):
        raise OSError("full")
    events.count("garbage")
    totals = totals_of(1.0, Counters(wire_sent_bytes=7, sent_bytes=3), events, Counting())
    assert totals.events == {"device.gone": 1000, "version.made": 0}
    assert (totals.refused, totals.sent_bytes) == ({"garbage": 1}, 7)


def test_the_file_is_written_when_something_has_changed_and_it_is_time(tmp_path: Path) -> None:
    now, counting, passed, events = 0.0, Counting(), Counters(), Events()
    for n in range(2 * MOST_KINDS):
        events.count(f"why {n}")
    file = CountersFile(tmp_path, lambda: totals_of(9.0, passed, events, counting), clock=lambda: now)
    file.tick()
    first = read(tmp_path)
    assert first is not None
    assert (first.started, first.sent_packets, len(first.refused)) == (9.0, 0, MOST_KINDS)
    passed.sent_packets = 3
    counting.judge("j", [verdict(V1)], V1)
    file.tick()
    assert read(tmp_path) == first
    now += WRITE_S
    file.tick()
    later = read(tmp_path)
    assert later is not None
    assert (later.sent_packets, later.jobs["j"].updates) == (3, {"counted": 1})
    inode, now = (tmp_path / FILE).stat().st_ino, now + WRITE_S
    file.tick()
    assert (tmp_path / FILE).stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_folder_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, folder = 0.0, tmp_path / "gone"
    file = CountersFile(folder, lambda: Totals(started=1.0), clock=lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            file.tick()
            now += WRITE_S
    assert len(caplog.messages) == 1
    assert "cannot be written, and /metrics lacks what it holds: No such file" in caplog.messages[0]
    folder.mkdir()
    file.tick()
    assert read(folder) == Totals(started=1.0)


WHOLE = msgspec.json.encode(Totals(started=1.0, events={"version.made": 2}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:-1],
        b"[]",
        b'{"started": -1}',
        b'{"started": 1, "format": 2}',
        b'{"started": 1, "sent_bytes": -5}',
        b'{"started": 1, "jobs": {"j": {"seconds": [1]}}}',
        b'{"started": 1, "x": ' + b"[" * 50_000,
        b'{"started": 1}' + b" " * MOST_BYTES,
    ],
)
def test_a_file_of_no_sense_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read(tmp_path) is None


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / FILE).mkdir()
    assert read(tmp_path) is None


@given(st.binary(max_size=200))
def test_whatever_lies_there_raises_nothing(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / FILE).write_bytes(content)
    read(folder)
