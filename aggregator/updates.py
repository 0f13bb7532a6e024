"""Of the store: verdicts, the updates that will make the next version, and what devices say of versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from aggregator import contributions, rows
from aggregator.contributions import Contribution, Evaluation, Point, Scored
from aggregator.database import StoreError, crc
from aggregator.part import Part, base_cells, durable
from aggregator.rows import Claim, Judgement, UpdateRow, damaged
from broker.messages import Verdict, Version
from runtime.failpoints import reach


class Updates(Part):
    """What stands in the table `updates`, and in those of contributions.py."""

    def place(self, job: str, one: Judgement) -> Judgement:
        """Return a judgement whose body lies where it is to be, if it is too long for a row and counted.

        It is on disk with its verdict; a body without one is nothing. Raises StoreError.
        """
        if not one.verdict.counted or len(one.body) <= self._row_bytes:
            return one
        self._db.sync_owed()  # no row that a power cut may bring back names what it is written over
        return one._replace(body=b"", place=self._bodies.put(job, one.body))

    def displace(self, job: str, judgements: Sequence[Judgement]) -> None:
        """Free the places of judgements that no transaction has tried to write: the next bodies go there."""
        if places := [one.place.at for one in judgements if one.place]:
            self._bodies.rewind(job, min(places))

    def add_verdicts(self, job: str, judgements: Sequence[Judgement]) -> None:
        """Make verdicts on updates to one job durable, with the counted updates themselves, all of them or none.

        Older verdicts of these devices, on updates that went into a version, go.
        """
        end, is_whole = min([self._bodies.end(job), *(one.place.at for one in judgements if one.place)]), False
        devices = msgspec.json.encode([one.verdict.device for one in judgements]).decode()
        try:
            placed = [self.place(job, one) for one in judgements]
            if any(one.place for one in placed):
                self._bodies.sync(job)
            with self._writing(job) as write:
                write(_FORGET_VERDICTS, (job, devices))
                for one in placed:
                    write(_ADD_UPDATE, rows.judged(one))
                    reach("store.add_verdict.within", one.verdict)
                is_whole = True
        except StoreError:
            if not is_whole:  # what COMMIT failed on may be durable, and then needs its bodies
                self._bodies.rewind(job, end)
            raise
        with durable():
            for one in judgements:
                reach("store.add_verdict.after", one.verdict)

    def verdicts(self, job: str) -> list[Verdict]:
        """Return the last verdict of every device, last in the list."""
        sql = (
            "SELECT device, generation, number, digest, refused FROM updates WHERE job = ?"
            " ORDER BY generation, number, device"
        )
        return [rows.verdict_row(job, row) for row in self._rows(job, "updates", sql, (job,))]

    def updates(self, job: str) -> Iterator[UpdateRow]:
        """Return the updates that will make the next version one by one, in the order of the devices' names."""
        sql = (
            "SELECT device, n_examples, weight, norm, loss, curvature, gain, number, body, crc, at, n_bytes"
            " FROM updates WHERE job = ? AND refused = '' AND body IS NOT NULL ORDER BY device, generation, number"
        )
        for *cells, body, checksum, at, n_bytes in self._rows(job, "updates", sql, (job,)):
            yield rows.update_row(job, (*cells, body if at is None else self._bodies.read(job, at, n_bytes), checksum))

    def claims(self, job: str) -> list[Claim]:
        """Return what is said of these updates, without their bodies: all of them at once fit the memory."""
        sql = (
            "SELECT device, n_examples, weight, norm, loss, curvature, gain FROM updates"
            " WHERE job = ? AND refused = '' AND body IS NOT NULL ORDER BY device, generation, number"
        )
        return [rows.claim_row(job, row) for row in self._rows(job, "updates", sql, (job,))]

    def body_of(self, job: str, device: str, number: int) -> bytes:
        """Return the body of one of these updates. number: of its base. Raises DamageError where it is not there."""
        sql = (
            "SELECT body, crc, at, n_bytes FROM updates"
            " WHERE job = ? AND device = ? AND number = ? AND refused = '' AND body IS NOT NULL"
        )
        row = self._one(job, "updates", sql, (job, device, number))
        if row is None:
            raise damaged(job, "updates", f"the update of {device} is missing")
        body, checksum, at, n_bytes = row
        found = body if at is None else self._bodies.read(job, at, n_bytes)
        if not isinstance(found, bytes) or checksum != crc(found):
            raise damaged(job, "updates", f"the checksum of the update of {device} is wrong")
        return found

    def refusals(self, job: str, base: Version) -> list[tuple[str, float]]:
        """Return the devices whose updates to a base were refused, by name, with the norms that it was for, else 0."""
        sql = (
            "SELECT device, norm FROM updates WHERE job = ? AND generation = ? AND number = ? AND refused != ''"
            " ORDER BY device"
        )
        return [rows.refusal_row(job, row) for row in self._rows(job, "updates", sql, base_cells(job, base))]

    # How good versions are, and who brought what to them.

    def evaluations(self, job: str, version: Version, device: str | None = None) -> list[Evaluation]:
        """Return what devices say of the current version, by device. device: this one alone."""
        return contributions.evaluations(self._db, job, version, device)

    def n_evaluations(self, job: str, version: Version) -> int:
        """Count the devices that have said what the last version of a job is worth, once that has ended."""
        return contributions.n_evaluations(self._db, job, version.number)

    def add_last_evaluation(self, job: str, version: Version, one: Evaluation) -> None:
        """Make durable what a device says of the last version of a job."""
        with self._writing(job) as write:
            contributions.add_last(write, job, version.number, one)

    def score(self, job: str, version: Version, now: Scored) -> None:
        """Make durable how good a version is by now."""
        with self._writing(job) as write:
            contributions.score(write, job, version, *now)

    def contributions(self, job: str, number: int) -> list[Contribution]:
        """Return what devices brought to the version that followed the one of this number, by device."""
        return contributions.of(self._db, job, number)

    def curve(self, job: str, *, after: int = -1, most: int) -> list[Point]:
        """Return so many versions at most with how good they are, from behind the one of number `after`."""
        return contributions.curve(self._db, job, after, most)

    def federated(self, job: str) -> tuple[int, dict[str, object]] | None:
        """Return the last version that its devices have scored, and how; None where there is none."""
        number = contributions.last_scored(self._db, job)
        return None if number is None else (number, contributions.federated(self._db, job, number))


_FORGET_VERDICTS = "DELETE FROM updates WHERE job = ? AND body IS NULL AND device IN (SELECT value FROM json_each(?))"
_ADD_UPDATE = (
    "INSERT INTO updates (job, device, generation, number, digest, refused, n_examples, weight, norm, loss, body, crc,"
    " curvature, gain, at, n_bytes, body_bytes, seconds, evaluation)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
