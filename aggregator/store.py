"""What the aggregator must not forget, in one SQLite file.

Every method that writes is one transaction, on disk when it returns; every one that reads gives what was written or
raises DamageError, which names the job: a job that is damaged is no reason for another to rest. Retained topics at the
broker are a projection of what stands here.

    schema.py        the tables, and how older files become like new ones
    generations.py   who this store is, and what follows when its file was copied, moved or restored
    rows.py          what is read, and how it is looked at
    database.py      SQLite
    bodies.py        what is too long for a row of it
    kept.py          states of versions that are kept for their own sake, and jobs that were replaced
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from aggregator import contributions, generations, kept, repair, rows, schema
from aggregator.bodies import Bodies
from aggregator.contributions import Contribution, Evaluation, Point
from aggregator.database import REMEDY, DamageError, Database, Row, StoreError, Transaction, crc
from aggregator.effects import Attempt, Close
from aggregator.generations import Chance
from aggregator.kept import Keep, KeptState, KeptStates, Leaving
from aggregator.lock import Lock
from aggregator.repair import Mended, TakenOver
from aggregator.rows import (
    AMONG_BODIES,
    AttemptRow,
    BodyRow,
    Claim,
    Current,
    JobRow,
    Judgement,
    Kept,
    LitterRow,
    UpdateRow,
    VersionRow,
    damaged,
)
from aggregator.schema import SCHEMA_VERSION
from broker.ceilings import MOST_CLAIM, MOST_TERM
from broker.messages import Verdict, Version
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
    "Start",
    "Store",
    "StoreError",
    "UpdateRow",
]

log = logging.getLogger(__name__)

Scored = tuple[Mapping[str, float], Mapping[str, object]]
"""How good a version is: its metrics, and what devices say of it one by one and together (federated.py)."""

FILE = "aggregator.sqlite"
UPDATES = "updates"
"""The folder of what is too long for a row."""
TAKE_OVER = "take over"
"""The note of an operator who has said so while no aggregator ran: the next start is one with `--take-over`."""
ROW_BYTES = 65_536
NOTHING_KEPT = Keep()
MOST_ATTEMPTS = 2000
"""Rounds to leave one base that are kept, beside the first: at one a minute, those of a day and a half."""


class Store:
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
    identity: str
    """16 hex digits, made with the store; another one when it was copied, moved or restored."""
    moved: bool
    """Whether this opening found that it was."""

    def close(self) -> None:
        """Close the file and give the lock up."""
        self._db.close()
        self._lock.close()

    # Words.

    @property
    def term(self) -> int:
        """The last term given out; 0 before there is one."""
        found = self._word("term", 0)
        if not isinstance(found, int) or found < 0:
            raise DamageError(f"the state directory is damaged (table meta, term): {found!r:.100}: {REMEDY}")
        if found > MOST_TERM:
            log.error(
                "the state directory has term %d, where %d is the highest: an older fedge has believed what somebody "
                "said; this one leads under a new term, as `fedge aggregator repair` would have it",
                *(found, MOST_TERM),
            )
            return 0
        return found

    def raise_term(self, at_least: int = 0) -> int:
        """Return a term that is higher than any before and not below `at_least`; the highest one has none above."""
        term = min(max(self.term + 1, at_least), MOST_TERM)
        self._set_word("term", term)
        return term

    @property
    def claim(self) -> int:
        """How often operators have said `--take-over`, as far as this store knows; 0 where that is no such number."""
        words = self.note("claim")
        found = int(words) if words.isascii() and words.isdigit() and len(words) < 20 else 0
        return found if found <= MOST_CLAIM else 0

    def note(self, name: str) -> str:
        """Return a small word of the service; "" when there is none."""
        found = self._word(f"note:{name}", "")
        if not isinstance(found, str):
            raise DamageError(f"the state directory is damaged (table meta, {name}): {found!r:.100}: {REMEDY}")
        return found

    def set_note(self, name: str, value: str) -> None:
        """Remember a small word of the service."""
        self._set_word(f"note:{name}", value)

    def repair(self) -> list[Mended]:
        """Put right the numbers that no honest fleet comes to, and return what was (repair.py)."""
        return repair.mend(self._db, self._chance)

    def take_over(self) -> TakenOver:
        """Let the next start from here lead, whoever else does: as an operator says.

        Raises StoreError, or DamageError where the term or the claim has none above.
        """
        before = self.term, self.claim
        term, claim = repair.next_of(*before)
        was_replaced = self.note("replaced") != ""
        with self._db.transaction("an operator's word") as write:
            for name, value in (("term", term), ("note:claim", str(claim)), (f"note:{TAKE_OVER}", "yes")):
                write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
            write("DELETE FROM meta WHERE name = 'note:replaced'")
        return TakenOver(str(self.folder), term, claim, *before, was_replaced)

    def _word(self, name: str, otherwise: object) -> object:
        row = self._db.one("table meta", "SELECT value FROM meta WHERE name = ?", (name,))
        return row[0] if row else otherwise

    def _set_word(self, name: str, value: object) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

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
    ) -> None:
        """Add a job with its version 0, in the place of those that it replaces: all of it or nothing.

        leaving: what remains of these, as far as that is not in the store. request: what asked for the job, so that
        whoever asks again is told of the same one. start: its version 1, where it starts from given weights.
        """
        remains = {one.job: one for one in leaving}
        text = msgspec.json.encode(spec)
        with self._writing(job) as write:
            for other in replaces:
                kept.replaced(write, remains.get(other, Leaving(other)))
                schema.forget(write, other, states=False)
            write(
                "INSERT INTO jobs (job, name, spec, crc, generation, ended, reason, request)"
                " VALUES (?, ?, ?, ?, 1, '', '', ?)",
                (job, spec.name, text, crc(text), request),
            )
            write(_ADD_VERSION, (job, 1, 0, sha256, msgspec.json.encode(metrics), state, None, None))
            if start is not None:
                _add_version(write, job, Version(1, 1), *start)
        for other in replaces:
            self._bodies.forget(other)

    def forget_past(self, job: str) -> None:
        """Forget a job that was replaced, with its states."""
        with self._writing(job) as write:
            kept.forget(write, job)

    def pause(self, job: str, paused: str) -> None:
        """Remember who has paused a job, and since when; "" where it is not paused."""
        self.set_note(f"paused:{job}", paused)

    def paused(self, job: str) -> str:
        """Return who has paused a job, and since when; "" where it is not paused."""
        return self.note(f"paused:{job}")

    def end_job(
        self, job: str, ended: str, reason: str, base: Version | None = None, left: Scored | None = None
    ) -> None:
        """Remember that and why a job has ended; one that is "deleted" is forgotten but for its name.

        base: its last version, where that is known: what devices have brought to it is kept for people. left: how good
        that is, where devices have said so by now.
        """
        with self._writing(job) as write:
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
        with self._writing(job) as write:
            contributions.move(write, job, base)
            if left is not None:
                contributions.score(write, job, base, *left)
            _add_version(write, job, version, sha256, stored, metrics, bodies)
            write(_FORGET_BODIES, (job,))
            if close is not None:
                write(_CLOSE_ATTEMPT, rows.closing(job, close))
            kept.keep(write, job, states)
            if ends:
                write("UPDATE jobs SET ended = 'finished', reason = ? WHERE job = ?", (ends, job))
            reach("store.commit.within", job)
        self._bodies.rewind(job)
        with _durable():
            reach("store.commit.after", (job, version, sha256))

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

    # Updates.

    def add_verdicts(self, job: str, judgements: Sequence[Judgement]) -> None:
        """Make verdicts on updates to one job durable, with the counted updates themselves, all of them or none.

        Older verdicts of these devices, on updates that went into a version, go.
        """
        long = [one for one in judgements if one.verdict.counted and len(one.body) > self._row_bytes]
        end, is_whole = self._bodies.end(job), False
        starts = self._bodies.write(job, [one.body for one in long]) if long else []
        places = dict(zip(map(id, long), starts, strict=True))
        try:
            with self._writing(job) as write:
                write(_FORGET_VERDICTS, (job, msgspec.json.encode([one.verdict.device for one in judgements]).decode()))
                for one in judgements:
                    write(_ADD_UPDATE, rows.judged(one, places.get(id(one))))
                    reach("store.add_verdict.within", one.verdict)
                is_whole = True
        except StoreError:
            if not is_whole:  # what COMMIT failed on may be durable, and then needs its bodies
                self._bodies.rewind(job, end)
            raise
        with _durable():
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
        return [rows.refusal_row(job, row) for row in self._rows(job, "updates", sql, _base(job, base))]

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

    # Rounds.

    def open_attempt(self, job: str, attempt: Attempt) -> None:
        """Make a round durable before it is announced."""
        round_, base = msgspec.json.encode(attempt), _base(job, attempt.base)
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
        self._write(_CLOSE_ATTEMPT, rows.closing(job, close), job)

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
        row = self._one(job, "attempts", sql, _base(job, base))
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

    # Bodies.

    def bodies(self, job: str) -> list[BodyRow]:
        """Return what lies, or should lie, at the broker."""
        sql = "SELECT name, number, chunk_bytes, data, crc FROM bodies WHERE job = ?"
        return [rows.body_row(job, row) for row in self._rows(job, "bodies", sql, (job,))]

    def recut(self, job: str, chunk_bytes: int) -> None:
        """Have every body of a job lie at the broker in pieces of this size."""
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

    # The database.

    def _rows(self, job: str, table: str, sql: str, values: Sequence[object]) -> Iterator[Row]:
        return self._db.rows(f"job {job}, table {table},", sql, values)

    def _one(self, job: str, table: str, sql: str, values: Sequence[object]) -> Row | None:
        return next(self._rows(job, table, sql, values), None)

    def _writing(self, job: str) -> Transaction:
        return self._db.transaction(f"job {job}")

    def _write(self, sql: str, values: Sequence[object], job: str = "") -> None:
        with self._db.transaction(f"job {job}" if job else "a word") as write:
            write(sql, values)


_CLOSE_ATTEMPT = (
    "UPDATE attempts SET round = ?, crc = ?, outcome = ?, reason = ?, fates = ?, closed = datetime('now')"
    " WHERE job = ? AND generation = ? AND number = ? AND attempt = ?"
)
_ADD_BODY = "INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?, ?, ?)"
_FORGET_VERDICTS = "DELETE FROM updates WHERE job = ? AND body IS NULL AND device IN (SELECT value FROM json_each(?))"
_ADD_UPDATE = (
    "INSERT INTO updates (job, device, generation, number, digest, refused, n_examples, weight, norm, loss, body, crc,"
    " curvature, gain, at, n_bytes, body_bytes, seconds, evaluation)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_FORGET_BODIES = (
    "UPDATE updates SET body = NULL, crc = NULL, at = NULL, n_bytes = NULL WHERE job = ? AND body IS NOT NULL"
)
_ADD_VERSION = (
    "INSERT INTO versions (job, generation, number, sha256, metrics, state, step, record, at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, datetime('now'))"
)
_GENERATIONS = (
    "WITH RECURSIVE found (generation) AS (SELECT min(generation) FROM attempts WHERE job = ?1 UNION ALL"
    " SELECT (SELECT min(a.generation) FROM attempts a WHERE a.job = ?1 AND a.generation > found.generation)"
    " FROM found WHERE found.generation IS NOT NULL)"
)
"""The generations that a job's rounds are of: few, so that a round is found by the key of its table."""
_OF_ANY = "generation IN (SELECT generation FROM found)"
_FORGET_KEPT = (
    "UPDATE versions SET state = NULL, step = NULL, record = NULL"
    " WHERE job = ? AND (state IS NOT NULL OR step IS NOT NULL OR record IS NOT NULL)"
)


