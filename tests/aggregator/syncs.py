"""Counts the syncs that SQLite asks the kernel for: its file system in this process, with one method in between."""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_void_p, cast
from pathlib import Path


class _Methods(Structure):
    """sqlite3_io_methods, to its xSync and what follows."""

    _fields_ = [
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read", "write", "truncate", "sync")),
        *((f"other{n}", c_void_p) for n in range(13)),
    ]


class _File(Structure):
    _fields_ = [("methods", POINTER(_Methods))]


class _Vfs(Structure):
    """sqlite3_vfs, to its xOpen."""

    _fields_ = [
        *(("version", c_int), ("file_bytes", c_int), ("most_path", c_int)),
        *((name, c_void_p) for name in ("next", "name", "data", "open")),
    ]


_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(_File), c_int, c_void_p)
"""A name stays a pointer: what stands behind it in memory counts."""
IOERR_FSYNC = 1034
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


@contextmanager
def counted(
    then: Callable[[Path], object] = lambda _: None, refuses: Callable[[Path], bool] = lambda _: False
) -> Iterator[Callable[[], int]]:
    """Return what says how often a file that was opened in this block has been synced.

    then: is called after each, with the file. refuses: says before each whether it fails.
    """
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(None).contents
    original, syncs, kept, paths = _Open(vfs.open), [0], {}, dict[int, Path]()

    def wrapped(methods: _Methods) -> _Methods:
        key = bytes(methods)
        if key not in kept:
            before = _Sync(methods.sync)

            def sync(file: int, flags: int) -> int:
                syncs[0] += 1
                if refuses(paths[file]):
                    return IOERR_FSYNC
                result = int(before(file, flags))
                then(paths[file])
                return result

            own, between = _Methods.from_buffer_copy(methods), _Sync(sync)
            own.sync = cast(between, c_void_p).value
            kept[key] = own, between, before
        return kept[key][0]

    def open_(it: int, name: int, file: object, flags: int, out: int) -> int:
        result = int(original(it, name, file, flags, out))
        if result == 0:
            opened = file.contents  # type: ignore[attr-defined]  # a pointer
            paths[ctypes.addressof(opened)] = Path(ctypes.string_at(name).decode() if name else "")
            opened.methods = ctypes.pointer(wrapped(opened.methods.contents))
        return result

    between = _Open(open_)
    vfs.open, before = cast(between, c_void_p).value, vfs.open
    _FOR_GOOD.append((between, original, kept))
    try:
        yield lambda: syncs[0]
    finally:
        vfs.open = before


_FOR_GOOD: list[object] = []
"""Files that stay open go on calling these."""
