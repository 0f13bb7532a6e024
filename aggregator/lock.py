"""The lock on a state directory: one process at a time, and its number for whoever comes second."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from aggregator.database import StoreError
from runtime.disk import sync


class Lock:
    """Held until it is closed, or the process is gone."""

    def __init__(self, folder: Path) -> None:
        """Take it; the folder is made. Raises StoreError when another process has it, or it cannot be taken."""
        try:
            _make(folder)
            self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = f"{error.strerror}: may this user write it?"
            raise StoreError(f"state directory {folder} cannot be written: {why}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            self.close()
            why = f"is in use by process {owner}: stop that aggregator first"
            raise StoreError(f"state directory {folder} {why}") from None
        except OSError as error:
            self.close()
            raise StoreError(f"state directory {folder} cannot be locked: {error.strerror}") from error
        with suppress(OSError):  # a full disk: the number is only for people
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it up, once."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _make(folder: Path) -> None:
    """Make a folder, on disk before anything in it is. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o750, exist_ok=True)  # updates say something of the rows: they are not for everybody here
    for path in missing:
        sync(path.parent)
