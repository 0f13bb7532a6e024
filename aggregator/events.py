"""What has happened in a fleet, for people: the last of it in the store, at the price of no sync.

    note ──▶ waits in memory ──▶ the next transaction that is made anyhow ──▶ table events
                  │                                                              ▲
                  └── none within WRITE_S ──▶ one of its own, that is not synced ┘

1. Nothing is decided by an event. What happened before a `kill -9` is written; a power cut may take the last ones,
   back to the last sync.
2. An event of a transaction that is rolled back waits for the next one; one that `told` ties to a transaction is
   forgotten with it. A table that cannot be written holds nobody else's transaction up.
3. Of one kind so many are told one by one (`_PACE`); of the others there is one line at the end of the minute. So a
   fleet that goes all at once, or a device that floods, pushes nothing else out.
4. Numbers are given here and only go up, whatever is rolled back; a store that was copied, moved or restored leaps
   ahead, so that whoever asks for what came after a number is told of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from aggregator.database import DamageError, Database, Row
from runtime.words import clean

log = logging.getLogger("aggregator.store")  # a store speaks under one name

Kind = Literal[
    "job.submitted",
    "job.finished",
    "job.stopped",
    "job.deleted",
    "job.paused",
    "job.resumed",
    "job.rolled_back",
    "job.resting",
    "round.abandoned",
    "version.made",
    "device.new",
    "device.gone",
    "device.back",
    "device.clone",
    "device.card",
    "device.out",
    "device.failed",
    "device.refused",
    "device.flooding",
    "device.quarantined",
    "device.released",
    "words.refused",
    "aggregator.started",
    "aggregator.leads",
    "aggregator.stands_by",
    "store.failed",
]
SCHEMA = 6
"""Of the store, from which on it has them."""
MOST = 20_000
"""Events that are kept: some five megabytes."""
TRIMMED_EVERY = 256
"""Numbers from one look at how many there are to the next."""
LEAP = 1_000_000
"""What the numbers of a store that was copied, moved or restored leap by: more than it could have given since."""
WRITE_S = 2.0
"""An event that no transaction has taken along after this long is written in one of its own."""
AGAIN_S = 60.0
"""That is tried again so long after it could not be."""
MINUTE_S = 60.0
SHOWN = ("accuracy", "loss", "participants")
"""Of the measures of a version."""
MOST_WAITING = 2000
"""Events that wait in memory, while nothing can be written."""
MOST_TEXT = 300
_PACE: dict[str, tuple[float, float]] = {"version.made": (60.0, 5.0)}
_USUAL_PACE = (60.0, 20.0)
"""Of a kind so many are told at once, and one more every so many seconds."""
_MORE = {
    "job.resting": ("job", "came to rest"),
    "round.abandoned": ("round", "came to no version"),
    "version.made": ("version", "followed"),
    "device.new": ("device", "came for the first time"),
    "device.gone": ("device", "went"),
    "device.back": ("device", "came back"),
    "device.clone": ("sign", "of two devices under one id came"),
    "device.card": ("device", "came with another card"),
    "device.out": ("device", "said why it cannot take part"),
    "device.failed": ("training", "failed"),
    "device.refused": ("update", "met a refusal"),
    "device.flooding": ("flood", "came"),
    "store.failed": ("write", "failed"),
}
"""What is said of those that are not told one by one."""

ADD = (
    "INSERT OR REPLACE INTO events (n, at, kind, job, device, text) SELECT json_extract(value, '$[0]'),"
    " json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),"
    " json_extract(value, '$[4]'), json_extract(value, '$[5]') FROM json_each(?)"
)
TRIM = "DELETE FROM events WHERE n <= (SELECT n FROM events ORDER BY n DESC LIMIT 1 OFFSET ?)"


class Event(Struct, frozen=True, array_like=True):
    """Something that has happened. at: when, in UTC, by the clock of this machine."""

    n: int
    at: str
    kind: str
    job: str
    """The id of the job that it is about; "" where it is about none."""
    device: str
    text: str

    @property
    def seconds(self) -> float:
        """When, in seconds since 1970; 0.0 where a disk has not kept it."""
        try:
            return datetime.fromisoformat(self.at).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return 0.0


class Events:
    """What waits to be written. last: the highest number so far.

    clock: seconds that only go forward. wall: seconds since 1970.
    """

    def __init__(
        self, last: int = 0, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self._wall = wall
        self._last = last
        self._trimmed_at = last
        self._waiting: deque[Event] = deque()
        self._taken = 0
        """How many of them the transaction that is open has taken along."""
        self._write_at = math.inf
        self._turn_at = math.inf
        """When the minute ends, if there is something to say then."""
        self._left: dict[str, tuple[float, float]] = {}
        """Kind to how many may still be told one by one, and since when."""
        self._more: Counter[str] = Counter()
        """Kind to how many were not."""
        self._refused: Counter[str] = Counter()
        """What was refused of what was said, by why."""
        self.noted: Counter[str] = Counter()
        """Kind to how many there were, told one by one or not."""
        self.refusals: Counter[str] = Counter()
        """The same as `_refused`, of all minutes."""
        self._lost = 0
        self._is_broken = False

    # What happens.

    def note(self, kind: Kind, text: str, *, job: str = "", device: str = "") -> None:
        """Tell that something has happened. text: one sentence; whatever a stranger has said in it is cleaned."""
        now = self.clock()
        self.noted[kind] += 1
        if self._may_tell(kind, now):
            self._add(now, kind, text, job, device)
        else:
            self._more[kind] += 1
            self._turn_at = min(self._turn_at, now + MINUTE_S)

    def count(self, why: str) -> None:
        """Count what somebody has said, and nobody heard: there is one line a minute of it."""
        self._refused[why] += 1
        self.refusals[why] += 1
        self._turn_at = min(self._turn_at, self.clock() + MINUTE_S)

    @contextmanager
    def told(self, kind: Kind, text: str, *, job: str = "", device: str = "") -> Iterator[None]:
        """Tell of what a transaction in this block makes durable, in it; what fails has not happened."""
        before = self._last
        self.note(kind, text, job=job, device=device)
        try:
            yield
        except BaseException:
            self.noted[kind] -= 1
            while self._waiting and self._waiting[-1].n > before:
                self._waiting.pop()
            raise

    def _may_tell(self, kind: str, now: float) -> bool:
        most, each_s = _PACE.get(kind, _USUAL_PACE)
        left, since = self._left.get(kind, (most, now))
        left = min(most, left + (now - since) / each_s)
        self._left[kind] = (left - (left >= 1), now)
        return left >= 1

    def _add(self, now: float, kind: str, text: str, job: str = "", device: str = "") -> None:
        if self._is_broken:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return
        if not self._waiting:
            self._write_at = now + WRITE_S
        self._last += 1
        at = datetime.fromtimestamp(self._wall(), UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")
        self._waiting.append(Event(self._last, at, kind, job[:80], device[:80], clean(text, MOST_TEXT)))

    # Time.

    @property
    def deadline(self) -> float:
        """When `turn` or a transaction has something to do; inf for never."""
        return min(self._write_at if self._waiting else math.inf, self._turn_at)

    def turn(self, now: float) -> None:
        """Tell, at the end of a minute, of what was not told one by one."""
        if now < self._turn_at:
            return
        self._turn_at = math.inf
        for kind, n in self._more.items():
            noun, verb = _MORE.get(kind, ("event", "of this kind came"))
            self._add(now, kind, f"and {n:,} more {noun}{'s' * (n != 1)} {verb}")
        if self._refused:
            whys = ", ".join(f"{why} {n:,}" for why, n in self._refused.most_common(5))
            self._add(now, "words.refused", f"{self._refused.total():,} messages were refused within a minute: {whys}")
        self._more.clear()
        self._refused.clear()

    def is_due(self, now: float) -> bool:
        """Return whether it is time for a transaction of their own."""
        return bool(self._waiting) and now >= self._write_at

    def put_off(self, now: float) -> None:
        """Note that they cannot be written now."""
        self._write_at = now + AGAIN_S

    @property
    def waits(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._waiting)

    # The transaction that takes them along.

    def statements(self) -> Sequence[tuple[str, Sequence[object]]]:
        """Return what the transaction that is about to end writes of them."""
        if self._lost and len(self._waiting) < MOST_WAITING:
            lost, self._lost = self._lost, 0
            self._add(self.clock(), "store.failed", f"nothing could be written for long: {lost:,} events are lost")
        self._taken = len(self._waiting)
        if not self._taken:
            return ()
        add = (ADD, (msgspec.json.encode(list(self._waiting)).decode(),))
        return (add, (TRIM, (MOST,))) if self._last >= self._trimmed_at + TRIMMED_EVERY else (add,)

    def written(self) -> None:
        """Note that the transaction has ended well."""
        if not self._taken:
            return
        for _ in range(self._taken):
            n = self._waiting.popleft().n
        if n >= self._trimmed_at + TRIMMED_EVERY:
            self._trimmed_at = n
        self._taken = 0
        self._write_at = self.clock() + WRITE_S

    def refused(self, error: DamageError) -> None:
        """Note that their table is damaged: this process writes no more of them."""
        if not self._is_broken:
            log.error("what happens is not written down any more: %s", error)
        self._is_broken, self._taken = True, 0
        self._waiting.clear()
        self._write_at = math.inf


def of_end(job: str, ended: str, reason: str) -> tuple[Kind, str]:
    """Return what is told of the end of a job. ended: "finished", "stopped" or "deleted"; of that one the reason is who
    has asked for it.
    """
    if ended == "deleted":
        return "job.deleted", f"{job} was deleted{f', as {reason} asked' * bool(reason)}"
    kind: Kind = "job.finished" if ended == "finished" else "job.stopped"
    return kind, f"{job} {'has finished' if ended == 'finished' else f'was {ended}'}{f': {reason}' * bool(reason)}"


def of_version(job: str, version: object, metrics: Mapping[str, float]) -> str:
    """Return what is told of a new version of a job: with the measures that everybody looks at first."""
    shown = " ".join(f"{name}={metrics[name]:.4g}" for name in SHOWN if name in metrics)
    return f"version {version} of {job}{f': {shown}' * bool(shown)}"


def last(db: Database) -> int:
    """Return the highest number that was given, 0 where none was or the table cannot be read."""
    try:
        row = db.one("table events", "SELECT max(n) FROM events")
    except DamageError as error:
        log.error("%s", error)
        return 0
    return row[0] if row and isinstance(row[0], int) else 0


def page(
    db: Database,
    *,
    since: int | None = None,
    before: int | None = None,
    kind: str = "",
    job: str = "",
    device: str = "",
    most: int = 200,
) -> list[Event]:
    """Return so many events at most, the latest first; or, where `since` is given, the earliest after that number.

    before: with a number below this one. kind: those of this kind, as "device.gone", or of all that begin so, as
    "device". job: of this id, or name. Raises StoreError or DamageError.
    """
    limits: list[tuple[str, object]] = []
    if since is not None:
        limits.append(("n > ?", since))
    if before is not None:
        limits.append(("n < ?", before))
    if kind:
        limits.append(("instr(kind || '.', ? || '.') = 1", kind.rstrip(".")))
    if job:
        limits.append(("? IN (job, substr(job, 1, length(job) - 9))", job))
    if device:
        limits.append(("device = ?", device))
    where = " AND ".join(condition for condition, _ in limits) or "1"
    order = "" if since is not None else " DESC"
    sql = f"SELECT n, at, kind, job, device, text FROM events WHERE {where} ORDER BY n{order} LIMIT ?"  # noqa: S608 -- ours
    return [_event(row) for row in db.rows("table events", sql, (*(value for _, value in limits), most))]


def _event(row: Row) -> Event:
    n, *cells = row
    return Event(n if isinstance(n, int) else 0, *(cell if isinstance(cell, str) else "" for cell in cells))
