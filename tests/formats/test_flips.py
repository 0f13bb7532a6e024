"""One byte of a fixture is another: its reader gives its one kind of error, or what was written, and nothing else."""

from __future__ import annotations

import operator
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from aggregator.backup import BackupError, restore
from aggregator.learner import Learner, LearnerError
from aggregator.store import Store, StoreError
from edge_agent import files
from edge_agent import outbox as outbox_module
from edge_agent.card import SlotError
from edge_agent.home import ForeignHomeError, Home
from edge_agent.outbox import SLOTS, Outbox
from edge_agent.slot import open_slot
from models.nets.table import build
from models.training.checkpoint import CheckpointError
from models.training.checkpoint import from_bytes as training_from_bytes
from runtime import formats
from runtime.faults import Marks
from tests.formats.fleet import JOBS, KERNEL, MODEL, PLAIN, ROW_BYTES, SOFTWARE, SPECS, rows
from tests.formats.make import resumed, unpack

NET = build(MODEL)


class Reader(NamedTuple):
    """part: of a set. file: in that, a pattern. read: gives what is in it, to be compared; None for nothing."""

    part: str
    file: str
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...] = ()
    n: int = 100
    """Bytes that are tried, all where there are fewer."""
    is_old: Callable[[object, object], bool] = operator.eq


def of_store(folder: Path) -> object:
    store = Store(folder, synced=False, row_bytes=ROW_BYTES, chance=lambda _: 0)
    try:
        found: set[tuple[str, object]] = set()
        known = {row.job for row in store.jobs()}
        for spec in SPECS:
            job = JOBS[spec.name]
            if job not in known:
                continue
            last = store.last_version(job)
            learner = Learner(
                *(NET, spec, last.state, last.version.number, last.sha256), steps=last.steps, record=last.record
            )
            found |= {(job, learner.now.sha256), *((job, one.body) for one in store.updates(job))}
        return found
    except LearnerError as error:
        raise StoreError(str(error)) from error
    finally:
        store.close()


def is_in(found: object, old: object) -> bool:
    """Whether nothing is in a store that was not: it was copied, and what has rotted on the way has not yet come."""
    return isinstance(found, set) and isinstance(old, set) and found <= old


def of_backup(folder: Path) -> object:
    with (folder / "backup.sqlite").open("rb") as source:
        jobs = restore(source, "b", folder / "restored", lambda _done, _all: None).jobs
    return jobs, of_store(folder / "restored")


def of_update(keep: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        for name in SLOTS:
            if name != keep:
                (folder / name).unlink()
        outbox = Outbox(folder, NET.spec)
        return outbox.offer and (outbox.offer, outbox.settled, outbox.body())

    return read


def of_settled(folder: Path) -> object:
    return Outbox(folder, NET.spec).settled


def of_training(folder: Path) -> object:
    return resumed(folder, PLAIN)


def of_home(folder: Path) -> object:
    home = Home(folder, "d0", draw=lambda: "00000000")
    home.close()
    return None if home.incarnation == "00000000" else (home.incarnation, home.boot)


def of_slot(folder: Path) -> object:
    slot = open_slot(folder)
    assert slot.card is not None
    return slot.card.release, slot.card.model, slot.predict(rows("d2").X[:2]).tolist()


def of_marks(folder: Path) -> object:
    marks = Marks(folder, SOFTWARE, KERNEL)
    if not marks.has_deaths("sketched-00000003", "train"):
        return None
    marks.enter("sketched-00000003", "train", "training")
    return Marks(folder, SOFTWARE, KERNEL).reason("sketched-00000003").split(" while")[0]


READERS = {
    "store": Reader("aggregator", "aggregator.sqlite", of_store, (StoreError,), is_old=is_in),
    "bodies": Reader("aggregator", "updates/plain-00000004.bin", of_store, (StoreError,), 50, is_in),
    "backup": Reader(".", "backup.sqlite", of_backup, (BackupError,), 40),
    "update": Reader("d0/jobs/plain-00000004", "update.bin", of_update("update.bin")),
    "update2": Reader("d0/jobs/plain-00000004", "update2.bin", of_update("update2.bin")),
    "settled": Reader("d2/jobs/plain-00000004", "settled.bin", of_settled),
    "checkpoint": Reader("d2/jobs/plain-00000004", "checkpoint.bin", of_training),
    "device": Reader("d0", "device", of_home, (ForeignHomeError,)),
    "boot": Reader("d0", "boot", of_home),
    "npz": Reader("d2/models/sketched", "versions/*/model.npz", of_slot, (SlotError,)),
    "card": Reader("d2/models/sketched", "versions/*/model.json", of_slot, (SlotError,), 250),
    "mark": Reader("d2/entered", "*", of_marks),
}
UNSEALED = {"card", "mark"}
"""What had no checksum before there were numbers: there a flip may give another value, but no other error."""


def flipped(name: str, of: str, folder: Path, *, is_strict: bool = True) -> int:
    """Change bytes of a fixture one by one; return how often its reader gave an error, or nothing."""
    reader = READERS[of]
    unpack(name, folder / "whole")
    whole, copy = folder / "whole" / reader.part, folder / "copy"
    file = next(whole.glob(reader.file)).relative_to(whole)
    shutil.copytree(whole, copy, symlinks=True)
    old = reader.read(copy)
    assert old is not None
    content = (whole / file).read_bytes()
    rng = random.Random(f"{name}/{of}")  # noqa: S311 -- no secret
    n_refused = 0
    for at in rng.sample(range(len(content)), min(reader.n, len(content))):
        shutil.rmtree(copy)
        shutil.copytree(whole, copy, symlinks=True)
        changed = bytearray(content)
        changed[at] ^= rng.choice((1, 2, 4, 8, 16, 32, 64, 128, 255, rng.randrange(1, 256)))
        (copy / file).write_bytes(changed)
        try:
            found = reader.read(copy)
        except reader.errors:
            n_refused += 1
            continue
        is_old = found is None or reader.is_old(found, old)
        assert is_old or not is_strict, f"{file}, byte {at}: {content[at]} → {changed[at]}"
        n_refused += found != old
    return n_refused


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize("of", READERS)
@pytest.mark.parametrize("name", ["numbered", "unnumbered"])
def test_one_byte_that_is_another_gives_the_one_error_or_the_old_value(name: str, of: str, tmp_path: Path) -> None:
    assert flipped(name, of, tmp_path, is_strict=name != "unnumbered" or of not in UNSEALED) > 0


def test_a_card_that_is_read_without_its_checksum_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "is_whole", lambda _: True)
    with pytest.raises(AssertionError, match=r"model\.json, byte"):
        flipped("numbered", "card", tmp_path)


def test_a_reader_that_lets_another_error_through_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_unsealed", lambda content: content[4:])
    monkeypatch.setattr(files, "UNREADABLE", (UnicodeDecodeError,))
    with pytest.raises(ValueError, match=r"(?i)msgpack|expected|invalid|truncated|checkpoint"):
        flipped("numbered", "checkpoint", tmp_path)


def test_every_byte_of_a_checkpoint_counts() -> None:
    """The training in it has a checksum of its own, whoever holds it."""
    outbox = Outbox(Path(__file__).parent / "numbered" / "d2" / "jobs" / "plain-00000004", NET.spec)
    found = outbox._read("checkpoint.bin", outbox_module._Checkpoint)
    assert found is not None
    for at in range(len(found.training)):
        changed = bytearray(found.training)
        changed[at] ^= 1 << at % 8
        with pytest.raises(CheckpointError):
            training_from_bytes(bytes(changed), NET.spec)
