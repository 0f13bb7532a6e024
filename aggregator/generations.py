"""Who a store is, and the new name that a version gets when its number may have been given out already.

A version is [generation, number]. A store that is older than what the fleet has seen, as a restored backup is, would
give numbers out a second time with another meaning. So its current version then gets a new generation, above every
one that is known and at random, since two stores may have been made from one backup:

    1.0  1.1  1.2  …  1.7          1.2 is current in the backup that is restored; devices have trained on up to 1.7
              └─▶ 407.2  407.3     it goes on under a new name, and 1.2 is an alias: the same model, whoever holds it

Whatever hangs on the base goes with it (verdicts, counted updates, rounds, the bodies that lead to it), so that no
device that is in the sum is drawn again. The rows of its bodies under the old name stay, to be cleared at the broker.

A store has an identity, and remembers the place of its file: file system and inode. A file that is found in another
place, or has the mark of a backup, was copied, moved or restored: it gets a new identity and every job of it a new
generation, in one transaction.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import msgspec

from aggregator.database import REPAIR, DamageError, Database, OutOfRangeError, StoreError, Transaction, crc
from aggregator.rows import attempt_of, check_generation, damaged, read, read_json
from broker.ceilings import FAR, MOST_GENERATION, Generation
from broker.messages import Version

log = logging.getLogger(__name__)

Chance = Callable[[int], int]
"""chance(n) gives a number from 0 to n - 1 at random."""

LEAP = 1000
"""A new generation lies up to so many above the old one."""
HIGHEST = MOST_GENERATION - FAR
"""No honest store has a generation above; nothing that is said of a higher one is believed, so that room is left."""
MOST_RENAMES = 64
"""Former names that a job remembers: a device may have been away for long."""
_RENAME = (
    "UPDATE versions SET generation = ? WHERE job = ? AND generation = ? AND number = ?",
    "UPDATE updates SET generation = ? WHERE job = ? AND generation = ? AND number = ?",
    "UPDATE attempts SET generation = ? WHERE job = ? AND generation = ? AND number = ?",
)
"""Takes a version's name away from it and from all that hangs on it."""


def beginning(file: Path, chance: Chance) -> Iterable[tuple[str, object]]:
    """Return the words of meta that a store begins with. Raises StoreError."""
    return [("identity", _identity(chance)), ("place", place(file))]


def place(file: Path) -> str:
    """Return where a file lies: what a copy or a restored one does not have in common with it. Raises StoreError."""
    try:
        return f"{os.statvfs(file).f_fsid}:{file.stat().st_ino}"
    except OSError as error:
        raise StoreError(f"{file} cannot be used: {error.strerror}") from error


def is_moved(db: Database) -> bool:
    """Return whether the file of a store was copied, moved or restored since it was open last. Raises StoreError."""
    return _identity_here(db) is None


def _identity_here(db: Database) -> str | None:
    sql = "SELECT name, value FROM meta WHERE name IN ('identity', 'place', 'backup')"
    known: dict[str, object] = dict(db.rows("table meta", sql))
    identity = known.get("identity")
    if _is_identity(identity) and known.get("place") == place(db.file) and "backup" not in known:
        return identity
    return None


def settle(db: Database, chance: Chance) -> tuple[str, bool]:
    """Return the identity of a store, and whether its file was copied, moved or restored since it was open last.

    If it was, all that follows from it is durable. Raises StoreError.
    """
    if (known := _identity_here(db)) is not None:
        return known, False
    identity = _identity(chance)
    damaged_jobs: set[object] = set()
    beyond: set[object] = set()
    while not _moved(db, damaged_jobs, beyond, chance, {"identity": identity, "place": place(db.file)}):
        pass
    log.warning(
        "%s was copied, moved or restored: identity=%s, and every version has a new generation", db.file, identity
    )
    return identity, True


