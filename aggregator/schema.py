"""The tables, and how a file gets from one schema to the next.

    meta       the term, who this store is, and small durable words of the service
    jobs       specification, generation, how it ended, former names of its version, the request that made it
    versions   metrics of every version; the server state of one of the last, and how to go on from there
    updates    last verdict of every device, and the bodies counted for the current base, or where they lie (bodies.py)
    attempts   every round with its outcome and each device's fate
    bodies     what should lie at the broker
    litter     names of bodies that may still lie there, and should not
    contributions  what each device brought to each version that was left: of the last ones (contributions.py)
    deleted    the names of jobs that are gone
    kept       states of versions that are kept for their own sake (kept.py)
    past       jobs that another of their name has replaced
    events     what has happened, for people (events.py)

A new file is made beside its place and renamed into it, so that one that lies there is whole, and one that holds
nothing has lost what it held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from aggregator import kept
from aggregator.database import REMEDY, DamageError, Database, StoreError, Transaction
from runtime.disk import sync

FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE jobs (
    job TEXT PRIMARY KEY, name TEXT, spec BLOB, generation INTEGER, ended TEXT, reason TEXT) WITHOUT ROWID;
CREATE TABLE versions (
    job TEXT, generation INTEGER, number INTEGER, sha256 TEXT, metrics BLOB, state BLOB, at TEXT,
    PRIMARY KEY (job, generation, number));
CREATE TABLE updates (
    job TEXT, device TEXT, generation INTEGER, number INTEGER, digest TEXT, refused TEXT,
    n_examples INTEGER, weight INTEGER, norm REAL, loss REAL, nmse REAL, body BLOB,
    PRIMARY KEY (job, device, generation, number));
CREATE TABLE attempts (
    job TEXT, generation INTEGER, number INTEGER, attempt INTEGER, round BLOB, outcome TEXT, reason TEXT, fates BLOB,
    opened TEXT, closed TEXT, PRIMARY KEY (job, generation, number, attempt));
CREATE TABLE bodies (
    job TEXT, name TEXT, number INTEGER, chunk_bytes INTEGER, data BLOB, PRIMARY KEY (job, name));
"""
MOST_DELETED = 1000
"""Names of deleted jobs that are kept."""
TRIM = "DELETE FROM deleted WHERE n <= (SELECT max(n) FROM deleted) - ?"
SECOND = """
CREATE TABLE deleted (n INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT UNIQUE, name TEXT, request TEXT);
CREATE TABLE litter (job TEXT, name TEXT, chunks INTEGER, PRIMARY KEY (job, name)) WITHOUT ROWID;
INSERT INTO deleted (job, name, request) SELECT job, name, '' FROM jobs WHERE ended = 'deleted' ORDER BY job;
DELETE FROM versions WHERE job IN (SELECT job FROM deleted);
DELETE FROM updates WHERE job IN (SELECT job FROM deleted);
DELETE FROM attempts WHERE job IN (SELECT job FROM deleted);
DELETE FROM bodies WHERE job IN (SELECT job FROM deleted);
DELETE FROM jobs WHERE job IN (SELECT job FROM deleted);
ALTER TABLE jobs ADD COLUMN request TEXT DEFAULT '';
ALTER TABLE jobs ADD COLUMN aliases TEXT DEFAULT '[]';
ALTER TABLE jobs ADD COLUMN crc INTEGER;
ALTER TABLE updates ADD COLUMN crc INTEGER;
ALTER TABLE attempts ADD COLUMN crc INTEGER;
ALTER TABLE bodies ADD COLUMN crc INTEGER;
UPDATE jobs SET crc = crc(spec);
UPDATE updates SET crc = crc(body) WHERE body IS NOT NULL;
UPDATE attempts SET crc = crc(round);
UPDATE bodies SET crc = crc(data);
"""
LITTER = (
    "INSERT OR REPLACE INTO litter (job, name, chunks)"
    " SELECT job, name, (length(data) + chunk_bytes - 1) / chunk_bytes FROM bodies WHERE job = ?"
)
_FORGET = (
    LITTER,
    "DELETE FROM jobs WHERE job = ?",
    "DELETE FROM versions WHERE job = ?",
    "DELETE FROM updates WHERE job = ?",
    "DELETE FROM attempts WHERE job = ?",
    "DELETE FROM contributions WHERE job = ?",
    "DELETE FROM bodies WHERE job = ?",
    "DELETE FROM meta WHERE name = 'note:signed:' || ?",
    "DELETE FROM meta WHERE name = 'note:paused:' || ?",
)
THIRD = """
ALTER TABLE updates DROP COLUMN nmse;
ALTER TABLE updates ADD COLUMN curvature REAL;
ALTER TABLE updates ADD COLUMN gain REAL;
"""
FOURTH = """
ALTER TABLE versions ADD COLUMN step BLOB;
ALTER TABLE versions ADD COLUMN record BLOB;
ALTER TABLE updates ADD COLUMN at INTEGER;
ALTER TABLE updates ADD COLUMN n_bytes INTEGER;
"""
FIFTH = """
CREATE TABLE kept (
    job TEXT, number INTEGER, sha256 TEXT, metrics BLOB, body BLOB, crc INTEGER, PRIMARY KEY (job, number));
CREATE TABLE past (
    n INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT UNIQUE, name TEXT, spec BLOB, crc INTEGER, ended TEXT, reason TEXT,
    generation INTEGER, last INTEGER, best INTEGER, at TEXT);
ALTER TABLE updates ADD COLUMN body_bytes INTEGER;
ALTER TABLE updates ADD COLUMN seconds REAL;
ALTER TABLE updates ADD COLUMN evaluation BLOB;
ALTER TABLE versions ADD COLUMN federated BLOB;
CREATE TABLE contributions (
    job TEXT, number INTEGER, device TEXT, counted INTEGER, n_examples INTEGER, weight INTEGER, norm REAL, loss REAL,
    body_bytes INTEGER, seconds REAL, evaluation BLOB, PRIMARY KEY (job, number, device)) WITHOUT ROWID;
"""
SIXTH = """
CREATE TABLE events (n INTEGER PRIMARY KEY, at TEXT, kind TEXT, job TEXT, device TEXT, text TEXT);
"""
STEPS = (FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH)
"""What leads from each schema to the next, beginning with an empty file."""
SCHEMA_VERSION = len(STEPS)
TABLES = {"meta", "jobs", "versions", "updates", "attempts", "bodies"}
"""Those that every schema has."""

