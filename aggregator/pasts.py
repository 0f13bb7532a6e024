"""What became of one device in the last rounds of every job, as the store has it: for people.

A round's fates are one cell, of up to 20,000 devices; so rounds are looked through from the latest one back, a cell at
a time, and no more than MOST_BYTES of them. Fates of the round that is open are not in the store.
"""

from __future__ import annotations

import heapq
import json
from datetime import UTC, datetime

from msgspec import Struct

from aggregator.database import Database

MOST_ROUNDS = 2000
"""Rounds of one job that are looked through."""
MOST_BYTES = 32 * 2**20
"""Of the fates of all of them."""
MOST_FATE = 8192
"""Bytes of one fate."""
_READ = json.JSONDecoder()

_ROUNDS = (
    "SELECT number, attempt, fates, closed FROM attempts WHERE job = ? AND closed IS NOT NULL"
    " ORDER BY generation DESC, number DESC, attempt DESC LIMIT ?"
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
        n_found = 0
        for number, attempt, cell, closed in db.rows(f"job {job}, table attempts,", _ROUNDS, (job, MOST_ROUNDS)):
            fates = cell if isinstance(cell, bytes) else str(cell).encode(errors="replace")
            left -= len(fates)
            if (fate := _fate(fates, device)) is not None:
                found.append(Fated(job, number + 1, attempt, fate, str(closed)))
                n_found += 1
            if left < 0 or n_found >= most:
                break
    latest = heapq.nlargest(most, found, key=lambda one: (one.closed, one.number, one.attempt))
    return [_with_what_it_brought(db, device, one) for one in latest]


def _fate(fates: bytes, device: str) -> str | None:
    """Return what became of a device, without reading what became of the others: one cell has up to 20,000.

    In JSON no quote stands inside a string without a backslash before it, so that what is found is a name.
    """
    name = f'"{device}":'.encode()
    at = fates.find(name)
    if at < 0:
        return None
    try:
        fate, _ = _READ.raw_decode(fates[at + len(name) :][:MOST_FATE].decode(errors="ignore").lstrip())
    except ValueError:
        return None
    return fate if isinstance(fate, str) else None


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
