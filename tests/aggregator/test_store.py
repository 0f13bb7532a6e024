from __future__ import annotations

import errno
import math
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from aggregator.attempts import MOST_ATTEMPTS
from aggregator.effects import Attempt, Close
from aggregator.rows import AMONG_BODIES
from aggregator.store import (
    BodyRow,
    Claim,
    Current,
    DamageError,
    Judgement,
    Kept,
    LitterRow,
    Store,
    StoreError,
)
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec
from models.steering import Report
from runtime import failpoints

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
    store.add_verdicts("j", [Judgement(verdict(device, base), offer(device, base), 10, 1.5, body)])


def attempt(number: int = 1, base: Version = V0) -> Attempt:
    return Attempt(base, number, "salt", 2**48 - 1, 2, ("a", "b"))


def committed(number: int = 1) -> Close:
    return Close(attempt(number), "committed", "why", {"a": "counted"})


def commit(store: Store) -> None:
    store.open_attempt("j", attempt())
    store.commit("j", V1, "1" * 64, Kept(b"state 1"), {"loss": 1.0}, [BodyRow("1-1-0", 1, 100, b"way")], committed())


def again(store: Store, tmp_path: Path) -> Store:
    store.close()
    return Store(tmp_path / "state")


# What is not forgotten.


def test_a_job_and_its_version_0_survive(store: Store, tmp_path: Path) -> None:
    reopened = again(store, tmp_path)
    (row,) = reopened.jobs()
    assert (row.job, row.spec, row.ended) == ("j", SPEC, "")
    assert reopened.last_version("j") == Current(V0, SHA, b"state 0")
    assert reopened.history("j") == [{"loss": 2.3}]
    reopened.close()


A = zlib.crc32(b"a") % 65_535 + 1
"""What tells the reports of device a from those of others."""


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ((), None),
        ((0.25,), Report(0.25, None, A)),
        ((0.25, -0.5), Report(0.25, -0.5, A)),
        ((1e12, -1e12), Report(1e12, -1e12, A)),
        ((1.1e12, 0.5), None),
        ((0.5, -1.1e12), None),
        ((math.nan, 0.5), None),
        ((0.5, math.inf), None),
    ],
)
def test_what_a_device_reports_survives_where_it_makes_sense(
    store: Store, tmp_path: Path, said: tuple[float, ...], kept: Report | None
) -> None:
    store.add_verdicts("j", [Judgement(verdict("a"), structs.replace(offer("a"), report=said), 10, 1.5, b"body")])
    reopened = again(store, tmp_path)
    assert [update.report for update in reopened.updates("j")] == [kept]
    assert [claim.report for claim in reopened.claims("j")] == [kept]
    reopened.close()


def test_the_base_of_a_counted_update_survives(store: Store, tmp_path: Path) -> None:
    commit(store)
    count(store, "a", V1)
    count(store, "b", V0)
    reopened = again(store, tmp_path)
    assert [(update.device, update.number) for update in reopened.updates("j")] == [("a", 1), ("b", 0)]
    reopened.close()


@pytest.mark.parametrize(
    ("name", "start"), [("1-9-0", 0), ("1-9-8", 8), ("123-456-448", 448), ("1-9-x", 0), ("1-9-", 0)]
)
def test_the_name_of_a_body_says_where_it_leads_from(name: str, start: int) -> None:
    assert BodyRow(name, 9, 100, b"way").start == start


def test_counted_updates_survive_with_their_verdicts(store: Store, tmp_path: Path) -> None:
    count(store, "b")
    count(store, "a")
    store.add_verdicts("j", [Judgement(verdict("c", refused="absurd"), offer("c"), 10, 9e9, b"body")])
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
    assert reopened.last_version("j") == Current(V1, "1" * 64, b"state 1")
    assert reopened.history("j") == [{"loss": 2.3}, {"loss": 1.0}]
    assert [row.outcome for row in reopened.attempts("j", V0)] == ["committed"]
    assert list(reopened.updates("j")) == []
    assert [v.base for v in reopened.verdicts("j")] == [V0]
    assert reopened.bodies("j") == [BodyRow("1-1-0", 1, 100, b"way")]
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


def test_the_last_round_of_a_base_is_found_with_whether_it_is_open(store: Store) -> None:
    assert store.last_attempt("j", V0) is None
    store.open_attempt("j", attempt(1))
    assert store.last_attempt("j", V0) == (attempt(1), True)
    store.close_attempt("j", Close(attempt(1), "abandoned", "too few", {}))
    assert store.last_attempt("j", V0) == (attempt(1), False)
    store.open_attempt("j", attempt(2))
    store.open_attempt("j", attempt(1, V1))
    assert store.last_attempt("j", V0) == (attempt(2), True)


