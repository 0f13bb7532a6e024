from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.effects import Attempt, Close
from aggregator.store import SCHEMA_VERSION, BodyRow, Store, StoreError
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec

SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))
V0, V1 = Version(1, 0), Version(1, 1)
SHA = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_job = Store(tmp_path / "state")
    with_job.add_job("j", SPEC, SHA, b"state 0", {"loss": 2.3})
    yield with_job
    with_job.close()


def offer(device: str, base: Version = V0) -> Offer:
    return Offer("j", device, base, 10, "a" * 32, 4, loss=0.5)


def verdict(device: str, base: Version = V0, refused: str = "") -> Verdict:
    return Verdict(device, "j", base, "aaaaaaaa", refused)


def count(store: Store, device: str, base: Version = V0, body: bytes = b"body") -> None:
    store.add_verdict(verdict(device, base), offer(device, base), 10, 1.5, body)


def attempt(number: int = 1, base: Version = V0) -> Attempt:
    return Attempt(base, number, "salt", 2**48 - 1, 2, ("a", "b"))


def committed(number: int = 1) -> Close:
    return Close(attempt(number), "committed", "why", {"a": "counted"})


def commit(store: Store) -> None:
    store.open_attempt("j", attempt())
    store.commit("j", V1, "1" * 64, b"state 1", {"loss": 1.0}, [BodyRow("1-1-0", 1, 100, b"way")], committed())


def again(store: Store, tmp_path: Path) -> Store:
    store.close()
    return Store(tmp_path / "state")


# What is not forgotten.


def test_a_job_and_its_version_0_survive(store: Store, tmp_path: Path) -> None:
    reopened = again(store, tmp_path)
    (row,) = reopened.jobs()
    assert (row.job, row.spec, row.ended) == ("j", SPEC, "")
    assert reopened.last_version("j") == (V0, SHA, b"state 0")
    assert reopened.history("j") == [{"loss": 2.3}]
    reopened.close()


def test_counted_updates_survive_with_their_verdicts(store: Store, tmp_path: Path) -> None:
    count(store, "b")
    count(store, "a")
    store.add_verdict(verdict("c", refused="absurd"), offer("c"), 10, 9e9, b"body")
    reopened = again(store, tmp_path)
    updates = list(reopened.updates("j"))
    assert [(u.device, u.weight, u.loss, u.body) for u in updates] == [("a", 10, 0.5, b"body"), ("b", 10, 0.5, b"body")]
    assert {v.device: v.refused for v in reopened.verdicts("j")} == {"a": "", "b": "", "c": "absurd"}
    assert [u.norm for u in updates] == [1.5, 1.5]
    reopened.close()


def test_a_version_and_the_end_of_its_round_are_one(store: Store, tmp_path: Path) -> None:
    count(store, "a")
    commit(store)
    reopened = again(store, tmp_path)
    assert reopened.last_version("j") == (V1, "1" * 64, b"state 1")
    assert reopened.history("j") == [{"loss": 2.3}, {"loss": 1.0}]
    assert [row.outcome for row in reopened.attempts("j", V0)] == ["committed"]
    assert list(reopened.updates("j")) == []
    assert [v.base for v in reopened.verdicts("j")] == [V0]
    assert reopened.bodies("j") == [BodyRow("1-1-0", 1, 100, b"way")]
    reopened.close()


def test_a_new_generation_renames_the_last_version_and_adds_its_bodies(store: Store, tmp_path: Path) -> None:
    commit(store)
    store.raise_generation("j", Version(3, 1), [BodyRow("3-1-0", 1, 100, b"way")])
    reopened = again(store, tmp_path)
    assert reopened.last_version("j") == (Version(3, 1), "1" * 64, b"state 1")
    assert [version for version, _ in reopened.versions("j")] == [V0, Version(3, 1)]
    assert reopened.bodies("j") == [BodyRow("1-1-0", 1, 100, b"way"), BodyRow("3-1-0", 1, 100, b"way")]
    assert [row.generation for row in reopened.jobs()] == [3]
    reopened.close()


