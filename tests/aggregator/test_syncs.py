"""When the store is on disk: what one act of a job writes in one sync, before anything of it is said."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aggregator import wal
from aggregator.database import Database, StoreError
from aggregator.store import Store
from broker.memory import MemoryTransport
from broker.transport import Packet
from broker.wire import levels
from models.job import RoundsSpec
from tests.aggregator.conftest import Fleet, toy
from tests.aggregator.syncs import counted


class Disk:
    """What a power cut would leave of a log: as it was when it was synced last, whoever asked for that.

    As with Linux, what a sync has failed on is forgotten: it is not on disk until it was written once more and synced.
    An error is told once to each descriptor that is open then.
    """

    def __init__(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._log = log
        self.content = b""
        self.n_syncs = 0
        self.error: OSError | None = None
        self.refuses = False
        self._forgotten = 0
        self._untold: set[str] = set()
        sync_data, pwrite, close = wal._sync_data, os.pwrite, os.close

        def noted(descriptor: int) -> None:
            if self.error is not None:
                self._forgotten = len(self.now())
                raise self.error
            if str(descriptor) in self._untold:
                self._untold.remove(str(descriptor))
                raise OSError(5, "Input/output error")
            sync_data(descriptor)
            self.note()

        def written(descriptor: int, piece: bytes, at: int) -> int:
            if Path(f"/proc/self/fd/{descriptor}").resolve() == log.resolve():
                assert (at, len(piece)) == (0, len(self.now())), "these logs are short"
                self._forgotten = 0
            return pwrite(descriptor, piece, at)

        def closed(descriptor: int) -> None:
            self._untold.discard(str(descriptor))
            close(descriptor)

        monkeypatch.setattr(wal, "_sync_data", noted)
        monkeypatch.setattr(os, "pwrite", written)
        monkeypatch.setattr(os, "close", closed)

    def note(self, _file: Path | None = None) -> None:
        self.n_syncs += 1
        self.content = self.content[: self._forgotten].ljust(self._forgotten, b"\0") + self.now()[self._forgotten :]

    def fail(self) -> bool:
        """Fail at a sync of SQLite's."""
        self._forgotten = len(self.now())
        open_ = {path.name: path.resolve() for path in Path("/proc/self/fd").iterdir()}
        self._untold = {descriptor for descriptor, path in open_.items() if path == self._log.resolve()}
        return True

    def now(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""

    @property
    def has_all(self) -> bool:
        return self.now() == self.content


@contextmanager
def opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Database, Disk]]:
    disk = Disk(file.with_name(f"{file.name}-wal"), monkeypatch)
    with counted(disk.note, lambda _: disk.refuses and disk.fail()):
        db = Database(file, new=True)
        put(db, "CREATE TABLE t (a)")
        disk.n_syncs = 0
        yield db, disk
        db.close()


def put(db: Database, *statements: str) -> None:
    for statement in statements:
        with db.transaction("numbers") as write:
            write(statement)


def test_a_transaction_by_itself_is_on_disk_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk):
        for n in range(3):
            put(db, f"INSERT INTO t VALUES ({n})")
            assert (disk.has_all, disk.n_syncs) == (True, n + 1)


def test_those_of_a_block_are_on_disk_with_one_sync_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk):
        with db.synced_once():
            put(db, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
            with db.synced_once():  # is a part of it
                put(db, "INSERT INTO t VALUES (3)")
            assert (disk.has_all, disk.n_syncs) == (False, 0)
        assert (disk.has_all, disk.n_syncs) == (True, 1)
        put(db, "INSERT INTO t VALUES (4)")
        assert (disk.has_all, disk.n_syncs) == (True, 2)


def test_a_block_that_writes_nothing_costs_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk):
        with db.synced_once():
            assert list(db.rows("numbers", "SELECT * FROM t")) == []
        assert disk.n_syncs == 0


def test_what_a_block_has_written_before_it_was_left_in_haste_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk):
        with pytest.raises(KeyError):
            put_and_raise(db, KeyError())
        assert (disk.has_all, disk.n_syncs) == (True, 1)