def _moved(
    db: Database, damaged_jobs: set[object], beyond: set[object], chance: Chance, words: Mapping[str, str]
) -> bool:
    """Rename every job in one transaction; or, where one cannot be, add it to those that cannot, and give False.

    beyond: those with numbers that are out of range. They get a new name when they are repaired.
    """
    with db.transaction("a new identity") as write:
        for (job,) in list(db.rows("table jobs", "SELECT job FROM jobs ORDER BY job")):
            if job in beyond:  # as it is it does not run, and so gives no number out
                continue
            if job in damaged_jobs:  # without a generation it does not run, either
                write("UPDATE jobs SET generation = NULL WHERE job IS ?", (job,))
                continue
            try:
                rename(db, write, job, 0, chance)
            except DamageError as error:
                log.error("%s", error)
                (beyond if isinstance(error, OutOfRangeError) else damaged_jobs).add(job)
                write.undo()
                return False
        for word in words.items():
            write("INSERT OR REPLACE INTO meta VALUES (?, ?)", word)
        write("DELETE FROM meta WHERE name = 'backup'")
    return True


def rename(db: Database, write: Transaction, job: str, above: int, chance: Chance) -> Version:
    """Return the current version of a job a generation above `above` and above its own.

    Raises DamageError where the job is damaged, StoreError where it cannot be written.
    """
    of_job, old = (job,), current(db, job)
    row = db.one(f"job {job}, table jobs", "SELECT generation, aliases FROM jobs WHERE job = ?", of_job)
    if row is None:
        raise damaged(job, "jobs", "it has no row")
    generation, cell = row
    renames = read_json(list[tuple[Version, Version]], job, "jobs", cell)
    known = [old.generation, read(Generation, job, "jobs", generation), above if above <= HIGHEST else 0]
    new = Version(max(known) + 1 + chance(LEAP), old.number)
    if new.generation > MOST_GENERATION:
        raise OutOfRangeError(f"job {job} has generation {old.generation}, and there is none above: {REPAIR}")

    base = (job, old.generation, old.number)
    _rename_last_round(db, write, base, new)
    for statement in _RENAME:
        write(statement, (new.generation, *base))
    before, after = f"{old.generation}-", f"{new.generation}-"  # of all bodies: it takes several to lead anybody here
    write(
        "INSERT OR REPLACE INTO bodies (job, name, number, chunk_bytes, data, crc)"
        " SELECT job, ? || substr(name, ?), number, chunk_bytes, data, crc FROM bodies"
        " WHERE job = ? AND substr(name, 1, ?) = ?",
        (after, len(before) + 1, job, len(before), before),
    )
    write(
        "UPDATE jobs SET generation = ?, aliases = ? WHERE job = ?",
        (new.generation, msgspec.json.encode(_renamed(renames, old, new)), job),
    )
    return new


def current(db: Database, job: str) -> Version:
    """Return the last version, which has a state or a record. Raises DamageError where none has."""
    row = db.one(
        f"job {job}, table versions",
        "SELECT generation, number FROM versions WHERE job = ? AND (state IS NOT NULL OR record IS NOT NULL)"
        " ORDER BY generation DESC, number DESC LIMIT 1",
        (job,),
    )
    if row is None:
        raise damaged(job, "versions", "it has no version")
    check_generation(job, row[0])
    return read(Version, job, "versions", row)


def _renamed(
    renames: Sequence[tuple[Version, Version]], old: Version, new: Version
) -> Sequence[tuple[Version, Version]]:
    """Return former names with their present ones, now that this one has changed."""
    return [*((name, new if now == old else now) for name, now in renames), (old, new)][-MOST_RENAMES:]


def _rename_last_round(db: Database, write: Transaction, base: tuple[str, int, int], new: Version) -> None:
    """Rename the last round of a base, which may be open, with its base: it draws the same devices."""
    job, *_ = base
    row = db.one(
        f"job {job}, table attempts",
        "SELECT attempt, round, crc FROM attempts WHERE job = ? AND generation = ? AND number = ?"
        " ORDER BY attempt DESC LIMIT 1",
        base,
    )
    if row is None:
        return
    number, cell, checksum = row
    round_ = msgspec.json.encode(attempt_of(job, new, number, cell, checksum))
    write(
        "UPDATE attempts SET round = ?, crc = ? WHERE job = ? AND generation = ? AND number = ? AND attempt = ?",
        (round_, crc(round_), *base, number),
    )


def _is_identity(word: object) -> TypeGuard[str]:
    return isinstance(word, str) and re.fullmatch("[0-9a-f]{16}", word) is not None


def _identity(chance: Chance) -> str:
    return f"{chance(2**64):016x}"
