"""Bodies that are too long for a row: where they lie, and what becomes of them with their store."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from aggregator.backup import backup, restore
from aggregator.bodies import Bodies
from aggregator.database import Database, Transaction
from aggregator.effects import Attempt, Close
from aggregator.store import DamageError, Judgement, Kept, Store, StoreError
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec

SPEC = JobSpec("toy", ModelSpec(inputs=4, outputs=2))
V0, V1 = Version(1, 0), Version(1, 1)
SHA = "0" * 64
STATE = zlib.crc32(b"state").to_bytes(4, "little") + b"state"
LONG, LONGER = bytes(range(256)) * 2, b"another" * 200


def opened(folder: Path) -> Store:
    return Store(folder, synced=False, row_bytes=100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = opened(tmp_path / "state")
    made.add_job("j", SPEC, SHA, STATE, {})
    yield made
    made.close()


def judged(device: str, body: bytes, base: Version = V0, refused: str = "", job: str = "j") -> Judgement:
    offer = Offer(job, device, base, 10, "a" * 32, len(body))
    return Judgement(Verdict(device, job, base, "a" * 8, refused=refused), offer, 10, 1.5, body)


def held(store: Store, job: str = "j") -> dict[str, bytes]:
    return {update.device: update.body for update in store.updates(job)}


def leave(store: Store, number: int = 1) -> None:
    attempt = Attempt(Version(1, number - 1), 1, "salt", 1, 1, ("a",))
    store.open_attempt("j", attempt)
    store.commit("j", Version(1, number), SHA, Kept(STATE), {}, [], Close(attempt, "committed", "", {}))


def again(store: Store, folder: Path) -> Store:
    store.close()
    return opened(folder)


def test_long_and_short_bodies_are_there_after_a_start(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("b", b"short"), judged("c", LONGER)])
    store.add_verdicts("j", [judged("d", LONG, refused="absurd")])
    reopened = again(store, tmp_path / "state")
    assert held(reopened) == {"a": LONG, "b": b"short", "c": LONGER}
    assert (tmp_path / "state" / "updates" / "j.bin").stat().st_size == len(LONG + LONGER)
    reopened.add_verdicts("j", [judged("e", LONG)])
    assert held(reopened) == {"a": LONG, "b": b"short", "c": LONGER, "e": LONG}
    reopened.close()


def test_those_of_the_next_version_are_written_over_those_of_the_last(store: Store, tmp_path: Path) -> None:
    for number in range(1, 5):
        base = Version(1, number - 1)
        store.add_verdicts("j", [judged(name, LONG, base) for name in "abc"])
        assert held(store) == dict.fromkeys("abc", LONG)
        leave(store, number)
        assert held(store) == {}
    assert (tmp_path / "state" / "updates" / "j.bin").stat().st_size == 3 * len(LONG)
    reopened = again(store, tmp_path / "state")
    reopened.add_verdicts("j", [judged("a", LONGER, Version(1, 4))])
    assert held(reopened) == {"a": LONGER}
    reopened.close()


def test_a_body_whose_row_was_not_written_is_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    store._db.execute("PRAGMA query_only = ON")
    for _ in range(3):
        with pytest.raises(StoreError, match="cannot be written"):
            store.add_verdicts("j", [judged("b", LONGER)])
    store._db.execute("PRAGMA query_only = OFF")
    store.add_verdicts("j", [judged("c", LONG)])
    assert held(store) == {"a": LONG, "c": LONG}
    assert store._bodies.end("j") == 2 * len(LONG)


def test_a_disk_that_is_full_for_a_body_is_a_store_error_and_nothing_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match="No space left on device: is there room on its disk"):
            store.add_verdicts("j", [judged("a", b"short"), judged("b", LONG)])
    assert (held(store), store.verdicts("j")) == ({}, [])
    store.add_verdicts("j", [judged("b", LONG)])
    assert held(store) == {"b": LONG}


def test_what_a_commit_failed_on_keeps_its_bodies_for_it_may_be_durable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one sync of the log fails: the rows are in it all the same, and the next opening finds them."""
    commit = Transaction.__exit__

    def committed_and_failed(self: Transaction, *args: Any) -> None:
        commit(self, *args)
        raise StoreError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "__exit__", committed_and_failed)
        with pytest.raises(StoreError, match="disk I/O"):
            store.add_verdicts("j", [judged("a", LONG)])
    store.add_verdicts("j", [judged("b", LONGER)])
    reopened = again(store, tmp_path / "state")
    assert held(reopened) == {"a": LONG, "b": LONGER}
    reopened.close()


