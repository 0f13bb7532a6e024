"""A store that an older fedge has let absurd numbers into: it is named, mended, and goes on where it stood."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aggregator.database import DamageError, OutOfRangeError
from aggregator.generations import HIGHEST
from aggregator.repair import Mended
from aggregator.store import TAKE_OVER, Store
from broker.ceilings import MOST_CLAIM, MOST_GENERATION, MOST_TERM
from broker.messages import Version
from models.job import JobSpec, ModelSpec
from tests.formats.fleet import JOBS, ROW_BYTES, Fleet
from tests.formats.make import Expected, unpack

PLAIN, SKETCHED = JOBS["plain"], JOBS["sketched"]
ABSURD = 2**40
SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


@pytest.fixture
def laid_out(tmp_path: Path) -> tuple[Path, Expected]:
    return tmp_path / "fleet", unpack("numbered", tmp_path / "fleet")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state", synced=False)
    yield opened
    opened.close()


def settled(folder: Path) -> None:
    """Have a store know the place of its file, which the fixture was copied to."""
    Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES).close()


def spoil(folder: Path, job: str = PLAIN, generation: int = ABSURD) -> None:
    """Have it hold what an older fedge has written down, that believed whatever was said."""
    db = sqlite3.connect(folder / "aggregator" / "aggregator.sqlite")
    db.execute("INSERT OR REPLACE INTO meta VALUES ('term', ?)", (2**53 + 1,))
    db.execute("INSERT OR REPLACE INTO meta VALUES ('note:claim', ?)", (str(2**53),))
    ((before,),) = db.execute("SELECT generation FROM jobs WHERE job = ?", (job,)).fetchall()
    for rowid, round_ in db.execute("SELECT rowid, round FROM attempts WHERE job = ?", (job,)).fetchall():
        tree = msgspec.json.decode(round_)
        tree["base"][0] = generation
        packed = msgspec.json.encode(tree)
        db.execute("UPDATE attempts SET round = ?, crc = ? WHERE rowid = ?", (packed, zlib.crc32(packed), rowid))
    for table in ("jobs", "versions", "updates", "attempts"):
        db.execute(f"UPDATE {table} SET generation = ? WHERE job = ? AND generation = ?", (generation, job, before))
    renamed = (generation, len(str(before)) + 1, job, f"{before}-%")
    db.execute("UPDATE bodies SET name = ? || substr(name, ?) WHERE job = ? AND name LIKE ?", renamed)
    aliases = [[[generation - 7, 2], [generation, 2]], [[1, 2], [generation, 2]]]
    db.execute("UPDATE jobs SET aliases = ? WHERE job = ?", (msgspec.json.encode(aliases).decode(), job))
    db.commit()
    db.close()


@pytest.mark.parametrize("moved", [False, True], ids=["where it was", "moved meanwhile"])
def test_the_job_rests_and_says_which_command_helps_the_others_go_on_and_after_it_all_do(
    laid_out: tuple[Path, Expected], moved: bool
) -> None:
    folder, expected = laid_out
    if not moved:
        settled(folder)
    spoil(folder)
    fleet = Fleet(folder)
    fleet.go_on(lambda: SKETCHED in fleet.aggregator.runs)
    fleet.go_on(lambda: fleet.aggregator.runs[SKETCHED].version.number == 3)
    assert 0 < fleet.aggregator.term <= MOST_TERM
    why = fleet.aggregator.resting[PLAIN].why
    assert f"its generation is {ABSURD}, where {MOST_GENERATION} is the highest" in why
    assert "run `fedge aggregator repair`" in why
    fleet.close()

    store = Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES)
    (mended,) = store.repair()
    assert (mended.what, mended.job, mended.was) == ("generation", PLAIN, ABSURD)
    assert store.repair() == []
    assert store.last_version(PLAIN).version == Version(mended.now, 2)
    assert store.renames(PLAIN) == {Version(1, 2): Version(mended.now, 2)}, "a name out of range is none"
    assert {one.device for one in store.updates(PLAIN)} == expected.jobs["plain"].updates.keys()
    assert all(row.attempt.base.generation == mended.now for row in store.attempts(PLAIN, Version(mended.now, 2)))
    assert {f"{mended.now}-2-0", f"{ABSURD}-2-0"} <= {row.name for row in store.bodies(PLAIN)}
    store.close()

    fleet = Fleet(folder)
    fleet.go_on(lambda: PLAIN in fleet.aggregator.runs)
    fleet.go_on(lambda: fleet.aggregator.runs[PLAIN].version.number == 3)
    assert fleet.store.versions(PLAIN)[3][1] == expected.jobs["plain"].following, "every update that was counted is in"
    fleet.close()


def test_a_term_and_a_claim_are_forgotten(laid_out: tuple[Path, Expected], caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = laid_out
    spoil(folder)
    store = Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES)
    assert (store.term, store.claim) == (0, 0)
    assert f"has term {2**53 + 1}, where {MOST_TERM} is the highest" in caplog.text
    assert "fedge aggregator repair" in caplog.text
    claim, term, *_ = sorted(store.repair(), key=lambda one: one.what)
    assert str(term) == f"the generation of job {PLAIN} was {ABSURD}, and is {term.now}"
    assert claim == Mended("claim", 2**53, 0)
    store.close()


def test_a_generation_that_leaves_no_room_above_is_given_up_as_well(laid_out: tuple[Path, Expected]) -> None:
    folder, _ = laid_out
    settled(folder)
    spoil(folder, generation=MOST_GENERATION)
    store = Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES)
    with pytest.raises(OutOfRangeError, match="there is none above"):
        store.raise_generation(PLAIN, 0)
    store.repair()
    assert store.raise_generation(PLAIN, 0).generation < HIGHEST
    store.close()


def test_a_store_in_range_is_left_as_it_is(store: Store) -> None:
    store.add_job("digits-1", SPEC, "0" * 64, b"state", {})
    store.raise_term(17)
    store.set_note("claim", "3")
    assert store.repair() == []
    assert (store.term, store.claim, store.last_version("digits-1").version) == (17, 3, Version(1, 0))


def test_an_operators_word_is_kept_until_this_one_leads(store: Store) -> None:
    store.raise_term(17)
    store.set_note("claim", "3")
    store.set_note("replaced", "x")
    done = store.take_over()
    assert (done.term, done.claim, done.term_before, done.claim_before, done.was_replaced) == (18, 4, 17, 3, True)
    assert (store.term, store.claim, store.note("replaced"), store.note(TAKE_OVER)) == (18, 4, "", "yes")


@pytest.mark.parametrize(("term", "claim"), [(MOST_TERM, 0), (1, MOST_CLAIM)])
def test_where_nothing_is_above_an_operator_is_told_what_to_do(store: Store, term: int, claim: int) -> None:
    store.raise_term(term)
    store.set_note("claim", str(claim))
    with pytest.raises(DamageError, match="run `fedge aggregator repair` for every aggregator of this fleet first"):
        store.take_over()
    assert (store.term, store.claim, store.note(TAKE_OVER)) == (term, claim, "")
    assert len(store.repair()) == 1
    done = store.take_over()
    assert (done.term, done.claim) == (1 if term == MOST_TERM else 2, 1)
    assert store.note(TAKE_OVER) == "yes"


def test_no_term_is_counted_up_beyond_its_ceiling(store: Store) -> None:
    assert store.raise_term(2**60) == MOST_TERM
    assert store.raise_term() == MOST_TERM
    assert store.term == MOST_TERM