def test_of_the_rounds_on_one_base_the_first_and_so_many_of_the_last_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1000 < MOST_ATTEMPTS < 100_000
    monkeypatch.setattr("aggregator.attempts.MOST_ATTEMPTS", 3)
    store.open_attempt("j", attempt(1, V1))
    store.open_attempt("j", attempt(2, V1))
    for number in range(1, 9):
        store.open_attempt("j", attempt(number))
        store.close_attempt("j", Close(attempt(number), "abandoned", "too few", {}))
    assert [row.attempt.number for row in store.attempts("j", V0)] == [1, 6, 7, 8]
    assert [row.attempt.number for row in store.attempts("j", V1)] == [1, 2]


def test_an_ended_job_says_why(store: Store) -> None:
    store.end_job("j", "finished", "it is good")
    (row,) = store.jobs()
    assert (row.ended, row.reason) == ("finished", "it is good")


def test_a_body_is_forgotten_when_it_is_told(store: Store) -> None:
    commit(store)
    store.forget_body("j", "1-1-0")
    assert store.bodies("j") == []


def test_a_body_that_is_forgotten_leaves_its_name_and_its_chunks_until_they_are_cleared(store: Store) -> None:
    bodies = [BodyRow("1-1-0", 1, 2, b"way"), BodyRow("1-1-1", 1, 3, b"way")]
    store.open_attempt("j", attempt())
    store.commit("j", V1, "1" * 64, Kept(b"state 1"), {}, bodies, committed())
    store.forget_body("j", "1-1-0")
    assert [body.name for body in store.bodies("j")] == ["1-1-1"]
    assert store.litter() == [LitterRow("j", "1-1-0", 2)]
    store.end_job("j", "deleted", "")
    assert store.litter() == [LitterRow("j", "1-1-0", 2), LitterRow("j", "1-1-1", 1)]
    store.forget_litter([LitterRow("j", "1-1-0", 2)])
    assert store.litter() == [LitterRow("j", "1-1-1", 1)]


def test_a_term_is_higher_than_any_before(store: Store, tmp_path: Path) -> None:
    assert store.raise_term() == 1
    assert store.raise_term(at_least=7) == 7
    reopened = again(store, tmp_path)
    assert reopened.raise_term() == 8
    reopened.close()


# What goes wrong.


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "state")


def test_a_full_disk_is_a_store_error_and_nothing_is_half_written(store: Store) -> None:
    count(store, "a")
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="cannot be written"):
        count(store, "b", body=bytes(60_000))
    with pytest.raises(StoreError, match="cannot be written"):
        store.commit("j", V1, SHA, Kept(bytes(100_000)), {}, [], committed())
    assert store.last_version("j").version == V0
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


def test_a_job_of_another_fedge_is_named_and_the_others_go_on(store: Store) -> None:
    store.add_job("k", SPEC, SHA, b"", {})
    foreign = b'{"name": "digits", "model": {"kind": "transformer"}}'
    store._db.execute("UPDATE jobs SET spec = ?1, crc = crc(?1) WHERE job = 'j'", (foreign,))
    rows = {row.job: row for row in store.jobs()}
    assert rows["j"].spec is None
    assert "job j was written by another fedge" in rows["j"].damage
    assert (rows["k"].spec, rows["k"].damage) == (SPEC, "")


def test_a_specification_that_has_rotted_is_named_and_the_others_go_on(store: Store) -> None:
    store.add_job("k", SPEC, SHA, b"", {})
    store._db.execute("UPDATE jobs SET spec = replace(spec, 'digits', 'midgets') WHERE job = 'j'")
    rows = {row.job: row for row in store.jobs()}
    assert rows["j"].spec is None
    assert "checksum of its specification is wrong: restore a backup" in rows["j"].damage
    assert (rows["k"].spec, rows["k"].damage) == (SPEC, "")


def test_a_job_whose_row_has_gone_is_not_forgotten_in_silence(store: Store) -> None:
    store.add_job("k", SPEC, SHA, b"", {})
    store._db.execute("DELETE FROM jobs WHERE job = 'j'")
    rows = {row.job: row for row in store.jobs()}
    assert set(rows) == {"j", "k"}
    assert "job j is damaged in the state directory (table jobs): its row is missing: restore a" in rows["j"].damage
    assert (rows["j"].spec, rows["k"].spec) == (None, SPEC)


