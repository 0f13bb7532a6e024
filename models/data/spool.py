"""Rows that come a block at a time, and the array that they become: in memory where they are few, else in a file.

    append, append, …  ──beyond MEMORY_BYTES──▶ a file without a name  ──array──▶ mapped: pages of the file

A file has no name from its first moment on: whatever ends this process, nothing of it is left. Its pages are the
kernel's, which drops them where memory is short, and reads them again.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from models.data.blocks import BLOCK_ROWS

MEMORY_BYTES = 8 * 2**20
"""Of all arrays of one reading that stay in memory."""

Array = npt.NDArray[Any]


class NoRoomError(Exception):
    """The disk does not take the rows. The message says which, and what to do."""


class Spools:
    """Makes the spools of one reading, which share what there is of memory.

    scratch: the folder of their files; None where everything stays in memory. whose: the source, for messages.
    """

    def __init__(self, scratch: Path | None, whose: str = "data") -> None:
        self._scratch = scratch
        self._whose = whose
        self._open: list[Spool] = []
        self._taken = 0

    def spool(self, dtype: npt.DTypeLike, *shape: int) -> Spool:
        """Return an empty one, of rows of this type and shape."""
        made = Spool(self, np.dtype(dtype), shape)
        self._open.append(made)
        return made

    def mapped(self, dtype: npt.DTypeLike, n: int, *shape: int) -> Array:
        """Return an array of n zero rows that may be written to, in memory or in a file as others are.

        Raises NoRoomError.
        """
        n_bytes = n * np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        if self._scratch is None or n_bytes + self._taken <= MEMORY_BYTES:
            self._taken += n_bytes
            return np.zeros((n, *shape), dtype)
        try:
            with self._file() as file:
                file.truncate(n_bytes)
                held = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_WRITE)
        except OSError as error:
            raise self._no_room(n_bytes, error) from error
        return np.frombuffer(held, dtype).reshape(n, *shape)

    @property
    def room(self) -> int:
        """Return the bytes that examples may take: half of what is free on the disk, or a gigabyte of memory."""
        if self._scratch is None:
            return 10**9
        self._scratch.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._scratch).free // 2

    def _file(self) -> IO[bytes]:
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._scratch, prefix="rows-", buffering=0)

    def _grow(self, n_bytes: int) -> None:
        """Note that so much more is in memory; where that is too much, everything goes to files."""
        self._taken += n_bytes
        if self._scratch is not None and self._taken > MEMORY_BYTES:
            for spool in self._open:
                spool.spill()
            self._taken = 0

    def _no_room(self, n_bytes: int, error: OSError) -> NoRoomError:
        return NoRoomError(
            f"{self._whose}: its rows take {n_bytes / 1e6:,.0f} MB and more on disk, which {self._scratch} does not "
            f"take ({error.strerror or error}): make room there, or have fewer rows"
        )


class Spool:
    """Rows of one type and shape, in the order in which they came."""

    def __init__(self, spools: Spools, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._spools = spools
        self._dtype = dtype
        self.shape = shape
        self._blocks: list[Array] = []
        self._file: IO[bytes] | None = None
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def n_bytes(self) -> int:
        """Return what the rows take."""
        return self._n * self._dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def append(self, rows: Array) -> None:
        """Take some rows more. Raises NoRoomError where the disk does not take them."""
        if not len(rows):
            return
        block = np.ascontiguousarray(rows, self._dtype).reshape(-1, *self.shape)
        self._n += len(block)
        if self._file is not None:
            self._write(self._file, block)
            return
        self._blocks.append(block if block.base is None and block is not rows else block.copy())
        self._spools._grow(block.nbytes)

    def spill(self) -> None:
        """Put what is in memory into a file, and all that follows. Raises NoRoomError."""
        if self._file is not None:
            return
        try:
            self._file = self._spools._file()
        except OSError as error:
            raise self._spools._no_room(self.n_bytes, error) from error
        for block in self._blocks:
            self._write(self._file, block)
        self._blocks = []

    def array(self) -> Array:
        """Return all rows, which nobody changes, and let go of them here. Raises NoRoomError."""
        if self in self._spools._open:
            self._spools._open.remove(self)
        blocks, self._blocks = self._blocks, []
        file, self._file = self._file, None
        if file is None:
            return np.concatenate(blocks) if blocks else np.empty((0, *self.shape), self._dtype)
        with file:
            if not self._n:
                return np.empty((0, *self.shape), self._dtype)
            try:
                held = mmap.mmap(file.fileno(), self.n_bytes, access=mmap.ACCESS_READ)
            except OSError as error:
                raise self._spools._no_room(self.n_bytes, error) from error
        return np.frombuffer(held, self._dtype).reshape(-1, *self.shape)

    def _write(self, file: IO[bytes], block: Array) -> None:
        try:
            left = block.reshape(-1).view(np.uint8).data
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise self._spools._no_room(self.n_bytes, error) from error


def is_mapped(values: Array) -> bool:
    """Return whether an array lies in a file."""
    base: Any = values
    while base is not None:
        if isinstance(base, mmap.mmap):
            return True
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return False


def slices(n: int, most: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yield what cuts n rows into blocks, in order."""
    return (slice(start, min(start + most, n)) for start in range(0, n, most))


def changed(values: Array, change: Callable[[Array, int], Array], spools: Spools) -> Array:
    """Return what `change` makes of each block of rows, given with the number of its first row, as one array."""
    spool: Spool | None = None
    for part in slices(len(values)):
        block = change(values[part], part.start)
        spool = spools.spool(block.dtype, *block.shape[1:]) if spool is None else spool
        spool.append(block)
    return values[:0] if spool is None else spool.array()
