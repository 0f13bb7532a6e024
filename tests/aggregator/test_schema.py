"""How a store's file is made, brought up to date, and refused for what it is not."""

from __future__ import annotations

import random
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from aggregator import generations, schema
from aggregator.database import crc
from aggregator.effects import Attempt
from aggregator.store import SCHEMA_VERSION, BodyRow, Current, DamageError, Judgement, Store, StoreError
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec
from models.steering import Report
from runtime import failpoints

SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))
V0, V1 = Version(1, 0), Version(1, 1)
SHA = "0" * 64

SCHEMA_1 = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY, name TEXT, spec BLOB, generation INTEGER, ended TEXT, reason TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    job TEXT, generation INTEGER, number INTEGER, sha256 TEXT, metrics BLOB, state BLOB, at TEXT,
    PRIMARY KEY (job, generation, number));
CREATE TABLE IF NOT EXISTS updates (
    job TEXT, device TEXT, generation INTEGER, number INTEGER, digest TEXT, refused TEXT,
    n_examples INTEGER, weight INTEGER, norm REAL, loss REAL, nmse REAL, body BLOB,
    PRIMARY KEY (job, device, generation, number));
CREATE TABLE IF NOT EXISTS attempts (
    job TEXT, generation INTEGER, number INTEGER, attempt INTEGER, round BLOB, outcome TEXT, reason TEXT, fates BLOB,
    opened TEXT, closed TEXT, PRIMARY KEY (job, generation, number, attempt));
CREATE TABLE IF NOT EXISTS bodies (
    job TEXT, name TEXT, number INTEGER, chunk_bytes INTEGER, data BLOB, PRIMARY KEY (job, name));
