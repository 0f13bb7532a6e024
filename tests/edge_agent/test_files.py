from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest

from edge_agent import files


def test_what_is_sealed_is_read_back(tmp_path: Path) -> None:
    files.seal(tmp_path / "a", b"content")
    assert files.unseal(tmp_path / "a") == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert files.unseal(tmp_path / "a") is None
    files.remove(tmp_path / "a")


@pytest.mark.parametrize("data", [b"", b"abc", b"\0\0\0\0x", b"\xff" * 9])
def test_a_file_that_has_rotted_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert files.unseal(tmp_path / "a") is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.replace(tmp_path / "a", b"old")
    monkeypatch.setattr("edge_agent.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.replace(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_a_cut_left_half_written_is_no_file(tmp_path: Path) -> None:
    files.seal(tmp_path / "a", b"old")
    (tmp_path / ".a.new").write_bytes(b"half")
    assert files.unseal(tmp_path / "a") == b"old"
    files.seal(tmp_path / "a", b"new")
    assert files.unseal(tmp_path / "a") == b"new"


@pytest.mark.parametrize("content", [b"", b"content", bytes(100_000)])
def test_what_is_written_over_begins_with_its_checksum_and_its_length(tmp_path: Path, content: bytes) -> None:
    files.overwrite(tmp_path / "a", bytes(200_000))
    files.overwrite(tmp_path / "a", content)
    framed = len(content).to_bytes(8, "little") + content
    assert (tmp_path / "a").read_bytes()[: 4 + len(framed)] == zlib.crc32(framed).to_bytes(4, "little") + framed
    assert files.overwritten(tmp_path / "a") == content


@pytest.mark.parametrize("written", [0, 3, 12, 15])
def test_what_a_cut_left_half_written_over_is_no_file(tmp_path: Path, written: int) -> None:
    files.overwrite(tmp_path / "a", b"before, of another length")
    before = (tmp_path / "a").read_bytes()
    files.overwrite(tmp_path / "a", b"after")
    after = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(after[:written] + before[written:])
    assert files.overwritten(tmp_path / "a") == (b"before, of another length" if written == 0 else None)


# Folders.


class Trace:
    """What is made and what is synced, in order, below one folder; the real file system does it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.lines: list[str] = []
        self._root = root
        fsync, mkdir = os.fsync, os.mkdir

        def note_fsync(descriptor: int) -> None:
            fsync(descriptor)
            self.note("sync", Path(f"/proc/self/fd/{descriptor}").readlink())

        def note_mkdir(path: Path, *mode: int) -> None:
            mkdir(path, *mode)
            self.note("make", Path(path))

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(os, "mkdir", note_mkdir)

    def note(self, what: str, path: Path) -> None:
        if path.is_relative_to(self._root):
            self.lines.append(f"{what} {path.relative_to(self._root)}")


def test_each_new_folder_is_on_disk_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(monkeypatch, tmp_path)
    assert files.make_folder(tmp_path / "a" / "b" / "c"), "it is new"
    assert trace.lines == ["make a", "sync .", "make a/b", "sync a", "make a/b/c", "sync a/b"]
    assert not files.make_folder(tmp_path / "a" / "b" / "c"), "it may have something in it"


def test_a_folder_that_an_agent_made_and_did_not_live_to_sync_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    trace = Trace(monkeypatch, tmp_path)
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b" / "c")
    assert trace.lines == ["sync a", "sync a", "make a/b/c", "sync a/b"]


def test_a_folder_whose_parent_may_not_be_synced_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        if folder == tmp_path.parent:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "sync_folder", refuse)
    files.make_folder(tmp_path)
    files.make_folder(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        files.make_folder(tmp_path / "file" / "a")
    monkeypatch.setattr("edge_agent.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.make_folder(tmp_path / "a")


def test_a_file_on_a_sector_that_cannot_be_read_has_rotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.seal(tmp_path / "a", b"content")

    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fail)
    number = errno.EIO
    assert files.unseal(tmp_path / "a") is None
    number = errno.EACCES
    with pytest.raises(PermissionError):
        files.unseal(tmp_path / "a")