Begin = Callable[[Path], Iterable[tuple[str, object]]]
"""Gives the words of meta that a file begins with."""


def opened(file: Path, *, synced: bool, begin: Begin) -> Database:
    """Open a store's file, made or migrated where that is needed.

    begin: asked for a new file, and for one from before there was an identity.
    Raises StoreError, or DamageError where it is no store.
    """
    try:
        if not file.exists():
            _make(file, begin, synced=synced)
        elif not file.stat().st_size:
            raise DamageError(f"{file} is empty: {REMEDY}, or remove it to begin anew without its jobs")
    except OSError as error:
        raise StoreError(f"{file} cannot be used: {error.strerror}: may this user read and write it?") from error
    db = Database(file, synced=synced, wal=False)
    try:
        check(db)  # first: a later fedge's is not touched
        db.log_ahead()
        bring_up(db, begin)
    except BaseException:
        db.close()
        raise
    return db


def bring_up(db: Database, begin: Begin = lambda _: ()) -> None:
    """Bring an open file up to date. Raises DamageError unless it is a store, StoreError where it is a later fedge's.

    begin: nothing is begun for a copy, which is given an identity when it is first opened as a store.
    """
    if check(db) < SCHEMA_VERSION:
        _migrate(db, begin)


def is_newer(db: Database) -> bool:
    """Return whether a later fedge has written a file. Raises StoreError."""
    return number(db) > SCHEMA_VERSION


def number(db: Database) -> int:
    """Return the number of a file's schema, whatever that is. Raises StoreError or DamageError."""
    row = db.one("its schema", "PRAGMA user_version")
    return int(row[0]) if row else 0


def check(db: Database) -> int:
    """Return the schema of a file. Raises DamageError unless it is a store, StoreError where it is a later fedge's."""
    found = number(db)
    if found > SCHEMA_VERSION:
        raise StoreError(
            f"{db.file} was written by a newer fedge (schema {found}, where this one reads 1 to {SCHEMA_VERSION}): "
            "upgrade this one"
        )
    things = db.things()
    wanted = TABLES | {"deleted", "litter"} if found >= 2 else TABLES
    wanted = wanted | {"kept", "past"} if found >= 5 else wanted
    wanted = wanted | {"events"} if found >= 6 else wanted
    missing = wanted - {name for kind, name in things if kind == "table"}
    foreign = {kind for kind, _ in things} - {"table", "index"}
    if found < 1 or missing or foreign:
        what = f"it has no table {min(missing)}" if missing else f"its schema is {found}"
        what = f"it has a {min(foreign)}" if foreign else what
        raise DamageError(
            f"{db.file} is no store of an aggregator ({what}; copied while one ran, without its -wal?): {REMEDY}, "
            "or move it away to begin anew without its jobs"
        )
    return found


def forget(write: Transaction, job: str, *, states: bool = True) -> None:
    """Delete all of a job but its name. states: also those of its versions that are kept for their own sake."""
    if states:
        kept.forget(write, job)
    write(
        "INSERT OR REPLACE INTO deleted (job, name, request)"
        " SELECT ?1, coalesce(max(name), ?1), coalesce(max(request), '') FROM jobs WHERE job = ?1",
        (job,),
    )
    for statement in _FORGET:
        write(statement, (job,))
    write(TRIM, (MOST_DELETED,))


def _make(file: Path, begin: Begin, *, synced: bool) -> None:
    wal = file.with_name(f"{file.name}-wal")
    if wal.exists() and wal.stat().st_size:
        raise DamageError(
            f"{file} is gone and {wal.name} is still there: put it back, or {REMEDY}, "
            "or remove that as well to begin anew without its jobs"
        )
    new = file.with_name(f".{file.name}.new")
    for stale in (new, new.with_name(f"{new.name}-journal")):
        stale.unlink(missing_ok=True)
    db = Database(new, synced=False, wal=False, new=True)
    try:
        _migrate(db, begin)
    finally:
        db.close()
    if synced:
        sync(new)
    new.replace(file)
    if synced:
        sync(file.parent)


def _migrate(db: Database, begin: Begin) -> None:
    found = number(db)
    with db.transaction("a new schema") as write:
        for step in STEPS[found:]:
            for statement in step.split(";\n")[:-1]:
                write(statement)
        write(TRIM, (MOST_DELETED,))
        for name, value in begin(db.file):
            write("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
        write(f"PRAGMA user_version = {SCHEMA_VERSION}")
