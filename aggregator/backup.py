"""A copy of the store that a running aggregator does not notice, and the way back.

    state directory ──backup──▶ .FILE.new ──checked, synced──▶ FILE
    FILE ──restore──▶ .aggregator.sqlite.restore ──checked, marked, synced──▶ aggregator.sqlite
             aggregator.sqlite as it was, with its long bodies ──▶ aggregator.sqlite.before-restore

To copy the file is not enough: most of it may lie in the WAL beside it. A backup is the file of a store with a SHA-256
over all of it at its end, which SQLite passes over. A copy of a store of an older schema is brought up to date, and the
store itself is not. What is damaged in the store must not take the place of a backup from before the damage. Each way
is a rename at its end, so that whoever is killed in between has what was there before. A restored store does not know
what the fleet has seen since: it is marked, and the next aggregator that opens it finds that it was moved
(generations.py), and that an operator wants it to lead.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from msgspec import Struct, structs

from aggregator import schema
from aggregator.bodies import Bodies
from aggregator.database import REMEDY, DamageError, Database, Progress, StoreError, Transaction, crc
from aggregator.lock import Lock
from aggregator.rows import is_id, is_whole
from aggregator.store import FILE, UPDATES, JobRow, Store
from runtime import formats
from runtime.disk import sync

RESTORED = "restored"
"""The note of a store that was restored and has not led since: "yes"."""
_SIDES = ("-wal", "-shm", "-journal")
"""What may lie beside a file of SQLite."""
_PIECE = 2**20
FORMAT = 1
SEAL = b"\nfedge backup, SHA-256:\n"
"""What stands before the checksum at the end of a backup. A later format has its number behind "backup"."""
_NUMBERED = re.compile(rb"\nfedge backup ([0-9]{1,9})\b")
_LONGEST_SEAL = 256


class BackupError(StoreError):
    """A file that is no backup, or is in the way of one; the message says what to do."""


class HeldJob(Struct, frozen=True):
    """A job of a backup. ended: "", "finished" or "stopped"."""

    job: str
    name: str
    version: str
    ended: str
    damage: str = ""
    without: tuple[str, ...] = ()
    """Devices whose updates to the next version have rotted on disk: in the backup they have not come yet."""


class Backup(Struct, frozen=True):
    """What a copy holds."""

    file: str
    n_bytes: int
    jobs: list[HeldJob]
    kept: str | None = None
    """Where the store is that had to make way, if there was one."""


def backup(folder: Path, file: Path, progress: Progress) -> Backup:
    """Copy the store of a state directory into a file; one that was made so before is replaced, if no job is damaged.

    Raises BackupError where something else has this name, its folder is missing or there is no store, StoreError when
    it fails: the file is then as it was.
    """
    if not file.parent.is_dir():
        raise BackupError(f"{file}: there is no folder {file.parent}")
    if file.exists():
        _check_replaceable(file)
    try:
        with _copy(folder, file.with_name(f".{file.name}.new"), progress) as (copy, jobs):
            if file.exists():
                _refuse_damaged(jobs, f"{file} keeps what was before; what is left goes into a file of another name")
            n_bytes = copy.stat().st_size
            sync(copy)
            copy.replace(file)
            sync(file.parent)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from error
    return Backup(str(file), n_bytes, jobs)


def backup_to(folder: Path, stream: BinaryIO, progress: Progress) -> Backup:
    """Copy the store of a state directory into a stream, once it is whole.

    Raises BackupError where there is no store or a job of it is damaged, StoreError when it fails, OSError when the
    stream does.
    """
    with _copy(folder, folder / f".{FILE}.backup", progress) as (copy, jobs):
        _refuse_damaged(jobs, "what is left goes into a file, by its name")
        n_bytes = copy.stat().st_size
        with copy.open("rb") as source:
            shutil.copyfileobj(source, stream, _PIECE)
        stream.flush()
    return Backup("-", n_bytes, jobs)


def restore(source: BinaryIO, name: str, folder: Path, progress: Progress, n_bytes: int = 0) -> Backup:
    """Put a backup in the place of the store of a state directory, which nobody may have open.

    name, n_bytes: of the source, for people. The store before is kept beside. Raises BackupError for what is no
    backup, StoreError when it fails: the store is then as it was.
    """
    try:
        return _restore(source, name, folder, progress, n_bytes)
    except OSError as error:
        raise StoreError(f"{name} cannot be restored into {folder}: {error.strerror}") from error


def _restore(source: BinaryIO, name: str, folder: Path, progress: Progress, n_bytes: int) -> Backup:
    lock, new, old = Lock(folder), folder / f".{FILE}.restore", folder / FILE
    try:
        _remove(new)
        try:
            _receive(source, new, progress, n_bytes)
            _unseal(new, name)
            jobs = _checked(new, name)
            _mark(new)
            _adopt(new, old if old.exists() else folder)
            sync(new)
            kept = _keep(old) if old.exists() else None
            for side in _SIDES:  # a WAL that lies beside another file than its own would be taken for that one's
                _beside(old, side).unlink(missing_ok=True)
            sync(folder)
            new.replace(old)
            sync(folder)
        finally:
            _remove(new)
    finally:
        lock.close()
    return Backup(name, old.stat().st_size, jobs, None if kept is None else str(kept))


# Making one.


@contextmanager
def _copy(folder: Path, copy: Path, progress: Progress) -> Iterator[tuple[Path, list[HeldJob]]]:
    """Make a copy that is checked and marked, for as long as the block lasts."""
    source = folder / FILE
    if not source.exists():
        raise BackupError(f"there is no {source} (seen from {Path.cwd()}): is state_dir right?")
    with _claimed(copy):
        db = Database(source, wal=False)
        try:
            schema.check(db)
            db.copy_to(copy, progress)
        finally:
            db.close()
        copied = Database(copy, synced=False, wal=False)
        try:
            if damage := copied.damage():
                raise DamageError(f"{source} is damaged ({damage}): keep the last good backup, and restore it")
            schema.bring_up(copied)
            with copied.transaction("the bodies of updates") as write:
                absent = _take_in(Bodies(folder / UPDATES, synced=False), copied, write)
                for rowid, *_ in absent:
                    # Written over since, by a version that was made since: as if the update had not yet come.
                    write("DELETE FROM updates WHERE rowid = ?", (rowid,))
            rotten = _rotten(source, absent)
            jobs = [structs.replace(held, without=rotten.get(held.job, ())) for held in _jobs(copied)]
            with copied.transaction("the mark of a backup") as write:
                write("INSERT OR REPLACE INTO meta VALUES ('backup', datetime('now'))")
        finally:
            copied.close()
        _seal(copy)
        yield copy, jobs


class _Absent(NamedTuple):
    """A row of updates whose body is not where it says."""

    rowid: int
    job: str
    at: int
    crc: int


def _rotten(source: Path, absent: Sequence[_Absent]) -> dict[str, tuple[str, ...]]:
    """Return for each job the devices whose updates the store still names: they were not written over, but have rotted.

    (An update is written over only when no row names it any more.)
    """
    found: dict[str, tuple[str, ...]] = {}
    if absent:
        db = Database(source, wal=False)
        try:
            for _, job, at, checksum in absent:
                sql = "SELECT device FROM updates WHERE job = ? AND at = ? AND crc = ? AND body IS NOT NULL"
                if (row := db.one("table updates", sql, (job, at, checksum))) is not None:
                    found[job] = (*found.get(job, ()), str(row[0]))
        finally:
            db.close()
    return found


def _take_in(bodies: Bodies, db: Database, write: Transaction) -> list[_Absent]:
    """Put into its rows the bodies of updates that lie in files beside the store; return the rows of those not there.

    Raises StoreError.
    """
    absent = []
    sql = "SELECT rowid, job, at, n_bytes, crc FROM updates WHERE body IS NOT NULL AND at IS NOT NULL"
    for rowid, job, at, n_bytes, checksum in list(db.rows("table updates", sql)):
        body = bodies.read(job, at, n_bytes) if is_id(job) else b""
        if crc(body) == checksum:
            write("UPDATE updates SET body = ?, at = NULL, n_bytes = NULL WHERE rowid = ?", (body, rowid))
        else:
            absent.append(_Absent(rowid, job, at, checksum))
    return absent


def _refuse_damaged(jobs: list[HeldJob], instead: str) -> None:
    """Raise BackupError for a damaged job: its last good backup is worth more than this one."""
    for held in jobs:
        if held.damage:
            raise BackupError(f"{held.damage}. {instead}")


def _seal(file: Path) -> None:
    """Write the SHA-256 of a file behind its end, with what tells that it is one."""
    with file.open("r+b") as whole:
        digest = hashlib.file_digest(whole, "sha256").digest()
        whole.seek(0, os.SEEK_END)
        whole.write(SEAL + digest)
        whole.flush()
        os.fsync(whole.fileno())


def _unseal(file: Path, name: str) -> None:
    """Take the SHA-256 off again. Raises BackupError where it is wrong; a store without one is left as it is.

    It is no less one where a newer fedge wrote it in another way.
    """
    _check_seal(file, name)
    with file.open("r+b") as whole:
        end = whole.seek(0, os.SEEK_END) - len(SEAL) - hashlib.sha256().digest_size
        if end < 0:
            return
        whole.seek(end)
        if whole.read(len(SEAL)) != SEAL:
            return
        digest = whole.read()
        whole.truncate(end)
        whole.seek(0)
        if hashlib.file_digest(whole, "sha256").digest() != digest:
            raise BackupError(f"{name} is damaged: its checksum is wrong: restore an older one")


def _check_seal(file: Path, name: str) -> None:
    """Raise BackupError for a seal that a newer fedge has written."""
    with file.open("rb") as whole:
        whole.seek(max(0, whole.seek(0, os.SEEK_END) - _LONGEST_SEAL))
        found = _NUMBERED.search(whole.read())
    try:
        formats.check(f"{name}: the backup", int(found[1]) if found else FORMAT, FORMAT)
    except formats.FormatError as error:
        raise BackupError(str(error)) from error


@contextmanager
def _claimed(copy: Path) -> Iterator[None]:
    """Make an empty file for ourselves alone, since two backups at once would write into one; it goes at the end."""
    descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another backup is being made there ({copy}): wait for that one") from None
        if not _is_still(copy, descriptor):
            raise StoreError(f"another backup has just been made there ({copy}): try again")
        os.ftruncate(descriptor, 0)
        try:
            yield
        finally:
            if _is_still(copy, descriptor):
                _remove(copy)
    finally:
        os.close(descriptor)


def _is_still(file: Path, descriptor: int) -> bool:
    """Return whether an open file has this name."""
    try:
        return file.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _check_replaceable(file: Path) -> None:
    """Raise BackupError unless this file was made by `backup`, and by no newer fedge's."""
    foreign = BackupError(f"{file} is there and is no backup: remove it, or choose another name")
    if not file.is_file():
        raise foreign
    try:
        _check_seal(file, str(file))
        db = Database(file, synced=False, wal=False)
    except BackupError as error:
        raise BackupError(f"{error}, or choose another name") from error
    except (OSError, StoreError):
        raise foreign from None
    try:
        if schema.is_newer(db):
            raise BackupError(f"{file} is a backup of a newer fedge: upgrade this one, or choose another name")
        is_marked = db.one("its mark", "SELECT 1 FROM meta WHERE name = 'backup'") is not None
    except BackupError:
        raise
    except StoreError:
        is_marked = False
    finally:
        db.close()
    if not is_marked:
        raise foreign