@pytest.mark.parametrize("job", [None, b"\xff", "", "a/b", "x" * 81, "\x1b[31m"])
def test_a_row_without_an_id_is_shown_under_a_name_that_can_be_shown(store: Store, job: object) -> None:
    store.add_job("k", SPEC, SHA, b"", {})
    store._db.execute("UPDATE OR IGNORE jobs SET job = ? WHERE job = 'j'", (job,))
    rows = {row.job: row for row in store.jobs()}
    assert rows["k"].damage == ""
    assert "j" in rows  # its versions are there
    shown = [row for name, row in rows.items() if name.startswith("damaged-")]
    assert len(shown) == (job is not None)  # which no row may have
    assert all(row.name == "digits" and "its id is" in row.damage for row in shown)


def test_a_job_without_a_version_asks_for_a_backup(store: Store) -> None:
    store._db.execute("DELETE FROM versions")
    with pytest.raises(DamageError, match=r"job j is damaged .* restore a backup"):
        store.last_version("j")


def test_a_body_or_an_update_of_which_one_bit_has_rotted_is_named(store: Store) -> None:
    commit(store)
    count(store, "a", V1)
    assert store.bodies("j")
    store._db.execute("UPDATE bodies SET data = x'776178'")
    store._db.execute("UPDATE updates SET body = x'626f6478' WHERE body IS NOT NULL")
    with pytest.raises(DamageError, match=r"job j .*checksum of 1-1-0 is wrong"):
        store.bodies("j")
    with pytest.raises(DamageError, match=r"job j .*checksum of the update of a is wrong"):
        list(store.updates("j"))
    assert [claim.device for claim in store.claims("j")] == ["a"]


def test_a_version_without_a_state_is_come_to_by_the_steps_from_the_last_that_has_one(store: Store) -> None:
    def commit_next(number: int, kept: Kept, *bodies: BodyRow, generation: int = 1) -> None:
        round_ = attempt(number, Version(generation, number - 1))
        store.open_attempt("j", round_)
        closed = Close(round_, "committed", "", {})
        store.commit("j", Version(generation, number), f"{number}" * 64, kept, {}, bodies, closed)

    commit(store)  # version 1, with a state
    commit_next(2, Kept(step=b"step 2", record=b"beside 2"))
    commit_next(3, Kept(step=b"step 3", record=b"beside 3"))
    wanted = Current(Version(1, 3), "3" * 64, b"state 1", (b"step 2", b"step 3"), b"beside 3")
    assert store.last_version("j") == wanted
    renamed = store.raise_generation("j", 7)
    assert store.last_version("j") == structs.replace(wanted, version=renamed)
    held = "SELECT number FROM versions WHERE {} IS NOT NULL ORDER BY number"
    assert list(store._db.execute(held.format("record"))) == [(3,)], "one is enough"
    generation = renamed.generation
    whole = BodyRow(f"{generation}-4-0", 4, 100, b"all of it")
    commit_next(4, Kept(AMONG_BODIES, record=b"beside 4"), whole, generation=generation)
    assert store.last_version("j") == Current(Version(generation, 4), "4" * 64, b"", (b"all of it",), b"beside 4")
    commit_next(5, Kept(b"state 5"), generation=generation)
    assert store.last_version("j") == Current(Version(generation, 5), "5" * 64, b"state 5")
    for column in ("state", "step", "record"):
        assert list(store._db.execute(held.format(column))) == ([(5,)] if column == "state" else [])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE versions SET step = NULL WHERE number = 2",
        "DELETE FROM versions WHERE number = 2",
        "UPDATE versions SET state = NULL WHERE number = 1",
        "UPDATE versions SET step = 7 WHERE number = 2",
        "UPDATE versions SET step = '=' WHERE number = 2",
        "UPDATE versions SET step = CAST(substr(step, 1, 7) AS BLOB) WHERE number = 2",
        "UPDATE versions SET step = zeroblob(4) WHERE number = 2",
        "UPDATE versions SET step = CAST(step || X'00' AS BLOB) WHERE number = 2",
        "UPDATE versions SET number = 7 WHERE number = 2",
    ],
)
def test_a_step_that_is_missing_or_has_rotted_is_named(store: Store, damage: str) -> None:
    commit(store)
    for number in (2, 3):
        store.open_attempt("j", attempt(number, Version(1, number - 1)))
        closed = Close(attempt(number, Version(1, number - 1)), "committed", "", {})
        store.commit("j", Version(1, number), SHA, Kept(step=b"step", record=b"beside"), {}, [], closed)
    store._db.execute(damage)
    with pytest.raises(DamageError, match=r"job j .*table versions"):
        store.last_version("j")


