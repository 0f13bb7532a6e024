"""A file whose number is raised is refused by name, and nothing of it is changed on disk."""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregator import backup as backups
from aggregator.backup import BackupError, backup, restore
from aggregator.store import SCHEMA_VERSION, Store, StoreError
from edge_agent.card import SlotError
from edge_agent.home import ForeignHomeError, Home
from edge_agent.outbox import SLOTS, Outbox
from edge_agent.slot import Slot, open_slot
from edge_agent.slots import Slots
from models.lattice import initial
from models.nets.table import build
from models.training import checkpoint
from runtime import formats
from runtime.formats import NewerFormatError
from tests.formats.fleet import MODEL, Fleet, marks_of
from tests.formats.make import SERVED, unpack

SPEC = build(MODEL).spec
JOB, OTHER = "plain-00000004", "sketched-00000003"


@pytest.fixture(params=["numbered", "unnumbered", "versions"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)
    unpack(request.param, tmp_path / "fleet")
    return tmp_path / "fleet"


def on_disk(folder: Path) -> Mapping[str, bytes | str]:
    """Everything in a folder but locks."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and path.name != "lock"
    }


def resealed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what is in a file of an outbox, or a mark of a home, and put its checksum right."""
    raw = path.read_bytes()
    if path.name in SLOTS:
        end = 12 + int.from_bytes(raw[4:12], "little")
        tree = msgspec.msgpack.decode(raw[12:end])
        change(tree)
        packed = msgspec.msgpack.encode(tree)
        framed = len(packed).to_bytes(8, "little") + packed
    else:
        form = msgspec.json if path.name == "device" else msgspec.msgpack
        tree = form.decode(raw[4:])
        change(tree)
        framed = form.encode(tree)
    path.write_bytes(zlib.crc32(framed).to_bytes(4, "little") + framed)


def restamped(path: Path, number: int) -> None:
    tree = msgspec.json.decode(path.read_bytes())
    path.write_bytes(formats.stamped(msgspec.json.encode(tree | {"format": number, "checksum": formats.ZEROS})))


def raised(tree: dict[str, Any]) -> None:
    tree["format"] = tree.get("format", 1) + 1


def as_before(tree: dict[str, Any]) -> None:
    del tree["terms"]
    tree.pop("format", None)


def with_raised_training(tree: dict[str, Any]) -> None:
    content = checkpoint.MAGIC + b"%d" % (checkpoint.NEWEST + 1) + tree["training"][8:-4]
    tree["training"] = content + zlib.crc32(content).to_bytes(4, "little")


# The server.


NEWER = f"schema {SCHEMA_VERSION + 1}, where this one reads 1 to {SCHEMA_VERSION}"


def raise_schema(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_store(folder: Path, journal: str) -> None:
    raise_schema(folder / "aggregator" / "aggregator.sqlite")
    db = sqlite3.connect(folder / "aggregator" / "aggregator.sqlite")
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.close()
    before = on_disk(folder / "aggregator")
    with pytest.raises(StoreError, match=rf"newer fedge \({NEWER}\): upgrade this one"):
        Store(folder / "aggregator", synced=False)
    assert on_disk(folder / "aggregator") == before


def states(file: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(file)
    found = db.execute("SELECT job, number, state, record FROM versions WHERE job = ? ORDER BY number", (JOB,))
    rows = found.fetchall()
    db.close()
    return rows


def test_a_state_of_one_job_has_that_job_rest_and_the_others_go_on(folder: Path) -> None:
    file = folder / "aggregator" / "aggregator.sqlite"
    db = sqlite3.connect(file)
    for rowid, record in db.execute("SELECT rowid, record FROM versions WHERE record IS NOT NULL").fetchall():
        tree = msgspec.msgpack.decode(record[4:])
        tree[0] += 1
        tree.append("what a newer fedge has beside")
        packed = msgspec.msgpack.encode(tree)
        sealed = zlib.crc32(packed).to_bytes(4, "little") + packed
        db.execute("UPDATE versions SET record = ? WHERE rowid = ? AND job = ?", (sealed, rowid, JOB))
    db.commit()
    db.close()
    before = states(file)
    assert len(before) == 3
    fleet = Fleet(folder)
    fleet.go_on(lambda: OTHER in fleet.aggregator.runs)
    fleet.go_on(lambda: fleet.aggregator.runs[OTHER].version.number == 3)
    why = fleet.aggregator.jobs.resting[JOB].why
    assert re.search(
        f"job {JOB} is left as it is .*: its server state has format 3, of a newer fedge, where this one reads 2: "
        "upgrade this one$",
        why,
    )
    assert "backup" not in why
    fleet.close()
    assert states(file) == before


def again_sealed(file: Path) -> None:
    content = file.read_bytes()[: -len(backups.SEAL) - 32]
    file.write_bytes(content)
    raise_schema(file)
    content = file.read_bytes()
    file.write_bytes(content + backups.SEAL + hashlib.sha256(content).digest())


def with_another_seal(file: Path) -> None:
    content = file.read_bytes()[: -len(backups.SEAL) - 32]
    file.write_bytes(content + b"\nfedge backup 2, BLAKE3 of every page:\n" + bytes(100))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            again_sealed,
            rf"backup\.sqlite was written by a newer fedge \({NEWER}\): upgrade",
        ),
        (
            with_another_seal,
            r"backup\.sqlite: the backup has format 2, of a newer fedge, where this one reads 1: upgrade",
        ),
    ],
)
def test_a_backup(folder: Path, change: Callable[[Path], None], why: str) -> None:
    change(folder / "backup.sqlite")
    before = on_disk(folder)
    with (folder / "backup.sqlite").open("rb") as source, pytest.raises(BackupError, match=why):
        restore(source, "backup.sqlite", folder / "aggregator", lambda _done, _all: None)
    assert on_disk(folder) == before
    with pytest.raises(BackupError, match=r"of a newer fedge.*, or choose another name"):
        backup(folder / "aggregator", folder / "backup.sqlite", lambda _done, _all: None)
    assert on_disk(folder) == before


