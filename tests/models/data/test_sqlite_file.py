"""SQLite sources, over real files and, where it matters, beside a writer in another process."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data import sqlite_file
from models.data.blocks import Block
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource, load
from models.data.source import open as open_source
from runtime.faults import EndlessError, throw_into

ALL = "SELECT t, v, y FROM readings"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "readings.db"
    make(path)
    return path


def make(path: Path, rows: list[tuple[Any, ...]] | None = None, mode: str = "delete") -> None:
    with writer(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE readings (t, v, y)")
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows or [(1, 2.5, 0), (3, -40.0, 1)])


@contextlib.contextmanager
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


def source(path: Path, query: str = ALL, **keys: Any) -> DataSource:
    return msgspec.convert({"path": str(path), "query": query, **keys}, DataSource)


def test_a_query_gives_the_rows_and_its_columns_are_chosen_as_those_of_a_csv(db: Path) -> None:
    data = load(source(db))
    assert (data.X.tolist(), data.y.tolist(), data.source) == ([[1, 2.5], [3, -40]], [0, 1], str(db))
    chosen = load(source(db, label="t", features=["v"]))
    assert (chosen.X.tolist(), chosen.y.tolist()) == ([[2.5], [-40]], [1, 3])
    alone = load(source(db, features="t"))
    assert alone.X.tolist() == [[1], [3]]
    made = load(source(db, "SELECT max(t) AS top, avg(v) AS mean, y AS class FROM readings GROUP BY y", label="class"))
    assert made.X.tolist() == [[1, 2.5], [3, -40]]


def test_the_rows_are_the_same_as_those_of_a_csv_to_the_bit(db: Path, tmp_path: Path) -> None:
    """So is their fingerprint: who moves from one to the other goes on where training stood."""
    csv = tmp_path / "same.csv"
    csv.write_text("t,v,y\n1,2.5,0\n3,-40.0,1\n")
    assert load(source(db)).fingerprint == load(DataSource(str(csv))).fingerprint


@pytest.mark.parametrize("name", ["a?mode=rwc.db", "a#b%41.db", "with space.sqlite", "ü.SQLITE3", "../up.db"])
def test_a_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / name)
    assert len(load(source(folder / name)).y) == 2


def test_a_relative_path_is_seen_from_where_the_process_is(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db.parent)
    assert len(load(source(Path("readings.db"))).y) == 2


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"path": "x.sqlite3", "query": ""}, "length >= 1"),
        ({"path": "x.csv", "query": ALL}, "query is no key of a source in CSV"),
        ({"path": "x.npz", "query": ALL}, "query is no key of a source in NPZ"),
        ({"path": "x.db", "query": ALL, "label": "t", "features": ["t"]}, "features has the label 't' among them"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert(keys, DataSource)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ((None, 1, 0), "'t' is empty"),
        ((1, "warm", 0), "'v' is text, and no number: store numbers, or CAST them in the query"),
        ((1, "2.5", 0), "'v' is text, and no number: store numbers, or CAST them in the query"),
        ((1, 2, b"\x00"), "'y' is a blob"),
        ((1, 1e300, 0), "'v' is beyond what a float32 holds"),
        ((1, float("inf"), 0), "'v' is beyond what a float32 holds"),
    ],
)
def test_what_is_no_number_is_named_with_row_and_column(db: Path, row: tuple[Any, ...], why: str) -> None:
    with writer(db) as connection:
        connection.execute("INSERT INTO readings VALUES (?, ?, ?)", row)
    found = load(source(db))
    assert len(found.y) == 2
    assert why in found.told
    assert found.told.endswith("(row 2)")
    with pytest.raises(DatasetError, match=r"1 of 3 rows cannot be used, more than max_skipped = 0.1 allows"):
        load(source(db, max_skipped=0.1))


def test_columns_that_are_not_used_may_hold_anything(db: Path) -> None:
    with writer(db) as connection:
        connection.execute("ALTER TABLE readings ADD COLUMN note TEXT DEFAULT 'x'")
    assert len(load(source(db, "SELECT * FROM readings", features=["t", "v"])).y) == 2


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT t, v, y FROM reading", "query: no such table: reading; it has readings"),
        ("SELECT t, w, y FROM readings", "query: no such column: w"),
        ("SELECT t, v FROM readings", "no column 'y'; the query has t, v"),
        ("SELECT t, y, y FROM readings", "more than one column 'y'"),
        ("SELECT t, v, y FROM readings WHERE t > 9", "no rows yet"),
        ("SELECT y FROM readings", "the query has no column beside y: there is no feature"),
        ("SELEC t", "query: near .SELEC.: syntax error"),
        ("-- nothing", "query: it gives no columns: write a SELECT"),
        (f"{ALL}; SELECT 1", "query: You can only execute one statement at a time"),
        (f"{ALL}\x00", "query: "),
    ],
)
def test_a_query_that_gives_no_examples_says_why(db: Path, query: str, why: str) -> None:
    with pytest.raises(DatasetError, match=rf"readings\.db: {why}"):
        load(source(db, query))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM readings",
        "INSERT INTO readings VALUES (1, 2, 3) RETURNING t, v, y",
        "UPDATE readings SET t = 7 RETURNING *",
        "DROP TABLE readings",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'other.db'",
        "PRAGMA journal_mode = wal",
        "PRAGMA query_only = OFF",
        "SELECT name AS t, 1 AS v, 2 AS y FROM pragma_table_info('readings')",
        "BEGIN EXCLUSIVE",
        "SELECT load_extension('x') AS t, 1 AS v, 2 AS y",
    ],
)
def test_a_query_can_read_and_nothing_else(db: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db.parent)
    before = db.read_bytes()
    with pytest.raises(DatasetError, match="query"):
        load(source(db, query))
    assert db.read_bytes() == before
    assert [path.name for path in db.parent.iterdir()] == ["readings.db"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty: no program has put a table into it yet"),
        (b"a,b,y\n1,2,0\n", "is no SQLite database"),
        (b"SQLite format 3\x00", "is damaged|cannot be read"),
        (b"SQLite format 3\x00" + bytes(4080), "is damaged"),
    ],
    ids=["empty", "a CSV", "sixteen bytes", "a header of nothing"],
)
def test_a_file_that_is_no_database_says_so(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=why):
        load(source(path))


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for path in (tmp_path / "none.db", tmp_path, tmp_path / f"{'x' * 300}.db"):
        with pytest.raises(DatasetError, match="cannot be read as SQLite"):
            sqlite_file.open_table(source(path), ended=False)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_database_is_damaged_and_how_to_copy_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "torn.db"
    make(path, [(n, n, 0) for n in range(20_000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        DatasetError, match=r"torn\.db: is damaged .*: a copy of a database in use is made by VACUUM INTO"
    ):
        load(source(path))


@given(
    at=st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=8), cut=st.integers(0, 9)
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_damaged_database_raises_nothing_but_a_dataset_error(
    tmp_path: Path, at: list[tuple[int, int]], cut: int
) -> None:
    whole, path = tmp_path / "whole.db", tmp_path / "damaged.db"
    if not whole.exists():
        make(whole, [(n, n / 2, n % 2) for n in range(300)])
    body = bytearray(whole.read_bytes())
    for place, value in at:
        body[place % len(body)] = value
    path.write_bytes(body[: len(body) * (10 - cut) // 10])
    with contextlib.suppress(DatasetError):
        assert isinstance(load(source(path)), Dataset)


def test_a_view_of_a_hostile_file_calls_no_function_that_has_effects(db: Path) -> None:
    with writer(db) as connection:
        connection.execute("CREATE VIEW trap AS SELECT load_extension('x') AS t, 1 AS v, 2 AS y")
    with pytest.raises(DatasetError, match="query"):
        load(source(db, "SELECT * FROM trap"))


def test_a_cell_that_is_huge_takes_no_memory(db: Path) -> None:
    with writer(db) as connection:
        connection.execute("INSERT INTO readings VALUES (1, zeroblob(20000000), 0)")
    with pytest.raises(DatasetError, match="too big"):
        load(source(db))


# Beside a writer.

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    print(connection.execute(line).fetchall(), flush=True)
"""


