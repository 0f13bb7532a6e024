"""Pieces of updates on disk while their other pieces have not come: memory does not grow with the fleet.

One file without a name: nothing of it outlives this process, and a chunk that is lost is asked for again. A place in it
is as long as the next power of two, and goes to the next update of about that length. The file grows with what comes,
never on a sender's word, and is empty when no update is on its way.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from broker.chunks import Assembly


class SpoolError(RuntimeError):
    """The disk does not take, or give, what comes in pieces."""


class Spool:
    """The file. folder: where it lies; it is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None
        """Its descriptor; closed with this object at the latest."""
        self._close: Callable[[], object] = lambda: None
        self._end = 0
        self._free: dict[int, list[int]] = {}
        """Length of a place to where such places are free."""
        self._n_taken = 0

    def take(self, n_bytes: int) -> int:
        """Return where so many bytes have their place from now on."""
        length = _length(n_bytes)
        self._n_taken += 1
        if places := self._free.get(length):
            return places.pop()
        at, self._end = self._end, self._end + length
        return at

    def give_back(self, at: int, n_bytes: int) -> None:
        """Have a place that was taken be free again."""
        self._n_taken -= 1
        self._free.setdefault(_length(n_bytes), []).append(at)
        if not self._n_taken:
            self._free.clear()
            self._end = 0
            self._close()
            self._file = None

    def write(self, at: int, data: bytes) -> None:
        """Put bytes into a place. Raises SpoolError."""
        try:
            if self._file is None:
                with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                    self._file = os.dup(file.fileno())
                self._close = weakref.finalize(self, os.close, self._file)
            left, at_ = memoryview(data), at
            while left:
                n = os.pwrite(self._file, left, at_)
                left, at_ = left[n:], at_ + n
        except OSError as error:
            raise SpoolError(f"a piece of an update cannot be kept in {self._folder}: {error.strerror}") from error

    def read(self, at: int, n_bytes: int) -> bytes:
        """Return what lies in a place. Raises SpoolError."""
        try:
            found = b"" if self._file is None else os.pread(self._file, n_bytes, at)
        except OSError as error:
            raise SpoolError(f"an update cannot be read in {self._folder}: {error.strerror}") from error
        return found


class SpooledAssembly(Assembly):
    """An update whose pieces lie in a spool. `drop` gives its place back."""

    def __init__(self, digest: str, n_bytes: int, chunk_bytes: int, spool: Spool) -> None:
        super().__init__(digest, n_bytes, chunk_bytes)
        self._spool = spool
        self._at: int | None = spool.take(n_bytes)

    def _keep(self, index: int, data: bytes) -> bytes:
        """Write a piece. Raises SpoolError."""
        assert self._at is not None  # noqa: S101 -- nobody adds to what was dropped
        self._spool.write(self._at + index * self.chunk_bytes, data)
        return b""

    def _joined(self) -> bytes:
        """Read all of it. Raises SpoolError."""
        return b"" if self._at is None else self._spool.read(self._at, self.n_bytes)

    def drop(self) -> None:
        """Return the place back; what lay there is gone."""
        if self._at is not None:
            self._spool.give_back(self._at, self.n_bytes)
            self._at = None


def _length(n_bytes: int) -> int:
    return 1 << max(12, (n_bytes - 1).bit_length())