def test_who_dies_while_a_copy_is_opened_finds_that_out_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("b", b"short")])
    store.close()
    for at in ("_drop_bodiless", "_go_on_behind_bodies"):
        (tmp_path / at).mkdir()
        shutil.copy(tmp_path / "state" / "aggregator.sqlite", tmp_path / at)
        with monkeypatch.context() as patch:
            patch.setattr(Store, at, killed)
            with pytest.raises(KilledError):
                opened(tmp_path / at)
        copy = opened(tmp_path / at)
        assert held(copy) == {"b": b"short"}
        assert copy.moved == (at == "_drop_bodiless")
        copy.close()


class KilledError(BaseException):
    pass


def killed(*_: object) -> None:
    raise KilledError


@pytest.mark.parametrize("column", ["at", "n_bytes"])
@pytest.mark.parametrize("value", [-5, 2**47, 2**62, 1.5, b"x", "x"])
def test_a_cell_that_names_no_place_is_damage_of_its_job_alone_also_to_who_copies(
    store: Store, tmp_path: Path, column: str, value: object
) -> None:
    store.add_job("k", JobSpec("other", ModelSpec(inputs=4, outputs=2)), SHA, STATE, {})
    store.add_verdicts("j", [judged("a", LONG)])
    sql = {"at": "UPDATE updates SET at = ?", "n_bytes": "UPDATE updates SET n_bytes = ?"}[column]
    store._db.execute(sql, (value,))
    backup(tmp_path / "state", tmp_path / "b", lambda *_: None)
    reopened = again(store, tmp_path / "state")
    with pytest.raises(DamageError, match=r"job j .*table updates"):
        held(reopened)
    reopened.close()
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    copy = opened(tmp_path / "copy")
    assert sorted(row.job for row in copy.jobs()) == ["j", "k"]
    assert held(copy) == {}
    copy.close()


@pytest.mark.parametrize("damage", [b"", b"rot", LONG[:-1], LONG[:-1] + b"?"])
def test_a_body_that_has_rotted_is_damage_of_its_job(store: Store, tmp_path: Path, damage: bytes) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    (tmp_path / "state" / "updates" / "j.bin").write_bytes(damage)
    reopened = again(store, tmp_path / "state")
    with pytest.raises(DamageError, match=r"job j .*checksum of the update of a is wrong"):
        held(reopened)
    reopened.close()


@pytest.mark.parametrize(("column", "value"), [("at", -1), ("at", "x"), ("n_bytes", 2**60), ("n_bytes", None)])
def test_a_body_that_lies_nowhere_is_damage_of_its_job(store: Store, column: str, value: object) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    store._db.execute(
        {"at": "UPDATE updates SET at = ?", "n_bytes": "UPDATE updates SET n_bytes = ?"}[column], (value,)
    )
    with pytest.raises(DamageError, match=r"job j .*table updates"):
        held(store)


def test_a_copy_of_the_whole_folder_has_them_and_one_of_the_database_alone_is_as_if_they_had_not_come(
    store: Store, tmp_path: Path
) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("b", b"short")])
    store.close()
    shutil.copytree(tmp_path / "state", tmp_path / "whole")
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "state" / "aggregator.sqlite", tmp_path / "alone")
    for name, expected in (("whole", {"a": LONG, "b": b"short"}), ("alone", {"b": b"short"})):
        copy = opened(tmp_path / name)
        assert copy.moved
        assert held(copy) == expected
        assert [verdict.device for verdict in copy.verdicts("j")] == sorted(expected)
        base = copy.last_version("j").version
        copy.add_verdicts("j", [judged("c", LONGER, base)])
        assert held(copy) == expected | {"c": LONGER}
        copy.close()


def test_a_backup_holds_them_in_one_file(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("b", b"short"), judged("c", LONGER)])
    backup(tmp_path / "state", tmp_path / "file", lambda *_: None)
    (tmp_path / "new").mkdir()
    restore(BytesIO((tmp_path / "file").read_bytes()), "file", tmp_path / "new", lambda *_: None)
    restored = opened(tmp_path / "new")
    assert held(restored) == {"a": LONG, "b": b"short", "c": LONGER}
    restored.close()
    assert held(store) == {"a": LONG, "b": b"short", "c": LONGER}


