"""What has happened: told one by one and in sum, written along with what is written anyhow, and bounded."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator import events
from aggregator.backup import backup, restore
from aggregator.events import Event, Events
from aggregator.store import Store, StoreError
from models.job import JobSpec, ModelSpec
from runtime import failpoints
from tests.aggregator.syncs import counted
from tests.clocks import Clock

SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))
SHA = "0" * 64


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = of(tmp_path / "state", clock)
    yield opened
    opened.close()


def of(folder: Path, clock: Clock, *, synced: bool = False) -> Store:
    opened = Store(folder, synced=synced)
    opened.events.clock = clock
    return opened


def told(store: Store, **how: object) -> list[str]:
    return [event.text for event in events.page(store._db, **how)]  # type: ignore[arg-type]  # as the test says


def test_an_event_is_written_with_what_is_written_anyhow(store: Store, tmp_path: Path) -> None:
    store.events.note("device.gone", "pi-1 went", device="pi-1")
    assert told(store) == []
    store.set_note("a", "word")
    assert told(store) == ["pi-1 went"]
    store.set_note("another", "word")
    assert told(store) == ["pi-1 went"]  # once
    (event,) = events.page(store._db)
    assert (event.n, event.kind, event.job, event.device) == (1, "device.gone", "", "pi-1")


def test_no_event_costs_a_sync(tmp_path: Path, clock: Clock) -> None:
    def life(name: str, *, eventful: bool) -> int:
        with counted() as syncs:
            store = of(tmp_path / name, clock, synced=True)
            store.add_job("j", SPEC, SHA, b"state 0", {})
            before = syncs()
            for n in range(10):
                if eventful:
                    store.events.note("version.made", f"version {n}", job="j")
                store.set_note("a", str(n))
                if eventful:
                    store.events.note("device.gone", f"pi-{n} went")
                    store.write_events()
            found = syncs() - before
            if eventful:
                assert len(events.page(store._db)) == 21
            store.close()
        return found

    assert life("silent", eventful=False) == life("eventful", eventful=True) == 10


def test_what_was_written_without_a_sync_is_on_disk_with_the_next_transaction(tmp_path: Path, clock: Clock) -> None:
    store = of(tmp_path / "state", clock, synced=True)
    store.events.note("device.gone", "pi-1 went")
    store.write_events()
    with counted() as _:
        store.set_note("a", "word")
    assert store._db.one("", "PRAGMA synchronous") == (2,)  # FULL, as before
    store.close()


def test_a_lax_transaction_that_fails_leaves_what_follows_synced(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted() as syncs:
        store = of(tmp_path / "state", clock, synced=True)
        store.set_note("a", "word")
        store.events.note("device.gone", "pi-1 went")

        class Full:
            def reach(self, point: str, what: object) -> None:
                if point == "store.statement.before" and what == "COMMIT":
                    raise OSError(28, "No space left on device")

        monkeypatch.setattr(failpoints, "_points", Full())
        with pytest.raises(StoreError, match="No space left"):
            store.write_events()
        monkeypatch.undo()
        before = syncs()
        store.set_note("a", "word")
        assert syncs() == before + 1
        store.close()


def test_an_event_waits_while_a_transaction_is_undone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.events.note("device.gone", "pi-1 went")

    class Full:
        def reach(self, point: str, what: object) -> None:
            if point == "store.statement.before" and what == "COMMIT":
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(failpoints, "_points", Full())
    with pytest.raises(StoreError, match="No space left"):
        store.set_note("a", "word")
    monkeypatch.undo()
    assert told(store) == []
    store.set_note("a", "word")
    assert told(store) == ["pi-1 went"]


def test_what_is_tied_to_a_transaction_is_told_with_it_or_not_at_all(store: Store) -> None:
    with pytest.raises(ValueError, match="no"), store.events.told("job.finished", "it has finished", job="j"):
        raise ValueError("no")
    assert store.events.deadline == math.inf
    with store.events.told("job.stopped", "it was stopped", job="j"):
        store.set_note("a", "word")
    assert store.events.deadline == math.inf
    assert told(store) == ["it was stopped"]


def test_of_a_flood_of_one_kind_one_line_is_told(store: Store, clock: Clock) -> None:
    for n in range(20_000):
        store.events.note("device.gone", f"pi-{n} went", device=f"pi-{n}")
    store.events.note("job.stopped", "j was stopped", job="j")
    clock.now += events.MINUTE_S
    store.events.turn(clock.now)
    store.write_events()
    found = events.page(store._db)
    assert len(found) == 60 + 1 + 1
    assert found[0].text == "and 19,940 more devices went"
    assert found[1].text == "j was stopped"
    clock.now += 40.0  # and 60 s of the minute
    for n in range(10):
        store.events.note("device.gone", f"pi-{n} went")
    store.write_events()
    assert len(events.page(store._db)) == 62 + 5  # one more every twenty seconds


def test_a_minute_of_refused_words_is_one_line(store: Store, clock: Clock) -> None:
    for _ in range(1000):
        store.events.count("garbage")
    store.events.count("forged")
    assert store.events.deadline == clock.now + events.MINUTE_S
    store.events.turn(clock.now + 1)
    assert not store.events.waits
    store.events.turn(clock.now + events.MINUTE_S)
    store.write_events()
    assert told(store) == ["1,001 messages were refused within a minute: garbage 1,000, forged 1"]


def test_the_last_are_kept(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 500)
    for n in range(1000):
        clock.now += 100.0
        store.events.note("device.gone", str(n))
        store.set_note("a", str(n))
    found = events.page(store._db, most=-1)
    assert 500 <= len(found) < 500 + events.TRIMMED_EVERY
    assert [int(event.text) for event in found] == list(range(999, 999 - len(found), -1))


def test_what_waits_is_bounded_and_says_what_was_lost(store: Store, clock: Clock) -> None:
    for n in range(events.MOST_WAITING + 5):
        clock.now += 100.0
        store.events.note("device.gone", str(n))
    store.set_note("a", "word")
    assert len(events.page(store._db, most=-1)) == events.MOST_WAITING
    store.set_note("a", "another")
    assert told(store, most=1) == ["nothing could be written for long: 5 events are lost"]


def test_hostile_words_are_cleaned_and_cut(store: Store) -> None:
    store.events.note("device.out", "pi-1: \x1b[2Jgone\n" + "x" * 9999, device="pi-1")
    store.write_events()
    (text,) = told(store)
    assert len(text) <= events.MOST_TEXT
    assert text.isprintable()


def test_pages(store: Store) -> None:
    for n in range(5):
        store.events.note("device.gone" if n % 2 else "job.finished", str(n), job="a-b-01234567", device=f"d{n}")
    store.write_events()
    assert told(store) == ["4", "3", "2", "1", "0"]
    assert told(store, most=2) == ["4", "3"]
    assert told(store, before=4, most=2) == ["2", "1"]
    assert told(store, since=2, most=2) == ["2", "3"]
    assert told(store, kind="device") == told(store, kind="device.gone") == ["3", "1"]
    assert told(store, kind="dev") == []
    assert told(store, device="d4") == ["4"]
    assert len(told(store, job="a-b")) == len(told(store, job="a-b-01234567")) == 5
    assert told(store, job="a") == []


def test_numbers_go_on_after_a_restart_and_leap_after_a_restore(store: Store, tmp_path: Path, clock: Clock) -> None:
    store.events.note("job.stopped", "first")
    store.write_events()
    backup(store.folder, tmp_path / "backup", lambda _done, _all: None)
    store.close()
    again = of(store.folder, clock)
    again.events.note("job.stopped", "second")
    again.write_events()
    assert [event.n for event in events.page(again._db)] == [2, 1]
    again.close()
    with (tmp_path / "backup").open("rb") as source:
        restore(source, "backup", store.folder, lambda _done, _all: None)
    restored = of(store.folder, clock)
    restored.events.note("job.stopped", "third")
    restored.write_events()
    assert [(event.n, event.text) for event in events.page(restored._db)] == [(events.LEAP + 2, "third"), (1, "first")]
    restored.close()


def test_a_damaged_table_holds_no_transaction_up(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store._db.execute("DROP TABLE events")
    for n in range(3):
        store.events.note("job.stopped", "it was stopped")
        store.set_note("a", str(n))
        assert store.note("a") == str(n)
    assert caplog.text.count("what happens is not written down any more") == 1
    assert store.events.deadline == math.inf
    assert not store.events.waits


def test_a_rotten_cell_is_shown_as_nothing(store: Store) -> None:
    store._db.execute("INSERT INTO events VALUES (7, x'00', 'job.stopped', NULL, x'01', 'text')")
    assert events.page(store._db) == [Event(7, "", "job.stopped", "", "", "text")]
    assert events.page(store._db)[0].seconds == 0.0


def test_a_moment_is_utc(tmp_path: Path) -> None:
    waiting = Events(wall=lambda: 1_700_000_000.25)
    waiting.note("job.stopped", "it was stopped")
    assert waiting._waiting[0].at == "2023-11-14 22:13:20.250"
    assert waiting._waiting[0].seconds == 1_700_000_000.25


def test_a_store_of_schema_5_gets_the_table(store: Store, clock: Clock) -> None:
    store._db.execute("DROP TABLE events")
    store._db.execute("PRAGMA user_version = 5")
    store.close()
    again = of(store.folder, clock)
    again.events.note("aggregator.started", "it began")
    again.write_events()
    assert told(again) == ["it began"]
    again.close()
    assert sqlite3.connect(store.folder / "aggregator.sqlite").execute("PRAGMA user_version").fetchone() == (6,)
