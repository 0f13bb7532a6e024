"""A device is the same on a disk and on none, but for its next start; the file system is in test_files.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.chunks import digest
from broker.messages import Offer, Version
from edge_agent import files
from edge_agent.disk import Disk, NoDisk, below
from edge_agent.home import Home
from edge_agent.outbox import Outbox, Probed, forget, leftovers
from models.chain import Chain
from models.codec import FLOAT32
from models.job import JobSpec, ModelSpec, TrainSpec
from models.nets.table import build
from models.training import train

NET = build(ModelSpec(inputs=2, hidden=(), outputs=2))
CHAIN = Chain(NET.spec, JobSpec("j", NET.model))
PARAMS = CHAIN.first().model.params(NET.spec)
V0 = Version(1, 0)


@pytest.fixture(params=["files", "none"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return files if request.param == "files" else NoDisk()


def offer(base: Version) -> tuple[Offer, bytes]:
    body = CHAIN.coding(base.number, FLOAT32).encode(PARAMS, np.random.default_rng(0))
    return Offer("j-1", "device-1", base, 10, digest(body), len(body)), body


def test_an_outbox_holds_its_update_while_it_is_open(disk: Disk, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "jobs" / "j-1", NET.spec, job="j-1", device="device-1", disk=disk)
    for number in range(3):
        base = Version(1, number)
        mine, body = offer(base)
        outbox.checkpoint(base, 7, train.begin(PARAMS, train.seed_for(0, number, "device-1")), 0.5)
        outbox.put(mine, body, FLOAT32, Probed(base, 0.25))
        assert (outbox.offer, outbox.body(), outbox.trained) == (mine, body, base)
        outbox.settle(base)
        outbox.flush()
        assert (outbox.offer, outbox.body(), outbox.trained) == (None, b"", base)
        assert outbox.probed == Probed(base, 0.25)
        assert outbox.is_flushed


def test_a_home_is_that_of_its_device(disk: Disk, tmp_path: Path) -> None:
    home = Home(tmp_path, "device-1", nonce="n", draw=lambda: "0123abcd", disk=None if disk is files else disk)
    home.close()
    assert (home.device, home.nonce, home.incarnation, home.boot) == ("device-1", "n", "0123abcd", 1)


def test_folders_are_listed_and_forgotten_with_all_that_is_in_them(tmp_path: Path) -> None:
    for name in ("jobs/b/update.bin", "jobs/a/settled.bin", "jobs/a/x/y", "jobs/ab/settled.bin"):
        files.make_folder((tmp_path / name).parent)
        files.seal(tmp_path / name, b"content")
    files.seal(tmp_path / "jobs" / "file", b"no folder")
    assert leftovers(tmp_path / "jobs", {"b"}) == ["a", "ab"]
    for _ in range(2):
        forget(tmp_path / "jobs" / "a")
    assert files.folders(tmp_path / "jobs") == ["ab", "b"]
    assert files.unseal(tmp_path / "jobs" / "ab" / "settled.bin") == b"content"
    assert files.folders(tmp_path / "nowhere") == []


def test_a_device_without_a_disk_leaves_nothing_and_starts_as_new(tmp_path: Path) -> None:
    disk = NoDisk()
    for _ in range(2):
        outbox = Outbox(tmp_path / "jobs" / "j-1", NET.spec, disk=disk)
        assert (outbox.offer, outbox.settled) == (None, None)
        mine, body = offer(V0)
        outbox.checkpoint(V0, 7, train.begin(PARAMS, train.seed_for(0, 0, "device-1")))
        assert outbox.resume(V0, 7, TrainSpec(), 10) is None
        outbox.put(mine, body, FLOAT32)
        home = Home(tmp_path / "home", "device-1", disk=disk)
        home.close()
        assert home.boot == 1
    outbox.settle(V0)
    outbox.flush()
    assert leftovers(tmp_path / "jobs", (), disk) == []
    forget(tmp_path / "jobs" / "j-1", disk)
    assert list(tmp_path.iterdir()) == []


def test_an_outbox_in_a_new_folder_looks_for_no_files_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home does all the same: another agent may have made it, and left it, before it was locked."""
    looked: list[str] = []
    read = files._read
    monkeypatch.setattr(files, "_read", lambda path: looked.append(path.name) or read(path))
    Home(tmp_path / "home", "device-1").close()
    Outbox(tmp_path / "home" / "jobs" / "j-1", NET.spec)
    assert {*looked} <= {"device", "boot"}
    Home(tmp_path / "home", "device-1").close()
    Outbox(tmp_path / "home" / "jobs" / "j-1", NET.spec)
    assert {"device", "boot", "update.bin", "update2.bin", "settled.bin", "checkpoint.bin"} <= {*looked}


def test_a_path_is_put_together_once() -> None:
    folder = Path("nowhere")
    assert below(folder, "jobs", "j-1") == folder / "jobs" / "j-1"
    assert below(folder, "jobs") is below(folder, "jobs")
