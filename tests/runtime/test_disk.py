from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runtime.disk import exchange, sync, write_over


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


def test_what_is_written_over_a_file_has_its_mode_and_is_a_usual_file_where_there_was_none(tmp_path: Path) -> None:
    usual, file = tmp_path / "usual", tmp_path / "file"
    usual.touch()
    write_over(file, b"first")
    assert file.stat().st_mode == usual.stat().st_mode
    for mode in (0o640, 0o604):
        file.chmod(mode)
        write_over(file, b"second")
        assert (file.stat().st_mode & 0o777, file.read_bytes()) == (mode, b"second")


def test_nothing_is_written_through_a_link_that_lies_where_a_file_is_begun(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"as it was")
    (tmp_path / ".file.new").symlink_to(victim)
    write_over(tmp_path / "file", b"new")
    assert (victim.read_bytes(), (tmp_path / "file").read_bytes()) == (b"as it was", b"new")
    assert not (tmp_path / ".file.new").exists()
