"""SQLite files as tables. What holds of them as files is in test_sqlite_file.py."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from models.data import table
from models.data.blocks import Fault, Kind
from models.data.dataset import DatasetError
from models.data.source import DataSource


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "readings.db"
    run(path, "CREATE TABLE readings (ts, v, y)")
    run(path, "INSERT INTO readings VALUES ('2024-01-01 00:00:00', 1.5, 'ok'), (1704067260, NULL, 1), (NULL, 3, 1.0)")
    return path


def run(path: Path, sql: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, values)
        connection.commit()


def opened(path: Path, **keys: Any) -> Any:
    found = DataSource(str(path), **keys)
    return table.known(found).open(found, ended=False)


def test_the_only_table_is_meant_where_no_query_is_given(db: Path) -> None:
    with contextlib.closing(opened(db)) as found:
        assert found.header == ("ts", "v", "y")
        assert found.notes == ("table readings",)
        for _ in range(2):
            (block,) = found.blocks({"ts": Kind.TIME, "v": Kind.NUMBER, "y": Kind.TEXT})
            assert block.columns["ts"].tolist()[:2] == [1704067200.0, 1704067260.0]
            assert block.columns["v"].tolist()[::2] == [1.5, 3.0]
            assert block.columns["y"] == ["ok", "1", "1"]
            assert block.lines.tolist() == [0, 1, 2]
            assert block.faults == ()


def test_of_several_tables_one_has_to_be_said(db: Path) -> None:
    run(db, "CREATE TABLE events (a)")
    with pytest.raises(
        DatasetError, match=r'needs the key query, as in query = "SELECT \* FROM events": it has events, r'
    ):
        opened(db)
    with contextlib.closing(opened(db, query="SELECT v, y FROM readings", rename={"v": "vib"})) as found:
        assert found.header == ("vib", "y")


def test_a_database_without_tables_says_so(tmp_path: Path) -> None:
    run(tmp_path / "x.db", "PRAGMA user_version = 1")
    with pytest.raises(DatasetError, match="it has no tables"):
        opened(tmp_path / "x.db")


def test_a_cell_that_is_none_is_a_fault_with_its_row_and_not_shown(db: Path) -> None:
    run(db, "INSERT INTO readings VALUES (1, 'SECRET', 0), (1, ?, 0), (1, 1e300, 0), (1, 'NA', 0)", b"SECRET")
    with contextlib.closing(opened(db)) as found:
        (block,) = found.blocks({"v": Kind.NUMBER})
    assert block.faults == (
        Fault(3, "v", "is text, and no number: store numbers, or CAST them in the query"),
        Fault(4, "v", "is a blob"),
        Fault(5, "v", "is beyond what a float32 holds"),
    )


def test_what_fails_within_a_row_stays_here(db: Path) -> None:
    run(db, "INSERT INTO readings VALUES (1, '{SECRET', 0)")
    sql = "SELECT json_extract(printf(v), v) AS a, y FROM readings ORDER BY rowid DESC"
    with pytest.raises(DatasetError, match=r"readings\.db: query: failed at row 0 or soon after it") as error:
        opened(db, query=sql)
    assert "SECRET" not in str(error.value)
    assert error.value.cell


def test_all_rows_are_of_the_moment_of_its_opening(tmp_path: Path) -> None:
    path = tmp_path / "wal.db"
    run(path, "PRAGMA journal_mode = wal")
    run(path, "CREATE TABLE readings (v, y)")
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.executemany("INSERT INTO readings VALUES (?, 0)", [(n,) for n in range(10_000)])
        writer.commit()
        with contextlib.closing(opened(path)) as found:
            writer.execute("INSERT INTO readings VALUES (1, 0)")
            writer.commit()
            for _ in range(2):
                assert [len(block.lines) for block in found.blocks({"v": Kind.NUMBER})] == [4096, 4096, 1808]
        with contextlib.closing(opened(path)) as found:
            assert sum(len(block.lines) for block in found.blocks({"v": Kind.NUMBER})) == 10_001


def test_a_table_that_is_opened_can_only_read(db: Path) -> None:
    with pytest.raises(DatasetError, match="query"):
        opened(db, query="DELETE FROM readings")
    with pytest.raises(DatasetError, match="query"):
        opened(db, query="COMMIT")