def test_the_last_verdict_of_a_device_is_the_last_in_the_list(store: Store) -> None:
    count(store, "a")
    commit(store)
    count(store, "a", V1)
    assert [v.base for v in store.verdicts("j")][-1] == V1


def test_a_late_update_and_one_on_time_of_one_device_are_both_in_the_sum(store: Store) -> None:
    commit(store)
    count(store, "a", V0, b"late")
    count(store, "a", V1, b"on time")
    assert [u.body for u in store.updates("j")] == [b"late", b"on time"]


def test_rounds_are_remembered_in_their_order(store: Store) -> None:
    store.open_attempt("j", attempt(1))
    store.close_attempt("j", Close(attempt(1), "abandoned", "too few", {"a": "not counted"}))
    store.open_attempt("j", attempt(2))
    rows = store.attempts("j", V0)
    assert [(row.attempt.number, row.outcome, row.reason) for row in rows] == [
        (1, "abandoned", "too few"),
        (2, "open", ""),
    ]
    assert store.attempts("j", V1) == []


def test_an_ended_job_says_why(store: Store) -> None:
    store.end_job("j", "finished", "it is good")
    (row,) = store.jobs()
    assert (row.ended, row.reason) == ("finished", "it is good")


def test_a_body_is_forgotten_when_it_is_told(store: Store) -> None:
    commit(store)
    store.forget_body("j", "1-1-0")
    assert store.bodies("j") == []


def test_a_term_is_higher_than_any_before(store: Store, tmp_path: Path) -> None:
    assert store.raise_term() == 1
    assert store.raise_term(at_least=7) == 7
    reopened = again(store, tmp_path)
    assert reopened.raise_term() == 8
    reopened.close()


# What goes wrong.


def test_a_state_directory_is_for_one_process(store: Store, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from aggregator.store import Store; Store(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "state")], capture_output=True, text=True, check=False
    )
    assert "is in use by process" in done.stderr
    assert done.returncode == 1


def test_a_lock_is_given_up_when_the_store_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "aggregator.sqlite").write_bytes(b"this is no database, and it is longer than a header" * 20)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be used"):
            Store(tmp_path)
    (tmp_path / "aggregator.sqlite").unlink()
    Store(tmp_path).close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    file = tmp_path / "aggregator.sqlite"
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer fedge"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "state")


def test_a_full_disk_is_a_store_error_and_nothing_is_half_written(store: Store) -> None:
    count(store, "a")
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="cannot be written"):
        count(store, "b", body=bytes(100_000))
    with pytest.raises(StoreError, match="cannot be written"):
        store.commit("j", V1, SHA, bytes(100_000), {}, [], committed())
    assert store.last_version("j")[0] == V0
    assert [u.device for u in store.updates("j")] == ["a"]
    store._db.execute("PRAGMA max_page_count = 1000000")
    count(store, "b")
    assert [u.device for u in store.updates("j")] == ["a", "b"]


def test_a_read_only_store_is_a_store_error(store: Store) -> None:
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="cannot be written"):
        store.end_job("j", "stopped", "")
    with pytest.raises(StoreError, match="cannot be written"):
        store.raise_term()


def test_a_database_that_is_torn_is_a_store_error(store: Store, tmp_path: Path) -> None:
    for device in range(50):
        count(store, f"d{device}", body=bytes(5000))
    store.close()
    file = tmp_path / "state" / "aggregator.sqlite"
    data = bytearray(file.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(StoreError):
        torn(tmp_path / "state")


def torn(folder: Path) -> None:
    store = Store(folder)
    try:
        store.jobs()
        store.last_version("j")
        list(store.updates("j"))
    finally:
        store.close()


def test_a_job_of_another_fedge_is_named(store: Store) -> None:
    store._db.execute("UPDATE jobs SET spec = ?", (b'{"name": "digits", "model": {"kind": "transformer"}}',))
    with pytest.raises(StoreError, match="job j was written by another fedge"):
        store.jobs()


def test_a_job_without_a_version_asks_for_a_backup(store: Store) -> None:
    store._db.execute("DELETE FROM versions")
    with pytest.raises(StoreError, match="restore a backup"):
        store.last_version("j")
