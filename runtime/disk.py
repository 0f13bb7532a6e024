"""What is written, put on disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

_EXCHANGE, _HERE = 2, -100
"""RENAME_EXCHANGE and AT_FDCWD of renameat2(2)."""


def sync(path: Path) -> None:
    """Put a file, or the entries of a folder, on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole beside the old one, and put it in its place: a reader sees one or the other.

    Nobody whom the mode does not let read it can read it at any time. Raises OSError; the old file is then as it was.
    """
    _write(path, content, 0o600, lambda descriptor: os.fchmod(descriptor, mode))


def write_over(path: Path, content: bytes) -> None:
    """Write a file whole as `write_private` does, with owner and mode of the one in whose place it is put.

    Where there is none it has those of any new file. Raises OSError; the old file is then as it was.
    """
    before = path.stat() if path.exists() else None

    def like_before(descriptor: int) -> None:
        if before is not None:
            os.fchmod(descriptor, before.st_mode & 0o777)
            if os.geteuid() == 0:  # who is not could give it to nobody else
                os.fchown(descriptor, before.st_uid, before.st_gid)

    _write(path, content, 0o666 if before is None else 0o600, like_before)


def write_unsynced(path: Path, content: bytes) -> None:
    """Write a file whole beside the old one, and put it in its place; a cut of the power may take both.

    For what is written often and needed by nobody tomorrow. Everybody may read it. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes, mode: int, give: Callable[[int], None]) -> None:
    """Write a file whole. mode: of its beginning. give: sets its mode and its owner, before anything stands in it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            give(file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can look into, where there is none. Raises OSError."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        sync(folder.parent)


def exchange(one: Path, other: Path) -> bool:
    """Put two things of one folder in each other's places at once; return whether that could be done.

    Not every system and file system can (renameat2(2)); then nothing was changed.
    """
    try:
        import ctypes  # here alone: nearly nobody ever needs it

        swap = getattr(ctypes.CDLL(None), "renameat2", None)
    except (ImportError, MemoryError, OSError):  # where a service may make no code, an old libffi does not load
        return False
    return swap is not None and swap(_HERE, bytes(one), _HERE, bytes(other), _EXCHANGE) == 0
