from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runtime.disk import exchange, sync


def test_files_and_folders_are_synced_and_closed_also_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    sync(tmp_path / "file")
    sync(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        sync(tmp_path)
    for descriptor in synced:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_two_folders_change_places_or_nothing_is_changed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    done = exchange(one, other)
    found = [path.name for folder in (one, other) for path in folder.iterdir()]
    assert found == (["other", "one"] if done else ["one", "other"])
    assert not exchange(one, tmp_path / "none")
    assert one.exists()


def test_where_no_library_can_be_called_nothing_is_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert not exchange(tmp_path / "one", tmp_path / "other")
