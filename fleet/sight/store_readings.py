"""The store beside an aggregator, as readings for people and as facts for a Lookout.

    Reader (aggregator/reader.py, the one that knows SQLite) ──rows──▶ StoreReadings ──points──▶ page, terminal
                                                             └──rows──▶ StoreSource   ──facts───▶ Sight

A poll asks whether anything was written, and reads again what may have changed by that: what counts in the jobs that go
on, and of the others nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from aggregator.database import DamageError
from aggregator.events import Event
from aggregator.reader import Reader, StoredJob, seconds_of
from broker.messages import Version
from fleet.sight.facts import Facts, JobFacts, OpenAttempt
from fleet.sight.readings import MOST, AttemptPoint, FatePoint, Readings, Spread, VersionPoint
from fleet.sight.source import Found
from fleet.sight.view import Happened
from models.measures import table as measures

DEVICES_S = 60.0
"""So often it is asked which devices have rows: that looks at all of them."""
MOST_EVENTS = 500
"""Events that are read at once."""
NO_VERSION = Version(0, 0)


class StoreReadings:
    """See `Readings`; of the store in one state directory."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def curve(self, job: str) -> list[VersionPoint]:
        """See `Readings`."""
        measure = measure_of(self._reader.spec(job))
        return [
            VersionPoint(
                *(row.number, row.at, told(row.metrics), row.participants, row.bytes_up, row.bytes_down, row.seconds),
                spread_of(row.federated, measure),
                row.generation,
            )
            for row in self._reader.curve(job)
        ]

    def round(self, job: str, number: int) -> list[AttemptPoint]:
        """See `Readings`."""
        found = []
        for row in self._reader.round(job, number):
            fates = row.fates or dict.fromkeys(row.attempt.cohort, "awaited: nothing has arrived yet")
            found.append(
                AttemptPoint(
                    *(row.attempt.number, row.attempt.base.number, row.outcome, row.reason, seconds_of(row.opened)),
                    *(seconds_of(row.closed), row.attempt.target, self._now(job, number, fates, row.outcome)),
                    generation=row.attempt.base.generation,
                )
            )
        return found

    def _now(self, job: str, number: int, fates: dict[str, str], outcome: str) -> dict[str, str]:
        """Return fates with what is known by now of a round that is open."""
        if outcome != "open" or not number:
            return fates
        counted = dict.fromkeys(self._reader.counted(job), "counted")
        refused = {device: f"refused: {why}" for device, why in self._reader.refused(job).items()}
        return dict(sorted({**fates, **refused, **counted}.items()))

    def history(self, device: str, most: int = MOST) -> list[FatePoint]:
        """See `Readings`."""
        return [
            FatePoint(one.job, one.number, one.attempt, one.fate, seconds_of(one.closed), one.seconds, one.loss)
            for one in self._reader.history(device, most)
        ]

    def events(
        self,
        *,
        since: int | None = None,
        before: int | None = None,
        kind: str = "",
        job: str = "",
        device: str = "",
        most: int = MOST,
    ) -> list[Happened]:
        """See `Readings`."""
        found = self._reader.events(since=since, before=before, kind=kind, job=job, device=device, most=most)
        return [happened(event) for event in found]

    def spec(self, job: str) -> dict[str, Any]:
        """See `Readings`."""
        return self._reader.spec(job)


class _Best(Struct):
    """The best version of a job so far, by the measure that it is judged by."""

    looked_at: int = -1
    number: int | None = None
    value: float = 0.0