# Putting one back.


def _receive(source: BinaryIO, new: Path, progress: Progress, n_bytes: int) -> None:
    with new.open("wb") as file:
        while piece := source.read(_PIECE):
            file.write(piece)
            progress(file.tell(), max(n_bytes, file.tell()))


def _checked(new: Path, name: str) -> list[HeldJob]:
    """Return the jobs of what is to be restored. Raises BackupError unless it is a store, whole, and known here."""
    try:
        if not new.stat().st_size:
            raise BackupError(f"{name} is empty: it is no backup")
        db = Database(new, synced=False, wal=False)
        try:
            schema.check(db)
            if damage := db.damage():
                raise BackupError(f"{name} is damaged and is no backup: {damage}: restore an older one")
            schema.bring_up(db)
            return _jobs(db)
        finally:
            db.close()
    except BackupError:
        raise
    except StoreError as error:
        raise BackupError(str(error).replace(str(new), name)) from error


def _mark(new: Path) -> None:
    """Let whoever opens this store find that it was moved, and that an operator wants it to lead."""
    db = Database(new, synced=False, wal=False)
    try:
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
        with db.transaction("the mark of a restored store") as write:
            write("INSERT OR REPLACE INTO meta VALUES ('place', '')")
            write("INSERT OR REPLACE INTO meta VALUES (?, 'yes')", (f"note:{RESTORED}",))
            write("DELETE FROM meta WHERE name = 'backup'")
    finally:
        db.close()


