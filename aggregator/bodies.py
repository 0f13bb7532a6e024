"""Bodies of updates that are too long for a row: a file a job, written over from its beginning for every version.

A database writes a megabyte three times (into its log, into its file, and at the end when it is freed), with a checksum
of each page; here it is written once. What lies where stands in the row of the update, with a checksum over the body,
so that the row is what counts: a body without a row is nothing, and is written over. A body is written as it comes, and
on disk before its row.

    updates/JOB.bin    body ─ body ─ body ─ …     end: where the next one goes
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from aggregator.database import StoreError, crc
from runtime.disk import sync

_sync_data = getattr(os, "fdatasync", os.fsync)


class Place(NamedTuple):
    """Where a body lies, and the checksum over it."""

    at: int
    n_bytes: int
    crc: int


class Bodies:
    """The files of one store. synced: False where no power is cut."""

    def __init__(self, folder: Path, *, synced: bool) -> None:
        self._folder = folder
        self._synced = synced
        self._ends: dict[str, int] = {}
        self._named: set[str] = set()
        """Jobs whose file has its name on disk: this process has seen to it."""

    def open(self, ends: Mapping[str, int], known: Container[str]) -> None:
        """Go on behind what the rows name, and remove the files of jobs that are not known."""
        self._ends = {job: min(end, self._size(job)) for job, end in ends.items()}
        for path in self._folder.glob("*.bin"):
            if path.stem not in known:
                with contextlib.suppress(OSError):
                    path.unlink()

    def put(self, job: str, body: bytes) -> Place:
        """Write a body behind those that are there, and return where. Raises StoreError."""
        at = self._ends.get(job, 0)
        with self._opened(job, os.O_RDWR | os.O_CREAT) as descriptor:
            left = memoryview(body)
            while left:
                left = left[os.pwrite(descriptor, left, at + len(body) - len(left)) :]
        self._ends[job] = at + len(body)
        return Place(at, len(body), crc(body))

    def sync(self, job: str) -> None:
        """Put on disk what was written. Raises StoreError."""
        if not self._synced:
            return
        with self._opened(job, os.O_RDWR) as descriptor:
            _sync_data(descriptor)
            if job not in self._named:  # whoever made it may have died before
                sync(self._folder)
                sync(self._folder.parent)
                self._named.add(job)

    @contextlib.contextmanager
    def _opened(self, job: str, flags: int) -> Iterator[int]:
        """Open the file of a job, to be written. Raises StoreError, also for what fails in the block."""
        path, flags = self._path(job), flags | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(path, flags, 0o644)
            except FileNotFoundError:
                self._folder.mkdir(exist_ok=True)
                descriptor = os.open(path, flags, 0o644)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}: is there room on its disk?") from error

    def end(self, job: str) -> int:
        """Return where the next body goes."""
        return self._ends.get(job, 0)

    def rewind(self, job: str, end: int = 0) -> None:
        """Write over what lies from here on: no row can name it any more."""
        self._ends[job] = end

    def read(self, job: str, at: object, n_bytes: object) -> bytes:
        """Return a body; b"" where none lies at such a place. Raises StoreError."""
        if not isinstance(at, int) or not isinstance(n_bytes, int) or at < 0 or n_bytes < 0:
            return b""
        try:
            with self._path(job).open("rb") as file:
                if at + n_bytes > os.fstat(file.fileno()).st_size:  # nothing is allocated on the word of a row
                    return b""
                file.seek(at)
                return file.read(n_bytes)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StoreError(f"{self._path(job)} cannot be read: {error.strerror}: look at the disk") from error

    def forget(self, job: str) -> None:
        """Remove the file of a job that is gone; where that fails it goes at the next start."""
        self._ends.pop(job, None)
        self._named.discard(job)
        with contextlib.suppress(OSError):
            self._path(job).unlink(missing_ok=True)

    def _size(self, job: str) -> int:
        try:
            return self._path(job).stat().st_size
        except OSError:
            return 0

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.bin"
