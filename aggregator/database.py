"""One SQLite file that a power cut does not hurt, and errors that say what to do. The only file that imports sqlite3.

What SQLite complains of becomes one of two errors: StoreError where trying again may help (a full disk, a lock, a
folder that somebody has made read-only), DamageError where it will not (what is stored is not what was written).
A transaction is all or nothing whatever is raised in it, and on disk (WAL, synchronous = FULL) once it is over, or the
block that has one sync for all of its own (syncs.py).
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from aggregator.syncs import Level, Syncs
from aggregator.wal import Wal
from runtime.failpoints import reach

REMEDY = "restore a backup (fedge aggregator restore)"
REPAIR = "stop this aggregator, run `fedge aggregator repair`, and start it again: nothing that was counted is lost"


class StoreError(RuntimeError):
    """The state directory cannot be read or written now; the message says what to do, and trying again may help."""


class DamageError(StoreError):
    """What is stored is not understood, and waiting does not help; the message names the place."""


class OutOfRangeError(DamageError):
    """A number that no honest fleet comes to: an older fedge has believed what somebody said. A command mends it."""


_RAISED = (sqlite3.Error, MemoryError, UnicodeDecodeError)
"""What comes out of sqlite3: the last two for a size that is damaged, and for damage that it quotes in an error."""
WRITE_WAITS_S = 5.0
READ_WAITS_S = 0.5
"""How long another program may have the file to itself before that is an error."""
Row = tuple[Any, ...]
Progress = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many."""


class Pending(Protocol):
    """Rows that wait for a transaction which is made anyhow. What is wrong with their table is nobody else's fault."""

    def statements(self) -> Sequence[tuple[str, Sequence[object]]]:
        """Return what the transaction that is about to end writes of them, each in one statement."""

    def written(self) -> None:
        """Note that it has ended well; if this is not called, they wait for the next one."""

    def refused(self, error: DamageError) -> None:
        """Note that their table is damaged; the transaction goes on without them."""


