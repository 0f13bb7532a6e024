from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.disk import sync


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
