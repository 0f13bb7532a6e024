"""Backups made and put back, in one process: what they hold, and what is left when something goes wrong."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from aggregator import backup as backups
from aggregator import schema
from aggregator.backup import BackupError, HeldJob, backup, backup_to
from aggregator.database import crc
from aggregator.effects import Attempt, Close
from aggregator.store import SCHEMA_VERSION, Judgement, Kept, Store, StoreError
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec

SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))
V0 = Version(1, 0)
SHA = "0" * 64
STATE = zlib.crc32(bytes(10_000)).to_bytes(4, "little") + bytes(10_000)
"""A version's blob, with its checksum."""


def silent(_done: int, _total: int) -> None:
    pass


def restore(source: Path, folder: Path) -> backups.Backup:
    with source.open("rb") as file:
        return backups.restore(file, str(source), folder, silent)


def a_store(folder: Path, *jobs: str) -> Store:
    store = Store(folder, synced=False)
    for job in jobs:
        store.add_job(job, SPEC, SHA, STATE, {})
    return store


def count(store: Store, job: str, device: str, body: bytes = bytes(100_000)) -> None:
    offer = Offer(job, device, V0, 10, "a" * 32, len(body), body=body)
    store.add_verdicts(job, [Judgement(Verdict(device, job, V0, "a" * 8), offer, 10, 1.5, body)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_running_aggregator_has_written_is_in_the_backup_though_it_lies_in_the_wal(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j", "k")
    store._db.execute("PRAGMA wal_autocheckpoint = 0")
    count(store, "j", "a")
    store.end_job("k", "finished", "done")
    made = backup(tmp_path / "state", tmp_path / "b", silent)
    assert made == backups.Backup(
        str(tmp_path / "b"),
        (tmp_path / "b").stat().st_size,
        [HeldJob("j", "digits", "1.0", ""), HeldJob("k", "digits", "1.0", "finished")],
    )
    assert names(tmp_path) == {"state", "b"}
    count(store, "j", "b")
    store.close()
    restored = tmp_path / "restored"
    assert restore(tmp_path / "b", restored).jobs == made.jobs
    copy = Store(restored, synced=False)
    assert [update.device for update in copy.updates("j")] == ["a"]
    copy.close()


def test_a_backup_takes_no_lock_and_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    before = names(tmp_path / "state")
    backup(tmp_path / "state", tmp_path / "b", silent)
    backup_to(tmp_path / "state", io.BytesIO(), silent)
    assert names(tmp_path / "state") == before
    store.close()
    backup(tmp_path / "state", tmp_path / "c", silent)
    assert names(tmp_path / "state") == {"aggregator.sqlite", "lock"}


def test_a_backup_in_a_stream_is_the_one_in_a_file(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    stream = io.BytesIO()
    made = backup_to(tmp_path / "state", stream, silent)
    assert made.n_bytes == len(stream.getvalue())
    (tmp_path / "b").write_bytes(stream.getvalue())
    assert restore(tmp_path / "b", tmp_path / "restored").jobs == [HeldJob("j", "digits", "1.0", "")]


def test_a_backup_is_for_its_owner_alone(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_an_earlier_backup_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    backup(tmp_path / "state", tmp_path / "b", silent)
    store.add_job("k", SPEC, SHA, b"", {})
    assert [held.job for held in backup(tmp_path / "state", tmp_path / "b", silent).jobs] == ["j", "k"]
    store.close()
    (tmp_path / "text").write_text("somebody's thesis")
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "state" / "aggregator.sqlite", tmp_path / "live")
    for name in ("text", "folder", "live", "state/aggregator.sqlite"):
        before = (tmp_path / name).read_bytes() if name != "folder" else b""
        with pytest.raises(BackupError, match="is there and is no backup: remove it, or choose another name"):
            backup(tmp_path / "state", tmp_path / name, silent)
        assert name == "folder" or (tmp_path / name).read_bytes() == before


def test_a_backup_of_nothing_or_into_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"there is no .*aggregator\.sqlite .*is state_dir right\?"):
        backup(tmp_path / "none", tmp_path / "b", silent)
    a_store(tmp_path / "state").close()
    with pytest.raises(BackupError, match="there is no folder"):
        backup(tmp_path / "state", tmp_path / "none" / "b", silent)
    assert names(tmp_path) == {"state"}


def test_a_store_that_is_damaged_makes_no_backup_and_the_last_good_one_stays(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    for number in range(20):
        count(store, "j", f"d{number}", bytes(3000))
    backup(tmp_path / "state", tmp_path / "b", silent)
    good = (tmp_path / "b").read_bytes()
    store.close()
    without_updates(tmp_path / "state" / "aggregator.sqlite")
    with pytest.raises(StoreError, match=r"is damaged .*: keep the last good backup, and restore it"):
        backup(tmp_path / "state", tmp_path / "b", silent)
    assert (tmp_path / "b").read_bytes() == good
    assert names(tmp_path) == {"state", "b"}


def test_a_backup_that_is_broken_off_leaves_the_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    for number in range(40):
        count(store, "j", f"d{number}")
    backup(tmp_path / "state", tmp_path / "b", silent)
    good = (tmp_path / "b").read_bytes()

    def break_off(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            backup(tmp_path / "state", tmp_path / "b", break_off)
        assert (tmp_path / "b").read_bytes() == good
        assert names(tmp_path) == {"state", "b"}
    count(store, "j", "e")  # nothing of it holds the store up
    store.close()


def test_what_a_killed_backup_has_left_is_written_over(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    (tmp_path / ".b.new").write_bytes(b"half a backup" * 1000)
    backup(tmp_path / "state", tmp_path / "b", silent)
    assert names(tmp_path) == {"state", "b"}
    assert restore(tmp_path / "b", tmp_path / "restored").jobs


def test_two_backups_into_one_file_at_once_are_one_and_an_error(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    count(store, "j", "a")
    refused: list[str] = []

    def and_another(_done: int, _total: int) -> None:
        with pytest.raises(StoreError) as raised:
            backup(tmp_path / "state", tmp_path / "b", silent)
        refused.append(str(raised.value))

    backup(tmp_path / "state", tmp_path / "b", and_another)
    assert "another backup is being made there" in refused[0]
    assert restore(tmp_path / "b", tmp_path / "restored").jobs
    store.close()


def test_a_disk_that_is_full_while_a_backup_is_made_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_store(tmp_path / "state", "j").close()

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups, "sync", full)
    with pytest.raises(StoreError, match="b cannot be written: No space left on device"):
        backup(tmp_path / "state", tmp_path / "b", silent)
    assert names(tmp_path) == {"state"}


# And back.


def test_what_was_there_before_a_restore_is_never_written_over(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    kept = [restore(tmp_path / "b", tmp_path / "state").kept for _ in range(3)]
    before = str(tmp_path / "state" / "aggregator.sqlite.before-restore")
    assert kept == [before, f"{before}-2", f"{before}-3"]


def test_a_restore_that_was_cut_off_keeps_one_copy(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    store = tmp_path / "state" / "aggregator.sqlite"
    store.with_name("aggregator.sqlite.before-restore").hardlink_to(store)
    assert restore(tmp_path / "b", tmp_path / "state").kept == f"{store}.before-restore"


def test_a_restored_store_is_another_one_that_an_operator_wants_to_lead(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    identity = store.identity
    backup(tmp_path / "state", tmp_path / "b", silent)
    store.add_job("lost", SPEC, SHA, b"", {})
    store.close()
    done = restore(tmp_path / "b", tmp_path / "state")
    assert done.kept == str(tmp_path / "state" / "aggregator.sqlite.before-restore")
    restored = Store(tmp_path / "state", synced=False)
    assert [row.job for row in restored.jobs()] == ["j"]
    assert restored.moved
    assert restored.identity != identity
    assert restored.note("restored") == "yes"
    assert restored.last_version("j").version.generation > 1
    restored.close()
    again = Store(tmp_path / "state", synced=False)
    assert (again.moved, again.note("restored")) == (False, "yes")
    again.close()
    (tmp_path / "kept").mkdir()
    shutil.copy(done.kept, tmp_path / "kept" / "aggregator.sqlite")
    kept = Store(tmp_path / "kept", synced=False)
    assert {row.job for row in kept.jobs()} == {"j", "lost"}
    kept.close()


def test_a_file_system_without_links_keeps_the_store_before_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_store(tmp_path / "state", "mine").close()
    a_store(tmp_path / "other", "j").close()
    backup(tmp_path / "other", tmp_path / "b", silent)

    def none(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", none)
    done = restore(tmp_path / "b", tmp_path / "state")
    (tmp_path / "kept").mkdir()
    shutil.copy(str(done.kept), tmp_path / "kept" / "aggregator.sqlite")
    for folder, job in (("state", "j"), ("kept", "mine")):
        store = Store(tmp_path / folder, synced=False)
        assert [row.job for row in store.jobs()] == [job]
        store.close()


def test_a_restored_store_counts_as_moved_also_in_the_very_place_of_the_one_before(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    restore(tmp_path / "b", tmp_path / "state")
    file = tmp_path / "state" / "aggregator.sqlite"
    there = f"{os.statvfs(file).f_fsid}:{file.stat().st_ino}"
    db = sqlite3.connect(file)
    assert db.execute("SELECT value FROM meta WHERE name = 'place'").fetchone() == ("",)
    db.close()
    assert there
    restored = Store(tmp_path / "state", synced=False)
    assert restored.moved
    restored.close()


def test_a_backup_that_is_copied_into_place_by_hand_counts_as_moved_and_is_no_backup_any_more(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    shutil.copy(tmp_path / "b", tmp_path / "state" / "aggregator.sqlite")
    store = Store(tmp_path / "state", synced=False)
    assert store.moved
    assert store.note("restored") == ""
    with pytest.raises(BackupError, match="is there and is no backup"):
        backup(tmp_path / "state", tmp_path / "state" / "aggregator.sqlite", silent)
    store.close()


def test_a_store_that_an_aggregator_has_open_is_not_restored_over(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    backup(tmp_path / "state", tmp_path / "b", silent)
    with pytest.raises(StoreError, match=f"is in use by process {os.getpid()}: stop that aggregator first"):
        restore(tmp_path / "b", tmp_path / "state")
    store.add_job("k", SPEC, SHA, b"", {})
    store.close()


def wal_copy(folder: Path) -> Path:
    """As `cp` takes the file alone from an aggregator that runs."""
    store = a_store(folder / "live")
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.add_job("j", SPEC, SHA, STATE, {})
    shutil.copy(folder / "live" / "aggregator.sqlite", folder / "copy")
    store.close()
    return folder / "copy"


def other_database(folder: Path) -> Path:
    db = sqlite3.connect(folder / "other")
    db.execute("CREATE TABLE meta (name, value)")
    db.commit()
    db.close()
    return folder / "other"


def newer(folder: Path) -> Path:
    a_store(folder / "live", "j").close()
    backup(folder / "live", folder / "newer", silent)
    backups._unseal(folder / "newer", "newer")  # a backup of a fedge that wrote no checksum
    db = sqlite3.connect(folder / "newer")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    return folder / "newer"


def torn(folder: Path) -> Path:
    store = a_store(folder / "live", "j")
    count(store, "j", "a")
    store.close()
    backup(folder / "live", folder / "torn", silent)
    data = (folder / "torn").read_bytes()
    (folder / "torn").write_bytes(data[: len(data) * 2 // 3])
    return folder / "torn"


def rotten(folder: Path) -> Path:
    store = a_store(folder / "live", "j")
    for number in range(20):
        count(store, "j", f"d{number}", bytes(3000))
    store.close()
    backup(folder / "live", folder / "rotten", silent)
    backups._unseal(folder / "rotten", "rotten")
    without_updates(folder / "rotten")
    return folder / "rotten"


def without_updates(file: Path) -> None:
    """Overwrite the first page of a table."""
    db = sqlite3.connect(file)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'updates'").fetchone()
    db.close()
    data = bytearray(file.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = bytes(4096)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _: Path("/dev/null"), "/dev/null is empty: it is no backup"),
        (lambda _: Path(__file__), r"test_backup\.py cannot be used: file is not a database"),
        (other_database, "other is no store of an aggregator"),
        (newer, rf"newer was written by a newer fedge \(schema {SCHEMA_VERSION + 1}, "),
        (torn, "torn .*(damaged|malformed)"),
        (rotten, "rotten is damaged and is no backup: .*: restore an older one"),
    ],
)
def test_what_is_no_backup_is_not_restored_and_the_store_stays(tmp_path: Path, make: object, why: str) -> None:
    a_store(tmp_path / "state", "mine").close()
    before = names(tmp_path / "state")
    source = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(BackupError, match=why):
        restore(source, tmp_path / "state")
    assert names(tmp_path / "state") == before
    store = Store(tmp_path / "state", synced=False)
    assert ([row.job for row in store.jobs()], store.moved, store.note("restored")) == (["mine"], False, "")
    store.close()


def test_a_copy_without_its_wal_shows_what_it_lacks(tmp_path: Path) -> None:
    assert restore(wal_copy(tmp_path), tmp_path / "restored").jobs == []


@pytest.mark.parametrize("seed", range(8))
def test_one_bit_anywhere_is_noticed(tmp_path: Path, seed: int) -> None:
    store = a_store(tmp_path / "state", "j")
    count(store, "j", "a", bytes(3000))
    store.close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    data = bytearray((tmp_path / "b").read_bytes())
    data[(len(data) - 1) * seed // 7] ^= 4
    (tmp_path / "b").write_bytes(data)
    before = names(tmp_path / "state")
    with pytest.raises(BackupError, match=r"is damaged|no store of an aggregator|is no backup"):
        restore(tmp_path / "b", tmp_path / "state")
    assert names(tmp_path / "state") == before


def spoil_the_model(store: Store) -> None:
    store._db.execute("UPDATE versions SET state = CAST(state || X'00' AS BLOB) WHERE job = 'k'")


def spoil_an_update(store: Store) -> None:
    count(store, "k", "a", bytes(100))
    store._db.execute("UPDATE updates SET body = zeroblob(101) WHERE job = 'k'")


def spoil_a_step(store: Store) -> None:
    for number in (1, 2):
        attempt = Attempt(Version(1, number - 1), 1, "salt", 1, 1, ("a",))
        store.open_attempt("k", attempt)
        kept = Kept(step=b"a step" * 50, record=STATE)
        store.commit("k", Version(1, number), SHA, kept, {}, [], Close(attempt, "committed", "", {}))
    step = bytearray(store._db.execute("SELECT step FROM versions WHERE job = 'k' AND number = 1").fetchone()[0])
    step[len(step) // 2] ^= 1
    store._db.execute("UPDATE versions SET step = ? WHERE job = 'k' AND number = 1", (bytes(step),))


@pytest.mark.parametrize("spoil", [spoil_the_model, spoil_an_update, spoil_a_step])
def test_a_backup_of_what_is_damaged_does_not_take_the_place_of_a_good_one(
    tmp_path: Path, spoil: Callable[[Store], None]
) -> None:
    store = a_store(tmp_path / "state", "j", "k")
    backup(tmp_path / "state", tmp_path / "good", silent)
    good = (tmp_path / "good").read_bytes()
    spoil(store)
    with pytest.raises(BackupError, match=r"job k is damaged .*good keeps what was before"):
        backup(tmp_path / "state", tmp_path / "good", silent)
    assert (tmp_path / "good").read_bytes() == good
    stream = io.BytesIO()
    with pytest.raises(BackupError, match="job k is damaged"):
        backup_to(tmp_path / "state", stream, silent)
    assert stream.getvalue() == b""
    j, k = backup(tmp_path / "state", tmp_path / "left", silent).jobs
    assert (j.damage, bool(k.damage)) == ("", True)
    store.close()


def test_a_damaged_job_is_named_and_no_reason_to_lose_the_others(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j", "k")
    store._db.execute("DELETE FROM versions WHERE job = 'k'")
    made = backup(tmp_path / "state", tmp_path / "b", silent)
    store.close()
    j, k = made.jobs
    assert (j.version, j.damage) == ("1.0", "")
    assert (k.version, "job k is damaged" in k.damage) == ("", True)
    restore(tmp_path / "b", tmp_path / "restored")
    restored = Store(tmp_path / "restored", synced=False)
    assert {row.job: bool(row.damage) for row in restored.jobs()} == {"j": False, "k": True}
    restored.close()


def test_a_store_that_is_no_database_any_more_can_be_restored_over_and_is_kept(tmp_path: Path) -> None:
    a_store(tmp_path / "state", "j").close()
    backup(tmp_path / "state", tmp_path / "b", silent)
    (tmp_path / "state" / "aggregator.sqlite").write_bytes(b"garbage" * 999)
    (tmp_path / "state" / "aggregator.sqlite-wal").write_bytes(b"more garbage")
    done = restore(tmp_path / "b", tmp_path / "state")
    assert Path(str(done.kept)).read_bytes() == b"garbage" * 999
    assert Path(f"{done.kept}-wal").read_bytes() == b"more garbage"
    store = Store(tmp_path / "state", synced=False)
    assert [row.job for row in store.jobs()] == ["j"]
    store.close()


def test_the_wal_of_a_killed_aggregator_is_kept_with_its_store_and_not_mixed_into_the_restored_one(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path / "state", "j")
    backup(tmp_path / "state", tmp_path / "b", silent)
    store.add_job("late", SPEC, SHA, STATE, {})
    shutil.copytree(tmp_path / "state", tmp_path / "killed")  # as kill -9 leaves it
    store.close()
    assert (tmp_path / "killed" / "aggregator.sqlite-wal").stat().st_size > 10_000
    done = restore(tmp_path / "b", tmp_path / "killed")
    restored = Store(tmp_path / "killed", synced=False)
    assert [row.job for row in restored.jobs()] == ["j"]
    restored.close()
    (tmp_path / "kept").mkdir()
    shutil.copy(str(done.kept), tmp_path / "kept" / "aggregator.sqlite")
    kept = Store(tmp_path / "kept", synced=False)
    assert {row.job for row in kept.jobs()} == {"j", "late"}
    kept.close()


def test_a_wal_that_cannot_be_folded_in_is_kept_too_and_not_mixed_into_the_restored_one(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state", "j")
    backup(tmp_path / "state", tmp_path / "b", silent)
    reader = sqlite3.connect(tmp_path / "state" / "aggregator.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM jobs").fetchall()  # as a backup that is being made
    store.add_job("late", SPEC, SHA, STATE, {})
    store.close()
    done = restore(tmp_path / "b", tmp_path / "state")
    restored = Store(tmp_path / "state", synced=False)
    assert [row.job for row in restored.jobs()] == ["j"]
    assert restored._db.damage() == ""
    restored.close()
    reader.close()
    (tmp_path / "kept").mkdir()
    for side in ("", "-wal"):
        shutil.copy(f"{done.kept}{side}", tmp_path / "kept" / f"aggregator.sqlite{side}")
    kept = Store(tmp_path / "kept", synced=False)
    assert {row.job for row in kept.jobs()} == {"j", "late"}
    kept.close()


def test_a_backup_of_the_first_release_is_restored_and_counts_as_moved(tmp_path: Path) -> None:
    source = tmp_path / "first"
    db = sqlite3.connect(source)
    db.executescript(schema.FIRST + "PRAGMA user_version = 1;")
    db.execute("INSERT INTO meta VALUES ('term', 9)")
    db.commit()
    db.close()
    restore(source, tmp_path / "state")
    store = Store(tmp_path / "state", synced=False)
    assert (store.moved, store.term, store.note("restored")) == (True, 9, "yes")
    store.close()


def older(folder: Path, number: int) -> Path:
    """Make a store as a fedge of an older schema left it: a job at version 0 with an update."""
    folder.mkdir()
    db = sqlite3.connect(folder / "aggregator.sqlite", isolation_level=None)
    db.create_function("crc", 1, crc)
    db.executescript(schema.FIRST)
    text = msgspec.json.encode(SPEC)
    db.execute("INSERT INTO jobs VALUES ('j', 'digits', ?, 1, '', '')", (text,))
    db.execute("INSERT INTO versions VALUES ('j', 1, 0, ?, ?, ?, '2026-01-01 00:00:00')", (SHA, b"{}", STATE))
    db.execute(
        "INSERT INTO updates VALUES ('j', 'a', 1, 0, 'aaaaaaaa', '', 10, 9, 1.5, NULL, NULL, ?)", (bytes(100_000),)
    )
    db.execute("INSERT INTO meta VALUES ('term', 9)")
    for step in schema.STEPS[1:number]:
        db.executescript(step)
    db.execute(f"PRAGMA user_version = {number}")
    db.close()
    return folder / "aggregator.sqlite"


@pytest.mark.parametrize("number", range(1, SCHEMA_VERSION))
def test_a_store_of_an_older_schema_is_backed_up_as_it_is(tmp_path: Path, number: int) -> None:
    before = older(tmp_path / "state", number).read_bytes()
    made = backup(tmp_path / "state", tmp_path / "b", silent)
    assert made.jobs == [HeldJob("j", "digits", "1.0", "")]
    assert (tmp_path / "state" / "aggregator.sqlite").read_bytes() == before, "that fedge may still run"
    backup(tmp_path / "state", tmp_path / "b", silent)
    assert restore(tmp_path / "b", tmp_path / "restored").jobs == made.jobs
    goes_on(tmp_path / "restored")


@pytest.mark.parametrize("number", range(1, SCHEMA_VERSION))
def test_a_backup_of_an_older_schema_is_restored_without_a_word_of_damage(tmp_path: Path, number: int) -> None:
    file = older(tmp_path / "old", number)
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("INSERT INTO meta VALUES ('backup', '2026-01-01 00:00:00')")
    db.close()
    backups._seal(file)
    older(tmp_path / "state", number)
    done = restore(file, tmp_path / "state")
    assert done.jobs == [HeldJob("j", "digits", "1.0", "")]
    goes_on(tmp_path / "state")
    Path(str(done.kept)).replace(tmp_path / "state" / "aggregator.sqlite")
    kept = Store(tmp_path / "state", synced=False)
    assert [row.damage for row in kept.jobs()] == [""]
    kept.close()


def goes_on(folder: Path) -> None:
    store = Store(folder, synced=False)
    assert (store.moved, store.term, store.note("restored")) == (True, 9, "yes")
    assert [update.device for update in store.updates("j")] == ["a"]
    assert store.last_version("j").state == STATE
    store.close()


class Dead(BaseException):
    """As by kill -9."""


def test_a_restore_that_is_broken_off_anywhere_leaves_the_store_before_or_the_restored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for dies_at in range(30):
        folder = tmp_path / str(dies_at)
        folder.mkdir()
        store = a_store(folder / "state", "j")
        backup(folder / "state", folder / "b", silent)
        store.add_job("late", SPEC, SHA, b"", {})
        count(store, "late", "a")
        store.close()
        assert (folder / "state" / "updates" / "late.bin").exists()
        with monkeypatch.context() as patched:
            die_at(patched, dies_at)
            died = breaks_off(folder)
        reopened = Store(folder / "state", synced=False)
        found.append(({row.job for row in reopened.jobs()}, reopened.moved))
        assert [len(update.body) for update in reopened.updates("late")] == [100_000] * (len(found[-1][0]) - 1)
        reopened.close()
        restore(folder / "b", folder / "state")  # nothing of the broken one is in the way
        if not died:
            break
    before, after = ({"j", "late"}, False), ({"j"}, True)
    n_before = found.count(before)
    assert found == [before] * n_before + [after] * (len(found) - n_before)
    assert n_before > 8
    assert not died


def die_at(patched: pytest.MonkeyPatch, steps: int) -> None:
    """Have the next process die at the so-many-th thing that it does to a name."""
    left = [steps]

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def die_before(self: Path, *rest: object, **more: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Dead
            return real(self, *rest, **more)

        return die_before

    for method in ("hardlink_to", "replace", "unlink"):
        patched.setattr(Path, method, dying(getattr(Path, method)))


def breaks_off(folder: Path) -> bool:
    try:
        restore(folder / "b", folder / "state")
    except Dead:
        return True
    return False


def test_a_store_that_root_restores_belongs_to_whom_it_belonged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_store(tmp_path / "state", "j").close()
    (tmp_path / "state" / "aggregator.sqlite").chmod(0o640)
    backup(tmp_path / "state", tmp_path / "b", silent)
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr("aggregator.backup.os.geteuid", lambda: 0)
    monkeypatch.setattr("aggregator.backup.os.chown", lambda path, uid, gid: given.append((path.name, uid, gid)))
    restore(tmp_path / "b", tmp_path / "state")
    found = (tmp_path / "state" / "aggregator.sqlite").stat()
    assert given == [(".aggregator.sqlite.restore", found.st_uid, found.st_gid)]
    assert found.st_mode & 0o777 == 0o640
