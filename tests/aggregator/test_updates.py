"""Bodies of updates that were judged, and whose disk was then full: the room that they took is free again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aggregator.store import Store
from models.job import RoundsSpec
from tests.aggregator.conftest import Fleet, toy


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
