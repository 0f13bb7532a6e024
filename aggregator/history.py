"""Of the store: the versions of its jobs, the names that they had, and how to come to the current one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from aggregator import generations, rows
from aggregator.database import Transaction, crc
from aggregator.part import Part, base_cells
from aggregator.pasts import seconds_of
from aggregator.rows import AMONG_BODIES, BodyRow, Current, Kept, VersionRow, damaged
from broker.messages import Version


class History(Part):
    """What stands in the table `versions`, and in `jobs` of their names."""

    def raise_generation(self, job: str, above: int) -> Version:
        """Return the current version a new name, above this generation: the numbers after it were given out before.

        All that hangs on it goes with it, and its old name becomes one of `aliases` (generations.py).
        """
        with self._writing(job) as write:
            return generations.rename(self._db, write, job, above, self._chance)

    def renames(self, job: str) -> dict[Version, Version]:
        """Return former names of versions and their present ones, the latest last: for the job's life."""
        row = self._one(job, "jobs", "SELECT aliases FROM jobs WHERE job = ?", (job,))
        return dict(rows.read_json(list[tuple[Version, Version]], job, "jobs", row[0])) if row else {}

    def aliases(self, job: str) -> tuple[Version, ...]:
        """Return former names of the current version, the latest last."""
        version = generations.current(self._db, job)
        return tuple(old for old, now in self.renames(job).items() if now == version)

    def last_version(self, job: str) -> Current:
        """Return the current version of a job, and how to come to it."""
        version = generations.current(self._db, job)
        sql = "SELECT max(number) FROM versions WHERE job = ? AND state IS NOT NULL"
        first = (self._one(job, "versions", sql, (job,)) or (None,))[0]
        sql = "SELECT number, sha256, state, step, record FROM versions WHERE job = ? AND number >= ? ORDER BY number"
        found = list(self._rows(job, "versions", sql, (job, version.number if first is None else first)))
        last = found[-1] if found else (None,) * 5
        if last[0] != version.number or [row[0] for row in found] != list(range(last[0] - len(found) + 1, last[0] + 1)):
            raise damaged(job, "versions", "a version is missing, or there twice")
        state, steps = found[0][2], [rows.step_of(job, number, step) for number, _, _, step, _ in found[1:]]
        if state == AMONG_BODIES:
            state, steps = b"", [self._whole(job, found[0][0]), *steps]
        cells = {"version": version, "sha256": last[1], "state": state, "steps": steps, "record": last[4] or b""}
        return rows.read(Current, job, "versions", cells)

    def _whole(self, job: str, number: int) -> bytes:
        """Return the body that leads to a version from nothing. Raises DamageError."""
        sql = "SELECT name, number, chunk_bytes, data, crc FROM bodies WHERE job = ? AND number = ?"
        found = [rows.body_row(job, row) for row in self._rows(job, "bodies", sql, (job, number))]
        whole = next((row.data for row in found if not row.start), None)
        if whole is None:
            raise damaged(job, "bodies", f"the one that leads to version {number} from nothing is missing")
        return whole

    def newest(self, job: str) -> tuple[Version, float | None, dict[str, float]]:
        """Return the current version of a job, when it was made, in seconds since 1970, and its metrics."""
        version = generations.current(self._db, job)
        sql = "SELECT at, metrics FROM versions WHERE job = ? AND generation = ? AND number = ?"
        at, metrics = self._one(job, "versions", sql, base_cells(job, version)) or (None, None)
        return version, seconds_of(at), rows.read_json(dict[str, float], job, "versions", metrics)

    def versions(self, job: str) -> list[tuple[Version, str]]:
        """Return every version of a job with its SHA-256, the first one first."""
        return [(row.version, row.sha256) for row in self._versions(job)]

    def history(self, job: str) -> list[dict[str, float]]:
        """Return the metrics of every version of a job, version 0 first."""
        return [rows.read_json(dict[str, float], job, "versions", row.metrics) for row in self._versions(job)]

    def _versions(self, job: str) -> list[VersionRow]:
        sql = "SELECT generation, number, sha256, metrics FROM versions WHERE job = ? ORDER BY number, generation"
        found = [rows.version_row(job, row) for row in self._rows(job, "versions", sql, (job,))]
        if [row.version.number for row in found] != list(range(len(found))):
            raise damaged(job, "versions", "a version is missing, or there twice")
        return found


_ADD_BODY = "INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?, ?, ?)"
ADD_VERSION = (
    "INSERT INTO versions (job, generation, number, sha256, metrics, state, step, record, at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, datetime('now'))"
)
_SINCE_STATE = (
    " WHERE rowid IN (SELECT rowid FROM versions WHERE job = ?1 ORDER BY generation DESC, number DESC LIMIT ?2 -"
    " coalesce((SELECT number FROM versions WHERE job = ?1 AND state IS NOT NULL"
    " ORDER BY generation DESC, number DESC LIMIT 1), 0))"
)
"""The versions that have more than metrics: from the last state on, along the primary key, however many came before."""
_FORGET_KEPT = f"UPDATE versions SET state = NULL, step = NULL, record = NULL{_SINCE_STATE}"  # noqa: S608 -- ours
_FORGET_RECORD = f"UPDATE versions SET record = NULL{_SINCE_STATE} AND record IS NOT NULL"  # noqa: S608 -- ours


class Start(NamedTuple):
    """Version 1 of a job that starts from given weights: what `commit` is given of a version."""

    sha256: str
    stored: Kept
    metrics: Mapping[str, float]
    bodies: Sequence[BodyRow]


def add_version(
    write: Transaction,
    job: str,
    version: Version,
    sha256: str,
    stored: Kept,
    metrics: Mapping[str, float],
    bodies: Sequence[BodyRow],
) -> None:
    """Add a version, with the bodies that lead to it: see `Store.commit`."""
    write(_FORGET_KEPT if stored.state else _FORGET_RECORD, (job, version.number))
    row = (job, version.generation, version.number, sha256, msgspec.json.encode(metrics))
    step = rows.sealed(stored.step) if stored.step else None
    write(ADD_VERSION, (*row, stored.state or None, step, stored.record or None))
    for body in bodies:
        add_body(write, job, body)


def add_body(write: Transaction, job: str, body: BodyRow) -> None:
    """Add what is to lie at the broker."""
    write(_ADD_BODY, (job, body.name, body.number, body.chunk_bytes, body.data, crc(body.data)))
