"""A state directory is for one process, and whoever comes second is told for which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.lock import Lock
from aggregator.store import Store, StoreError


def test_a_state_directory_is_for_one_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = "import sys; from pathlib import Path; from aggregator.store import Store; Store(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"is in use by process {os.getpid()}: stop that aggregator first" in done.stderr
    assert done.returncode == 1
    store.close()


def test_a_lock_is_given_up_when_the_store_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "aggregator.sqlite").write_bytes(b"this is no database, and it is longer than a header" * 20)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be used"):
            Store(tmp_path)
    Lock(tmp_path).close()


def test_a_lock_that_is_given_up_can_be_taken_again(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "a" / "b")
    with pytest.raises(StoreError, match="in use by process"):
        Lock(tmp_path / "a" / "b")
    lock.close()
    lock.close()
    Lock(tmp_path / "a" / "b").close()


def test_garbage_in_the_lock_file_is_no_number_and_no_error(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    (tmp_path / "lock").write_bytes(b"\xff\xfe garbage")
    with pytest.raises(StoreError, match="is in use by process"):
        Lock(tmp_path)
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(StoreError, match="is in use by process unknown"):
        Lock(tmp_path)
    lock.close()


def test_a_disk_without_room_for_the_number_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aggregator.lock.os.pwrite", full)
    lock = Lock(tmp_path)
    with pytest.raises(StoreError, match="in use"):
        Lock(tmp_path)
    lock.close()


def test_a_file_system_without_locks_is_not_taken_for_another_aggregator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("aggregator.lock.fcntl.flock", none)
    with pytest.raises(StoreError, match="cannot be locked: No locks available"):
        Lock(tmp_path)


@pytest.mark.parametrize("name", ["file", "file/state"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.* cannot be written: .*: may this user write it\?"):
        Lock(tmp_path / name)


def test_new_folders_are_on_disk_before_anything_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("aggregator.lock.sync", synced.append)
    Lock(tmp_path / "a" / "b").close()
    assert synced == [tmp_path / "a", tmp_path]
    Lock(tmp_path / "a" / "b").close()
    assert len(synced) == 2
