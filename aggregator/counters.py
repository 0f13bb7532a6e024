"""What an aggregator has counted since it was started, for /metrics: in memory, and in a small file beside the store.

    verdicts, rounds ──▶ Counting ┐
    events, refusals ─▶ Events    ├──every WRITE_S──▶ counters.json ──▶ who looks on
    packets, bytes ───▶ Transport ┘

Nothing is decided by it. The file is whole, or the one before it; it is not synced, and what it says of an earlier
process goes with the first write of the next: `started` tells them apart. One that is missing, torn, of another format
or of no sense says nothing, and is no error.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from aggregator.events import Events
from broker.messages import Verdict, Version
from broker.transport import Counters
from runtime.disk import write_unsynced

log = logging.getLogger(__name__)

FILE = "counters.json"
FORMAT = 1
WRITE_S = 5.0
MOST_BYTES = 2**20
MOST_JOBS = 200
"""Jobs that are counted for; of more, those are forgotten that have not been heard of for longest."""
MOST_KINDS = 100
SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0)
"""Bounds of the buckets that rounds are counted in by how long they took; behind the last is one more."""

Judged = Literal["counted", "late", "refused"]
Outcome = Literal["committed", "abandoned", "stopped"]
Count = Annotated[int, Meta(ge=0)]
Kinds = Annotated[dict[str, Count], Meta(max_length=MOST_KINDS)]


class JobTotals(Struct):
    """What was counted of one job."""

    updates: dict[Judged, Count] = {}
    """late: they count, though they were to a version before."""
    rounds: dict[Outcome, Count] = {}
    """Attempts, by how they ended."""
    seconds: Annotated[list[Count], Meta(min_length=len(SECONDS) + 1, max_length=len(SECONDS) + 1)] = msgspec.field(
        default_factory=lambda: [0] * (len(SECONDS) + 1)
    )
    """Attempts in each bucket of SECONDS."""
    sum_s: Annotated[float, Meta(ge=0)] = 0.0
    """All their seconds."""


class Totals(Struct, frozen=True, kw_only=True):
    """The file. started: when the process was, in seconds since 1970; everything is counted from then on."""

    format: int = FORMAT
    started: Annotated[float, Meta(ge=0)]
    sent_packets: Count = 0
    sent_bytes: Count = 0
    """All that MQTT has sent, with its headers."""
    received_packets: Count = 0
    received_bytes: Count = 0
    dropped_packets: Count = 0
    refused: Kinds = {}
    """Words that were not heard, by why."""
    events: Kinds = {}
    """By kind, told one by one or not."""
    jobs: Annotated[dict[str, JobTotals], Meta(max_length=MOST_JOBS)] = {}
    """By job id."""


class Counting:
    """Counts rounds and verdicts. `now`: seconds that only go forward."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobTotals] = {}
        self._opened_at: dict[str, float] = {}

    def open_round(self, job: str, now: float) -> None:
        """Note that an attempt is opened."""
        self._of(job)
        self._opened_at[job] = now

    def close_round(self, job: str, outcome: Outcome, now: float) -> None:
        """Count an attempt that has ended; how long it took only if this process has opened it."""
        totals, opened_at = self._of(job), self._opened_at.pop(job, None)
        totals.rounds[outcome] = totals.rounds.get(outcome, 0) + 1
        if opened_at is not None:
            took = max(0.0, now - opened_at)
            totals.seconds[bisect_left(SECONDS, took)] += 1
            totals.sum_s += took

    def judge(self, job: str, verdicts: Iterable[Verdict], current: Version) -> None:
        """Count verdicts that are durable. current: the version that the open round leaves."""
        updates = self._of(job).updates
        for verdict in verdicts:
            judged: Judged = "refused" if verdict.refused else "counted" if verdict.base == current else "late"
            updates[judged] = updates.get(judged, 0) + 1

    def _of(self, job: str) -> JobTotals:
        totals = self.jobs.pop(job, None) or JobTotals()
        if len(self.jobs) >= MOST_JOBS:
            first = next(iter(self.jobs))
            del self.jobs[first]
            self._opened_at.pop(first, None)
        self.jobs[job] = totals
        return totals


def totals_of(started: float, passed: Counters, events: Events, counting: Counting) -> Totals:
    """Return what was counted so far. passed: over the connection to the broker."""
    return Totals(
        started=started,
        sent_packets=passed.sent_packets,
        sent_bytes=passed.wire_sent_bytes,
        received_packets=passed.received_packets,
        received_bytes=passed.wire_received_bytes,
        dropped_packets=passed.dropped_packets,
        refused=_most(events.refusals),
        events=_most(events.noted),
        jobs=counting.jobs,
    )


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items())[:MOST_KINDS])


class CountersFile:
    """Writes the file every WRITE_S, where something has changed. give: what it holds. clock: monotonic seconds."""

    def __init__(self, folder: Path, give: Callable[[], Totals], clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._give, self._clock = folder / FILE, give, clock
        self._due = clock()
        self._written = b""
        self._is_failing = False

    def tick(self) -> None:
        """Write it, if it is time. What cannot be written is said once, and tried again."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + WRITE_S
        content = msgspec.json.encode(self._give())
        if content == self._written:
            return
        try:
            write_unsynced(self._path, content)
        except OSError as error:
            if not self._is_failing:
                log.warning("%s cannot be written, and /metrics lacks what it holds: %s", self._path, error.strerror)
            self._is_failing = True
        else:
            self._written, self._is_failing = content, False


def read(folder: Path) -> Totals | None:
    """Return what the aggregator in a state directory has counted; None where its file says nothing. Raises nothing."""
    try:
        with (folder / FILE).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        found = msgspec.json.decode(content, type=Totals)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if found.format == FORMAT and len(content) <= MOST_BYTES else None
