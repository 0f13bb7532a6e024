"""A directory that one command at a time has, and that nobody else can look into."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from runtime.disk import make_private, write_private

LOCK_S = 10.0
"""How long a command waits for the one before it."""


class AuthorityError(ValueError):
    """What cannot be done; the message is one line and says what to do. Nothing was changed."""


class Directory:
    """Its files by name, a "/" in it for a folder of its own. Locked until it is closed.

    Raises AuthorityError where others can look into it, or another command has it for long.
    """

    def __init__(self, folder: Path) -> None:
        if folder.stat().st_mode & 0o077:
            raise AuthorityError(f"{folder}: others can look into it: chmod 700 {folder}")
        self.folder = folder
        self._lock = _locked(folder)

    def close(self) -> None:
        """Let another command have it."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def read(self, name: str, otherwise: bytes | None = None) -> bytes:
        """Return what a file holds. Raises AuthorityError for one that is not there, unless there is another answer."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError as error:
            if otherwise is not None:
                return otherwise
            raise AuthorityError(f"{self.folder / name}: is not there; bring it back from a backup") from error

    def put(self, name: str, content: bytes) -> bool:
        """Write a file whole, where it is another; return whether it was. Raises OSError."""
        if self.read(name, b"") == content:
            return False
        make_private((self.folder / name).parent)
        write_private(self.folder / name, content)
        return True


def _locked(folder: Path) -> int:
    """Take the lock of a directory, waiting for the command that has it. Raises AuthorityError, OSError."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            owner = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise AuthorityError(f"{folder}: process {owner} is at work on it: wait until it has ended") from None
        except OSError:
            os.close(lock)
            raise
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock
