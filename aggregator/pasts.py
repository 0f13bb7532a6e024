"""What became of one device in the last rounds of every job, as the store has it: for people.

A round's fates are one cell, of up to 20,000 devices; so rounds are looked through from the latest one back, a cell at
a time, and no more than MOST_BYTES of them. Fates of the round that is open are not in the store.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from aggregator.database import Database, Row

MOST_ROUNDS = 2000
"""Rounds of one job that are looked through."""
MOST_BYTES = 32 * 2**20
"""Of the fates of all of them: a fifteenth of a second."""

_ROUNDS = (
    "SELECT number, attempt, length(fates), CASE WHEN instr(CAST(fates AS TEXT), ?2) THEN"
    " json_extract(CAST(fates AS TEXT), ?3) END, closed FROM attempts"
    " WHERE job = ?1 AND closed IS NOT NULL ORDER BY generation DESC, number DESC, attempt DESC LIMIT ?4"
)
_BROUGHT = (
    "SELECT seconds, loss FROM contributions WHERE job = ?1 AND number = ?2 AND device = ?3 UNION ALL"
    " SELECT seconds, loss FROM updates WHERE job = ?1 AND number = ?2 AND device = ?3"
)


class Fated(Struct, frozen=True):
    """What became of a device in one attempt."""

    job: str
    number: int
    """Of the version that the attempt would make."""
    attempt: int
    fate: str
    closed: str
    """When it ended, in UTC."""
    seconds: float | None = None
    """From the opening of the round to the coming of its update."""
    loss: float | None = None
    """Of its training, where it tells."""


def of(db: Database, device: str, most: int) -> list[Fated]:
    """Return what became of a device in the last rounds, the latest first. Raises StoreError or DamageError."""
    found: list[Fated] = []
    left = MOST_BYTES
    for (job,) in list(db.rows("table jobs", "SELECT job FROM jobs ORDER BY job")):
        for n, (number, attempt, n_bytes, fate, closed) in enumerate(_rounds(db, job, device)):
            left -= n_bytes or 0
            if isinstance(fate, str):
                found.append(Fated(job, number + 1, attempt, fate, str(closed)))
            if left < 0 or n + 1 >= MOST_ROUNDS or sum(one.job == job for one in found[-most:]) >= most:
                break
    latest = heapq.nlargest(most, found, key=lambda one: (one.closed, one.number, one.attempt))
    return [_with_what_it_brought(db, device, one) for one in latest]


def _rounds(db: Database, job: str, device: str) -> Iterator[Row]:
    values = (job, f'"{device}":', f'$."{device}"', MOST_ROUNDS)
    return db.rows(f"job {job}, table attempts,", _ROUNDS, values)


def _with_what_it_brought(db: Database, device: str, one: Fated) -> Fated:
    row = db.one(f"job {one.job}, table contributions,", _BROUGHT, (one.job, one.number - 1, device))
    if row is None or not one.fate.startswith(("counted", "refused")):
        return one
    seconds, loss = (float(cell) if isinstance(cell, int | float) else None for cell in row)
    return Fated(one.job, one.number, one.attempt, one.fate, one.closed, seconds, loss)


def seconds_of(at: object) -> float | None:
    """Return a moment as the store writes it, UTC, in seconds since 1970; None where it is none."""
    try:
        return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() if isinstance(at, str) else None
    except ValueError:
        return None
