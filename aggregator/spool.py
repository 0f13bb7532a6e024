"""Pieces of updates on disk while their other pieces have not come: memory does not grow with the fleet.

In files without a name: nothing of them outlives this process, and a chunk that is lost is asked for again. A place is
as long as the next power of two, each length has a file of its own, and a free place goes to the next update of about
that length. A file grows with what comes, never on a sender's word, and is gone when none of its places is taken.
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
    """The places for updates of all lengths. folder: where their files lie."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, _File] = {}
        """Length of a place to the file of such places, while one of them is taken."""

    @property
    def end(self) -> int:
        """How long the files may be, all together."""
        return sum(file.end for file in self._files.values())

    def take(self, n_bytes: int) -> int:
        """Return where so many bytes have their place from now on."""
        length = _length(n_bytes)
        return self._files.setdefault(length, _File(self._folder, length)).take()

    def give_back(self, at: int, n_bytes: int) -> None:
        """Mark a place that was taken as free."""
        length = _length(n_bytes)
        if self._files[length].give_back(at):
            del self._files[length]

    def write(self, at: int, n_bytes: int, data: bytes) -> None:
        """Put bytes into a place of n_bytes, from `at` on. Raises SpoolError."""
        self._files[_length(n_bytes)].write(at, data)

    def read(self, at: int, n_bytes: int) -> bytes:
        """Return what lies in a place. Raises SpoolError."""
        return self._files[_length(n_bytes)].read(at, n_bytes)


class _File:
    """Places of one length. It is made when it is first written to, and closed with this object at the latest."""

    def __init__(self, folder: Path, length: int) -> None:
        self.end = 0
        self._folder = folder
        self._length = length
        self._free: list[int] = []
        self._n_taken = 0
        self._descriptor: int | None = None
        self._close: Callable[[], object] = lambda: None

    def take(self) -> int:
        self._n_taken += 1
        if self._free:
            return self._free.pop()
        at, self.end = self.end, self.end + self._length
        return at

    def give_back(self, at: int) -> bool:
        """Return whether no place is taken any more: the file is then gone."""
        self._n_taken -= 1
        self._free.append(at)
        if not self._n_taken:
            self._close()
        return not self._n_taken

    def write(self, at: int, data: bytes) -> None:
        try:
            if self._descriptor is None:
                with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                    self._descriptor = os.dup(file.fileno())
                self._close = weakref.finalize(self, os.close, self._descriptor)
            left, at_ = memoryview(data), at
            while left:
                n = os.pwrite(self._descriptor, left, at_)
                left, at_ = left[n:], at_ + n
        except OSError as error:
            raise SpoolError(f"a piece of an update cannot be kept in {self._folder}: {error.strerror}") from error

    def read(self, at: int, n_bytes: int) -> bytes:
        try:
            return b"" if self._descriptor is None else os.pread(self._descriptor, n_bytes, at)
        except OSError as error:
            raise SpoolError(f"an update cannot be read in {self._folder}: {error.strerror}") from error


class SpooledAssembly(Assembly):
    """An update whose pieces lie in a spool. `drop` gives its place back."""

    def __init__(self, digest: str, n_bytes: int, chunk_bytes: int, spool: Spool) -> None:
        super().__init__(digest, n_bytes, chunk_bytes)
        self._spool = spool
        self._at: int | None = spool.take(n_bytes)

    def _keep(self, index: int, data: bytes) -> bytes:
        """Write a piece. Raises SpoolError."""
        assert self._at is not None  # noqa: S101 -- nobody adds to what was dropped
        self._spool.write(self._at + index * self.chunk_bytes, self.n_bytes, data)
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