PRAGMA user_version = 1;
"""
"""As the first release wrote it."""


def first_release(folder: Path) -> Path:
    """Make a file as the first release left it, with a job in mid-round and one that is deleted."""
    folder.mkdir(exist_ok=True)
    file = folder / "aggregator.sqlite"
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")  # no power is cut here
    db.executescript(SCHEMA_1)
    round_ = msgspec.json.encode(Attempt(V1, 1, "salt", 5, 2, ("a", "b")))
    for sql, values in (
        ("INSERT INTO meta VALUES ('term', ?)", (41,)),
        ("INSERT INTO jobs VALUES ('j', 'digits', ?, 1, '', '')", (msgspec.json.encode(SPEC),)),
        ("INSERT INTO jobs VALUES ('old', 'digits', ?, 1, 'deleted', 'replaced')", (msgspec.json.encode(SPEC),)),
        ("INSERT INTO versions VALUES ('j', 1, 0, ?, '{\"loss\":2.5}', NULL, '2026-01-01 00:00:00')", (SHA,)),
        ("INSERT INTO versions VALUES ('j', 1, 1, ?, '{\"loss\":1.5}', ?, '2026-01-01 00:00:01')", (SHA, b"state")),
        ("INSERT INTO versions VALUES ('old', 1, 0, ?, '{}', ?, '2025-01-01 00:00:00')", (SHA, bytes(9999))),
        ("INSERT INTO updates VALUES ('j', 'a', 1, 1, 'aaaaaaaa', '', 10, 9, 1.5, 0.5, NULL, ?)", (b"body",)),
        ("INSERT INTO updates VALUES ('j', 'b', 1, 0, 'bbbbbbbb', '', 10, 9, 1.5, 0.5, NULL, NULL)", ()),
        ("INSERT INTO updates VALUES ('old', 'a', 1, 0, 'cccccccc', '', 10, 9, 1.5, 0.5, NULL, ?)", (b"old",)),
        ("INSERT INTO attempts VALUES ('j', 1, 1, 1, ?, 'open', '', '{}', '2026-01-01 00:00:02', NULL)", (round_,)),
        ("INSERT INTO attempts VALUES ('old', 1, 0, 1, ?, 'open', '', '{}', '2026-01-01 00:00:02', NULL)", (round_,)),
        ("INSERT INTO bodies VALUES ('j', '1-1-0', 1, 100, ?)", (b"way",)),
        ("INSERT INTO bodies VALUES ('old', '1-1-0', 1, 100, ?)", (b"way",)),
    ):
        db.execute(sql, values)
    db.close()
    return file


def test_a_store_of_the_first_release_goes_on(tmp_path: Path) -> None:
    first_release(tmp_path)
    for _ in range(2):
        store = Store(tmp_path)
        assert (store.term, store.moved) == (41, False)
        (row,) = store.jobs()
        assert (row.job, row.name, row.spec, row.generation, row.damage) == ("j", "digits", SPEC, 1, "")
        assert store.last_version("j") == Current(V1, SHA, b"state")
        assert store.history("j") == [{"loss": 2.5}, {"loss": 1.5}]
        assert [(u.device, u.weight, u.body) for u in store.updates("j")] == [("a", 9, b"body")]
        assert store.verdicts("j") == [Verdict("b", "j", V0, "b" * 8), Verdict("a", "j", V1, "a" * 8)]
        assert store.latest_attempts("j", 0) == {V1: Attempt(V1, 1, "salt", 5, 2, ("a", "b"))}
        assert [(a.outcome, a.fates) for a in store.attempts("j", V1)] == [("open", {})]
        assert store.bodies("j") == [BodyRow("1-1-0", 1, 100, b"way")]
        assert store.aliases("j") == ()
        assert store.deleted(9) == ["old"]
        store.close()


def test_what_the_first_release_kept_of_deleted_jobs_goes(tmp_path: Path) -> None:
    first_release(tmp_path)
    store = Store(tmp_path)
    for table in ("jobs", "versions", "updates", "attempts", "bodies"):
        assert store._db.one("", f"SELECT count(*) FROM {table} WHERE job = 'old'") == (0,)
    assert store.is_deleted("old")
    store.close()


def test_an_older_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    first_release(tmp_path / "first")
    second_schema(tmp_path / "second")
    found = []
    for name in ("first", "second", "new"):
        store = Store(tmp_path / name)
        columns = {
            table: [row[1:5] for row in store._db.rows("", f"PRAGMA table_info({table})")]
            for kind, table in store._db.things()
            if kind == "table"
        }
        found.append(columns)
        store.close()
    assert found[0] == found[1] == found[2]


SCHEMA_2 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE jobs (
    job TEXT PRIMARY KEY, name TEXT, spec BLOB, generation INTEGER, ended TEXT, reason TEXT, request TEXT DEFAULT '',
    aliases TEXT DEFAULT '[]', crc INTEGER) WITHOUT ROWID;
CREATE TABLE versions (
    job TEXT, generation INTEGER, number INTEGER, sha256 TEXT, metrics BLOB, state BLOB, at TEXT,
    PRIMARY KEY (job, generation, number));
CREATE TABLE updates (
    job TEXT, device TEXT, generation INTEGER, number INTEGER, digest TEXT, refused TEXT,
    n_examples INTEGER, weight INTEGER, norm REAL, loss REAL, nmse REAL, body BLOB, crc INTEGER,
    PRIMARY KEY (job, device, generation, number));
CREATE TABLE attempts (
    job TEXT, generation INTEGER, number INTEGER, attempt INTEGER, round BLOB, outcome TEXT, reason TEXT, fates BLOB,
    opened TEXT, closed TEXT, crc INTEGER, PRIMARY KEY (job, generation, number, attempt));
CREATE TABLE bodies (
    job TEXT, name TEXT, number INTEGER, chunk_bytes INTEGER, data BLOB, crc INTEGER, PRIMARY KEY (job, name));
CREATE TABLE deleted (n INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT UNIQUE, name TEXT, request TEXT);
CREATE TABLE litter (job TEXT, name TEXT, chunks INTEGER, PRIMARY KEY (job, name)) WITHOUT ROWID;
PRAGMA user_version = 2;
"""
"""As an aggregator wrote it whose updates said what their coding had lost."""


