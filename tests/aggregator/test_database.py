"""SQLite behind one face: what it complains of, what a transaction undoes, and copies of what others write to."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.database import DamageError, Database, StoreError


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "db", new=True)
    opened.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    yield opened
    opened.close()


def put(db: Database, *numbers: int) -> None:
    with db.transaction("numbers") as write:
        for number in numbers:
            write("INSERT INTO t VALUES (?, ?)", (number, bytes(4000)))


def numbers(db: Database) -> list[int]:
    return [row[0] for row in db.rows("numbers", "SELECT a FROM t ORDER BY a")]


def test_a_transaction_is_all_or_nothing_whatever_is_raised_in_it(db: Database) -> None:
    put(db, 1)
    for error in (ValueError(), KeyboardInterrupt(), OSError(28, "No space left on device")):
        with pytest.raises((ValueError, KeyboardInterrupt, StoreError)):
            put_and_raise(db, error)
        assert numbers(db) == [1]
    with db.transaction("numbers") as write:
        write("INSERT INTO t VALUES (2, 2)")
        write.undo()
    assert numbers(db) == [1]


def put_and_raise(db: Database, error: BaseException) -> None:
    with db.transaction("numbers") as write:
        write("INSERT INTO t VALUES (2, 2)")
        raise error


def test_a_row_where_none_can_be_is_damage_and_undoes_the_rest(db: Database) -> None:
    put(db, 1)
    with pytest.raises(DamageError, match=r"numbers cannot be written to the state directory: UNIQUE .* restore a"):
        put(db, 2, 1)
    assert numbers(db) == [1]


def test_a_full_disk_says_to_make_room(db: Database) -> None:
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    with (
        pytest.raises(StoreError, match="is full: make room on its disk") as raised,
        db.transaction("a number") as write,
    ):
        write("INSERT INTO t VALUES (1, ?)", (bytes(100_000),))
    assert not isinstance(raised.value, DamageError)


def test_a_file_that_another_program_holds_says_so(db: Database, tmp_path: Path) -> None:
    db.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="is locked: another program has it open") as raised:
        put(db, 1)
    assert not isinstance(raised.value, DamageError)
    other.close()
    put(db, 1)


def test_what_cannot_be_rolled_back_is_no_other_error_and_the_next_transaction_works(db: Database) -> None:
    db.execute("BEGIN")  # as a ROLLBACK that failed leaves it
    db.execute("INSERT INTO t VALUES (1, 1)")
    put(db, 2)
    assert numbers(db) == [2]


def test_a_text_that_is_none_is_bytes_and_not_an_error(db: Database) -> None:
    db.execute("INSERT INTO t VALUES (1, CAST(X'ff30' AS TEXT))")
    assert db.one("a text", "SELECT b FROM t") == (b"\xff0",)


def test_a_query_that_nobody_reads_to_its_end_outlives_its_file_in_silence(db: Database) -> None:
    """As where a damaged row is raised, and the error is held until after the store was closed."""
    put(db, 1, 2)
    rows = db.rows("numbers", "SELECT a FROM t ORDER BY a")
    assert next(rows) == (1,)
    db.close()
    rows.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file: may this user read and write it"):
        Database(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_any_name_is_opened(tmp_path: Path) -> None:
    strange = tmp_path / "a b?mode=memory#%41\udcff"
    Database(strange, new=True).close()
    assert strange.exists()


def test_a_file_that_may_not_be_written_says_so(db: Database) -> None:
    db.execute("PRAGMA query_only = ON")  # what a disk that is mounted read-only answers, to root too
    with pytest.raises(StoreError, match="readonly database: is its disk mounted read-only") as raised:
        put(db, 1)
    assert not isinstance(raised.value, DamageError)


def test_damage_of_the_file_as_a_whole_is_found(db: Database, tmp_path: Path) -> None:
    put(db, *range(50))
    assert db.damage() == ""
    db.close()
    data = bytearray((tmp_path / "db").read_bytes())
    data[8192:12288] = bytes(4096)
    (tmp_path / "db").write_bytes(data)
    torn = Database(tmp_path / "db")
    assert torn.damage()
    torn.close()


def test_a_copy_is_of_one_moment_though_others_go_on_writing(db: Database, tmp_path: Path) -> None:
    put(db, *range(4000))
    writer = Database(tmp_path / "db")
    wrote: list[int] = []

    def write_on(done: int, total: int) -> None:
        assert 0 < done <= total
        put(writer, 100_000 + len(wrote))
        assert len(wrote) < 100
        wrote.append(done)

    db.copy_to(tmp_path / "copy", write_on)
    assert 5 < len(wrote) < 20  # it does not begin anew at every commit
    copy = Database(tmp_path / "copy", wal=False)
    assert numbers(copy) == list(range(4000))
    assert copy.one("its journal", "PRAGMA journal_mode") == ("delete",)
    assert len(numbers(db)) == 4000 + len(wrote)
    put(db, 7 * 10**6)  # the reading transaction is over
    for each in (copy, writer):
        each.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "db", "db-shm", "db-wal"]


def test_a_copy_goes_on_while_another_thread_writes_all_the_time(db: Database, tmp_path: Path) -> None:
    put(db, *range(3000))
    stop = threading.Event()

    def keep_writing() -> None:
        writer = Database(tmp_path / "db", synced=False)
        number = 10**6
        while not stop.is_set():
            put(writer, number, -number)
            number += 1
        writer.close()

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        db.copy_to(tmp_path / "copy", lambda _done, _total: None)
    finally:
        stop.set()
        thread.join()
    copy = Database(tmp_path / "copy", wal=False)
    found = numbers(copy)
    copy.close()
    later = [number for number in found if number >= 10**6]
    assert found == [*(-number for number in reversed(later)), *range(3000), *later]
