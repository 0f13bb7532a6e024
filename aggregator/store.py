"""What the aggregator must not forget, in one SQLite file. The only file that imports sqlite3.

Every method that writes is one transaction, on disk (WAL, synchronous = FULL) when it returns. Retained topics at the
broker are a projection of what stands here.

    meta       the term
    jobs       specification, generation, how it ended
    versions   metrics of every version; the server state of the last one
    updates    last verdict of every device, and the bodies counted for the current base
    attempts   every round with its outcome and each device's fate
    bodies     what lies at the broker, until it has been cleared there
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from aggregator.effects import Attempt, Close
from broker.failpoints import reach
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY, name TEXT, spec BLOB, generation INTEGER, ended TEXT, reason TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    job TEXT, generation INTEGER, number INTEGER, sha256 TEXT, metrics BLOB, state BLOB, at TEXT,
    PRIMARY KEY (job, generation, number));
CREATE TABLE IF NOT EXISTS updates (
    job TEXT, device TEXT, generation INTEGER, number INTEGER, digest TEXT, refused TEXT,
    n_examples INTEGER, weight INTEGER, norm REAL, loss REAL, nmse REAL, body BLOB,
    PRIMARY KEY (job, device, generation, number));
CREATE TABLE IF NOT EXISTS attempts (
    job TEXT, generation INTEGER, number INTEGER, attempt INTEGER, round BLOB, outcome TEXT, reason TEXT, fates BLOB,
    opened TEXT, closed TEXT, PRIMARY KEY (job, generation, number, attempt));
CREATE TABLE IF NOT EXISTS bodies (
    job TEXT, name TEXT, number INTEGER, chunk_bytes INTEGER, data BLOB, PRIMARY KEY (job, name));
"""
SCHEMA_VERSION = 1


class StoreError(RuntimeError):
    """The state directory cannot be used; the message says what to do."""


class JobRow(Struct, frozen=True):
    """A job as it is stored. ended: "", "finished" or "stopped"."""

    job: str
    spec: JobSpec
    generation: int
    ended: str
    reason: str


class UpdateRow(Struct, frozen=True):
    """A counted update: what goes into the fold, and what the device said of it."""

    device: str
    n_examples: int
    weight: int
    """In the sum; below n_examples where the update was late."""
    norm: float
    loss: float | None
    nmse: float | None
    body: bytes


class AttemptRow(Struct, frozen=True):
    """A round as it is remembered; outcome is "open" while it is."""

    attempt: Attempt
    outcome: str
    reason: str
    fates: dict[str, str]
    opened: str
    """When, in UTC."""
    closed: str | None


class BodyRow(Struct, frozen=True):
    """A body at the broker. number: of the version that it leads to."""

    name: str
    number: int
    chunk_bytes: int
    data: bytes


