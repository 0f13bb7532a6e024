"""SQLite files: a query gives the rows, or the one table that there is.

 1. The file is opened for reading, and what the query may do is said by an authorizer: read. It attaches nothing, calls
    no extension, and changes nothing, not even files beside it: a database in WAL mode that nobody has open is read
    without its locks (a reader with locks would leave -wal and -shm behind, under a name that its writer may not open),
    and again if somebody has begun to write meanwhile.
 2. One opening is one read transaction: the rows are of one moment, however often they are read. In WAL mode a writer
    goes on meanwhile; in the other modes it waits until the table is closed, and a reader waits for it for LOCKED_S.
 3. Nothing is believed of a file: no cell is larger than MOST_BYTES, no schema is trusted to call functions, and what
    is damaged is an error. Only integers and reals are numbers; NULL is missing, text and blobs are faults.

Rows are counted from 0, as in the array. sqlite3 is imported where a file is read: most devices have none.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind
from models.data.cells import CellError, Cells, Doubles, missing_of
from models.data.dataset import DatasetError
from models.data.naming import called, places
from models.data.settings import SourceSettings
from models.data.textfile import at_once
from models.data.values import Values

if TYPE_CHECKING:
    import sqlite3

LOCKED_S = 10.0
"""How long to wait for a writer that lets nobody read. (It commonly lasts as long as a sync.)"""
MOST_BYTES = 1_000_000
"""Of a cell, or a piece of SQL. Numbers have eight."""
MOST_CELLS = 2**20
"""Of a block: fewer rows where there are many columns."""
MOST_NAMED = 20
"""Tables that a message names."""
_OF_QUERIES = (
    "no such ",
    "near ",
    "incomplete ",
    "ambiguous ",
    "wrong number ",
    "unrecognized ",
    "not authorized",
    "misuse ",
)
"""How what SQLite says begins where it is about a query's own words; anything else may be about what a row holds."""
_MAGIC = b"SQLite format 3\x00"
_WAL = b"\x02\x02"
_BETWEEN_LOOKS = 100_000
"""Steps of SQLite's machine after which Python has a look: it is there that a query without an end is stopped."""


def open_table(settings: SourceSettings, *, ended: bool) -> SqliteTable:  # noqa: ARG001 -- no row is half there
    """Open a database as it is now, for its query. Raises DatasetError."""
    return SqliteTable(settings)


class SqliteTable:
    """See `Table`. Rows are counted from 0."""

    def __init__(self, settings: SourceSettings) -> None:
        """Begin to read, and ask for the columns. Raises DatasetError."""
        import sqlite3  # here alone: see the law

        self._settings, self._path = settings, settings.path
        self._query = settings.query or ""
        self._alone = _is_alone(self._path)
        self._before = _state(self._path)
        self._values = Values(
            Cells(missing=missing_of(settings.missing_values)), settings.time_format, texts_count=False
        )
        self.notes: tuple[str, ...] = ()
        try:
            self._connection = _connect(self._path, alone=self._alone, begin=True)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._failed(error) from error
        try:
            if not self._query:
                self._query, table = _only_table(self._connection, self._path)
                self.notes = (f"table {table}",)
            self._cursor: sqlite3.Cursor | None = self._connection.execute(self._query)
            self._inner = tuple(column[0] for column in self._cursor.description or ())
            if not self._inner:
                raise DatasetError(f"{self._path}: query: it gives no columns: write a SELECT")
            self.header = called(self._inner, settings)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError) as error:
            self.close()
            raise self._failed(error) from error

    def close(self) -> None:
        """See `Table`."""
        self._connection.close()

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        return self._blocks(wanted, places(self.header, wanted, self._path))

    def _blocks(self, wanted: Mapping[str, Kind], at: Mapping[str, int]) -> Iterator[Block]:
        import sqlite3

        n, n_rows = 0, max(1, min(BLOCK_ROWS, MOST_CELLS // len(self.header)))
        try:
            cursor, self._cursor = self._cursor or self._connection.execute(self._query), None
            while rows := cursor.fetchmany(n_rows):
                yield self._block(wanted, at, rows, n)
                n += len(rows)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError) as error:
            raise self._failed(error, n) from error
        if self._alone and _state(self._path) != self._before:
            raise DatasetError(f"{self._path}: somebody has begun to write to it while it was read: it is read again")

    def _block(self, wanted: Mapping[str, Kind], at: Mapping[str, int], rows: list[Any], first: int) -> Block:
        columns: dict[str, Doubles | list[str]] = {}
        faults: list[Fault] = []
        for name, kind in wanted.items():
            try:
                columns[name], whys = self._values.column(name, kind, [row[at[name]] for row in rows])
            except CellError as error:
                raise DatasetError(f"{self._path}, column {name}: {error}") from None
            faults += [Fault(first + row, name, why) for row, why in whys]
        faults.sort(key=lambda fault: fault.line)
        return Block(columns, np.arange(first, first + len(rows)), tuple(faults))

    def _failed(self, error: Exception, row: int = 0) -> DatasetError:
        """Return the error as one of ours. What SQLite says of a row may hold what is in it."""
        import sqlite3

        if isinstance(error, DatasetError):
            return error
        code = getattr(error, "sqlite_errorcode", None)
        of_a_row = code is None if row else False
        if code is not None and code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH):
            of_a_row = not str(error).startswith(_OF_QUERIES)
        if of_a_row:
            told = f"{self._path}: query: failed at row {row} or soon after it: the log of this machine has why"
            return DatasetError(told, cell=str(error))
        return DatasetError(f"{self._path}: {_explained(error, self._settings)}")