class StoreSource:
    """See `Source`; of the store in one state directory. clock: seconds that only go forward."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = Reader(folder)
        self.readings: Readings = StoreReadings(self._reader)
        self._clock = clock
        self._facts = Facts()
        self._best: dict[str, _Best] = {}
        self._devices: frozenset[str] = frozenset()
        self._devices_at = -DEVICES_S
        self._last: int | None = None
        """The number of the last event."""
        self._is_whole = False
        """Whether the last poll came to its end."""

    def close(self) -> None:
        """See `Source`."""
        self._reader.close()

    def poll(self) -> Found | None:
        """See `Source`."""
        changed = self._reader.changed()
        if self._is_whole and not changed:
            return None
        self._is_whole = False
        facts = Facts(self._jobs(), self._reader.quarantined(), self._with_rows())
        found = Found(facts, self._happened())
        self._facts, self._is_whole = facts, len(found.happened) < MOST_EVENTS  # else there may be more of them
        return found

    def _jobs(self) -> Mapping[str, JobFacts]:
        found = {}
        for stored in self._reader.jobs():
            facts, last = self._job(stored), self._facts.jobs.get(stored.job)
            found[stored.job] = last if last is not None and last == facts else facts
        for job in self._best.keys() - found.keys():
            del self._best[job]
        return found

    def _job(self, stored: StoredJob) -> JobFacts:
        job = stored.job
        if stored.version is None:
            return JobFacts(job, stored.name, NO_VERSION, stored.ended, stored.damage or stored.reason, stored.paused)
        try:
            best = self._best_of(stored, stored.version)
            attempt, counted, refused = None, frozenset[str](), dict[str, str]()
            if not stored.ended:
                opened = self._reader.open_attempt(job)
                if opened is not None:
                    attempt = OpenAttempt(opened.base, opened.number, frozenset(opened.cohort), opened.target)
                counted, refused = frozenset(self._reader.counted(job)), self._reader.refused(job)
        except DamageError as error:
            return JobFacts(job, stored.name, stored.version, stored.ended, str(error), stored.paused)
        return JobFacts(
            *(job, stored.name, stored.version, stored.ended, stored.reason, stored.paused, told(stored.metrics)),
            *(best, stored.at, attempt, counted, refused),
        )

    def _best_of(self, stored: StoredJob, version: Version) -> int | None:
        """Return the number of the best version. Of each version what is known at first counts, and of the last two
        what is known now: devices say how good one is when they leave it.
        """
        best, measure = self._best.setdefault(stored.job, _Best()), measure_of(stored.spec)
        measure = measure if measure in stored.metrics else "loss"
        if version.number < best.looked_at:
            best = self._best[stored.job] = _Best()
        for row in self._reader.curve(stored.job, after=max(-1, best.looked_at - 2)):
            value = row.metrics.get(measure)
            better = value is not None and (
                best.number in (None, row.number)
                or (value > best.value if measures.is_high(measure) else value < best.value)
            )
            if value is not None and better:
                best.number, best.value = row.number, value
        best.looked_at = version.number
        return best.number

    def _with_rows(self) -> frozenset[str]:
        now = self._clock()
        if now >= self._devices_at + DEVICES_S:
            found = frozenset(self._reader.devices())
            self._devices_at = now
            self._devices = self._devices if found == self._devices else found
        return self._devices

    def _happened(self) -> list[Happened]:
        """Return the events since the last time; none the first time, which only learns where they stand."""
        if self._last is None:
            latest = self._reader.events(most=1)
            self._last = latest[0].n if latest else 0
            return []
        found = self._reader.events(since=self._last, most=MOST_EVENTS)
        if not found and (latest := self._reader.events(most=1)) and latest[0].n < self._last:
            found = self._reader.events(since=0, most=MOST_EVENTS)  # another store lies there
        if found:
            self._last = found[-1].n
        return [happened(event) for event in found]


def happened(event: Event) -> Happened:
    """Return an event of the store as it is shown."""
    return Happened(event.n, event.seconds, event.kind, event.text, event.job, event.device)


def told(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what was measured without what is only for machines, as the cells of a confusion matrix."""
    return {name: value for name, value in metrics.items() if not measures.is_detail(name)}


def measure_of(spec: Mapping[str, Any]) -> str:
    """Return the measure that a job is judged by, as its specification, however it was written, says it."""
    stop = rounds.get("stop") if isinstance(rounds := spec.get("rounds"), Mapping) else None
    metric = stop.get("metric") if isinstance(stop, Mapping) else None
    try:
        return metric if isinstance(metric, str) and measures.find(metric) else "accuracy"
    except ValueError:
        return "accuracy"


def spread_of(by_devices: Mapping[str, Any], measure: str) -> Spread | None:
    """Return how devices score a version, by this measure or, where they have none of it, by the first that they have;
    None where they say nothing, or nothing that makes sense.
    """
    means = by_devices.get("mean")
    if not isinstance(means, Mapping) or not means:
        return None
    name = measure if measure in means else next(iter(means))
    mean, worst, spread = means[name], _of(by_devices.get("worst"), name), _of(by_devices.get("spread"), name)
    device, value = worst if isinstance(worst, list | tuple) and len(worst) == 2 else ("", None)
    devices = by_devices.get("devices")
    if not isinstance(mean, int | float):
        return None
    return Spread(
        float(mean),
        float(spread) if isinstance(spread, int | float) else None,
        float(value) if isinstance(value, int | float) else None,
        device if isinstance(device, str) else "",
        name,
        devices if isinstance(devices, int) else 0,
    )


def _of(table: object, name: str) -> Any:
    return table.get(name) if isinstance(table, Mapping) else None