class Store:
    """The state directory of one aggregator, locked for this process while it is open."""

    def __init__(self, folder: Path) -> None:
        """Open or create it. Raises StoreError when it is in use, not writable, or of a newer fedge."""
        self._lock = _locked(folder)
        try:
            self._db = _opened(folder / "aggregator.sqlite")
        except StoreError:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the file and give the lock up."""
        self._db.close()
        self._lock.close()

    def raise_term(self, at_least: int = 0) -> int:
        """Give a term that is higher than any before and not below `at_least`."""
        row = self._one("SELECT value FROM meta WHERE name = 'term'")
        term = max((row[0] if row else 0) + 1, at_least)
        self._write("INSERT OR REPLACE INTO meta VALUES ('term', ?)", (term,))
        return term

    # Jobs and versions.

    def add_job(self, job: str, spec: JobSpec, sha256: str, state: bytes, metrics: Mapping[str, float]) -> None:
        """Add a job with its version 0."""
        with _Transaction(self._db) as write:
            write("INSERT INTO jobs VALUES (?, ?, ?, 1, '', '')", (job, spec.name, msgspec.json.encode(spec)))
            write(_ADD_VERSION, (job, 1, 0, sha256, msgspec.json.encode(metrics), state))

    def end_job(self, job: str, ended: str, reason: str) -> None:
        """Remember that and why a job has ended."""
        self._write("UPDATE jobs SET ended = ?, reason = ? WHERE job = ?", (ended, reason, job))

    def jobs(self) -> list[JobRow]:
        """Give every job, by name. Raises StoreError for a specification that this fedge does not understand."""
        rows = self._all("SELECT job, spec, generation, ended, reason FROM jobs ORDER BY name, job")
        return [JobRow(job, _spec(job, spec), generation, *rest) for job, spec, generation, *rest in rows]

    def commit(
        self,
        job: str,
        version: Version,
        sha256: str,
        state: bytes,
        metrics: Mapping[str, float],
        bodies: Sequence[BodyRow],
        close: Close,
    ) -> None:
        """Make a version durable, with the bodies that lead to it and the end of the round that made it.

        The bodies of the updates that went into it are no longer needed.
        """
        with _Transaction(self._db) as write:
            write("UPDATE versions SET state = NULL WHERE job = ?", (job,))
            write(
                _ADD_VERSION,
                (job, version.generation, version.number, sha256, msgspec.json.encode(metrics), state),
            )
            write("UPDATE updates SET body = NULL WHERE job = ?", (job,))
            write(_CLOSE_ATTEMPT, _closing(job, close))
            for body in bodies:
                write(_ADD_BODY, (job, body.name, body.number, body.chunk_bytes, body.data))
            reach("store.commit.within", job)
        reach("store.commit.after", (job, version, sha256))

    def raise_generation(self, job: str, renamed: Version, bodies: Sequence[BodyRow]) -> None:
        """Rename the last version of a job: the numbers after it were given out before.

        bodies: what leads to it, under its new name.
        """
        with _Transaction(self._db) as write:
            write("UPDATE jobs SET generation = ? WHERE job = ?", (renamed.generation, job))
            write("UPDATE versions SET generation = ? WHERE job = ? AND state IS NOT NULL", (renamed.generation, job))
            for body in bodies:
                write(_ADD_BODY, (job, body.name, body.number, body.chunk_bytes, body.data))

    def last_version(self, job: str) -> tuple[Version, str, bytes]:
        """Give the last version of a job, its SHA-256 and the server state."""
        row = self._one(
            "SELECT generation, number, sha256, state FROM versions WHERE job = ? AND state IS NOT NULL"
            " ORDER BY generation DESC, number DESC LIMIT 1",
            (job,),
        )
        if row is None:
            raise StoreError(f"job {job} has no version: the state directory is damaged, restore a backup")
        return Version(row[0], row[1]), row[2], row[3]

    def versions(self, job: str) -> list[tuple[Version, str]]:
        """Give every version of a job with its SHA-256, the first one first."""
        rows = self._all(
            "SELECT generation, number, sha256 FROM versions WHERE job = ? ORDER BY generation, number", (job,)
        )
        return [(Version(generation, number), sha256) for generation, number, sha256 in rows]

    def history(self, job: str) -> list[dict[str, float]]:
        """Give the metrics of every version of a job, version 0 first."""
        rows = self._all("SELECT metrics FROM versions WHERE job = ? ORDER BY generation, number", (job,))
        return [msgspec.json.decode(row[0], type=dict[str, float]) for row in rows]

    # Updates.

    def add_verdict(
        self, verdict: Verdict, offer: Offer | None = None, weight: int = 0, norm: float = 0.0, body: bytes = b""
    ) -> None:
        """Make a verdict durable, and with a counted one the update itself; older ones that went into a version go."""
        base = verdict.base
        n_examples, loss, nmse = (offer.n_examples, offer.loss, offer.nmse) if offer else (0, None, None)
        with _Transaction(self._db) as write:
            write("DELETE FROM updates WHERE job = ? AND device = ? AND body IS NULL", (verdict.job, verdict.device))
            write(
                "INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(verdict.job, verdict.device, base.generation, base.number, verdict.digest, verdict.refused),
                    *(n_examples, weight, norm, loss, nmse, body if verdict.counted else None),
                ),
            )
            reach("store.add_verdict.within", verdict)
        reach("store.add_verdict.after", verdict)

    def verdicts(self, job: str) -> list[Verdict]:
        """Give the last verdict of every device, last in the list."""
        rows = self._all(
            "SELECT device, generation, number, digest, refused FROM updates WHERE job = ?"
            " ORDER BY generation, number, device",
            (job,),
        )
        return [Verdict(r[0], job, Version(r[1], r[2]), r[3], refused=r[4]) for r in rows]

    def updates(self, job: str) -> Iterator[UpdateRow]:
        """Give the updates that will make the next version one by one, in the order of the devices' names."""
        rows = self._rows(
            "SELECT device, n_examples, weight, norm, loss, nmse, body FROM updates"
            " WHERE job = ? AND refused = '' AND body IS NOT NULL ORDER BY device, generation, number",
            (job,),
        )
        for row in rows:
            yield UpdateRow(*row)

    # Rounds.

    def open_attempt(self, job: str, attempt: Attempt) -> None:
        """Make a round durable before it is announced."""
        base = attempt.base
        self._write(
            "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, 'open', '', '{}', datetime('now'), NULL)",
            (job, base.generation, base.number, attempt.number, msgspec.json.encode(attempt)),
        )

    def close_attempt(self, job: str, close: Close) -> None:
        """Remember how a round ended."""
        self._write(_CLOSE_ATTEMPT, _closing(job, close))

    def attempts(self, job: str, base: Version) -> list[AttemptRow]:
        """Give the rounds that tried to leave a base, the first one first."""
        rows = self._all(
            "SELECT round, outcome, reason, fates, opened, closed FROM attempts"
            " WHERE job = ? AND generation = ? AND number = ? ORDER BY attempt",
            (job, base.generation, base.number),
        )
        return [
            AttemptRow(msgspec.json.decode(round_, type=Attempt), outcome, reason, _fates(fates), opened, closed)
            for round_, outcome, reason, fates, opened, closed in rows
        ]

    # Bodies.

    def bodies(self, job: str) -> list[BodyRow]:
        """Give what lies, or should lie, at the broker."""
        rows = self._all("SELECT name, number, chunk_bytes, data FROM bodies WHERE job = ?", (job,))
        return [BodyRow(*row) for row in rows]

    def forget_body(self, job: str, name: str) -> None:
        """Forget a body that has been cleared at the broker."""
        self._write("DELETE FROM bodies WHERE job = ? AND name = ?", (job, name))

    # SQLite.

    def _one(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        return next(self._rows(sql, values), None)

    def _all(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return list(self._rows(sql, values))

    def _rows(self, sql: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise StoreError(f"the state directory cannot be read: {error}") from error

    def _write(self, sql: str, values: Sequence[object]) -> None:
        with _Transaction(self._db) as write:
            write(sql, values)


_CLOSE_ATTEMPT = (
    "UPDATE attempts SET round = ?, outcome = ?, reason = ?, fates = ?, closed = datetime('now')"
    " WHERE job = ? AND generation = ? AND number = ? AND attempt = ?"
)
_ADD_BODY = "INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?, ?)"
_ADD_VERSION = "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, datetime('now'))"


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK; a full or read-only disk becomes a StoreError."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> _Transaction:
        self("BEGIN IMMEDIATE", ())
        return self

    def __call__(self, sql: str, values: Sequence[object]) -> None:
        reach("store.statement.before", sql[:40])
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"the state directory cannot be written: {error}") from error
        reach("store.statement.after", sql[:40])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self("COMMIT", ())
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _opened(file: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(file, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(f"{file} cannot be opened: {error}") from error
    try:
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            raise StoreError(f"{file} was written by a newer fedge (schema {found}): upgrade this one")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sqlite3.Error as error:
        db.close()
        raise StoreError(f"{file} cannot be used: {error}") from error
    except StoreError:
        db.close()
        raise
    return db


def _locked(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise StoreError(f"state directory {folder} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StoreError(f"state directory {folder} is in use by process {owner}: stop that aggregator first") from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _spec(job: str, spec: bytes) -> JobSpec:
    try:
        return msgspec.json.decode(spec, type=JobSpec)
    except msgspec.ValidationError as error:
        raise StoreError(f"job {job} was written by another fedge and is not understood here: {error}") from error


def _closing(job: str, close: Close) -> tuple[object, ...]:
    attempt, base = close.attempt, close.attempt.base
    fates = msgspec.json.encode(close.fates)
    return (
        *(msgspec.json.encode(attempt), close.outcome, close.reason, fates),
        *(job, base.generation, base.number, attempt.number),
    )


def _fates(text: bytes) -> dict[str, str]:
    return msgspec.json.decode(text, type=dict[str, str])