def test_a_version_that_is_missing_or_there_twice_is_named(store: Store) -> None:
    commit(store)
    store._db.execute(
        "INSERT INTO versions SELECT job, 9, number, sha256, metrics, NULL, at, NULL, NULL, NULL FROM versions"
    )
    with pytest.raises(DamageError, match=r"job j .* a version is missing, or there twice"):
        store.history("j")
    store._db.execute("DELETE FROM versions WHERE number = 0")
    with pytest.raises(DamageError, match=r"job j .* a version is missing, or there twice"):
        store.versions("j")


# A full disk, told by the points that are passed.


class Full:
    """Finds the disk full at one point."""

    def __init__(self, point: str, most: int = 0) -> None:
        self.point, self.left = point, most

    def reach(self, point: str, _what: object) -> None:
        self.left -= point == self.point
        if self.left < 0 and point == self.point:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at", range(9))
@pytest.mark.parametrize("point", ["store.statement.before", "store.statement.after"])
def test_a_disk_that_is_full_at_any_statement_is_a_store_error_and_all_is_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch, point: str, at: int
) -> None:
    count(store, "a")
    store.open_attempt("j", attempt())
    before = dump(store)
    monkeypatch.setattr(failpoints, "_points", Full(point, at))
    with pytest.raises(StoreError, match="job j cannot be written to the state directory: No space left on device"):
        commit(store)
    monkeypatch.setattr(failpoints, "_points", None)
    after = dump(store)
    assert after == before or store.last_version("j").version == V1  # as where it is full behind the COMMIT
    if after == before:
        commit(store)
        assert store.last_version("j").version == V1


@pytest.mark.parametrize("point", ["store.commit.within", "store.commit.after"])
def test_a_disk_that_is_full_in_or_after_a_commit_is_a_store_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr(failpoints, "_points", Full(point))
    with pytest.raises(StoreError, match="No space left on device"):
        commit(store)
    assert (store.last_version("j").version == V1) == (point == "store.commit.after")


def knows(store: Store, job: str) -> bool:
    return store.is_deleted(job) or any(row.job == job for row in store.jobs())


def dump(store: Store) -> list[object]:
    tables = ("meta", "jobs", "versions", "updates", "bodies", "deleted")
    return [list(store._db.rows("", f"SELECT * FROM {table}")) for table in tables]


# Words.


def test_the_term_is_the_last_one_given_out(store: Store) -> None:
    assert store.term == 0
    assert store.raise_term() == store.term == 1
    assert store.raise_term(9) == store.term == 9


def test_a_note_survives_and_there_is_none_before(store: Store, tmp_path: Path) -> None:
    assert store.note("restored") == ""
    store.set_note("restored", "yes")
    reopened = again(store, tmp_path)
    assert reopened.note("restored") == "yes"
    reopened.set_note("restored", "")
    assert reopened.note("restored") == ""
    reopened.close()


# Jobs that make way.


def test_a_new_job_and_the_end_of_those_it_replaces_are_one(store: Store) -> None:
    commit(store)
    count(store, "a", V1)
    store.add_job("k", SPEC, SHA, b"state", {}, replaces=["j"], request="r-1")
    assert [row.job for row in store.jobs()] == ["k"]
    for table in ("jobs", "versions", "updates", "attempts", "bodies"):
        assert store._db.one("", f"SELECT count(*) FROM {table} WHERE job = 'j'") == (0,)
    assert store.deleted(5) == ["j"]
    assert (knows(store, "j"), knows(store, "k"), knows(store, "l")) == (True, True, False)


def test_a_job_that_cannot_be_written_leaves_those_that_it_was_to_replace(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(store)
    for at in range(40):
        monkeypatch.setattr(failpoints, "_points", Full("store.statement.before", at))
        try:
            store.add_job("k", SPEC, SHA, b"state", {}, replaces=["j"])
            break
        except StoreError:
            assert dump(store) == before
    assert at > 8
    assert [row.job for row in store.jobs()] == ["k"]


def test_a_request_is_answered_with_the_job_that_it_made_also_when_that_is_gone(store: Store) -> None:
    assert store.job_of_request("") is None
    store.add_job("k", SPEC, SHA, b"", {}, request="r-1")
    assert store.job_of_request("r-1") == "k"
    assert store.job_of_request("r-2") is None
    store.add_job("l", SPEC, SHA, b"", {}, replaces=["k"], request="r-2")
    assert (store.job_of_request("r-1"), store.job_of_request("r-2")) == ("k", "l")


def test_a_job_that_ends_as_deleted_leaves_its_name(store: Store) -> None:
    store.end_job("j", "deleted", "replaced")
    assert store.jobs() == []
    assert store.deleted(5) == ["j"]


def test_the_names_of_the_latest_thousand_deleted_jobs_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, synced=False)
    for number in range(1003):
        store.add_job(f"j{number}", SPEC, SHA, b"", {}, replaces=[f"j{number - 1}"])
    assert store.deleted(3) == ["j1001", "j1000", "j999"]
    assert len(store.deleted(5000)) == 1000
    assert (knows(store, "j1"), knows(store, "j2")) == (False, True)
    store.close()


