"""The aggregator, asked from afar, as a source for a Lookout: for who looks on from a machine without the store.

    Jobs ─────▶ state, what it waits for, version, measures          every ASK_S
    Explain ──▶ who is drawn, counted, refused in open rounds        of a job that has one; rarely where that is long
    Devices ──▶ who is there, and who is in quarantine               the same
    Events ───▶ what has happened                                    every ASK_S
    Curve ────▶ the best version                                     when a version is new

It asks over a connection of its own, in a thread of its own: an answer may take seconds, and the Lookout does not wait
for it. What it asks an observer may ask too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from msgspec import Struct, structs

from aggregator.database import StoreError
from broker.messages import Events, Jobs, Version
from fleet.console import devices, operator
from fleet.console.operator import Console, JobLine, JobList, OperatorConfig, RoundLine
from fleet.sight.facts import Facts, JobFacts, OpenAttempt
from fleet.sight.source import Found
from fleet.sight.view import Happened
from runtime.settings import SettingsError, convert

ASK_S = 2.0
MOST_EVENTS = 500
"""Events that are taken at once."""
FIRST_EVENTS = 50
"""Of what has happened before, at first."""
SHARE = 0.2
"""Of the time, at most, goes into asking after one thing."""
T = TypeVar("T")


def _n(row: devices.EventRow) -> int:
    return row.n


class _Turn(Struct):
    """When something is asked next, so that a long answer is asked for rarely."""

    at: float = 0.0

    def take(self, ask: Callable[[], T]) -> T:
        """Ask, and note when to do so again."""
        began = time.monotonic()
        try:
            return ask()
        finally:
            now = time.monotonic()
            self.at = now + max(ASK_S, (now - began) / SHARE)

    @property
    def is_due(self) -> bool:
        """Whether it may be asked."""
        return time.monotonic() >= self.at


class AskedSource:
    """See `Source`; asks the aggregator of an operator's configuration."""

    readings = None

    def __init__(self, config: OperatorConfig) -> None:
        self._config = config
        self._found: Found | None = None
        self._facts = Facts()
        self._rounds: dict[str, tuple[_Turn, JobFacts]] = {}
        self._quarantined: dict[str, str] = {}
        self._of_devices = _Turn()
        self._last: int | None = None
        """The number of the last event."""
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def poll(self) -> Found | None:
        """See `Source`; begins to ask at the first call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
            self._thread.start()
        with self._lock:
            found, self._found, trouble = self._found, None, self._trouble
        if found is None and trouble:
            raise StoreError(trouble)
        return found

    def close(self) -> None:
        """See `Source`."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with Console(self._config) as fleet:
                    while not self._stopping.wait(ASK_S if self._facts.jobs else 0.2):
                        self._ask(fleet)
            except (operator.OperatorError, SettingsError) as error:
                with self._lock:
                    self._trouble = str(error)
                self._stopping.wait(ASK_S)

    def _ask(self, fleet: Console) -> None:
        pages = [convert(page, JobList, "the aggregator's answer") for page in fleet.pages(Jobs(fleet.client, ""))]
        lines = [line for page in pages for line in page.jobs]
        last = self._facts.jobs
        jobs = {line.job: self._job(fleet, line) for line in lines}
        there = self._of_devices.take(lambda: self._devices(fleet)) if self._of_devices.is_due else {}
        same = {job: last[job] if last.get(job) == facts else facts for job, facts in jobs.items()}
        self._facts, happened = Facts(same, self._quarantined), self._events(fleet)
        with self._lock:
            waiting = self._found or Found(self._facts)  # what nobody has taken yet
            self._found = Found(self._facts, [*waiting.happened, *happened][-MOST_EVENTS:], {**waiting.there, **there})
            self._trouble = ""

    def _devices(self, fleet: Console) -> dict[str, bool]:
        rows = list(devices.devices_of(fleet))
        self._quarantined = {row.device: row.quarantine for row in rows if row.quarantine or row.state == "quarantined"}
        return {row.device: row.state == "online" for row in rows if row.state in ("online", "offline")}

    def _events(self, fleet: Console) -> list[Happened]:
        """Return what has happened since the last time; the first time, the last of what did."""
        asked = Events(fleet.client, "", since=self._last)
        rows = list(islice(devices.events_of(fleet, asked), MOST_EVENTS if self._last is not None else FIRST_EVENTS))
        self._last = max((row.n for row in rows), default=self._last or 0)
        return [Happened(row.n, row.at, row.kind, row.text, row.job, row.device) for row in sorted(rows, key=_n)]

    def _job(self, fleet: Console, line: JobLine) -> JobFacts:
        version = version_of(line.version)
        facts = JobFacts(
            *(line.job, line.name, version, line.state if line.state in ("finished", "stopped") else ""),
            reason=line.reason or line.waits_for,
            paused=(line.waits_for or "it is paused") if line.state == "paused" else "",
            metrics=line.metrics,
        )
        if line.state != "running":
            return facts
        turn, before = self._rounds.setdefault(line.job, (_Turn(), facts))
        if turn.is_due or before.version != version:
            before = turn.take(lambda: self._with_round(fleet, facts))
            self._rounds[line.job] = turn, before
        return structs.replace(facts, attempt=before.attempt, counted=before.counted, refused=before.refused)

    def _with_round(self, fleet: Console, facts: JobFacts) -> JobFacts:
        """Return facts with what the open round knows of its devices."""
        try:
            rounds = operator.whole(operator.rounds_of(fleet, facts.job, facts.version.number + 1))
        except operator.OperatorError:
            return facts  # no round has tried to leave this version yet
        return with_round(facts, rounds)


def with_round(facts: JobFacts, rounds: Sequence[RoundLine]) -> JobFacts:
    """Return facts with what the open one of these attempts knows of its devices."""
    last = next((line for line in reversed(rounds) if line.outcome == "open"), None)
    if last is None:
        return facts
    counted = frozenset(device for device, fate in last.fates.items() if fate.startswith("counted"))
    refused = {d: fate.removeprefix("refused: ") for d, fate in last.fates.items() if fate.startswith("refused")}
    attempt = OpenAttempt(version_of(last.base), last.attempt, frozenset(last.fates), last.target)
    return structs.replace(facts, attempt=attempt, counted=counted, refused=refused)


def version_of(text: str) -> Version:
    """Return the version that is written so; [0, 0] of what is none."""
    generation, _, number = text.partition(".")
    if not (generation.isascii() and generation.isdigit() and number.isascii() and number.isdigit()):
        return Version(0, 0)
    return Version(int(generation), int(number))