class Database:
    """One open file. pending: what its transactions take along."""

    pending: Pending | None = None

    def __init__(
        self, file: Path, *, synced: bool = True, wal: bool = True, new: bool = False, only_reads: bool = False
    ) -> None:
        """Open a file. Raises StoreError, or DamageError where it is no database.

        synced: False where no power is cut, or who writes puts it on disk as a whole. wal: False leaves the file's
        journal as it is. new: the file may be made. only_reads: while another process writes; then it may be used on
        any thread, on one at a time.
        """
        self.file = file
        self._wal = Wal(file.with_name(f"{file.name}-wal"))
        self._is_synced = synced
        self._syncs = Syncs(None, self._sync_log)
        mode = "ro" if only_reads else "rwc" if new else "rw"
        patience_s = READ_WAITS_S if only_reads else WRITE_WAITS_S
        try:
            uri = f"{file.absolute().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=not only_reads, timeout=patience_s
            )
        except sqlite3.Error as error:
            raise _translated(error, f"{file} cannot be opened") from error
        try:
            self._db.text_factory = _text
            self._db.create_function("crc", 1, crc, deterministic=True)
            self._db.execute("PRAGMA trusted_schema = OFF")
            self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'OFF'}")
            if wal and not only_reads:
                self._log_ahead()
        except (*_RAISED, OSError) as error:
            self.close()
            raise _translated(error, f"{file} cannot be used") from error

    def close(self) -> None:
        """Close the file; what is open of a transaction is lost."""
        self._wal.close()
        self._db.close()

    def log_ahead(self) -> None:
        """Keep what is written in a WAL from now on, and say so in the file. Raises StoreError."""
        try:
            self._log_ahead()
        except (*_RAISED, OSError) as error:
            raise _translated(error, f"{self.file} cannot be used") from error

    def _log_ahead(self) -> None:
        """Begin with a log; where there can be none each transaction is synced by itself, as without blocks."""
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode == "wal" and self._is_synced:  # what a former process has written, and died before its sync, is owed
            self._syncs = Syncs(self._sync_by, self._sync_log, is_owed=self._wal.open())

    def execute(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement by itself. Raises StoreError."""
        try:
            return self._db.execute(sql, values)
        except _RAISED as error:
            raise _translated(error, "the state directory cannot be used") from error

    def rows(self, what: str, sql: str, values: Sequence[object] = ()) -> Iterator[Row]:
        """Return what a query finds. what: is being read, for people. Raises StoreError or DamageError."""
        self._syncs.before_reading()
        try:
            # `yield from` would close the cursor of who stops in between, though the file may be closed by then
            for row in self._db.execute(sql, values):  # noqa: UP028
                yield row
        except _RAISED as error:
            raise _translated(error, f"{what} cannot be read from the state directory") from error

    def one(self, what: str, sql: str, values: Sequence[object] = ()) -> Row | None:
        """Return the first row that a query finds. Raises StoreError or DamageError."""
        return next(self.rows(what, sql, values), None)

    def transaction(self, what: str) -> Transaction:
        """Begin BEGIN IMMEDIATE … COMMIT, for a `with`. what: is being written, for people. Raises StoreError."""
        self._syncs.begin()
        return Transaction(self._db, what, self.pending)

    def synced_once(self) -> AbstractContextManager[None]:
        """Put what the transactions of a block have written on disk in one sync, when it is over, however it ends.

        Raises StoreError where that cannot be done: then nothing of it may be said.
        """
        return self._syncs.once()

    def sync_owed(self) -> None:
        """Put on disk at once what transactions of an open block have written. Raises StoreError."""
        self._syncs.pay()

    def write_pending(self) -> None:
        """Write what waits to be taken along, in a transaction that is on disk with the next one. Raises StoreError."""
        with self._syncs.none(), Transaction(self._db, "what has happened", self.pending):
            pass

    def _sync_by(self, level: Level) -> None:
        """Set the level that SQLite syncs by; whoever cannot have that writes nothing. Raises StoreError."""
        self._end_transaction()
        if level == "NORMAL":
            try:
                self._wal.open()
            except OSError as error:
                raise _translated(error, f"{self._wal.file} cannot be used") from error
        self.execute(f"PRAGMA synchronous = {level}")

    def _sync_log(self) -> None:
        """Put the log on disk, written once more where that has failed. Raises StoreError."""
        try:
            if self._wal.is_doubted:
                self._end_transaction()
                self.execute("BEGIN IMMEDIATE")  # nobody else writes to it
                try:
                    self._wal.write_again()
                finally:
                    self.execute("ROLLBACK")
            self._wal.sync()
        except OSError as error:
            raise _translated(error, f"{self._wal.file} cannot be put on disk") from error

    def _end_transaction(self) -> None:
        """End one that could not be rolled back: no setting can be changed in it, and no other begins."""
        if self._db.in_transaction:
            self.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the file as it is at one moment, for as long as the block lasts. Raises StoreError."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def things(self) -> set[tuple[str, str]]:
        """Return kind and name of everything in its schema. Raises StoreError or DamageError."""
        return {
            (str(kind), str(name)) for kind, name in self.rows("its schema", "SELECT type, name FROM sqlite_master")
        }

    def damage(self) -> str:
        """Read every page and say what is wrong with the file as a whole; "" where nothing is."""
        try:
            found = [str(row[0]) for row in self.rows("the file", "PRAGMA integrity_check(3)")]
        except DamageError as error:
            return str(error)
        return "" if found == ["ok"] else "; ".join(" ".join(line.split()) for line in found)

    def fold_in(self) -> None:
        """Take what lies in the WAL into the file itself, unless somebody reads there. Raises StoreError."""
        self.execute("PRAGMA busy_timeout = 500")
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def copy_to(self, file: Path, progress: Progress) -> None:
        """Copy everything as it is now into an empty file, not synced, while others may go on writing here.

        One reading transaction holds the moment, so that a busy writer does not have the copy begin anew at each of
        its commits. Raises StoreError.
        """
        try:
            with closing(sqlite3.connect(file, isolation_level=None)) as target:
                target.execute("PRAGMA synchronous = OFF")
                self._db.execute("BEGIN")
                self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                (size,) = self._db.execute("PRAGMA page_size").fetchone()
                self._db.backup(
                    target, pages=512, progress=lambda _, left, total: progress(size * (total - left), size * total)
                )
                target.execute("PRAGMA journal_mode = DELETE")  # one file, without a WAL beside it
        except _RAISED as error:
            raise _translated(error, f"{self.file} cannot be copied to {file}") from error
        finally:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")


class Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK whatever is raised; a full or read-only disk becomes a StoreError."""

    def __init__(self, db: sqlite3.Connection, what: str, pending: Pending | None = None) -> None:
        self._db = db
        self._what = what
        self._pending = pending
        self._undone = False

    def __enter__(self) -> Transaction:
        self._roll_back()  # what an earlier one could not
        self("BEGIN IMMEDIATE")
        return self

    def __call__(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run one statement. Raises StoreError or DamageError, and then all of it is undone."""
        try:
            self._execute(sql, values)
        except (*_RAISED, OSError) as error:
            self._roll_back()
            raise self._as_ours(error) from error

    def _execute(self, sql: str, values: Sequence[object]) -> None:
        reach("store.statement.before", sql[:40])
        self._db.execute(sql, values)
        reach("store.statement.after", sql[:40])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            if not self._undone:
                self._take_along()
                self("COMMIT")
                if self._pending is not None:
                    self._pending.written()
            return
        self._roll_back()
        if isinstance(error, OSError):
            raise self._as_ours(error) from error

    def _take_along(self) -> None:
        """Write what waits for a transaction. Raises StoreError, and then all of it is undone."""
        for sql, values in () if self._pending is None else self._pending.statements():
            try:
                self._execute(sql, values)
            except (*_RAISED, OSError) as error:
                ours = self._as_ours(error)
                if self._pending is None or not (isinstance(ours, DamageError) and self._db.in_transaction):
                    self._roll_back()
                    raise ours from error
                self._pending.refused(ours)
                return

    def undo(self) -> None:
        """Take back all that was written; the `with` must end here."""
        self._undone = True
        self._roll_back()

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # the next BEGIN tries again, and says what is wrong
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _as_ours(self, error: Exception) -> StoreError:
        return _translated(error, f"{self._what} cannot be written to the state directory")


def crc(content: object) -> int:
    """Return the checksum that lies beside what has none of its own; of no bytes where it is neither bytes nor text."""
    return zlib.crc32(content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else b"")


def _text(raw: bytes) -> str | bytes:
    """Read a text. One that is not UTF-8 stays bytes, so that who reads the row finds it is no text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,  # a row where none can be
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_ERROR,  # our statements are right: a table or a column is missing
}
_HINTS = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_READONLY: "is its disk mounted read-only, or does another user own it?",
    sqlite3.SQLITE_IOERR: "look at the disk, as with dmesg",
    sqlite3.SQLITE_CANTOPEN: "may this user read and write it?",
    sqlite3.SQLITE_PERM: "may this user read and write it?",
    sqlite3.SQLITE_BUSY: "another program has it open: stop that one",
    sqlite3.SQLITE_LOCKED: "another program has it open: stop that one",
}


def _translated(error: Exception, what: str) -> StoreError:
    if isinstance(error, OSError):
        return StoreError(f"{what}: {error.strerror or error}")
    if isinstance(error, UnicodeDecodeError):
        return DamageError(f"{what}: {error.object.decode(errors='replace')}: {REMEDY}")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits say more precisely what is known already
    if code in _DAMAGE:
        return DamageError(f"{what}: {error}: {REMEDY}")
    hint = _HINTS.get(code)
    return StoreError(f"{what}: {str(error) or type(error).__name__}" + (f": {hint}" if hint else ""))
