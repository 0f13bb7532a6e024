"""Every set of fixtures opens with what was written into it, and goes on from there."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.backup import backup, restore
from aggregator.store import Store
from broker import topics
from broker.messages import Offer
from broker.transport import Packet
from edge_agent import work
from edge_agent.home import Home
from edge_agent.outbox import Outbox
from edge_agent.slot import Slot, open_slot
from models.lattice import initial
from models.nets.table import build
from tests.formats.fleet import DEVICES, MODEL, NAME, PLAIN, ROW_BYTES, SKETCHED, Fleet, marks_of, rows
from tests.formats.make import DEAD, HERE, SERVED, Expected, offered, resumed, unpack

SETS = sorted(path.name for path in HERE.iterdir() if (path / "expected.json").is_file())
JOBS = {"sketched": "sketched-00000003", "plain": "plain-00000004"}


@pytest.fixture(params=SETS)
def laid_out(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Expected]:
    return tmp_path / "fleet", unpack(request.param, tmp_path / "fleet")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


def bodies_of(store: Store, job: str) -> dict[str, str]:
    return {one.device: hashlib.sha256(one.body).hexdigest() for one in store.updates(job)}


def test_the_sets_are_of_before_there_were_numbers_and_of_now_and_small() -> None:
    assert SETS == ["numbered", "unnumbered"]
    files = [path for name in SETS for path in (HERE / name).rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 100_000


def test_the_store_holds_what_was_written(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    store = Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES)
    try:
        rows_ = {row.job: row for row in store.jobs()}
        assert {job: (row.ended, row.damage) for job, row in rows_.items()} == {
            "gone-00000002": ("stopped", ""), JOBS["plain"]: ("", ""), JOBS["sketched"]: ("", "")
        }  # fmt: skip
        assert (rows_[JOBS["sketched"]].spec, rows_[JOBS["plain"]].spec) == (SKETCHED, PLAIN)
        assert store.deleted(9) == ["gone-00000001"]
        for name, held in expected.jobs.items():
            last = store.last_version(JOBS[name])
            assert (last.version.number, last.sha256) == (held.version.number, held.sha256)
            assert bodies_of(store, JOBS[name]) == held.updates
            attempt, is_open = store.last_attempt(JOBS[name], last.version) or (None, False)
            assert is_open
            assert attempt is not None
            assert attempt.cohort == DEVICES
    finally:
        store.close()
    assert (folder / "aggregator" / "updates" / f"{JOBS['plain']}.bin").stat().st_size >= 2 * 4 * 114


def test_the_fleet_goes_on_and_makes_the_version_that_it_would_have_made(
    laid_out: tuple[Path, Expected], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = laid_out
    begun: list[tuple[str, int, int, int]] = []

    def reach(point: str, what: Any = None) -> None:
        if point == "training.begin":
            job, base, epoch, batch = what
            begun.append((job, base.number, epoch, batch))

    monkeypatch.setattr(work, "reach", reach)
    fleet = Fleet(folder)
    ear = fleet.broker.transport("ear")
    ear.subscribe(topics.filter_for(NAME, "offer"))
    ear.open()
    fleet.go_on(lambda: fleet.runs().keys() == JOBS.keys())
    fleet.go_on(lambda: all(run.version.number > 2 for run in fleet.runs().values()))
    for name, held in expected.jobs.items():
        assert fleet.store.versions(JOBS[name])[3][1] == held.following
        if held.checkpoint is not None:
            epoch, batch, _ = held.checkpoint
            assert (JOBS[name], 2, epoch, batch) in begun
    fleet.close()
    heard = [topics.unpack(event, NAME) for event in iter(ear.take, None) if isinstance(event, Packet)]
    said = {(one.job, one.device, one.digest) for one in heard if isinstance(one, Offer)}
    for name, held in expected.jobs.items():
        kept = {(JOBS[name], device, digest) for device, (base, digest) in held.offers.items() if base.number == 2}
        assert kept
        assert kept <= said
        trained = {device for job, device, _ in said if job == JOBS[name]} - {device for _, device, _ in kept}
        assert trained == {"d2", "d3"}


def test_a_backup_is_restored_and_the_fleet_goes_on_from_it(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    for path in [*(folder / "aggregator" / "updates").iterdir(), folder / "aggregator" / "aggregator.sqlite"]:
        path.unlink()
    with (folder / "backup.sqlite").open("rb") as source:
        made = restore(source, "backup.sqlite", folder / "aggregator", lambda _done, _all: None)
    assert {job.job: (job.ended, job.damage) for job in made.jobs} == {
        "gone-00000002": ("stopped", ""), JOBS["plain"]: ("", ""), JOBS["sketched"]: ("", "")
    }  # fmt: skip
    fleet = Fleet(folder)
    fleet.go_on(lambda: fleet.runs().keys() == JOBS.keys())
    for name, held in expected.jobs.items():
        assert bodies_of(fleet.store, JOBS[name]) == held.updates
    fleet.go_on(lambda: all(run.version.number > 2 for run in fleet.runs().values()))
    for name, held in expected.jobs.items():
        assert fleet.store.versions(JOBS[name])[3][1] == held.following
    fleet.close()
    backup(folder / "aggregator", folder / "backup.sqlite", lambda _done, _all: None)  # in the place of the old one


def test_a_device_finds_its_updates_what_it_is_done_with_and_where_training_stands(
    laid_out: tuple[Path, Expected],
) -> None:
    folder, expected = laid_out
    for spec in (SKETCHED, PLAIN):
        held = expected.jobs[spec.name]
        assert offered(folder, spec) == held.offers
        for device, (base, digest) in held.offers.items():
            outbox = Outbox(folder / device / "jobs" / JOBS[spec.name], build(MODEL).spec, device=device)
            assert hashlib.sha256(outbox.body()).hexdigest().startswith(digest)
            assert outbox.settled is not None
            assert outbox.settled.following() == base
        assert resumed(folder / "d2" / "jobs" / JOBS[spec.name], spec) == held.checkpoint
    done = Outbox(folder / "d2" / "jobs" / JOBS["plain"], build(MODEL).spec)
    assert (done.offer, done.settled and done.settled.number, done.is_flushed) == (None, 1, True)


def test_a_home_keeps_its_incarnation_and_counts_on(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    for device, boot in expected.boots.items():
        home = Home(folder / device, device)
        assert (home.incarnation, home.boot) == ("5eed0000", boot + 1)
        home.close()


def test_a_slot_is_served_as_it_was_and_takes_the_next_model(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    path = folder / "d2" / "models" / "sketched"
    slot = open_slot(path)
    assert slot.card is not None
    assert (slot.card.release, slot.card.model) == (SERVED, MODEL)
    np.testing.assert_allclose(slot.predict(rows("d2").X[:2]), expected.predicted, rtol=1e-5)
    assert {name for name in slot.card.files if (path / name).is_file()} == {"model.npz", "model.onnx"}
    following = initial(build(MODEL).spec, 8).params(build(MODEL).spec)
    assert Slot(path).install(SERVED, MODEL, following) is None
    np.testing.assert_array_equal(open_slot(path).predict(rows("d2").X), build(MODEL).predict(following, rows("d2").X))


def test_one_death_more_under_a_mark_is_the_third(
    laid_out: tuple[Path, Expected], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = laid_out
    caplog.set_level(logging.WARNING)
    for marked in (folder / "aggregator", folder / "d2"):
        marks = marks_of(marked)
        assert DEAD == 2
        assert not marks.reason(JOBS["sketched"])
        assert marks.has_deaths(JOBS["sketched"], "train")
        marks.enter(JOBS["sketched"], "train", "training")
        assert "3 processes running have died while training" in marks_of(marked).reason(JOBS["sketched"])
    assert not caplog.records
