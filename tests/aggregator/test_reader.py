"""The store, read beside an aggregator that goes on writing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import to_builtins

from aggregator import quarantine
from aggregator.backup import backup, restore
from aggregator.effects import Attempt, Close
from aggregator.reader import Reader
from aggregator.store import BodyRow, DamageError, Judgement, Kept, Store, StoreError
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec

SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))
SHA = "0" * 64
JOB = "digits-00000001"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state", synced=False)
    opened.add_job(JOB, SPEC, SHA, b"state 0", {"loss": 2.5})
    yield opened
    opened.close()


@pytest.fixture
def reader(store: Store) -> Iterator[Reader]:
    opened = Reader(store.folder)
    yield opened
    opened.close()


def judge(store: Store, device: str, number: int, refused: str = "") -> None:
    base = Version(1, number)
    offer = Offer(JOB, device, base, 20, "0" * 16, 4, loss=0.5, body=b"body")
    verdict = Verdict(device, JOB, base, "0" * 8, refused)
    store.add_verdicts(JOB, [Judgement(verdict, offer, 20, 1.5, b"body", 2.5)])


def make(store: Store, number: int) -> None:
    """Leave a version: a is counted, b refused, c not heard of."""
    attempt = Attempt(Version(1, number), 1, "salt", 2**48 - 1, 2, ("a", "b", "c"))
    store.open_attempt(JOB, attempt)
    judge(store, "a", number)
    judge(store, "b", number, "it is far")
    fates = {"a": "counted", "b": "refused: it is far", "c": "not counted: it was offline"}
    way = BodyRow(f"1-{number + 1}-{number}", number + 1, 100, b"the way")
    close = Close(attempt, "committed", "all have come", fates)
    store.commit(
        JOB, Version(1, number + 1), SHA, Kept(b"state"), {"loss": 2.0 - number, "participants": 1.0}, [way], close
    )


def test_a_job_with_its_version(store: Store, reader: Reader) -> None:
    make(store, 0)
    store.pause(JOB, "paused by ops")
    (job,) = reader.jobs()
    assert (job.job, job.name, job.ended, job.paused, job.version) == (
        JOB,
        "digits",
        "",
        "paused by ops",
        Version(1, 1),
    )
    assert job.metrics == {"loss": 2.0, "participants": 1.0}
    assert job.at is not None
    assert job.at > 1.7e9
    assert job.spec == reader.spec(JOB) == to_builtins(SPEC)
    assert reader.spec("unknown") == {}


def test_the_curve_of_a_job(store: Store, reader: Reader) -> None:
    for number in range(3):
        make(store, number)
    curve = reader.curve(JOB)
    assert [(row.number, row.metrics["loss"]) for row in curve] == [(0, 2.5), (1, 2.0), (2, 1.0), (3, 0.0)]
    assert [(row.participants, row.bytes_up, row.bytes_down) for row in curve] == [(0, None, None), *[(1, 8, 7)] * 3]
    assert curve[0].seconds is None
    assert [row.seconds for row in curve[1:]] == [2.5] * 3
    assert reader.curve(JOB, after=1) == curve[2:]
    assert reader.curve(JOB, after=0, most=1) == curve[1:2]
    assert reader.curve("unknown") == []


def test_a_round_with_what_became_of_whom(store: Store, reader: Reader) -> None:
    make(store, 0)
    (row,) = reader.round(JOB, 1)
    assert (row.attempt.number, row.outcome, row.reason) == (1, "committed", "all have come")
    assert row.fates["b"] == "refused: it is far"
    assert reader.round(JOB, 2) == []


def test_the_past_of_a_device(store: Store, reader: Reader) -> None:
    for number in range(3):
        make(store, number)
    found = reader.history("a")
    assert [(one.job, one.number, one.attempt, one.fate, one.seconds, one.loss) for one in found] == [
        (JOB, number, 1, "counted", 2.5, 0.5) for number in (3, 2, 1)
    ]
    assert [one.fate for one in reader.history("b", most=1)] == ["refused: it is far"]
    assert [one.seconds for one in reader.history("c")] == [None] * 3
    assert reader.history("d") == reader.history('"') == []


def test_the_fate_of_a_device_is_not_taken_from_the_words_of_another(store: Store, reader: Reader) -> None:
    attempt = Attempt(Version(1, 0), 1, "salt", 2**48 - 1, 2, ("a", "b"))
    store.open_attempt(JOB, attempt)
    fates = {"aa": 'refused: "a":"counted", "a": \\"', "a": 'refused: ä "quoted" \\ \n', "b": "counted"}
    store.close_attempt(JOB, Close(attempt, "abandoned", "why", fates))
    assert [one.fate for one in reader.history("a")] == [fates["a"]]
    assert [one.fate for one in reader.history("aa")] == [fates["aa"]]
    assert [one.fate for one in reader.history("b")] == ["counted"]


def test_who_counts_for_the_current_version(store: Store, reader: Reader) -> None:
    make(store, 0)
    assert (reader.counted(JOB), reader.refused(JOB)) == ([], {})
    judge(store, "a", 1)
    judge(store, "b", 1, "it is far")
    assert (reader.counted(JOB), reader.refused(JOB)) == (["a"], {"b": "it is far"})


def test_events_and_quarantine(store: Store, reader: Reader) -> None:
    store.events.note("device.gone", "a went", device="a")
    store.set_note(quarantine.note_of("a"), "its clock")
    store.set_note(quarantine.note_of("b"), "")
    assert [event.text for event in reader.events(device="a")] == ["a went"]
    assert reader.quarantined() == {"a": "its clock"}


def test_a_change_is_noticed_once(store: Store, reader: Reader) -> None:
    assert reader.changed()
    assert not reader.changed()
    store.set_note("a", "word")
    assert reader.changed()
    assert not reader.changed()


def test_a_reader_holds_no_checkpoint_up(store: Store, reader: Reader) -> None:
    make(store, 0)
    assert reader.jobs()
    assert reader.changed()
    busy, _, _ = store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert (store.folder / "aggregator.sqlite-wal").stat().st_size == 0


def test_a_reader_never_writes(store: Store, reader: Reader) -> None:
    reader.jobs()
    assert reader._db is not None
    with pytest.raises(StoreError):
        reader._db.execute("DELETE FROM jobs")


def test_threads_may_read_at_once(store: Store, reader: Reader) -> None:
    make(store, 0)
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(reader.curve(JOB)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8


def test_a_restored_store_is_opened_anew(store: Store, reader: Reader, tmp_path: Path) -> None:
    backup(store.folder, tmp_path / "backup", lambda _done, _all: None)
    make(store, 0)
    assert len(reader.curve(JOB)) == 2
    reader.changed()
    store.close()
    with (tmp_path / "backup").open("rb") as source:
        restore(source, "backup", store.folder, lambda _done, _all: None)
    assert len(reader.curve(JOB)) == 1
    assert reader.changed()


# What cannot be read.


def test_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    with pytest.raises(StoreError, match="has no aggregator run here yet"):
        reader.jobs()
    Store(tmp_path, synced=False).close()
    assert reader.jobs() == []
    reader.close()


def test_a_locked_store_says_so_and_is_read_once_it_is_free(store: Store, reader: Reader) -> None:
    store.close()
    other = sqlite3.connect(store.folder / "aggregator.sqlite", isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another program has it open") as raised:
        reader.jobs()
    assert not isinstance(raised.value, DamageError)
    other.execute("ROLLBACK")
    other.close()
    assert len(reader.jobs()) == 1


def test_a_newer_store_says_so(store: Store, reader: Reader) -> None:
    assert reader.jobs()
    store._db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer fedge"):
        reader.jobs()


def test_an_older_store_has_no_events(store: Store, reader: Reader) -> None:
    make(store, 0)
    store._db.execute("DROP TABLE events")
    store._db.execute("PRAGMA user_version = 5")
    assert reader.events() == []
    assert len(reader.curve(JOB)) == 2


def test_what_is_no_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "aggregator.sqlite").write_bytes(b"no database at all, whatever its name" * 100)
    with pytest.raises(DamageError):
        Reader(tmp_path).jobs()


def test_a_damaged_row_is_named(store: Store, reader: Reader) -> None:
    make(store, 0)
    store._db.execute("UPDATE versions SET metrics = 'x'")
    with pytest.raises(DamageError, match=JOB):
        reader.curve(JOB)
    (job,) = reader.jobs()
    assert (job.version, JOB in job.damage) == (None, True)