def second_schema(folder: Path) -> Path:
    """Make a file of the second schema, with a job in mid-round and words on a deleted one."""
    folder.mkdir(exist_ok=True)
    file = folder / "aggregator.sqlite"
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")  # no power is cut here
    db.executescript(SCHEMA_2)
    round_, spec = msgspec.json.encode(Attempt(V1, 1, "salt", 5, 2, ("a", "b"))), msgspec.json.encode(SPEC)
    update = "INSERT INTO updates VALUES ('j', ?, 1, ?, ?, ?, 10, 9, 1.5, 0.5, ?, ?, ?)"
    for sql, values in (
        ("INSERT INTO meta VALUES ('term', 41)", ()),
        ("INSERT INTO meta VALUES ('identity', ?)", ("ab" * 8,)),
        ("INSERT INTO meta VALUES ('place', ?)", (generations.place(file),)),
        ("INSERT INTO jobs VALUES ('j', 'digits', ?, 1, '', '', 'r', '[[[1,0],[1,1]]]', ?)", (spec, crc(spec))),
        ("INSERT INTO versions VALUES ('j', 1, 0, ?, '{\"loss\":2.5}', NULL, '2026-01-01 00:00:00')", (SHA,)),
        ("INSERT INTO versions VALUES ('j', 1, 1, ?, '{\"loss\":1.5}', ?, '2026-01-01 00:00:01')", (SHA, b"state")),
        (update, ("a", 1, "aaaaaaaa", "", 0.25, b"body", crc(b"body"))),
        (update, ("b", 0, "bbbbbbbb", "", None, None, None)),
        (update, ("c", 1, "cccccccc", "absurd", 0.5, None, None)),
        (
            "INSERT INTO attempts VALUES ('j', 1, 1, 1, ?, 'open', '', '{}', '2026-01-01 00:00:02', NULL, ?)",
            (round_, crc(round_)),
        ),
        ("INSERT INTO bodies VALUES ('j', '1-1-0', 1, 100, ?, ?)", (b"way", crc(b"way"))),
        ("INSERT INTO deleted (job, name, request) VALUES ('old', 'digits', 'q')", ()),
        ("INSERT INTO litter VALUES ('old', '1-1-0', 3)", ()),
    ):
        db.execute(sql, values)
    db.close()
    return file


def test_a_store_of_the_second_schema_goes_on(tmp_path: Path) -> None:
    second_schema(tmp_path)
    for _ in range(2):
        store = Store(tmp_path)
        assert (store.term, store.moved, store.identity) == (41, False, "ab" * 8)
        (row,) = store.jobs()
        assert (row.job, row.name, row.spec, row.generation, row.damage) == ("j", "digits", SPEC, 1, "")
        assert store.last_version("j") == Current(V1, SHA, b"state")
        (update,) = store.updates("j")
        assert (update.device, update.weight, update.norm, update.loss, update.body) == ("a", 9, 1.5, 0.5, b"body")
        assert (update.number, update.report) == (1, None)  # what its coding had lost is of no use any more
        assert [(claim.device, claim.report) for claim in store.claims("j")] == [("a", None)]
        assert store.verdicts("j") == [
            Verdict("b", "j", V0, "b" * 8),
            Verdict("a", "j", V1, "a" * 8),
            Verdict("c", "j", V1, "c" * 8, refused="absurd"),
        ]
        assert store.bodies("j") == [BodyRow("1-1-0", 1, 100, b"way")]
        assert (store.deleted(9), store.job_of_request("q"), len(store.litter())) == (["old"], "old", 1)
        store.close()


