from __future__ import annotations

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
