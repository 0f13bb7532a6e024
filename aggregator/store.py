"""What the aggregator must not forget, in one SQLite file.

Every method that writes is one transaction, on disk when it returns, or when the block is over that has one sync for
all of its own (`synced_once`); every one that reads gives what was written or raises DamageError, which names the job:
a job that is damaged is no reason for another to rest. Retained topics at the broker are a projection of what stands
here.

    schema.py        the tables, and how older files become like new ones
    generations.py   who this store is, and what follows when its file was copied, moved or restored
    rows.py          what is read, and how it is looked at
    database.py      SQLite
    bodies.py        what is too long for a row of it
    kept.py          states of versions that are kept for their own sake, and jobs that were replaced
    events.py        what has happened, for people

Its methods stand by what they are about, each of these files a class of them; what changes several tables in one stands
here:

    part.py          what every part stands on
    words.py         the term, the claim and the small words of the service
    history.py       versions, and the names that they had
    updates.py       verdicts, updates, and what devices say of versions
    attempts.py      rounds
    onlookers.py     what people look at beside jobs
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from aggregator import contributions, events, generations, kept, rows, schema
from aggregator.attempts import CLOSE_ATTEMPT, Attempts
from aggregator.bodies import Bodies
from aggregator.contributions import Scored
from aggregator.counters import Counting
from aggregator.database import DamageError, Database, StoreError, crc
from aggregator.effects import Close
from aggregator.events import Events, Kind
from aggregator.generations import Chance
from aggregator.history import ADD_VERSION, History, Start, add_body, add_version
from aggregator.kept import Keep, KeptState, KeptStates, Leaving
from aggregator.lock import Lock
from aggregator.onlookers import Onlookers
from aggregator.part import durable
from aggregator.rows import (
    AttemptRow,
    BodyRow,
    Claim,
    Current,
    JobRow,
    Judgement,
    Kept,
    LitterRow,
    UpdateRow,
    damaged,
)
from aggregator.schema import SCHEMA_VERSION
from aggregator.updates import Updates
from aggregator.words import TAKE_OVER, Words
from broker.messages import BASE, BaseAt, Version
from models.job import JobSpec
from runtime.failpoints import reach

__all__ = [
    "SCHEMA_VERSION",
    "TAKE_OVER",
    "AttemptRow",
    "BodyRow",
    "Claim",
    "Current",
    "DamageError",
    "JobRow",
    "Judgement",
    "Keep",
    "Kept",
    "KeptState",
    "Leaving",
    "LitterRow",
    "Scored",
    "Start",
    "Store",
    "StoreError",
    "UpdateRow",
]

log = logging.getLogger(__name__)

FILE = "aggregator.sqlite"
UPDATES = "updates"
"""The folder of what is too long for a row."""
ROW_BYTES = 65_536
NOTHING_KEPT = Keep()


class Store(Words, History, Updates, Attempts, Onlookers):
    """The state directory of one aggregator, locked for this process while it is open."""

    def __init__(
        self,
        folder: Path,
        *,
        synced: bool = True,
        chance: Chance = secrets.randbelow,
        row_bytes: int = ROW_BYTES,
    ) -> None:
        """Open or create it.

        Raises StoreError when it is in use, cannot be written or is of a newer fedge, DamageError when it is no store.

        synced: False for simulations, where no power is cut. chance: gives a number from 0 to n - 1, for n. row_bytes:
        the longest body of an update that lies in its row.
        """
        self.folder = folder
        self._chance = chance
        self._row_bytes = row_bytes
        self._bodies = Bodies(folder / UPDATES, synced=synced)
        self._lock = Lock(folder)
        try:
            self._db = schema.opened(
                folder / FILE, synced=synced, begin=lambda file: generations.beginning(file, chance)
            )
            try:
                if generations.is_moved(self._db):
                    self._drop_bodiless()  # first: who dies in between finds a store that has moved again
                self.identity, self.moved = generations.settle(self._db, chance)
                self.states = KeptStates(self._db)
                self._go_on_behind_bodies()
                self.events = Events(events.last(self._db) + (events.LEAP if self.moved else 0))
                self._db.pending = self.events
                self.counting = Counting()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    @classmethod
    def over(cls, db: Database) -> Store:
        """Read an open file as a store: it is not locked, not settled, and `close` is its owner's."""
        store = cls.__new__(cls)
        store.folder = db.file.parent
        store._db = db
        store.states = KeptStates(db)
        store.events = Events()
        store.counting = Counting()
        store._bodies = Bodies(db.file.parent / UPDATES, synced=False)
        return store

    def _drop_bodiless(self) -> None:
        """Forget updates whose long bodies have not come along with a copy.

        It is as if that had been made a little earlier, when they had not come.
        """
        sql = "SELECT rowid, job, crc, at, n_bytes FROM updates WHERE body IS NOT NULL AND at IS NOT NULL"
        lost = [
            (rowid, str(job))
            for rowid, job, checksum, at, n_bytes in list(self._db.rows("table updates", sql))
            if crc(self._bodies.read(str(job), at, n_bytes)) != checksum
        ]
        with self._db.transaction("what has not come along") as write:
            for rowid, _ in lost:
                write("DELETE FROM updates WHERE rowid = ?", (rowid,))
        if lost:
            names = ", ".join(sorted({job for _, job in lost}))
            log.warning("%d updates of job=%s did not come along with the copy: as if not yet sent", len(lost), names)

    def _go_on_behind_bodies(self) -> None:
        sql = "SELECT job, max(at + n_bytes) FROM updates WHERE body IS NOT NULL AND at IS NOT NULL GROUP BY job"
        ends = {job: end for job, end in self._db.rows("table updates", sql) if isinstance(end, int)}
        self._bodies.open(ends, {job for (job,) in self._db.rows("table jobs", "SELECT job FROM jobs")})

    states: KeptStates
    """Versions that are kept for their own sake, and jobs that were replaced."""
    counting: Counting
    """What its owner counts, for people."""
    identity: str
    """16 hex digits, made with the store; another one when it was copied, moved or restored."""
    moved: bool
    """Whether this opening found that it was."""

    def close(self) -> None:
        """Close the file and give the lock up."""
        self._db.close()
        self._lock.close()

    # Jobs.

    def add_job(
        self,
        job: str,
        spec: JobSpec,
        sha256: str,
        state: bytes,
        metrics: Mapping[str, float],
        *,
        replaces: Sequence[str] = (),
        leaving: Sequence[Leaving] = (),
        request: str = "",
        start: Start | None = None,
        base: BodyRow | None = None,
    ) -> None:
        """Add a job with its version 0, in the place of those that it replaces: all of it or nothing.

        leaving: what remains of these, as far as that is not in the store. request: what asked for the job, so that
        whoever asks again is told of the same one. start: its version 1, where it starts from given weights. base: what
        is frozen of its net, where devices cannot make that themselves.
        """
        remains = {one.job: one for one in leaving}
        text = msgspec.json.encode(spec)
        with (
            self.events.told("job.submitted", f"{job} was submitted", job=job),
            self._writing(job) as write,
        ):
            for other in replaces:
                kept.replaced(write, remains.get(other, Leaving(other)))
                schema.forget(write, other, states=False)
            write(
                "INSERT INTO jobs (job, name, spec, crc, generation, ended, reason, request)"
                " VALUES (?, ?, ?, ?, 1, '', '', ?)",
                (job, spec.name, text, crc(text), request),
            )
            write(ADD_VERSION, (job, 1, 0, sha256, msgspec.json.encode(metrics), state, None, None))
            if start is not None:
                add_version(write, job, Version(1, 1), *start)
            if base is not None:
                add_body(write, job, base)
        for other in replaces:
            self._bodies.forget(other)

    def forget_past(self, job: str, who: str = "") -> None:
        """Forget a job that was replaced, with its states. who: has asked for it, for people."""
        kind, text = events.of_end(job, "deleted", who)
        with self.events.told(kind, text, job=job), self._writing(job) as write:
            kept.forget(write, job)

    def pause(self, job: str, paused: str, who: str = "") -> None:
        """Remember who has paused a job, and since when; "" where it is not paused. who: has it go on, for people."""
        kind: Kind = "job.paused" if paused else "job.resumed"
        with self.events.told(
            kind, f"{job} was {paused}" if paused else f"{job} goes on{f', as {who} asked' * bool(who)}", job=job
        ):
            self.set_note(f"paused:{job}", paused)

    def paused(self, job: str) -> str:
        """Return who has paused a job, and since when; "" where it is not paused."""
        return self.note(f"paused:{job}")

    def end_job(
        self, job: str, ended: str, reason: str, base: Version | None = None, left: Scored | None = None
    ) -> None:
        """Remember that and why a job has ended; one that is "deleted" is forgotten but for its name.

        reason: of a deleted one, who has asked for it. base: its last version, where that is known: what devices have
        brought to it is kept for people. left: how good that is, where devices have said so by now.
        """
        kind, text = events.of_end(job, ended, reason)
        with self.events.told(kind, text, job=job), self._writing(job) as write:
            if ended == "deleted":
                schema.forget(write, job)
            else:
                if base is not None:
                    contributions.move(write, job, base)
                if base is not None and left is not None:
                    contributions.score(write, job, base, *left)
                write("UPDATE jobs SET ended = ?, reason = ? WHERE job = ?", (ended, reason, job))
        if ended == "deleted":
            self._bodies.forget(job)

    def jobs(self) -> list[JobRow]:
        """Return every job that is not deleted, by name. A row that is not understood, or has gone, says so itself."""
        names = list(self._db.rows("table jobs", "SELECT job, name FROM jobs ORDER BY name, job"))
        without = "SELECT DISTINCT job FROM versions WHERE job NOT IN (SELECT job FROM jobs) ORDER BY job"
        orphans = [job for (job,) in self._db.rows("table versions", without) if rows.is_id(job)]
        missing = [rows.unreadable(job, "", damaged(job, "jobs", "its row is missing")) for job in orphans]
        return [*(self._job(job, name) for job, name in names), *missing]

    def _job(self, job: object, name: object) -> JobRow:
        try:
            cells = self._db.one(
                f"job {job!s:.80}, table jobs",
                "SELECT spec, crc, generation, ended, reason FROM jobs WHERE job IS ?",
                (job,),
            )
        except DamageError as error:
            return rows.unreadable(job, name, error)
        return rows.job_row(job, name, cells or (None,) * 5)

    def job_of_request(self, request: str) -> str | None:
        """Return the job that a request has made, deleted or not."""
        sql = "SELECT job FROM jobs WHERE request = ?1 UNION ALL SELECT job FROM deleted WHERE request = ?1"
        row = self._db.one("table jobs", sql, (request,)) if request else None
        return row[0] if row and isinstance(row[0], str) else None

    def deleted(self, most: int) -> list[str]:
        """Return the ids of deleted jobs, the latest first."""
        found = self._db.rows("table deleted", "SELECT job FROM deleted ORDER BY n DESC LIMIT ?", (most,))
        return [job for (job,) in found if isinstance(job, str)]

    def is_deleted(self, job: str) -> bool:
        """Return whether there was this job."""
        return self._db.one("table deleted", "SELECT 1 FROM deleted WHERE job = ?", (job,)) is not None

    # Versions.

    def commit(
        self,
        job: str,
        version: Version,
        sha256: str,
        stored: Kept,
        metrics: Mapping[str, float],
        bodies: Sequence[BodyRow],
        close: Close | None,
        states: Keep = NOTHING_KEPT,
        ends: str = "",
        left: Scored | None = None,
    ) -> None:
        """Make a version durable, with the bodies that lead to it and the end of the round that made it.

        stored: with a state, those before it and the steps from them on are no longer needed; nor are the bodies of the
        updates that went into the version. close: None where no round has made it. states: what becomes of versions
        that are kept for their own sake. ends: why the job has finished with this version, if it has. left: how good
        the version is that is left, where its devices have said so.
        """
        base = Version(version.generation, version.number - 1)
        made = events.of_version(job, version, metrics)
        with self.events.told("version.made", made, job=job), self._writing(job) as write:
            contributions.move(write, job, base)
            if left is not None:
                contributions.score(write, job, base, *left)
            add_version(write, job, version, sha256, stored, metrics, bodies)
            write(_FORGET_BODIES, (job,))
            if close is not None:
                write(CLOSE_ATTEMPT, rows.closing(job, close))
            kept.keep(write, job, states)
            if ends:
                write("UPDATE jobs SET ended = 'finished', reason = ? WHERE job = ?", (ends, job))
            reach("store.commit.within", job)
        self._bodies.rewind(job)
        with durable():
            reach("store.commit.after", (job, version, sha256))

    # Bodies.

    def bodies(self, job: str) -> list[BodyRow]:
        """Return what lies, or should lie, at the broker; without what is frozen of its net (`base_at`)."""
        sql = "SELECT name, number, chunk_bytes, data, crc FROM bodies WHERE job = ? AND substr(name, 1, 5) != ?"
        return [rows.body_row(job, row) for row in self._rows(job, "bodies", sql, (job, BASE))]

    def base_at(self, job: str) -> BaseAt | None:
        """Return how what is frozen of a job's net lies at the broker; None where it need not lie there."""
        sql = "SELECT substr(name, 6), length(data), chunk_bytes FROM bodies WHERE job = ? AND substr(name, 1, 5) = ?"
        row = self._db.one(f"job {job}, table bodies,", sql, (job, BASE))
        return None if row is None else rows.read(BaseAt, job, "bodies", list(row))

    def base(self, job: str) -> bytes:
        """Return the bytes that say it. Raises DamageError."""
        sql = "SELECT name, number, chunk_bytes, data, crc FROM bodies WHERE job = ? AND substr(name, 1, 5) = ?"
        row = self._db.one(f"job {job}, table bodies,", sql, (job, BASE))
        if row is None:
            raise damaged(job, "bodies", "what is frozen of its net is missing")
        return rows.body_row(job, row).data

    def bases(self) -> dict[str, str]:
        """Return the jobs whose nets have something frozen that lies here, and its SHA-256."""
        sql = "SELECT job, substr(name, 6) FROM bodies WHERE substr(name, 1, 5) = ?"
        return {str(job): str(sha256) for job, sha256 in self._db.rows("table bodies", sql, (BASE,))}

    def recut(self, job: str, chunk_bytes: int) -> None:
        """Note that every body of a job lies at the broker in pieces of this size."""
        self._write("UPDATE bodies SET chunk_bytes = ? WHERE job = ?", (chunk_bytes, job), job)

    def forget_body(self, job: str, name: str) -> None:
        """Forget a body, but for its name: it may still lie at the broker."""
        with self._writing(job) as write:
            write(f"{schema.LITTER} AND name = ?", (job, name))
            write("DELETE FROM bodies WHERE job = ? AND name = ?", (job, name))

    def litter(self) -> list[LitterRow]:
        """Return the bodies that may still lie at the broker, and should not."""
        found = self._db.rows("table litter", "SELECT job, name, chunks FROM litter ORDER BY job, name")
        return [row for cells in found if (row := rows.litter_of(cells)) is not None]

    def forget_litter(self, cleared: Iterable[LitterRow]) -> None:
        """Forget bodies that do not lie there any more."""
        with self._db.transaction("what was cleared") as write:
            for row in cleared:
                write("DELETE FROM litter WHERE job = ? AND name = ?", (row.job, row.name))


_FORGET_BODIES = (
    "UPDATE updates SET body = NULL, crc = NULL, at = NULL, n_bytes = NULL WHERE job = ? AND body IS NOT NULL"
)