def _keep(old: Path) -> Path:
    """Return the store that makes way a second name, durably, and its WAL too unless that can be folded in.

    The restored store will write over the bodies of updates that lie beside, so that these go into their rows first:
    one transaction, after which the store holds what it held. Where one cannot, the files are copied. Raises OSError.
    """
    kept, bodies = _free_name(old), old.with_name(UPDATES)
    _remove(kept)
    wal = _beside(kept, "-wal")
    if _beside(old, "-wal").exists():
        _name_again(_beside(old, "-wal"), wal)
    _name_again(old, kept)
    is_written, is_all = False, not any(bodies.glob("*.bin"))
    with suppress(StoreError):  # a damaged one stays as it is
        db = Database(old)
        try:
            if not is_all:
                is_written, is_all = _settled(db, Bodies(bodies, synced=False))
            db.fold_in()
        finally:
            db.close()
    if is_written:
        _name_anew(old, kept)
    if not is_all:
        _keep_bodies(bodies, _bodies_of(kept))
    if wal.exists() and not wal.stat().st_size:
        wal.unlink()
    sync(old.parent)
    return kept


def _settled(db: Database, bodies: Bodies) -> tuple[bool, bool]:
    """Take the bodies that lie beside a store into it; return whether it was written, and whether none lies beside now.

    A store that is damaged is left as it is, since to write there might spoil more.
    """
    with suppress(StoreError, MemoryError):
        if schema.check(db) < schema.SCHEMA_VERSION:  # of a time when none lay beside
            return False, True
        if db.one("table updates", "SELECT 1 FROM updates WHERE body IS NOT NULL AND at IS NOT NULL") is None:
            return False, True
        if not db.damage():
            with db.transaction("the bodies of updates") as write:
                absent = _take_in(bodies, db, write)
            return True, not absent
    return False, False