def test_an_update_is_counted_in_a_store_that_was_of_the_second_schema(tmp_path: Path) -> None:
    second_schema(tmp_path)
    store = Store(tmp_path)
    offer = Offer("j", "d", V1, 10, "d" * 16, 4, loss=0.25, report=(0.5, 0.125))
    store.add_verdicts("j", [Judgement(Verdict("d", "j", V1, "d" * 8), offer, 7, 2.5, b"more")])
    store.close()
    store = Store(tmp_path)
    _, update = store.updates("j")
    assert (update.device, update.weight, update.norm, update.loss, update.body) == ("d", 7, 2.5, 0.25, b"more")
    assert (update.number, update.report) == (1, Report(0.5, 0.125, zlib.crc32(b"d") % 65_535 + 1))
    store.close()


class Dead(BaseException):
    """As by kill -9."""


class Trail:
    """Dies the so-many-th time that anything is written."""

    def __init__(self, most: int) -> None:
        self.left = most

    def reach(self, point: str, _what: object) -> None:
        self.left -= point == "store.statement.before"
        if self.left < 0:
            raise Dead


@pytest.fixture
def trail(monkeypatch: pytest.MonkeyPatch) -> Trail:
    found = Trail(10**9)
    monkeypatch.setattr(failpoints, "_points", found)
    return found


@pytest.mark.parametrize(("make", "least"), [(first_release, 15), (second_schema, 3)])
def test_a_death_anywhere_in_a_migration_leaves_the_old_store_and_the_next_start_migrates_it(
    tmp_path: Path, trail: Trail, make: Callable[[Path], Path], least: int
) -> None:
    for dies_at in range(100):
        folder = tmp_path / str(dies_at)
        make(folder)
        trail.left = dies_at
        try:
            Store(folder, synced=False).close()
        except Dead:
            trail.left = 10**9
            store = Store(folder, synced=False)
            assert (store.term, [row.job for row in store.jobs()], store.deleted(9)) == (41, ["j"], ["old"])
            assert [update.body for update in store.updates("j")] == [b"body"]
            store.close()
        else:
            assert dies_at > least
            return


def test_a_death_anywhere_in_the_making_of_a_store_leaves_none_and_the_next_start_makes_it(
    tmp_path: Path, trail: Trail
) -> None:
    for dies_at in range(100):
        folder = tmp_path / str(dies_at)
        trail.left = dies_at
        try:
            Store(folder, synced=False).close()
        except Dead:
            assert not (folder / "aggregator.sqlite").exists()
            trail.left = 10**9
            Store(folder, synced=False).close()
        else:
            assert dies_at > 15
            return


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    file = tmp_path / "aggregator.sqlite"
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"newer fedge \(schema 7, where this one reads 1 to 6\): upgrade"):
        Store(tmp_path)


# Files that are no store.


def with_jobs(folder: Path, n_bytes: int = 5000) -> Path:
    store = Store(folder, synced=False)
    for number in range(3):
        store.add_job(f"j{number}", SPEC, SHA, bytes(n_bytes), {})
    store.close()
    return folder / "aggregator.sqlite"


def refused(folder: Path, what: str) -> None:
    """Twice, since a lock that is kept would make the second one another."""
    for _ in range(2):
        with pytest.raises(DamageError, match=what) as raised:
            Store(folder)
        assert "restore a backup (fedge aggregator restore)" in str(raised.value)


def test_a_file_that_is_no_database_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "aggregator.sqlite"
    file.write_bytes(b"this is no database, and it is longer than a header" * 20)
    refused(tmp_path, "aggregator.sqlite cannot be used: file is not a database")
    file.unlink()
    Store(tmp_path).close()


def test_an_empty_file_is_not_taken_for_a_store_without_jobs(tmp_path: Path) -> None:
    with_jobs(tmp_path).write_bytes(b"")
    refused(tmp_path, "is empty")


