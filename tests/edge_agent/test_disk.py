"""The two disks, held to one contract; what only the file system has (syncs, rot, links) is in test_files.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.chunks import digest
from broker.messages import Offer, Version
from edge_agent import files
from edge_agent.disk import Disk, MemoryDisk
from edge_agent.home import ForeignHomeError, Home
from edge_agent.outbox import Outbox, forget, leftovers
from models import train
from models.chain import Chain
from models.codec import FLOAT32
from models.job import JobSpec, ModelSpec, TrainSpec
from models.nets import build

NET = build(ModelSpec(inputs=2, hidden=(), outputs=2))
CHAIN = Chain(NET.spec, JobSpec("j", NET.model))
PARAMS = CHAIN.first().model.params(NET.spec)
V0 = Version(1, 0)


@pytest.fixture(params=["files", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return files if request.param == "files" else MemoryDisk()


def test_what_is_sealed_is_read_back_and_the_last_one_counts(disk: Disk, tmp_path: Path) -> None:
    for content in (b"old", b"new", b""):
        disk.seal(tmp_path / "a", content)
        assert disk.unseal(tmp_path / "a") == content
    assert disk.exists(tmp_path / "a")


def test_what_is_not_there_is_none_and_can_be_removed(disk: Disk, tmp_path: Path) -> None:
    disk.remove(tmp_path / "a")
    assert disk.unseal(tmp_path / "a") is None
    disk.seal(tmp_path / "a", b"content")
    disk.remove(tmp_path / "a")
    assert disk.unseal(tmp_path / "a") is None
    assert not disk.exists(tmp_path / "a")


def test_what_is_written_over_is_read_back_and_so_is_what_was_sealed_before(disk: Disk, tmp_path: Path) -> None:
    disk.seal(tmp_path / "a", b"sealed")
    assert disk.overwritten(tmp_path / "a") == b"sealed"
    for content in (b"long content", b"short", b""):
        disk.overwrite(tmp_path / "a", content)
        assert disk.overwritten(tmp_path / "a") == content
    for _ in range(2):
        disk.discard(tmp_path / "a")
        assert disk.overwritten(tmp_path / "a") is None


def test_a_folder_is_forgotten_with_all_that_is_in_it_and_nothing_else(disk: Disk, tmp_path: Path) -> None:
    for name in ("jobs/b/update.bin", "jobs/a/settled.bin", "jobs/a/x/y", "jobs/ab/settled.bin"):
        disk.make_folder((tmp_path / name).parent)
        disk.seal(tmp_path / name, b"content")
    disk.seal(tmp_path / "jobs" / "file", b"no folder")
    assert disk.folders(tmp_path / "jobs") == ["a", "ab", "b"]
    for _ in range(2):
        disk.forget(tmp_path / "jobs" / "a")
    assert disk.folders(tmp_path / "jobs") == ["ab", "b"]
    assert disk.unseal(tmp_path / "jobs" / "ab" / "settled.bin") == b"content"
    assert disk.folders(tmp_path / "nowhere") == []


def test_a_device_starts_once_more_under_its_incarnation_and_no_other_device_does(disk: Disk, tmp_path: Path) -> None:
    def start(device: str) -> Home:
        home = Home(tmp_path / "home", device, disk=None if disk is files else disk)
        home.close()
        return home

    first, second = start("device-1"), start("device-1")
    assert (first.boot, second.boot) == (1, 2)
    assert first.incarnation == second.incarnation
    with pytest.raises(ForeignHomeError, match="belongs to device device-1, and this agent is device-2"):
        start("device-2")


def test_an_outbox_is_found_as_it_was_left(disk: Disk, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"

    def opened() -> Outbox:
        return Outbox(jobs / "j-1", NET.spec, disk=disk)

    state = train.begin(PARAMS, train.seed_for(0, 0, "device-1"))
    opened().checkpoint(V0, 7, state, 0.5)
    found = opened().resume(V0, 7, TrainSpec(), 10)
    assert found is not None
    assert found[1] == 0.5
    body = CHAIN.coding(0, FLOAT32).encode(PARAMS, np.random.default_rng(0))
    offer = Offer("j-1", "device-1", V0, 10, digest(body), len(body))
    opened().put(offer, body, FLOAT32)
    assert opened().resume(V0, 7, TrainSpec(), 10) is None, "the update takes the checkpoint's place"
    assert opened().body() == body
    assert opened().offer == offer
    assert leftovers(jobs, (), disk) == ["j-1"]
    last = opened()
    last.settle(V0)
    last.flush()
    assert (opened().offer, opened().settled) == (None, V0)
    forget(jobs / "j-1", disk)
    assert leftovers(jobs, (), disk) == []


def test_a_memory_disk_leaves_nothing_in_the_file_system(tmp_path: Path) -> None:
    disk = MemoryDisk()
    outbox = Outbox(tmp_path / "jobs" / "j", NET.spec, disk=disk)
    outbox.settle(V0)
    outbox.flush()
    Home(tmp_path / "home", "device-1", disk=disk).close()
    assert list(tmp_path.iterdir()) == []
