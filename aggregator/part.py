"""What every part of the store stands on: its file, the folder of what is too long for a row, and one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from aggregator.bodies import Bodies
from aggregator.database import Database, Row, StoreError, Transaction
from aggregator.events import Events
from aggregator.generations import Chance
from broker.messages import Version


class Part:
    """Some of the methods of a store (store.py), which opens the file."""

    _db: Database
    _bodies: Bodies
    _chance: Chance
    events: Events
    """What has happened, and waits to be written along with what is written anyhow."""
    _row_bytes: int
    """The longest body of an update that lies in its row."""

    def synced_once(self) -> AbstractContextManager[None]:
        """Put what a block writes on disk in one sync, when it is over; before, nothing of it may be said.

        Raises StoreError where that cannot be done.
        """
        return self._db.synced_once()

    def _rows(self, job: str, table: str, sql: str, values: Sequence[object]) -> Iterator[Row]:
        return self._db.rows(f"job {job}, table {table},", sql, values)

    def _one(self, job: str, table: str, sql: str, values: Sequence[object]) -> Row | None:
        return next(self._rows(job, table, sql, values), None)

    def _writing(self, job: str) -> Transaction:
        return self._db.transaction(f"job {job}")

    def _write(self, sql: str, values: Sequence[object], job: str = "") -> None:
        with self._db.transaction(f"job {job}" if job else "a word") as write:
            write(sql, values)


def base_cells(job: str, base: Version) -> tuple[str, int, int]:
    return job, base.generation, base.number


@contextmanager
def durable() -> Iterator[None]:
    """Pass a point behind a transaction. Raises StoreError: who loads from here again finds that it is done."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"the state directory cannot be used: {error.strerror or error}") from error