class Start(NamedTuple):
    """Version 1 of a job that starts from given weights: what `commit` is given of a version."""

    sha256: str
    stored: Kept
    metrics: Mapping[str, float]
    bodies: Sequence[BodyRow]


def _add_version(
    write: Transaction,
    job: str,
    version: Version,
    sha256: str,
    stored: Kept,
    metrics: Mapping[str, float],
    bodies: Sequence[BodyRow],
) -> None:
    if stored.state:
        write(_FORGET_KEPT, (job,))
    else:
        write("UPDATE versions SET record = NULL WHERE job = ? AND record IS NOT NULL", (job,))
    row = (job, version.generation, version.number, sha256, msgspec.json.encode(metrics))
    step = rows.sealed(stored.step) if stored.step else None
    write(_ADD_VERSION, (*row, stored.state or None, step, stored.record or None))
    for body in bodies:
        write(_ADD_BODY, (job, body.name, body.number, body.chunk_bytes, body.data, crc(body.data)))


def _base(job: str, base: Version) -> tuple[str, int, int]:
    return job, base.generation, base.number


@contextmanager
def _durable() -> Iterator[None]:
    """Pass a point behind a transaction. Raises StoreError: who loads from here again finds that it is done."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"the state directory cannot be used: {error.strerror or error}") from error