# A device.


def test_a_home(folder: Path) -> None:
    resealed(folder / "d0" / "device", raised)
    before = on_disk(folder / "d0")
    with pytest.raises(ForeignHomeError, match="d0 has format 2, of a newer fedge, where this one reads 1: upgrade"):
        Home(folder / "d0", "d0")
    assert on_disk(folder / "d0") == before


OUTBOX = [
    ("d0", "update.bin", raised, "update.bin has format 2"),
    ("d0", "update2.bin", raised, "update2.bin has format 2"),
    ("d2", "settled.bin", raised, "settled.bin has format 2"),
    ("d2", "checkpoint.bin", raised, "checkpoint.bin has format 2"),
    ("d2", "checkpoint.bin", with_raised_training, "the training in .*checkpoint.bin has format 3"),
]


@pytest.mark.parametrize(("device", "name", "change", "why"), OUTBOX)
def test_an_outbox_puts_its_job_off_and_the_other_goes_on(
    folder: Path, device: str, name: str, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    jobs = folder / device / "jobs"
    resealed(jobs / JOB / name, change)
    before = on_disk(jobs / JOB)
    why += ", of a newer fedge, where this one reads 1( to 2)?: upgrade this agent, or remove the file"
    with pytest.raises(NewerFormatError, match=why):
        Outbox(jobs / JOB, SPEC)
    fleet = Fleet(folder)
    agent = fleet.agents[device]
    fleet.go_on(lambda: JOB in agent.jobs.unready)
    assert re.search(why, agent.jobs.unready[JOB])
    assert not agent.jobs.unready[JOB].startswith("at rest"), "it is no fault of the job's code"
    fleet.go_on(lambda: fleet.aggregator.runs[OTHER].version.number == 3)
    assert JOB not in agent.jobs.works
    fleet.close()
    assert on_disk(jobs / JOB) == before


def test_an_update_in_the_code_of_before_is_refused_by_its_number(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in SLOTS:
        resealed(folder / "d0" / "jobs" / JOB / name, as_before)
    assert Outbox(folder / "d0" / "jobs" / JOB, SPEC).offer is None
    assert "update.bin has format 0, of an older fedge, where this one reads 1" in caplog.text


def test_a_slot_is_neither_served_nor_filled(folder: Path) -> None:
    path = folder / "d2" / "models" / "sketched"
    restamped(path / "model.json", 5)
    before = on_disk(path)
    why = (
        "model.json has format 5, of a newer fedge, where this one reads 1 to 4: upgrade this agent, or remove the slot"
    )
    with pytest.raises(SlotError, match=why):
        open_slot(path)
    slot = Slot(path)
    assert slot.card is None
    assert re.search(why, slot.install(SERVED, MODEL, initial(SPEC, 8).params(SPEC)) or "")
    slots = Slots(folder / "d2", ())
    assert slots.deployed(SERVED.job, "sketched") is None
    slots.close()
    assert on_disk(path) == before


def test_a_mark_counts_no_more_than_one_of_another_software(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path = folder / "d2" / "entered" / f"{OTHER}.train"
    restamped(path, 3)
    before = path.read_bytes()
    marks = marks_of(folder / "d2")
    assert not marks.has_deaths(OTHER, "train")
    assert "has format 3, of a newer fedge, where this one reads 1 to 2: upgrade this one" in caplog.text
    marks.leave(OTHER)
    assert path.read_bytes() == before