@contextlib.contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], sql: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{sql}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "the writer has died"
    return answer


def test_rows_that_a_writer_in_wal_mode_has_committed_are_there_at_once_and_it_is_not_held_up(tmp_path: Path) -> None:
    path = tmp_path / "wal.db"
    make(path, mode="wal")
    with other_process(path) as process:
        tell(process, "INSERT INTO readings VALUES (5, 6, 1)")
        rows = open_source(source(path))
        assert len(rows.snapshot().y) == 3
        tell(process, "BEGIN IMMEDIATE")
        tell(process, "INSERT INTO readings VALUES (7, 8, 1)")
        assert len(rows.snapshot().y) == 3, "what is not committed is not there"
        tell(process, "COMMIT")
        assert len(rows.snapshot().y) == 4


def test_a_writer_goes_on_while_rows_are_read_and_they_are_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wal.db"
    make(path, [(n, n, 0) for n in range(5000)], mode="wal")
    with other_process(path) as process:
        tell(process, "INSERT INTO readings VALUES (1, 1, 1)")
        found = sqlite_file.places

        def write_after_the_beginning(*what: Any) -> Mapping[str, int]:
            tell(process, "INSERT INTO readings VALUES (2, 2, 1)")
            return found(*what)

        def write_after_each_block(*what: Any) -> Block:
            tell(process, "INSERT INTO readings VALUES (1, 1, 1)")
            return Block(*what)

        monkeypatch.setattr(sqlite_file, "places", write_after_the_beginning)
        monkeypatch.setattr(sqlite_file, "Block", write_after_each_block)
        assert len(load(source(path)).y) == 5001
        assert tell(process, "SELECT count(*) FROM readings") == "[(5004,)]\n"


