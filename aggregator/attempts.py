"""Of the store: the rounds that tried to leave a version, open and ended."""

from __future__ import annotations

import msgspec

from aggregator import rows
from aggregator.database import crc
from aggregator.effects import Attempt, Close
from aggregator.part import Part, base_cells
from aggregator.rows import AttemptRow
from broker.messages import Version

MOST_ATTEMPTS = 2000
"""Rounds to leave one base that are kept, beside the first: at one a minute, those of a day and a half."""

CLOSE_ATTEMPT = (
    "UPDATE attempts SET round = ?, crc = ?, outcome = ?, reason = ?, fates = ?, closed = datetime('now')"
    " WHERE job = ? AND generation = ? AND number = ? AND attempt = ?"
)

_GENERATIONS = (
    "WITH RECURSIVE found (generation) AS (SELECT min(generation) FROM attempts WHERE job = ?1 UNION ALL"
    " SELECT (SELECT min(a.generation) FROM attempts a WHERE a.job = ?1 AND a.generation > found.generation)"
    " FROM found WHERE found.generation IS NOT NULL)"
)
"""The generations that a job's rounds are of: few, so that a round is found by the key of its table."""
_OF_ANY = "generation IN (SELECT generation FROM found)"


class Attempts(Part):
    """What stands in the table `attempts`."""

    def open_attempt(self, job: str, attempt: Attempt) -> None:
        """Make a round durable before it is announced."""
        round_, base = msgspec.json.encode(attempt), base_cells(job, attempt.base)
        with self._writing(job) as write:
            write(
                "INSERT OR REPLACE INTO attempts"
                " (job, generation, number, attempt, round, crc, outcome, reason, fates, opened)"
                " VALUES (?, ?, ?, ?, ?, ?, 'open', '', '{}', datetime('now'))",
                (*base, attempt.number, round_, crc(round_)),
            )
            if attempt.number > MOST_ATTEMPTS:
                write(
                    "DELETE FROM attempts"
                    " WHERE job = ? AND generation = ? AND number = ? AND attempt <= ? AND attempt > 1",
                    (*base, attempt.number - MOST_ATTEMPTS),
                )

    def close_attempt(self, job: str, close: Close) -> None:
        """Remember how a round ended."""
        cells = rows.closing(job, close)
        if close.outcome != "abandoned":
            self._write(CLOSE_ATTEMPT, cells, job)
            return
        told = f"attempt {close.attempt.number} to leave version {close.attempt.base} of {job}: {close.reason}"
        with self.events.told("round.abandoned", told, job=job):
            self._write(CLOSE_ATTEMPT, cells, job)

    def attempts(self, job: str, base: Version) -> list[AttemptRow]:
        """Return the rounds that tried to leave a base, the first one first, as far as they are kept."""
        found = self.attempts_page(job, base.number, after=-1, most=-1)
        return [row for row in found if row.attempt.base == base]

    def last_attempt(self, job: str, base: Version) -> tuple[Attempt, bool] | None:
        """Return the last round that tried to leave a base, and whether it is open; without what became of whom."""
        sql = (
            "SELECT attempt, round, crc, outcome = 'open' FROM attempts WHERE job = ? AND generation = ? AND number = ?"
            " ORDER BY attempt DESC LIMIT 1"
        )
        row = self._one(job, "attempts", sql, base_cells(job, base))
        if row is None:
            return None
        *round_, is_open = row
        return rows.attempt_of(job, base, *round_), bool(is_open)

    def attempts_page(self, job: str, number: int, *, after: int = 0, most: int) -> list[AttemptRow]:
        """Return so many rounds at most that tried to leave a version, from behind the one of number `after`.

        number: of the version. It alone says which version: its generation may have changed since.
        """
        sql = (
            f"{_GENERATIONS} SELECT generation, number, attempt, round, crc, outcome, reason, fates, opened, closed"  # noqa: S608 -- ours
            f" FROM attempts WHERE job = ?1 AND {_OF_ANY} AND number = ?2 AND attempt > ?3 ORDER BY attempt LIMIT ?4"
        )
        found = self._rows(job, "attempts", sql, (job, number, after, most))
        return [rows.attempt_row(job, row) for row in found]

    def last_round(self, job: str, number: int) -> AttemptRow | None:
        """Return the last round that tried to leave the version of this number, with what became of whom."""
        sql = f"{_GENERATIONS} SELECT max(attempt) FROM attempts WHERE job = ?1 AND {_OF_ANY} AND number = ?2"  # noqa: S608 -- ours
        last = (self._one(job, "attempts", sql, (job, number)) or (None,))[0]
        found = [] if last is None else self.attempts_page(job, number, after=last - 1, most=1)
        return found[0] if found else None

    def latest_attempts(self, job: str, since_number: int) -> dict[Version, Attempt]:
        """Return the last round of every base from this number on, whatever its generation."""
        sql = (
            "SELECT a.generation, a.number, a.attempt, a.round, a.crc FROM attempts a JOIN ("
            " SELECT generation, number, max(attempt) AS last FROM attempts WHERE job = ?1 AND number >= ?2"
            " GROUP BY generation, number"
            ") b ON a.job = ?1 AND a.generation = b.generation AND a.number = b.number AND a.attempt = b.last"
            " ORDER BY a.generation, a.number"
        )
        found = {}
        for generation, number, attempt, round_, checksum in self._rows(job, "attempts", sql, (job, since_number)):
            base = rows.read(Version, job, "attempts", (generation, number))
            found[base] = rows.attempt_of(job, base, attempt, round_, checksum)
        return found
