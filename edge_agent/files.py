"""Files that survive a cut of the power: written whole beside the old one, on disk, then renamed over it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from broker.failpoints import reach


def replace(path: Path, *parts: bytes) -> None:
    """Write a file so that a reader, or a device that comes up again, sees the old one or the whole new one.

    Raises OSError when the disk is full or read-only; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        reach("files.replace.before", path.name)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    reach("files.replace.after", path.name)


def remove(path: Path) -> None:
    """Remove a file, if it is there, durably."""
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path, content: bytes) -> None:
    """`replace` with a checksum in front."""
    replace(path, zlib.crc32(content).to_bytes(4, "little"), content)


def unseal(path: Path) -> bytes | None:
    """Read what `seal` wrote; None when there is no such file or its bytes have rotted."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < 4 or int.from_bytes(content[:4], "little") != zlib.crc32(content[4:]):
        return None  # an empty file, as a cut of the power leaves it, would have the checksum of nothing
    return content[4:]
