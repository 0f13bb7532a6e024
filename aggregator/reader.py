"""The store of an aggregator that runs, read by another process, for people.

Read-only, in short transactions: nothing of the aggregator waits for them, and none keeps its WAL from being taken
into the file. Between two calls nothing is held but an open file. One that was put in the place of another (`fedge
aggregator restore`) is opened anew. Many threads may call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aggregator import events, generations, pasts, quarantine, rows, schema
from aggregator.database import DamageError, Database, StoreError
from aggregator.effects import Attempt
from aggregator.events import Event
from aggregator.pasts import Fated, seconds_of
from aggregator.rows import AttemptRow
from aggregator.store import FILE, Store
from broker.messages import Version

__all__ = ["CurveRow", "Reader", "StoredJob", "seconds_of"]


class StoredJob(Struct, frozen=True):
    """A job of the store. Times are seconds since 1970."""

    job: str
    name: str
    ended: str
    """"", "finished" or "stopped"."""
    reason: str
    """Why it has ended."""
    paused: str
    """Who has paused it, and since when."""
    version: Version | None
    """The current one; None where it cannot be read: see `damage`."""
    at: float | None
    """When that was made."""
    metrics: dict[str, float]
    spec: dict[str, Any]
    damage: str = ""


class CurveRow(Struct, frozen=True):
    """A version, as a point of the curve of its job."""

    number: int
    at: float
    metrics: dict[str, float]
    participants: int
    bytes_up: int | None
    """Of the bodies of the updates that were offered for it, where that is still known."""
    bytes_down: int | None
    """Of the body that leads to it from the version before, where it still lies here."""
    seconds: float | None
    """From the opening of its round to the coming of its last update, where that is still known."""
    federated: dict[str, object]
    """How its devices score it (aggregator/federated.py); empty where none have."""
    generation: int = 1


_CURVE = (
    "SELECT v.number, v.generation, v.at, v.metrics, v.federated, coalesce(length(v.step) - 4, length(b.data)), c.took,"
    " c.n, c.bytes FROM versions v"
    " LEFT JOIN bodies b ON b.job = v.job AND b.name = v.generation || '-' || v.number || '-' || (v.number - 1)"
    " LEFT JOIN (SELECT number, sum(counted) AS n, sum(body_bytes) AS bytes, max(seconds) AS took FROM contributions"
    "  WHERE job = ?1 AND number >= ?2 GROUP BY number) c ON c.number = v.number - 1"
    " WHERE v.job = ?1 AND v.number > ?2 ORDER BY v.number LIMIT ?3"
)


class Reader:
    """The store in a state directory, which need not be there yet."""

    def __init__(self, folder: Path) -> None:
        """Remember where; the file is opened when something is asked."""
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._db: Database | None = None
        self._place: tuple[int, int] | None = None
        self._schema = 0
        self._seen: int | None = None

    def close(self) -> None:
        """Close the file; it is opened again when something is asked."""
        with self._lock:
            self._let_go()

    def changed(self) -> bool:
        """Return whether anything was written since this was asked last. Raises StoreError or DamageError."""
        with self._reading() as store:
            found = store._db.one("the file", "PRAGMA data_version")
            before, self._seen = self._seen, None if found is None else int(found[0])
            return before is None or before != self._seen

    def jobs(self) -> list[StoredJob]:
        """Return every job, by name; one that is damaged says so. Raises StoreError or DamageError."""
        with self._reading() as store:
            return [_job(store, row) for row in store.jobs()]

    def spec(self, job: str) -> dict[str, Any]:
        """Return the specification of a job as plain values; empty where it is not known. Raises StoreError."""
        with self._reading() as store:
            row = store._db.one("table jobs", "SELECT spec, crc FROM jobs WHERE job = ?", (job,))
            if row is None:
                return {}
            found: dict[str, Any] = msgspec.to_builtins(rows.spec_of(job, *row))
            return found

    def curve(self, job: str, *, after: int = -1, most: int = -1) -> list[CurveRow]:
        """Return the versions of a job behind the one of number `after`, the earliest first. Raises StoreError."""
        with self._reading() as store:
            found = store._db.rows(f"job {job}, table versions,", _CURVE, (job, after, most))
            return [_point(job, cells) for cells in found]

    def round(self, job: str, number: int) -> list[AttemptRow]:
        """Return the attempts to make version `number` of a job, the earliest first. Raises StoreError.

        The fates of one that is open are not in the store.
        """
        with self._reading() as store:
            return store.attempts_page(job, number - 1, after=-1, most=-1)

    def history(self, device: str, most: int = 200) -> list[Fated]:
        """Return what became of a device in the last rounds of all jobs, the latest first. Raises StoreError."""
        with self._reading() as store:
            return pasts.of(store._db, device, most)

    def events(
        self,
        *,
        since: int | None = None,
        before: int | None = None,
        kind: str = "",
        job: str = "",
        device: str = "",
        most: int = 200,
    ) -> list[Event]:
        """Return events, as `aggregator.events.page`; none of a store of an older fedge. Raises StoreError."""
        with self._reading() as store:
            if self._schema < events.SCHEMA:
                return []
            return events.page(store._db, since=since, before=before, kind=kind, job=job, device=device, most=most)

    def counted(self, job: str) -> list[str]:
        """Return the devices whose updates count for the current version, by name. Raises StoreError."""
        with self._reading() as store:
            return [claim.device for claim in store.claims(job)]

    def refused(self, job: str) -> dict[str, str]:
        """Return the devices that were refused on the current version, by name, and why. Raises StoreError."""
        sql = (
            "SELECT device, refused FROM updates WHERE job = ?1 AND refused != '' AND (generation, number) ="
            " (SELECT generation, number FROM versions WHERE job = ?1 AND (state IS NOT NULL OR record IS NOT NULL)"
            " ORDER BY generation DESC, number DESC LIMIT 1) ORDER BY device"
        )
        with self._reading() as store:
            return {str(device): str(why) for device, why in store._db.rows("table updates", sql, (job,))}

    def open_attempt(self, job: str) -> Attempt | None:
        """Return the open attempt to leave the current version of a job; None where none is. Raises StoreError."""
        with self._reading() as store:
            found = store.last_attempt(job, generations.current(store._db, job))
            return found[0] if found is not None and found[1] else None

    def devices(self) -> set[str]:
        """Return the devices that have rows: of updates, or of what they brought. Raises StoreError."""
        sql = "SELECT device FROM updates UNION SELECT device FROM contributions"
        with self._reading() as store:
            return {str(device) for (device,) in store._db.rows("table contributions", sql)}

    def quarantined(self) -> dict[str, str]:
        """Return the devices in quarantine, and why. Raises StoreError."""
        with self._reading() as store:
            return quarantine.read(store._db)

    # The file.

    @contextmanager
    def _reading(self) -> Iterator[Store]:
        """Hold the store as it is at one moment, for as long as the block lasts."""
        with self._lock:
            try:
                db = self._opened()
                with db.reading():
                    if schema.number(db) != self._schema:
                        self._schema = schema.check(db)
                    yield Store.over(db)
            except StoreError:
                self._let_go()
                raise

    def _opened(self) -> Database:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            raise StoreError(
                f"there is no {self._file}: has no aggregator run here yet, or is its state_dir another one?"
            ) from None
        except OSError as error:
            raise StoreError(f"{self._file} cannot be read: {error.strerror}: may this user read it?") from error
        if self._db is None or self._place != (found.st_dev, found.st_ino):
            self._let_go()
            self._db, self._place = Database(self._file, only_reads=True), (found.st_dev, found.st_ino)
        return self._db

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db, self._place, self._schema, self._seen = None, None, 0, None


def _job(store: Store, row: rows.JobRow) -> StoredJob:
    """Return a job with its current version; what is damaged of it is said in it."""
    spec: dict[str, Any] = {} if row.spec is None else msgspec.to_builtins(row.spec)
    version, at, metrics, damage = None, None, dict[str, float](), row.damage
    try:
        if not damage:
            version, at, metrics = store.newest(row.job)
        paused = store.paused(row.job)
    except DamageError as error:
        damage, paused = str(error), ""
    return StoredJob(row.job, row.name, row.ended, row.reason, paused, version, at, metrics, spec, damage)


def _point(job: str, cells: tuple[Any, ...]) -> CurveRow:
    number, generation, at, metrics, federated, down, took, counted, up = cells
    version = rows.read(Version, job, "versions", (generation, number))
    measured = rows.read_json(dict[str, float], job, "versions", metrics)
    by_devices = {} if federated is None else rows.read_json(dict[str, object], job, "versions", federated)
    participants = int(measured.get("participants", counted or 0))
    return CurveRow(
        *(version.number, seconds_of(at) or 0.0, measured, participants),
        *(up, down, None if took is None else round(took, 3)),
        by_devices,
        version.generation,
    )
