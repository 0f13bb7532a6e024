"""When the store is on disk: what one act of a job writes in one sync, before anything of it is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from aggregator import database
from aggregator.database import Database, StoreError
from aggregator.store import Store
from broker.memory import MemoryTransport
from broker.transport import Packet
from broker.wire import levels
from models.job import RoundsSpec
from tests.aggregator.conftest import Fleet, toy
from tests.aggregator.syncs import counted


class Disk:
    """What a power cut would leave of a log: as it was when it was synced last, whoever asked for that."""

    def __init__(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._log = log
        self.content = b""
        self.n_syncs = 0
        self.error: OSError | None = None
        sync_data = database._sync_data

        def noted(descriptor: int) -> None:
            if self.error is not None:
                raise self.error
            sync_data(descriptor)
            self.note()

        monkeypatch.setattr(database, "_sync_data", noted)

    def note(self) -> None:
        self.n_syncs += 1
        self.content = self.now()

    def now(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""

    @property
    def has_all(self) -> bool:
        return self.now() == self.content


@contextmanager
def opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Database, Disk]]:
    disk = Disk(file.with_name(f"{file.name}-wal"), monkeypatch)
    with counted(disk.note):
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
