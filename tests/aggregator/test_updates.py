"""Long bodies of updates: what they are written over, and what room they take on a disk that is full."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from aggregator.store import Judgement, Store
from broker.messages import Verdict, Version
from models.job import RoundsSpec
from tests.aggregator.conftest import Fleet, toy

SHA = "0" * 64
STATE = zlib.crc32(b"state").to_bytes(4, "little") + b"state"


def test_what_was_judged_and_not_written_down_takes_no_room_when_its_job_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.aggregator.conftest.Store", with_long_bodies)
    fleet = Fleet(tmp_path, n_agents=3)
    job = fleet.submit(toy(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=2)))
    disk = FullDisk(monkeypatch)
    fleet.run(lambda: disk.n_refused >= 3)
    assert max(disk.written) < 3 * min(disk.lengths), "each time a body more"
    disk.room = 10**9
    fleet.finish()
    file = tmp_path / "aggregator" / "updates" / f"{job}.bin"
    assert file.stat().st_size <= 3 * max(disk.lengths)


class FullDisk:
    """Has room for two bodies and a half."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 0
        self.n_refused = 0
        self.written: list[int] = []
        self.lengths: list[int] = []
        pwrite = os.pwrite

        def written(descriptor: int, body: bytes, at: int) -> int:
            self.lengths.append(len(body))
            self.room = self.room or len(body) * 5 // 2
            if at + len(body) > self.room:
                self.n_refused += 1
                raise OSError(28, "No space left on device")
            self.written.append(at)
            return pwrite(descriptor, body, at)

        monkeypatch.setattr(os, "pwrite", written)


def with_long_bodies(folder: Path, **how: bool) -> Store:
    return Store(folder, row_bytes=0, **how)


def test_a_body_is_written_over_one_before_only_once_it_is_on_disk_that_no_row_names_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsynced: list[bool] = []
    pwrite = os.pwrite

    def written(descriptor: int, body: bytes, at: int) -> int:
        unsynced.append(store._db._syncs._is_owed)
        return pwrite(descriptor, body, at)

    store = Store(tmp_path, row_bytes=0)
    monkeypatch.setattr(os, "pwrite", written)
    store.add_job("j", toy(), SHA, STATE, {})
    with store.synced_once():
        store.set_note("a word", "of the block")
        assert store._db._syncs._is_owed
        store.place("j", Judgement(Verdict("d", "j", Version(1, 0), "a" * 8), body=b"a body"))
    assert unsynced == [False]
    store.close()