def _only_table(connection: sqlite3.Connection, path: str) -> tuple[str, str]:
    """Return a query for the one table that there is, and its name. Raises DatasetError."""
    sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
    names = [str(name) for (name,) in connection.execute(sql)][: MOST_NAMED + 1]
    if len(names) == 1:
        quoted = names[0].replace('"', '""')
        return f'SELECT * FROM "{quoted}"', names[0]  # noqa: S608 -- a name in quotes, and reading is all that it may
    there, one = ", ".join(names) or "no tables", names[0] if names else "readings"
    raise DatasetError(f'{path}: needs the key query, as in query = "SELECT * FROM {one}": it has {there}')  # noqa: S608


def _connect(path: str, *, alone: bool, begin: bool = False) -> sqlite3.Connection:
    """Return a connection that can read and nothing else. begin: it sees one moment. Raises sqlite3.Error."""
    import sqlite3

    # with the slashes of a URI, so that no name is taken for a host, a parameter or an escape
    uri = f"file://{quote(os.path.abspath(path))}?mode=ro{'&immutable=1' if alone else ''}"  # noqa: PTH100 -- Path.absolute keeps ".."
    connection = sqlite3.connect(uri, uri=True, timeout=LOCKED_S, isolation_level=None)
    try:
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        if begin:
            connection.execute("BEGIN")
        connection.set_authorizer(_allow)
        connection.set_progress_handler(lambda: 0, _BETWEEN_LOOKS)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _allow(action: int, _first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    """Return whether a query may do this: read, and work out what it has read."""
    import sqlite3

    reading = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    if action in reading or (action == sqlite3.SQLITE_FUNCTION and second != "load_extension"):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _is_alone(path: str) -> bool:
    """Return whether a database is in WAL mode, and nobody has it open. Raises DatasetError for what is no database."""
    try:
        with open(path, "rb", opener=at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DatasetError(f"{path}: cannot be read as SQLite: it is no file")
            head = file.read(20)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as SQLite: {error.strerror or error}") from error
    if not head:
        raise DatasetError(f"{path}: is empty: no program has put a table into it yet")
    if not head.startswith(_MAGIC):
        raise DatasetError(f"{path}: is no SQLite database (or an encrypted one)")
    return head[18:20] == _WAL and not os.path.lexists(f"{path}-wal")


def _state(path: str) -> tuple[bool, int, int]:
    """Return what is another where somebody else has opened a database that nobody had open."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return True, 0, 0
    return os.path.lexists(f"{path}-wal"), found.st_size, found.st_mtime_ns


def _explained(error: Exception, settings: SourceSettings) -> str:
    """Return what went wrong, and what to do."""
    import sqlite3

    code = getattr(error, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return (
                f"another program has had it locked for {LOCKED_S:g} s: have that commit, or set its journal_mode to"
                " WAL, which lets others read"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT:
            return (
                f"is damaged ({error}): a copy of a database in use is made by VACUUM INTO or .backup, not by copying"
                " the file"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PERM:
            return (
                f"cannot be read ({error}): let this user read it and the -wal and -shm beside it; where its writer has"
                " died, open it once with that program, which puts it right"
            )
        case sqlite3.SQLITE_AUTH:
            return f"query may only read ({error}): {settings.query!r:.200}"
        case sqlite3.SQLITE_INTERRUPT:
            return f"query was stopped: it did not come to an end: {settings.query!r:.200}"
        case sqlite3.SQLITE_ERROR if "no such table" in str(error):
            return f"query: {error}; it has {_tables(settings.path)}"
    return f"query: {error}"


def _tables(path: str) -> str:
    """Return the names of the tables of a database, as far as they can be read."""
    import sqlite3

    with (
        contextlib.suppress(sqlite3.Error, UnicodeError),
        contextlib.closing(_connect(path, alone=_is_alone(path))) as connection,
    ):
        sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name LIMIT ?"
        if names := [str(name) for (name,) in connection.execute(sql, (MOST_NAMED,))]:
            return ", ".join(names)
    return "no tables"