def test_a_lock_is_waited_for_and_one_that_stays_is_said_in_a_line(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "LOCKED_S", 0.2)
    with other_process(db) as process:
        tell(process, "BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(
            DatasetError, match=r"another program has had it locked for 0\.2 s: have that commit"
        ) as what:
            load(source(db))
        assert time.monotonic() - began >= 0.2
        assert "\n" not in str(what.value)
        monkeypatch.setattr(sqlite_file, "LOCKED_S", 120.0)
        later = threading.Timer(0.2, tell, (process, "COMMIT"))
        later.start()
        assert len(load(source(db)).y) == 2
        later.join()


def test_a_database_in_wal_mode_that_nobody_has_open_is_read_without_leaving_anything_beside_it(tmp_path: Path) -> None:
    """Its writer may be another user, who could not open what this one had made."""
    path = tmp_path / "wal.db"
    make(path, mode="wal")
    before = path.read_bytes()
    assert len(load(source(path)).y) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["wal.db"]
    assert path.read_bytes() == before


def test_if_a_writer_comes_while_nobody_was_there_the_rows_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wal.db"
    make(path, mode="wal")
    kept = sqlite_file.places
    with other_process(path) as process:

        def write(*what: Any) -> Mapping[str, int]:
            monkeypatch.setattr(sqlite_file, "places", kept)
            tell(process, "INSERT INTO readings VALUES (5, 6, 1)")
            return kept(*what)

        monkeypatch.setattr(sqlite_file, "places", write)
        assert len(open_source(source(path)).snapshot().y) == 3


def test_what_a_writer_that_was_killed_had_committed_is_there(tmp_path: Path) -> None:
    path = tmp_path / "wal.db"
    make(path, mode="wal")
    with other_process(path) as process:
        tell(process, "INSERT INTO readings VALUES (5, 6, 1)")
        process.kill()
        process.wait()
        assert path.with_name("wal.db-wal").stat().st_size > 0
        assert len(load(source(path)).y) == 3


def test_an_unchanged_database_is_not_read_again(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.source.SETTLED_S", 0.0)
    rows = open_source(source(db))
    first = rows.snapshot()
    assert rows.snapshot() is first
    with writer(db) as connection:
        connection.execute("INSERT INTO readings VALUES (5, 6, 1)")
    assert len(rows.snapshot().y) == 3


def test_a_query_without_an_end_can_be_stopped(db: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS t, 1 AS y FROM n WHERE i < 0"
    found: list[Exception] = []

    def run() -> None:
        try:
            load(source(db, endless))
        except (DatasetError, EndlessError) as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    throw_into(thread)
    thread.join(120.0)
    assert not thread.is_alive()
    assert len(found) == 1


def test_sqlite3_is_imported_when_a_source_needs_it_and_not_before(db: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,y\n1,0\n")
    code = """
import sys, edge_agent.service
from models.data.source import DataSource, load
load(DataSource(sys.argv[1]))
print("sqlite3" in sys.modules)
load(DataSource(sys.argv[2], query="SELECT t, v, y FROM readings"))
print("sqlite3" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x.csv"), str(db)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]


def test_what_a_writer_without_wal_has_left_half_done_is_not_put_right_here_but_what_to_do_is_said(db: Path) -> None:
    with other_process(db) as process:
        tell(process, "PRAGMA cache_size = 1")
        tell(process, "BEGIN")
        many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        tell(process, f"INSERT INTO readings {many} SELECT i, i, 0 FROM n")
        process.kill()
        process.wait()
    journal = db.with_name("readings.db-journal")
    before = db.read_bytes(), journal.read_bytes()
    with pytest.raises(
        DatasetError, match=r"cannot be read .*: let this user .*; where its writer has died, open it once"
    ):
        load(source(db))
    assert (db.read_bytes(), journal.read_bytes()) == before


def test_text_that_is_no_utf_8_is_text_and_is_not_told(db: Path) -> None:
    with pytest.raises(DatasetError, match=r"column 't' holds no numbers, which the job wants there"):
        load(source(db, "SELECT CAST(x'61ff' AS TEXT) AS t, 0 AS y"))