def test_a_backup_goes_without_what_is_written_over_while_it_is_made(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("b", b"short")])
    copy_to = Database.copy_to

    def meanwhile(db: Database, *given: Any) -> None:
        copy_to(db, *given)
        leave(store)
        store.add_verdicts("j", [judged("c", b"?" * len(LONG), V1)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "copy_to", meanwhile)
        found = backup(tmp_path / "state", tmp_path / "file", lambda *_: None)
    assert [(job.damage, job.without) for job in found.jobs] == [("", ())]
    (tmp_path / "new").mkdir()
    restore(BytesIO((tmp_path / "file").read_bytes()), "file", tmp_path / "new", lambda *_: None)
    restored = opened(tmp_path / "new")
    assert held(restored) == {"b": b"short"}
    restored.close()


def restored_over(tmp_path: Path, store: Store) -> Path:
    """Restore an early backup over a store with long bodies, go on there, and give the way back to the one before."""
    state = tmp_path / "state"
    backup(state, tmp_path / "early", lambda *_: None)
    store.add_job("k", JobSpec("other", SPEC.model), SHA, STATE, {})
    store.add_verdicts("j", [judged("a", LONG), judged("b", b"short"), judged("c", LONGER)])
    store.add_verdicts("k", [judged("a", LONG, job="k")])
    store.close()
    done = restore(BytesIO((tmp_path / "early").read_bytes()), "early", state, lambda *_: None)
    restored = opened(state)
    base = restored.last_version("j").version
    restored.add_verdicts("j", [judged("z", LONG[::-1], base), judged("y", LONGER[::-1], base)])
    restored.close()
    return Path(str(done.kept))


def test_a_store_that_made_way_is_restored_like_a_backup(store: Store, tmp_path: Path) -> None:
    kept = restored_over(tmp_path, store)
    with kept.open("rb") as file:
        restore(file, kept.name, tmp_path / "state", lambda *_: None)
    before = opened(tmp_path / "state")
    assert before.moved
    assert held(before) == {"a": LONG, "b": b"short", "c": LONGER}
    assert held(before, "k") == {"a": LONG}
    before.close()


def go_back(tmp_path: Path, kept: Path) -> Store:
    kept.replace(tmp_path / "state" / "aggregator.sqlite")
    return opened(tmp_path / "state")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_store_that_made_way_for_a_restored_one_has_them_in_itself(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def none(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", none)
    kept = restored_over(tmp_path, store)
    assert [path.name for path in kept.parent.iterdir() if path.name.startswith(kept.name)] == [kept.name]
    before = go_back(tmp_path, kept)
    assert before.moved is not has_links
    assert held(before) == {"a": LONG, "b": b"short", "c": LONGER}
    assert held(before, "k") == {"a": LONG}
    before.close()


def test_what_was_put_into_a_store_that_makes_way_is_not_lost_with_a_wal_that_somebody_reads(
    store: Store, tmp_path: Path
) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    backup(tmp_path / "state", tmp_path / "file", lambda *_: None)
    store.close()
    reader = sqlite3.connect(tmp_path / "state" / "aggregator.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM jobs").fetchall()
    done = restore(BytesIO((tmp_path / "file").read_bytes()), "file", tmp_path / "state", lambda *_: None)
    reader.close()
    shutil.rmtree(tmp_path / "state" / "updates")
    (tmp_path / "kept").mkdir()
    for side in ("", "-wal"):
        shutil.copy(f"{done.kept}{side}", tmp_path / "kept" / f"aggregator.sqlite{side}")
    kept = opened(tmp_path / "kept")
    assert held(kept) == {"a": LONG}
    kept.close()


def test_of_a_store_that_is_damaged_their_files_are_kept_beside_it(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("c", LONGER)])
    backup(tmp_path / "state", tmp_path / "file", lambda *_: None)
    store.close()
    (tmp_path / "state" / "aggregator.sqlite").write_bytes(b"garbage" * 999)
    (tmp_path / "state" / "aggregator.sqlite-wal").write_bytes(b"more garbage")
    done = restore(BytesIO((tmp_path / "file").read_bytes()), "file", tmp_path / "state", lambda *_: None)
    assert Path(str(done.kept)).read_bytes() == b"garbage" * 999
    assert Path(f"{done.kept}-wal").read_bytes() == b"more garbage"
    opened(tmp_path / "state").close()
    assert Path(f"{done.kept}.updates/j.bin").read_bytes() == LONG + LONGER


def test_one_that_has_rotted_is_kept_as_it_is_and_the_others_go_into_their_store(store: Store, tmp_path: Path) -> None:
    backup(tmp_path / "state", tmp_path / "early", lambda *_: None)
    store.add_job("k", JobSpec("other", SPEC.model), SHA, STATE, {})
    store.add_verdicts("j", [judged("a", LONG), judged("c", LONGER)])
    store.add_verdicts("k", [judged("a", LONG, job="k")])
    store.close()
    file = tmp_path / "state" / "updates" / "j.bin"
    rotten = b"?" + file.read_bytes()[1:]
    file.write_bytes(rotten)
    done = restore(BytesIO((tmp_path / "early").read_bytes()), "early", tmp_path / "state", lambda *_: None)
    opened(tmp_path / "state").close()
    assert Path(f"{done.kept}.updates/j.bin").read_bytes() == rotten
    before = go_back(tmp_path, Path(str(done.kept)))
    with pytest.raises(DamageError, match=r"checksum of the update of a is wrong"):
        held(before)
    assert held(before, "k") == {"a": LONG}
    assert [at is None for (at,) in before._db.execute("SELECT at FROM updates WHERE job = 'j'")] == [False, True]
    before.close()
    again = restore(BytesIO((tmp_path / "early").read_bytes()), "early", tmp_path / "state", lambda *_: None)
    assert again.kept == f"{done.kept}-2", "the files that were kept are not written over"


def test_a_disk_that_is_too_full_to_keep_them_is_not_restored_onto(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    backup(tmp_path / "state", tmp_path / "file", lambda *_: None)
    store.close()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def too_full(*_: object) -> list[int]:
        raise StoreError("make room on its disk")

    monkeypatch.setattr("aggregator.backup._take_in", too_full)
    monkeypatch.setattr("aggregator.backup.shutil.copy2", full)
    with pytest.raises(StoreError, match="No space left on device"):
        restore(BytesIO((tmp_path / "file").read_bytes()), "file", tmp_path / "state", lambda *_: None)
    before = opened(tmp_path / "state")
    assert (before.moved, held(before)) == (False, {"a": LONG})
    before.close()


def test_what_a_job_leaves_goes_with_it_or_at_the_next_start(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    folder = tmp_path / "state" / "updates"
    (folder / "gone-1.bin").write_bytes(b"of a job that nobody knows")
    reopened = again(store, tmp_path / "state")
    assert [path.name for path in folder.iterdir()] == ["j.bin"]
    reopened.end_job("j", "deleted", "")
    assert list(folder.iterdir()) == []
    reopened.close()


def test_a_job_that_makes_way_takes_its_bodies_along(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    store.add_job("k", SPEC, SHA, STATE, {}, replaces=["j"])
    assert list((tmp_path / "state" / "updates").iterdir()) == []


def test_bodies_are_on_disk_before_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("aggregator.bodies._sync_data", lambda _: synced.append("data"))
    monkeypatch.setattr("aggregator.bodies.sync", lambda path: synced.append(path.name))
    bodies = Bodies(tmp_path / "updates", synced=True)
    assert [bodies.put("j", body).at for body in (LONG, LONGER)] == [0, len(LONG)]
    assert synced == []
    bodies.sync("j")
    assert synced == ["data", "updates", tmp_path.name]
    bodies.put("j", LONG)
    bodies.sync("j")
    assert synced[3:] == ["data"]
    assert bodies.read("j", len(LONG), len(LONGER)) == LONGER
    assert bodies.read("other", 0, 5) == b""
    Bodies(tmp_path / "updates", synced=True).sync("j")
    assert synced[4:] == ["data", "updates", tmp_path.name]  # whoever made the file may have died before


def test_a_body_is_written_as_it_comes_and_its_row_names_it(store: Store) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    placed = [store.place("j", judged(name, body)) for name, body in (("b", LONGER), ("c", b"short"))]
    assert [(one.body, one.place and one.place.at) for one in placed] == [(b"", len(LONG)), (b"short", None)]
    refused = judged("d", LONG, refused="absurd")
    assert store.place("j", refused) is refused
    assert held(store) == {"a": LONG}
    store.add_verdicts("j", [*placed, judged("e", LONG)])
    assert held(store) == {"a": LONG, "b": LONGER, "c": b"short", "e": LONG}


def test_where_the_rows_of_bodies_cannot_be_written_the_next_ones_are_written_over_them(store: Store) -> None:
    store.add_verdicts("j", [judged("a", LONG)])
    placed = [store.place("j", judged(name, LONGER)) for name in "bc"]
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="cannot be written"):
        store.add_verdicts("j", placed)
    store._db.execute("PRAGMA query_only = OFF")
    assert store._bodies.end("j") == len(LONG)


def test_the_name_of_a_file_is_on_disk_before_a_row_whatever_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("aggregator.bodies.sync", lambda path: synced.append(path.name))
    bodies = Bodies(tmp_path / "updates", synced=True)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StoreError):
            bodies.put("j", LONG)
    bodies.put("j", LONG)
    bodies.sync("j")
    assert synced == ["updates", tmp_path.name]


def test_a_backup_names_an_update_that_has_rotted_and_goes_without_it(store: Store, tmp_path: Path) -> None:
    store.add_verdicts("j", [judged("a", LONG), judged("b", LONGER)])
    file = tmp_path / "state" / "updates" / "j.bin"
    file.write_bytes(LONG + bytes(len(LONGER)))
    (held_job,) = backup(tmp_path / "state", tmp_path / "copy", lambda *_: None).jobs
    assert (held_job.damage, held_job.without) == ("", ("b",))
    leave(store)
    (held_job,) = backup(tmp_path / "state", tmp_path / "copy", lambda *_: None).jobs
    assert held_job.without == ()
