"""Versions whose states are kept for their own sake, and the jobs that another one of their name has replaced.

    kept    of a job: its best version, and every Nth as the job says; of a replaced one its best and its last
    past    the last MOST_PAST replaced jobs, as far as their states fit PAST_BYTES

A state is the body that says its version exactly, from nothing (models/exact.py): whoever has the specification of the
job can read it. A version is kept when it is left, in the transaction that makes the next one: while it is the current
one the store has it anyway, and a job that improves with every round writes nothing.

Functions that write are given the transaction that they are a part of. What is read is looked at as in rows.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from aggregator.database import DamageError, Database, Transaction, crc
from aggregator.rows import damaged, is_id, read, read_json, spec_of
from broker.ceilings import Generation, Number
from broker.messages import Digest, Short
from models.job import JobSpec

MOST_PAST = 20
"""Replaced jobs that are remembered with their states."""
PAST_BYTES = 2**28
"""Of all their states together; beyond it the oldest go first."""


class KeptState(Struct, frozen=True):
    """A version that is kept: its number, its SHA-256, its metrics, and the body that says it."""

    number: Number
    sha256: Digest
    metrics: dict[str, float]
    body: bytes


class Keep(NamedTuple):
    """What a transaction does to the kept states of a job: these are added, and those of these numbers go."""

    add: tuple[KeptState, ...] = ()
    drop: tuple[int, ...] = ()


class Leaving(NamedTuple):
    """What remains of a job that is replaced. best: the number of its best version, where that is known."""

    job: str
    states: tuple[KeptState, ...] = ()
    best: int | None = None


class PastJob(Struct, frozen=True):
    """A replaced job."""

    job: str
    name: str
    spec: JobSpec
    ended: str
    reason: str
    generation: int
    last: int
    """Number of its last version."""
    best: int | None
    at: str
    """When it was replaced, in UTC."""


class _Past(Struct, frozen=True):
    ended: str
    reason: Short
    generation: Generation
    last: Number
    best: Number | None
    at: str


def keep(write: Transaction, job: str, change: Keep) -> None:
    """Add states to those of a job that are kept, and drop others."""
    for state in change.add:
        cells = (state.sha256, msgspec.json.encode(state.metrics), state.body, crc(state.body))
        write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?)", (job, state.number, *cells))
    for number in change.drop:
        write("DELETE FROM kept WHERE job = ? AND number = ?", (job, number))


def replaced(write: Transaction, leaving: Leaving) -> None:
    """Remember a job that is about to be forgotten, with its best and its last state, and forget the oldest of such."""
    job = leaving.job
    keep(write, job, Keep(leaving.states))
    write(
        "INSERT OR REPLACE INTO past (job, name, spec, crc, ended, reason, generation, last, best, at)"
        " SELECT job, name, spec, crc, ended, reason, generation,"
        " (SELECT max(number) FROM versions WHERE job = ?1), ?2, datetime('now') FROM jobs WHERE job = ?1",
        (job, leaving.best),
    )
    if leaving.best is not None:
        sql = "DELETE FROM kept WHERE job = ?1 AND number != ?2 AND number != (SELECT last FROM past WHERE job = ?1)"
        write(sql, (job, leaving.best))
    write("DELETE FROM past WHERE n <= (SELECT max(n) FROM past) - ?", (MOST_PAST,))
    write(
        "DELETE FROM past WHERE n < (SELECT max(n) FROM past) AND ? < (SELECT coalesce(sum(length(k.body)), 0)"
        " FROM kept k JOIN past p ON k.job = p.job WHERE p.n >= past.n)",
        (PAST_BYTES,),
    )
    write("DELETE FROM kept WHERE job NOT IN (SELECT job FROM jobs UNION SELECT job FROM past)")


def forget(write: Transaction, job: str) -> None:
    """Forget a job's kept states, and that it was replaced."""
    write("DELETE FROM kept WHERE job = ?", (job,))
    write("DELETE FROM past WHERE job = ?", (job,))


class KeptStates:
    """What is kept in a store, read."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def sizes(self, job: str) -> dict[int, int]:
        """Return the numbers of the versions of a job that are kept, in order, and how many bytes each takes."""
        sql = "SELECT number, length(body) FROM kept WHERE job = ? ORDER BY number"
        found = self._db.rows(f"job {job}, table kept,", sql, (job,))
        return {read(Number, job, "kept", number): int(size or 0) for number, size in found}

    def metrics(self, job: str, number: int) -> dict[str, float]:
        """Return the metrics of a version of a job; none where it is not kept. Raises DamageError."""
        sql = "SELECT metrics FROM kept WHERE job = ? AND number = ?"
        row = self._db.one(f"job {job}, table kept,", sql, (job, number))
        return {} if row is None else read_json(dict[str, float], job, "kept", row[0])

    def get(self, job: str, number: int) -> KeptState | None:
        """Return a version of a job; None where it is not kept. Raises DamageError."""
        sql = "SELECT number, sha256, metrics, body, crc FROM kept WHERE job = ? AND number = ?"
        row = self._db.one(f"job {job}, table kept,", sql, (job, number))
        if row is None:
            return None
        *cells, checksum = row
        if not isinstance(cells[3], bytes) or checksum != crc(cells[3]):
            raise damaged(job, "kept", f"the checksum of version {number} is wrong")
        cells[2] = read_json(dict[str, float], job, "kept", cells[2])
        return read(KeptState, job, "kept", dict(zip(KeptState.__struct_fields__, cells, strict=True)))

    def past(self) -> list[PastJob]:
        """Return the replaced jobs, the latest first; one whose row is damaged is left out."""
        sql = "SELECT job, name, spec, crc, ended, reason, generation, last, best, at FROM past ORDER BY n DESC"
        return [found for row in self._db.rows("table past", sql) if (found := _past(row)) is not None]


def _past(row: Sequence[object]) -> PastJob | None:
    job, _, spec, checksum, *cells = row
    if not is_id(job):
        return None
    try:
        found = read(_Past, job, "past", dict(zip(_Past.__struct_fields__, cells, strict=True)))
        read_spec = spec_of(job, spec, checksum)
    except DamageError:
        return None
    return PastJob(
        *(job, read_spec.name, read_spec, found.ended, found.reason, found.generation, found.last, found.best),
        at=found.at,
    )
