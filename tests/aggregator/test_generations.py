"""Who a store is, and how a version gets a new name without anything that hangs on it being lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from aggregator.database import OutOfRangeError
from aggregator.effects import Attempt, Close
from aggregator.generations import HIGHEST, LEAP, MOST_RENAMES
from aggregator.store import BodyRow, Current, DamageError, Judgement, Kept, Store, StoreError
from broker.ceilings import MOST_GENERATION
from broker.messages import Offer, Verdict, Version
from models import draw
from models.job import JobSpec, ModelSpec
from runtime import failpoints

SPEC = JobSpec("digits", ModelSpec(inputs=4, outputs=2), seed=7)
V0, V1 = Version(1, 0), Version(1, 1)
SHA = "0" * 64
DEVICES = tuple(f"d{n}" for n in range(8))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state", synced=False)
    fill(opened, "j")
    yield opened
    opened.close()


def attempt(base: Version, number: int = 1) -> Attempt:
    salt = draw.salt(SPEC.seed, base.number)
    return Attempt(base, number, salt, draw.threshold(salt, DEVICES, 4), 4, drawn(salt))


def drawn(salt: str) -> tuple[str, ...]:
    threshold = draw.threshold(salt, DEVICES, 4)
    return tuple(device for device in DEVICES if draw.ticket(salt, device) <= threshold)


def fill(store: Store, job: str, spec: JobSpec = SPEC) -> None:
    """Bring a job to version 1.1: one update in the sum, one refused, one late, one round abandoned and one open."""
    store.add_job(job, spec, SHA, b"state 0", {"loss": 2.0})
    store.open_attempt(job, attempt(V0))
    ways = [BodyRow("1-1-0", 1, 100, b"way")]
    store.commit(job, V1, "1" * 64, Kept(b"state 1"), {"loss": 1.0}, ways, Close(attempt(V0), "committed", "", {}))
    count(store, job, "d0", V1)
    count(store, job, "late", V0)
    store.add_verdicts(job, [Judgement(Verdict("d9", job, V1, "b" * 8, refused="absurd"))])
    store.open_attempt(job, attempt(V1))
    store.close_attempt(job, Close(attempt(V1), "abandoned", "too few", {}))
    store.open_attempt(job, attempt(V1, 2))


def count(store: Store, job: str, device: str, base: Version) -> None:
    offer = Offer(job, device, base, 10, "a" * 32, 4, body=b"body")
    store.add_verdicts(job, [Judgement(Verdict(device, job, base, "a" * 8), offer, 10, 1.5, b"body")])


def assert_renamed(store: Store, job: str, old: Version, new: Version) -> None:
    assert new.generation > old.generation
    assert new.number == old.number
    assert store.last_version(job) == Current(new, "1" * 64, b"state 1")
    assert [version for version, _ in store.versions(job)] == [V0, new]
    assert store.history(job) == [{"loss": 2.0}, {"loss": 1.0}]
    assert {v.device: (v.base, v.refused) for v in store.verdicts(job)} == {
        "d0": (new, ""),
        "late": (V0, ""),
        "d9": (new, "absurd"),
    }
    assert [update.device for update in store.updates(job)] == ["d0", "late"]
    rounds = store.attempts(job, new)
    assert [(row.attempt.base, row.attempt.number, row.outcome) for row in rounds] == [
        (new, 1, "abandoned"),
        (new, 2, "open"),
    ]
    assert store.attempts(job, old) == []
    assert [a.outcome for a in store.attempts(job, V0)] == ["committed"]
    assert store.latest_attempts(job, 0)[new] == rounds[-1].attempt
    bodies = {body.name: body for body in store.bodies(job)}
    assert bodies[f"{new.generation}-1-0"] == BodyRow(f"{new.generation}-1-0", 1, 100, b"way")
    assert "1-1-0" in bodies
    (row,) = [row for row in store.jobs() if row.job == job]
    assert (row.generation, row.damage) == (new.generation, "")
    assert store.aliases(job)[-1] == old


# A new name.


def test_a_new_name_takes_along_all_that_hangs_on_the_old_one(store: Store, tmp_path: Path) -> None:
    new = store.raise_generation("j", 4)
    assert 5 <= new.generation <= 4 + LEAP
    assert_renamed(store, "j", V1, new)
    store.close()
    again = Store(tmp_path / "state", synced=False)
    assert_renamed(again, "j", V1, new)
    again.close()


def test_a_new_name_takes_every_body_along_that_leads_to_it_over_others(store: Store) -> None:
    """Of one version alone the last step would be left, which nobody new can begin with."""
    older = [BodyRow("1-1-0", 1, 100, b"way"), BodyRow("1-8-0", 8, 7, b"group"), BodyRow("1-9-8", 9, 100, b"step")]
    store.commit("j", Version(1, 9), "1" * 64, Kept(b"state 9"), {}, older, Close(attempt(V1, 2), "committed", "", {}))
    new = store.raise_generation("j", 4)
    assert new.number == 9
    renamed = [structs.replace(body, name=f"{new.generation}{body.name[1:]}") for body in older]
    assert sorted(store.bodies("j"), key=lambda body: body.name) == sorted([*older, *renamed], key=lambda b: b.name)
    newer = store.raise_generation("j", new.generation)
    names = {body.name for body in store.bodies("j")}
    assert {f"{newer.generation}-1-0", f"{newer.generation}-8-0", f"{newer.generation}-9-8"} < names
    assert len(names) == 9


def test_a_new_name_is_above_the_old_one_whatever_is_said(store: Store) -> None:
    names = [V1]
    for above in (0, 1, 10**6, 3, HIGHEST + 1, 2**53):
        names.append(store.raise_generation("j", above))
        assert names[-1].generation > names[-2].generation
    assert 10**6 < names[-1].generation < 2 * 10**6
    assert HIGHEST < store.raise_generation("j", HIGHEST).generation <= MOST_GENERATION


def test_where_there_is_no_generation_above_a_command_is_named_and_nothing_changes(store: Store) -> None:
    store._db.execute("UPDATE jobs SET generation = ?", (MOST_GENERATION,))
    with pytest.raises(
        OutOfRangeError, match="there is none above: stop this aggregator, run `fedge aggregator repair`"
    ):
        store.raise_generation("j", 0)
    assert store.last_version("j").version == V1


def test_two_stores_from_one_backup_go_on_under_different_names(tmp_path: Path) -> None:
    chances: list[Callable[[int], int]] = [lambda n: n // 2, lambda _: 0]
    found = []
    for number, chance in enumerate(chances):
        store = Store(tmp_path / str(number), synced=False, chance=chance)
        fill(store, "j")
        found.append(store.raise_generation("j", 1).generation)
        store.close()
    assert found == [2 + LEAP // 2, 2]


def test_former_names_are_known_for_the_jobs_life_and_aliases_are_those_of_the_current_version(store: Store) -> None:
    assert store.aliases("j") == ()
    names = [V1, store.raise_generation("j", 0), store.raise_generation("j", 0)]
    assert store.aliases("j") == tuple(names[:-1])
    last = names[-1]
    close = Close(store.latest_attempts("j", 1)[last], "committed", "", {})
    store.commit("j", last.following(), SHA, Kept(b"state 2"), {}, [], close)
    assert store.aliases("j") == ()
    assert store.renames("j") == dict.fromkeys(names[:-1], last)
    assert [row.outcome for row in store.attempts("j", last)] == ["abandoned", "committed"]
    now = store.raise_generation("j", 0)
    assert store.renames("j") == {names[0]: last, names[1]: last, last.following(): now}


def test_a_job_that_is_renamed_again_and_again_remembers_the_last_names(store: Store) -> None:
    names = [V1, *(store.raise_generation("j", 0) for _ in range(MOST_RENAMES + 10))]
    assert list(store.renames("j")) == names[-1 - MOST_RENAMES : -1]


def test_a_round_under_a_new_name_draws_whom_it_drew(store: Store) -> None:
    """Who is drawn hangs on the number alone."""
    before = store.attempts("j", V1)[-1].attempt
    new = store.raise_generation("j", 0)
    assert store.attempts("j", new)[-1].attempt == structs.replace(before, base=new)
    assert before.salt == draw.salt(SPEC.seed, new.number)


def test_a_job_of_another_fedge_is_renamed_too_and_waits_for_it(store: Store) -> None:
    store._db.execute("UPDATE jobs SET spec = x'7b7d', crc = crc(x'7b7d')")
    new = store.raise_generation("j", 0)
    (row,) = store.jobs()
    assert "was written by another fedge" in row.damage
    assert store.attempts("j", new)[-1].attempt.base == new


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM versions",
        "DELETE FROM jobs",
        "UPDATE versions SET number = 'x' WHERE state IS NOT NULL",
        "UPDATE jobs SET aliases = '[[1'",
        "UPDATE attempts SET round = x'00' WHERE attempt = 2",
    ],
)
def test_a_damaged_job_gets_no_new_name_and_nothing_is_half_done(store: Store, sql: str) -> None:
    store._db.execute(sql)
    before = dump(store)
    with pytest.raises(DamageError, match="job j is damaged"):
        store.raise_generation("j", 4)
    assert dump(store) == before


def dump(store: Store) -> list[object]:
    tables = ("meta", "jobs", "versions", "updates", "attempts", "bodies", "deleted")
    return [list(store._db.rows("", f"SELECT * FROM {table}")) for table in tables]


def test_an_ended_job_can_be_renamed(store: Store) -> None:
    store.end_job("j", "finished", "done")
    assert_renamed(store, "j", V1, store.raise_generation("j", 0))


# Identity.


def test_a_store_keeps_its_identity_in_its_place(tmp_path: Path) -> None:
    found = set()
    for _ in range(3):
        store = Store(tmp_path, synced=False)
        found.add(store.identity)
        assert not store.moved
        store.close()
    (identity,) = found
    assert len(identity) == 16
    assert set(identity) <= set("0123456789abcdef")


def test_identities_are_made_by_chance(tmp_path: Path) -> None:
    store = Store(tmp_path / "a", synced=False, chance=lambda n: n - 1)
    other = Store(tmp_path / "b", synced=False)
    assert store.identity == "f" * 16
    assert other.identity != store.identity
    store.close()
    other.close()


def moved_by_copy(folder: Path) -> Path:
    there = folder.with_name("copy")
    shutil.copytree(folder, there)
    return there


def moved_away_and_back(folder: Path) -> Path:
    copy = moved_by_copy(folder)
    shutil.rmtree(folder)
    copy.rename(folder)
    return folder


def replaced_in_place(folder: Path) -> Path:
    file = folder / "aggregator.sqlite"
    shutil.copy(file, folder / "copy")
    (folder / "copy").replace(file)
    return folder


@pytest.mark.parametrize("move", [moved_by_copy, moved_away_and_back, replaced_in_place])
def test_a_store_that_is_found_elsewhere_is_another_one_with_new_names_for_every_job(
    store: Store, tmp_path: Path, move: Callable[[Path], Path]
) -> None:
    fill(store, "k")
    store.end_job("k", "finished", "done")
    store.add_job("gone", SPEC, SHA, b"", {})
    store.end_job("gone", "deleted", "")
    store.raise_term(40)
    before = store.identity
    store.close()
    there = move(tmp_path / "state")
    moved = Store(there, synced=False)
    assert moved.moved
    assert moved.identity != before
    assert moved.term == 40
    names = {job: moved.last_version(job).version for job in ("j", "k")}
    for job, new in names.items():
        assert_renamed(moved, job, V1, new)
    identity = moved.identity
    moved.close()
    again = Store(there, synced=False)
    assert (again.moved, again.identity) == (False, identity)
    assert {job: again.last_version(job).version for job in ("j", "k")} == names
    again.close()


def test_a_folder_that_was_renamed_is_where_it_was(store: Store, tmp_path: Path) -> None:
    store.close()
    (tmp_path / "state").rename(tmp_path / "renamed")
    there = Store(tmp_path / "renamed", synced=False)
    assert (there.moved, there.last_version("j").version) == (False, V1)
    there.close()


@pytest.mark.parametrize("value", [None, "", "nonsense", b"\xff", 7])
@pytest.mark.parametrize("word", ["identity", "place"])
def test_a_store_that_has_lost_the_memory_of_itself_counts_as_moved(
    store: Store, tmp_path: Path, word: str, value: object
) -> None:
    before = store.identity
    store._db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, word))
    store.close()
    again = Store(tmp_path / "state", synced=False)
    assert again.moved
    assert again.identity != before
    again.close()


def test_one_damaged_job_is_no_reason_for_the_others_of_a_moved_store_to_rest(store: Store, tmp_path: Path) -> None:
    fill(store, "k")
    fill(store, "l")
    store._db.execute("UPDATE versions SET number = 'x' WHERE job = 'k' AND state IS NOT NULL")
    store.close()
    moved = Store(moved_by_copy(tmp_path / "state"), synced=False)
    assert moved.moved
    rows = {row.job: row for row in moved.jobs()}
    assert (rows["j"].damage, rows["l"].damage) == ("", "")
    for job in ("j", "l"):
        assert_renamed(moved, job, V1, moved.last_version(job).version)
    assert "job k is damaged" in rows["k"].damage
    assert rows["k"].spec is None  # and so it gives out no number under its old name
    moved.close()


class Dead(BaseException):
    """As by kill -9."""


class Trail:
    """Dies, or finds the disk full, the so-many-th time that anything is written."""

    def __init__(self) -> None:
        self.left = 10**9
        self.error: BaseException = Dead()

    def reach(self, point: str, _what: object) -> None:
        self.left -= point.startswith("store.statement.")
        if self.left < 0:
            raise self.error


@pytest.fixture
def trail(monkeypatch: pytest.MonkeyPatch) -> Trail:
    found = Trail()
    monkeypatch.setattr(failpoints, "_points", found)
    return found


@pytest.mark.parametrize("error", [Dead(), OSError(28, "No space left on device")], ids=["killed", "disk full"])
def test_a_move_that_is_broken_off_anywhere_is_made_as_a_whole_at_the_next_start(
    store: Store, tmp_path: Path, trail: Trail, error: BaseException
) -> None:
    fill(store, "k")
    store.close()
    identities = {store.identity}
    for dies_at in range(200):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        copy = moved_by_copy(tmp_path / "state")
        trail.left, trail.error = dies_at, error
        try:
            Store(copy, synced=False).close()
            broken_off = False
        except (Dead, StoreError):
            broken_off = True
        trail.left = 10**9
        again = Store(copy, synced=False)
        assert again.moved or not broken_off or dies_at > 20  # as where it was broken off behind the COMMIT
        for job in ("j", "k"):
            assert_renamed(again, job, V1, again.last_version(job).version)
            assert len(again.aliases(job)) == 1
        identities.add(again.identity)
        again.close()
        if not broken_off:
            break
    assert dies_at > 20
    assert len(identities) == dies_at + 2


@pytest.mark.parametrize("error", [Dead(), OSError(28, "No space left on device")], ids=["killed", "disk full"])
def test_a_new_name_is_there_as_a_whole_or_not_at_all(
    store: Store, tmp_path: Path, trail: Trail, error: BaseException
) -> None:
    for dies_at in range(100):
        old = store.last_version("j").version
        before = dump(store)
        trail.left, trail.error = dies_at, error
        try:
            store.raise_generation("j", 0)
            broken_off = False
        except (Dead, StoreError):
            broken_off = True
        trail.left = 10**9
        store.close()
        store.__init__(tmp_path / "state", synced=False)  # type: ignore[misc]  # the fixture closes this one
        if store.last_version("j").version == old:
            assert broken_off
            assert dump(store) == before
        if not broken_off:
            break
    assert dies_at > 10