def put_and_raise(db: Database, error: Exception) -> None:
    with db.synced_once():
        put(db, "INSERT INTO t VALUES (1)")
        raise error


def test_what_could_not_be_put_on_disk_is_before_anything_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk):
        disk.error = OSError(5, "Input/output error")
        with pytest.raises(StoreError, match="db-wal cannot be put on disk: Input/output error"), db.synced_once():
            put(db, "INSERT INTO t VALUES (1)")
        for again in (lambda: put(db, "INSERT INTO t VALUES (2)"), lambda: db.one("numbers", "SELECT * FROM t")):
            with pytest.raises(StoreError, match="db-wal cannot be put on disk"):
                again()
        assert not disk.has_all
        disk.error = None
        assert db.one("numbers", "SELECT count(*) FROM t") == (1,)
        assert disk.has_all


def test_an_error_that_sqlite_passes_over_at_a_checkpoint_is_heard_when_the_block_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk):
        db.execute("PRAGMA wal_autocheckpoint = 1")
        with pytest.raises(StoreError, match="db-wal cannot be put on disk: Input/output error"):
            put_while_it_refuses(db, disk)
        assert not disk.has_all
        assert db.one("numbers", "SELECT count(*) FROM t") == (1,)
        assert disk.has_all


def put_while_it_refuses(db: Database, disk: Disk) -> None:
    with db.synced_once():
        disk.refuses = True
        put(db, "INSERT INTO t VALUES (1)")
        disk.refuses = False


def test_what_a_process_has_written_that_died_in_a_block_is_on_disk_before_the_next_one_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "db", monkeypatch) as (db, disk), db.synced_once():
        put(db, "INSERT INTO t VALUES (1)")
        for side in ("", "-wal"):
            shutil.copy(tmp_path / f"db{side}", tmp_path / f"left{side}")
    disk = Disk(tmp_path / "left-wal", monkeypatch)
    left = Database(tmp_path / "left")
    assert left.one("numbers", "SELECT count(*) FROM t") == (1,)
    assert (disk.has_all, disk.n_syncs) == (True, 1)
    left.close()


def test_where_a_file_can_have_no_log_each_transaction_is_synced_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def without_shared_memory(name: str, **how: Any) -> sqlite3.Connection:
        return connect(f"{name}&vfs=unix-dotfile", **how)

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    db = Database(tmp_path / "db", new=True)
    with db.synced_once():
        put(db, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
        assert db.one("its setting", "PRAGMA synchronous") == (2,)
    assert db.one("numbers", "SELECT count(*) FROM t") == (1,)
    assert not (tmp_path / "db-wal").exists()
    db.close()


def test_a_file_that_needs_no_syncs_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path / "db-wal", monkeypatch)
    db = Database(tmp_path / "db", new=True, synced=False)
    with db.synced_once():
        put(db, "CREATE TABLE t (a)")
    db.close()
    assert disk.n_syncs == 0


def test_all_is_on_disk_before_anything_is_said_and_a_round_costs_two_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the updates that came first, and the one of the last of them with all that follows from it."""
    disk = Disk(tmp_path / "aggregator" / "aggregator.sqlite-wal", monkeypatch)
    monkeypatch.setattr("tests.aggregator.conftest.Store", synced)
    rounds: list[int] = []
    with counted(disk.note):
        fleet = Fleet(tmp_path, n_agents=3)
        said = MemoryTransport.publish

        def publish(link: MemoryTransport, packet: Packet) -> object:
            assert disk.has_all or link is not fleet.link, f"{packet.topic} is said of what is not on disk"
            if link is fleet.link and levels(packet.topic)[0] == "round" and packet.payload:
                rounds.append(disk.n_syncs)
            return said(link, packet)

        monkeypatch.setattr(MemoryTransport, "publish", publish)
        fleet.submit(toy(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=4)))
        fleet.finish()
        fleet.store.close()
    assert len(rounds) >= 4
    assert max(after - before for before, after in pairwise(rounds)) <= 2


def synced(folder: Path, **_: bool) -> Store:
    return Store(folder)