def test_a_wal_without_its_file_is_not_thrown_away(tmp_path: Path) -> None:
    wal = tmp_path / "aggregator.sqlite-wal"
    wal.write_bytes(b"the data sit here")
    refused(tmp_path, "is gone and aggregator.sqlite-wal is still there")
    assert wal.read_bytes() == b"the data sit here"


def test_the_first_pages_of_a_store_without_its_wal_are_no_store(tmp_path: Path) -> None:
    """As `cp aggregator.sqlite` takes them from an aggregator of the first release that runs."""
    db = sqlite3.connect(tmp_path / "aggregator.sqlite")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    assert (tmp_path / "aggregator.sqlite").stat().st_size == 4096
    refused(tmp_path, "is no store of an aggregator .*without its -wal")


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE versions",
        "DROP TABLE deleted",
        "DROP TABLE kept",
        "DROP TABLE past",
        "DROP TABLE events",
        "PRAGMA user_version = -7",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_a_database_of_another_shape_is_no_store(tmp_path: Path, sql: str) -> None:
    file = with_jobs(tmp_path)
    db = sqlite3.connect(file)
    db.execute(sql)
    db.commit()
    db.close()
    refused(tmp_path, "is no store of an aggregator")


def test_a_table_that_lacks_a_column_is_damage_that_names_the_job(tmp_path: Path) -> None:
    file = with_jobs(tmp_path)
    db = sqlite3.connect(file)
    db.execute("ALTER TABLE bodies DROP COLUMN crc")
    db.close()
    store = Store(tmp_path)
    with pytest.raises(DamageError, match=r"job j1, table bodies, cannot be read .* no such column"):
        store.bodies("j1")
    store.close()


def test_a_schema_that_is_no_text_any_more_is_damage_too(tmp_path: Path) -> None:
    file = with_jobs(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE meta", b"CREATE TAB\xccE meta"))
    refused(tmp_path, r"aggregator\.sqlite cannot be used: malformed database schema .*TAB\ufffdE")


def test_a_folder_in_the_place_of_the_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "aggregator.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"aggregator\.sqlite"):
        Store(tmp_path)


def test_a_file_that_ends_early_or_has_foreign_pages_is_a_store_error_or_holds_jobs_that_say_so(tmp_path: Path) -> None:
    whole = with_jobs(tmp_path).read_bytes()
    n_errors = n_named = 0
    for seed in range(90):
        rng = random.Random(seed)  # noqa: S311 -- a schedule, no secret
        data = bytearray(whole)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(max(1, len(data) // 4096)) * 4096
            page = rng.choice([bytes(4096), rng.randbytes(4096), whole[:4096], bytes(data[-4096:])])
            data[at : at + 4096] = page
        file = tmp_path / "aggregator.sqlite"
        file.write_bytes(data)
        errors: list[StoreError] = []
        try:
            store = Store(tmp_path, synced=False)
        except StoreError as error:
            errors.append(error)
        else:
            errors += everything(store)
            store.close()
        n_errors += len(errors)
        for error in errors:
            n_named += "job j" in str(error)
            assert any(word in str(error) for word in ("restore a backup", "restore", "newer fedge")), (seed, error)
    assert n_errors > 60
    assert n_named > 10


def everything(store: Store) -> list[StoreError]:
    """Read all of it and write some; give what is raised."""
    errors: list[StoreError] = []
    reads = (store.last_version, store.history, store.verdicts, store.bodies, store.claims, store.aliases)
    try:
        jobs = [row.job for row in store.jobs()]
    except StoreError as error:
        return [error]
    for job in jobs:
        for read in reads:
            try:
                read(job)
            except StoreError as error:
                errors.append(error)
        try:
            store.add_verdicts(job, [Judgement(Verdict("a", job, V0, "a" * 8))])
        except StoreError as error:
            errors.append(error)
    return errors


def test_the_number_of_the_schema_is_the_number_of_steps() -> None:
    assert len(schema.STEPS) == SCHEMA_VERSION == 6
