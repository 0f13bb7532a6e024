"""Files that survive a cut of the power: written whole beside the old one, on disk, then renamed over it.

A folder's entry in its parent is on disk before anything is put into the folder: what is synced in a folder that a
cut of the power takes away is gone all the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import zlib
from pathlib import Path

from runtime.disk import sync
from runtime.failpoints import reach

UNREADABLE = (
    ValueError,  # msgspec's own, and a string that is not UTF-8
    RecursionError,  # nesting without end
    MemoryError,  # a length that nobody has the memory for
)
"""What decoding a damaged or hostile file may raise."""


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


def discard(path: Path) -> None:
    """Remove a file, if it is there; after a cut of the power it may be there again. Raises OSError."""
    path.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Return whether there is such a file, rotten or not."""
    return path.exists()


def folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none where it is not there. Raises OSError.

    A link is passed over.
    """
    try:
        return sorted(below.name for below in path.iterdir() if below.is_dir() and not below.is_symlink())
    except FileNotFoundError:
        return []


def forget(path: Path) -> None:
    """Remove a folder with all that is in it, if it is there, durably. Raises OSError; it can be called again."""
    if path.exists():
        shutil.rmtree(path)
        sync_folder(path.parent)


def make_folder(path: Path) -> bool:
    """Make a folder and the parents it lacks, each on disk before the next one; return whether it is new.

    Raises OSError.

    Every folder is made here, from the top down, so the deepest one that is there already is the only one that an
    agent killed in this very function may have left unsynced.
    """
    lacking = []
    while not path.is_dir():
        lacking.append(path)
        path = path.parent
    with contextlib.suppress(OSError):  # where it is not ours it may not be ours to sync: a mount point, no permission
        sync_folder(path.parent)
    for folder in reversed(lacking):
        folder.mkdir(mode=0o750, exist_ok=True)  # what a device has learned is not for everybody on it
        sync_folder(folder.parent)
    return bool(lacking)


sync_folder = sync
"""Put a folder's entries on disk. Raises OSError."""


def sync_file(path: Path) -> str:
    """Force a file to disk and return its SHA-256, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest


def point(link: Path, target: Path) -> None:
    """Make a symbolic link, replacing one that is there in a single step. Raises OSError."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def seal(path: Path, content: bytes) -> None:
    """`replace` with a checksum in front."""
    replace(path, zlib.crc32(content).to_bytes(4, "little"), content)


def overwrite(path: Path, content: bytes) -> None:
    """Write a sealed file in place, over one whose content is of no use any more, and return when it is on disk.

    What has the room already costs one write of its blocks, where `seal` costs two entries in the journal of the file
    system. Torn by a cut of the power it reads as no file. Raises OSError; what was there may be gone then.
    """
    length = len(content).to_bytes(8, "little")
    checksum = zlib.crc32(content, zlib.crc32(length)).to_bytes(4, "little")
    is_new = False
    try:
        try:
            opened = path.open("r+b", buffering=0)
        except FileNotFoundError:
            is_new, opened = True, path.open("wb", buffering=0)
        with opened as file:
            for part in (checksum + length, content):  # as large as a model: put together it would be there twice
                data = memoryview(part)
                while data:
                    data = data[file.write(data) :]
            reach("files.overwrite.before", path.name)
            _sync_data(file.fileno())
    except OSError:
        if is_new:
            path.unlink(missing_ok=True)
        raise
    if is_new:
        sync_folder(path.parent)
    reach("files.overwrite.after", path.name)


def overwritten(path: Path) -> bytes | None:
    """Return what `overwrite` wrote, or `seal`; None as `unseal` does. Raises OSError as `unseal` does."""
    content = _read(path)
    if content is None:
        return None
    end = 12 + int.from_bytes(content[4:12], "little")
    if 12 <= end <= len(content) and int.from_bytes(content[:4], "little") == zlib.crc32(content[4:end]):
        return content[12:end]
    return _unsealed(content)


def unseal(path: Path) -> bytes | None:
    """Return what `seal` wrote; None when there is no such file or its bytes, or the sector under them, have rotted.

    Raises OSError when it cannot be read for another reason.
    """
    content = _read(path)
    return None if content is None else _unsealed(content)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def _unsealed(content: bytes) -> bytes | None:
    if len(content) < 4 or int.from_bytes(content[:4], "little") != zlib.crc32(content[4:]):
        return None  # an empty file, as a cut of the power leaves it, would have the checksum of nothing
    return content[4:]


_sync_data = getattr(os, "fdatasync", os.fsync)
"""The data, and of the rest what it takes to read them (macOS has no word for less than all)."""
