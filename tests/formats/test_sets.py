"""Every set of fixtures opens with what was written into it, and goes on from there."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator import backup as backups
from aggregator import record, schema
from aggregator.backup import backup, restore
from aggregator.store import Store
from broker.messages import Offer
from broker.transport import Packet
from edge_agent import files, home, outbox, slot, trainer
from edge_agent.home import Home
from edge_agent.outbox import Outbox
from edge_agent.slot import Slot, open_slot
from models.lattice import initial
from models.nets.table import build
from models.training import checkpoint
from runtime import faults
from tests.formats.fleet import DEVICES, JOBS, MODEL, ROW_BYTES, SPECS, WIRE, Fleet, marks_of, rows
from tests.formats.make import DEAD, HERE, SERVED, Expected, offered, resumed, unpack

SETS = sorted(path.name for path in HERE.iterdir() if (path / "expected.json").is_file())


def how_each_is(expected: Expected) -> dict[str, tuple[str, str]]:
    """Return what became of each job, and what is wrong with it."""
    return {"gone-00000002": ("stopped", ""), **{JOBS[name]: ("", "") for name in expected.jobs}}


@pytest.fixture(params=SETS)
def laid_out(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Expected]:
    return tmp_path / "fleet", unpack(request.param, tmp_path / "fleet")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


def bodies_of(store: Store, job: str) -> dict[str, str]:
    return {one.device: hashlib.sha256(one.body).hexdigest() for one in store.updates(job)}


def test_a_set_has_every_strategy_that_keeps_a_state(tmp_path: Path) -> None:
    assert unpack("numbered", tmp_path / "numbered").jobs.keys() == JOBS.keys()
    assert {spec.aggregate.strategy for spec in SPECS} == {"fedavg", "fedadam"}  # the median keeps what fedavg does


def test_the_sets_are_of_before_there_were_numbers_and_of_each_since_and_small() -> None:
    assert SETS == ["events", "numbered", "unnumbered", "versions"]
    files = [path for name in SETS for path in (HERE / name).rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 230_000


def test_of_a_replaced_job_its_last_state_is_there_where_a_fedge_has_kept_it(laid_out: tuple[Path, Expected]) -> None:
    folder, _ = laid_out
    store = Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES)
    found = [(past.job, past.last, [*store.states.sizes(past.job)]) for past in store.states.past()]
    first = store.states.get("gone-00000001", 0)
    store.close()
    if "gone" not in str(found):  # of before schema 5
        assert (found, first) == ([], None)
        return
    assert found == [("gone-00000001", 0, [0])]
    assert first is not None
    assert first.sha256 == initial(build(MODEL).spec, 8).sha256()


def test_the_store_holds_what_was_written(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    store = Store(folder / "aggregator", synced=False, row_bytes=ROW_BYTES)
    try:
        rows_ = {row.job: row for row in store.jobs()}
        assert {job: (row.ended, row.damage) for job, row in rows_.items()} == how_each_is(expected)
        assert all(rows_[JOBS[spec.name]].spec == spec for spec in SPECS if spec.name in expected.jobs)
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

    monkeypatch.setattr(trainer, "reach", reach)
    fleet = Fleet(folder)
    ear = fleet.broker.transport("ear")
    ear.subscribe(WIRE.filter_for("offer"))
    ear.open()
    fleet.go_on(lambda: fleet.runs().keys() == expected.jobs.keys())
    fleet.go_on(lambda: all(run.version.number > 2 for run in fleet.runs().values()))
    for name, held in expected.jobs.items():
        assert fleet.store.versions(JOBS[name])[3][1] == held.following
        if held.checkpoint is not None:
            epoch, batch, _ = held.checkpoint
            assert (JOBS[name], 2, epoch, batch) in begun
    fleet.close()
    heard = [WIRE.unpack(event) for event in iter(ear.take, None) if isinstance(event, Packet)]
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
    assert {job.job: (job.ended, job.damage) for job in made.jobs} == how_each_is(expected)
    fleet = Fleet(folder)
    fleet.go_on(lambda: fleet.runs().keys() == expected.jobs.keys())
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
    for spec in SPECS:
        if spec.name not in expected.jobs:
            continue
        held = expected.jobs[spec.name]
        assert offered(folder, spec) == held.offers
        for device, (base, digest) in held.offers.items():
            kept = Outbox(folder / device / "jobs" / JOBS[spec.name], build(MODEL).spec, device=device)
            assert hashlib.sha256(kept.body()).hexdigest().startswith(digest)
            assert kept.settled is not None
            assert kept.settled.following() == base
        assert resumed(folder / "d2" / "jobs" / JOBS[spec.name], spec) == held.checkpoint
    done = Outbox(folder / "d2" / "jobs" / JOBS["plain"], build(MODEL).spec)
    assert (done.offer, done.settled and done.settled.number, done.is_flushed) == (None, 1, True)


def test_a_home_keeps_its_incarnation_and_counts_on(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    for device, boot in expected.boots.items():
        held = Home(folder / device, device)
        assert (held.incarnation, held.boot) == ("5eed0000", boot + 1)
        held.close()


def test_a_slot_is_served_as_it_was_and_takes_the_next_model(laid_out: tuple[Path, Expected]) -> None:
    folder, expected = laid_out
    path = folder / "d2" / "models" / "sketched"
    served = open_slot(path)
    assert served.card is not None
    assert (served.card.release, served.card.model) == (SERVED, MODEL)
    np.testing.assert_allclose(served.predict(rows("d2").X[:2]), expected.predicted, rtol=1e-5)
    assert {name for name in served.card.files if (path / name).is_file()} == {"model.npz", "model.onnx"}
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


def numbers_in(folder: Path) -> dict[str, int]:
    """Return the numbers that the files of a set say."""
    file = folder / "aggregator" / "aggregator.sqlite"
    db = sqlite3.connect(file)
    (schema_,) = db.execute("PRAGMA user_version").fetchone()
    blobs = db.execute("SELECT record FROM versions WHERE record IS NOT NULL").fetchall()
    db.close()
    found = {"schema": schema_, "record": max(msgspec.msgpack.decode(blob[4:])[0] for (blob,) in blobs)}
    jobs = folder / "d2" / "jobs"
    for name, path in (
        ("update", folder / "d0" / "jobs" / JOBS["plain"] / "update.bin"),
        ("settled", jobs / JOBS["plain"] / "settled.bin"),
        ("checkpoint", jobs / JOBS["plain"] / "checkpoint.bin"),
    ):
        tree = msgspec.msgpack.decode(files.overwritten(path) or b"")
        found[name] = tree.get("format", 0)
        if name == "checkpoint":
            found["training"] = checkpoint.format_of(tree["training"])
    for name, path in (
        ("card", folder / "d2" / "models" / "sketched" / "model.json"),
        ("mark", folder / "d2" / "entered" / f"{JOBS['sketched']}.train"),
    ):
        found[name] = msgspec.json.decode(path.read_bytes()).get("format", 0)
    found["home"] = msgspec.json.decode((folder / "d0" / "device").read_bytes()[4:]).get("format", 0)
    return found


def test_there_is_a_set_of_every_number_that_is_written_now(tmp_path: Path) -> None:
    """Who raises a number commits a set of what is written under it: `python -m tests.formats.make NAME`."""
    for name in SETS:
        unpack(name, tmp_path / name)
    found = [numbers_in(tmp_path / name) for name in SETS]
    written = {
        "schema": schema.SCHEMA_VERSION, "record": record._FORMAT, "update": outbox.FORMAT, "settled": outbox.FORMAT,
        "checkpoint": outbox.FORMAT, "training": checkpoint.FORMAT, "card": slot.FORMAT, "mark": faults.FORMAT,
        "home": home.FORMAT,
    }  # fmt: skip
    for what, number in written.items():
        assert number in {numbers[what] for numbers in found}, what
    assert backups.FORMAT == 1  # of a later one the number stands in its seal
