from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.data import spool
from models.data.spool import NoRoomError, Spools, changed, is_mapped


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_BYTES", 100)


def blocks(n: int) -> list[np.ndarray]:
    return [np.arange(at, at + 10, dtype=np.float32).reshape(5, 2) for at in range(0, 10 * n, 10)]


def test_few_rows_stay_in_memory(tmp_path: Path) -> None:
    one = Spools(tmp_path).spool(np.float32, 2)
    for block in blocks(3):
        one.append(block)
    found = one.array()
    assert not is_mapped(found)
    assert found.tolist() == np.arange(30).reshape(15, 2).tolist()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_many_rows_lie_in_a_file_without_a_name(tmp_path: Path) -> None:
    spools = Spools(tmp_path / "scratch")
    one, other = spools.spool(np.float32, 2), spools.spool(np.int64)
    for block in blocks(9):
        one.append(block)
        other.append(block[:, 0])
        assert not list(tmp_path.rglob("rows*")), "a process that is killed leaves nothing"
    found, more = one.array(), other.array()
    assert is_mapped(found)
    assert is_mapped(more)
    assert is_mapped(found[3:7].reshape(-1))
    assert found.tolist() == np.arange(90).reshape(45, 2).tolist()
    assert more.tolist() == list(range(0, 90, 2))
    assert not found.flags.writeable


@pytest.mark.usefixtures("small")
def test_arrays_of_one_reading_share_what_there_is_of_memory(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    made = [spools.spool(np.float64) for _ in range(20)]
    for one in made:
        one.append(np.arange(2.0))
    assert [is_mapped(one.array()) for one in made].count(False) < 7


def test_without_a_folder_everything_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_BYTES", 0)
    one = Spools(None).spool(np.int64)
    one.append(np.arange(1000))
    assert not is_mapped(one.array())
    assert not is_mapped(Spools(None).mapped(np.uint8, 1000))


@pytest.mark.usefixtures("small")
def test_a_disk_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Spools, "_file", lambda _: Full())
    one = Spools(tmp_path, "x.csv").spool(np.float64)
    with pytest.raises(NoRoomError, match=r"x.csv: its rows take .*No space left on device\): make room there"):
        one.append(np.arange(1000.0))


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_BYTES", 10)
    (tmp_path / "taken").write_text("")
    with pytest.raises(NoRoomError, match="make room there"):
        Spools(tmp_path / "taken" / "x").spool(np.float64).append(np.arange(10.0))
    with pytest.raises(NoRoomError, match="make room there"):
        Spools(tmp_path / "taken" / "x").mapped(np.float64, 10)


@pytest.mark.usefixtures("small")
def test_an_array_that_is_written_to_lies_in_a_file_as_well(tmp_path: Path) -> None:
    found = Spools(tmp_path).mapped(np.int32, 50, 2)
    assert is_mapped(found)
    assert not found.any()
    found[7] = 3
    assert found.sum() == 6
    assert list(tmp_path.iterdir()) == []


def test_what_is_empty_is_an_empty_array(tmp_path: Path) -> None:
    one = Spools(tmp_path).spool(np.float32, 3)
    one.append(np.empty((0, 3), np.float32))
    assert one.array().shape == (0, 3)
    other = Spools(tmp_path).spool(np.float32, 3)
    other.spill()
    assert other.array().shape == (0, 3)


def test_what_was_given_may_be_overwritten_afterwards(tmp_path: Path) -> None:
    one, rows = Spools(tmp_path).spool(np.float32), np.ones(3, np.float32)
    one.append(rows)
    rows[:] = 2
    assert one.array().tolist() == [1, 1, 1]


def test_an_array_is_changed_a_block_at_a_time(tmp_path: Path) -> None:
    values = np.arange(10_000)
    seen: list[int] = []

    def twice(some: np.ndarray, at: int) -> np.ndarray:
        assert some[0] == at
        seen.append(len(some))
        return np.stack([some, 2 * some], axis=1)

    found = changed(values, twice, Spools(tmp_path))
    assert (found == np.stack([values, 2 * values], axis=1)).all()
    assert seen == [4096, 4096, 1808]


def test_examples_may_take_half_of_what_is_free(tmp_path: Path) -> None:
    assert Spools(None).room == 10**9
    assert 0 < Spools(tmp_path / "x").room <= shutil.disk_usage(tmp_path).total // 2