# What would not fit the memory as a whole.


def test_what_is_said_of_updates_is_read_without_their_bodies(store: Store) -> None:
    store._db.execute("PRAGMA synchronous = OFF")
    for number in range(40):
        count(store, f"d{number:02}", body=bytes(500_000))
    store.add_verdicts("j", [Judgement(verdict("e", refused="absurd"), offer("e"), 10, 9e9, b"body")])
    tracemalloc.start()
    claims = store.claims("j")
    (_, most) = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [claim.device for claim in claims] == [f"d{number:02}" for number in range(40)]
    assert claims[0] == Claim("d00", 10, 10, 1.5, 0.5, None, None)
    assert most < 1_000_000


def test_rounds_are_read_by_the_page(store: Store) -> None:
    for number in range(1, 8):
        store.open_attempt("j", attempt(number))
    pages = [store.attempts_page("j", V0.number, after=after, most=3) for after in (0, 3, 6, 7)]
    assert [[row.attempt.number for row in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7], []]
    assert [row for page in pages for row in page] == store.attempts("j", V0)


def test_the_last_round_of_every_base_from_a_number_on_is_found_under_its_name(store: Store) -> None:
    for base, n_rounds in ((V0, 2), (V1, 3), (Version(1, 2), 1), (Version(7, 2), 2)):
        for number in range(1, n_rounds + 1):
            store.open_attempt("j", attempt(number, base))
    found = store.latest_attempts("j", 1)
    assert {base: last.number for base, last in found.items()} == {V1: 3, Version(1, 2): 1, Version(7, 2): 2}
    assert all(last.base == base for base, last in found.items())
    assert store.latest_attempts("j", 3) == {}
    assert store.latest_attempts("k", 0) == {}


# What it costs.


def test_everything_that_is_written_is_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[str] = []

    class Counting:
        def reach(self, point: str, what: object) -> None:
            if point == "store.statement.before" and what == "COMMIT":
                commits.append(point)

    monkeypatch.setattr(failpoints, "_points", Counting())
    writes = (
        lambda: store.add_job("k", SPEC, SHA, b"", {}, replaces=["x", "y"]),
        lambda: count(store, "a"),
        lambda: store.open_attempt("j", attempt()),
        lambda: store.close_attempt("j", committed()),
        lambda: store.commit("j", V1, SHA, Kept(b"state"), {}, [BodyRow("1-1-0", 1, 100, b"way")] * 3, committed()),
        lambda: store.raise_generation("j", 3),
        lambda: store.forget_body("j", "1-1-0"),
        lambda: store.end_job("j", "deleted", ""),
        lambda: store.set_note("a", "b"),
        lambda: store.raise_term(),
    )
    for number, write in enumerate(writes, start=1):
        write()
        assert len(commits) == number


def test_to_open_a_store_again_writes_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    monkeypatch.setattr(failpoints, "_points", Full("store.statement.before"))
    Store(tmp_path / "state").close()


def test_a_store_is_synced_unless_it_is_told_not_to_be(store: Store, tmp_path: Path) -> None:
    assert store._db.one("", "PRAGMA synchronous") == (2,)
    assert store._db.one("", "PRAGMA journal_mode") == ("wal",)
    loose = Store(tmp_path / "loose", synced=False)
    assert loose._db.one("", "PRAGMA synchronous") == (0,)
    loose.close()


def test_a_round_is_found_in_as_few_steps_whatever_came_before_it(store: Store) -> None:
    """A page of a long job's metrics asks for hundreds, and nothing else goes on meanwhile."""

    def steps(number: int) -> int:
        found = 0

        def count() -> int:
            nonlocal found
            found += 1
            return 0

        store._db._db.set_progress_handler(count, 1)
        last = store.last_round("j", number)
        assert len(store.attempts_page("j", number, after=0, most=9)) == 2
        store._db._db.set_progress_handler(None, 1)
        assert last is not None
        assert last.attempt.number == 2
        return found

    for number in range(500):
        for attempt in (1, 2):
            store.open_attempt("j", Attempt(Version(1, number), attempt, "0" * 16, 1, None, ("a", "b")))
        if number == 5:
            few = steps(5)
    assert steps(499) < 2 * few
    assert steps(100) < 2 * few