def _name_anew(old: Path, kept: Path) -> None:
    """Make what is kept the store as it is now: without links it is a copy, and a WAL may be a new one."""
    for side in ("", "-wal"):
        now, name = _beside(old, side), _beside(kept, side)
        if now.exists() and name.exists() and name.samefile(now):
            continue
        name.unlink(missing_ok=True)
        if now.exists():
            _name_again(now, name)


def _bodies_of(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.{UPDATES}")


def _keep_bodies(bodies: Path, kept: Path) -> None:
    """Copy the files of bodies, as far as they can be read. Raises OSError where there is no room."""
    kept.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(kept, bodies.stat().st_uid, bodies.stat().st_gid)
    for file in bodies.glob("*.bin"):
        try:
            shutil.copy2(file, kept / file.name)
            _adopt(kept / file.name, file)
            sync(kept / file.name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # else the disk is damaged, which may be why one restores
    sync(kept)


def _free_name(old: Path) -> Path:
    """Return the first name at which no other store lies: one from before a restore is never written over."""
    names = (old.with_name(f"{old.name}.before-restore" + f"-{n}" * (n > 1)) for n in itertools.count(1))
    # The same file: a restore was cut off.
    return next(kept for kept in names if (kept.samefile(old) if kept.exists() else not _bodies_of(kept).exists()))


def _name_again(file: Path, name: Path) -> None:
    try:
        name.hardlink_to(file)
    except OSError:  # a file system without links
        shutil.copy2(file, name)
        sync(name)


def _adopt(new: Path, like: Path) -> None:
    """Return a file to whom the state belongs, who is another where root restores it."""
    found = like.stat()
    new.chmod(0o640 if like.is_dir() else found.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(new, found.st_uid, found.st_gid)


# Both.


def _jobs(db: Database) -> list[HeldJob]:
    store = Store.over(db)
    return [_held(store, row) for row in store.jobs()]


def _held(store: Store, row: JobRow) -> HeldJob:
    """Read all there is of a job, as an aggregator would that goes on with it."""
    version, damage = "", row.damage
    try:
        found = store.last_version(row.job)
        current, version = found.version, str(found.version)
        if not damage and not (is_whole(found.state) and (not found.record or is_whole(found.record))):
            damage = f"job {row.job} is damaged in the state directory (its model): {REMEDY}"
        for look in (store.verdicts, store.bodies, store.history, store.aliases, store.claims):
            look(row.job)
        for _ in store.updates(row.job):
            pass
        store.attempts(row.job, current)
    except DamageError as error:
        damage = damage or str(error)
    return HeldJob(row.job, row.name, version, row.ended, damage)


def _beside(file: Path, side: str) -> Path:
    return file.with_name(file.name + side)


def _remove(file: Path) -> None:
    for side in ("", *_SIDES):
        _beside(file, side).unlink(missing_ok=True)
