"""Bodies of updates that are too long for a row: a file a job, written over from its beginning for every version.

A database writes a megabyte three times (into its log, into its file, and at the end when it is freed), with a checksum
of each page; here it is written once. What lies where stands in the row of the update, with a checksum over the body,
so that the row is what counts: a body without a row is nothing, and is written over. A body is on disk before its row.

    updates/JOB.bin    body ─ body ─ body ─ …     end: where the next one goes
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from aggregator.database import StoreError
from runtime.disk import sync

_sync_data = getattr(os, "fdatasync", os.fsync)


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

    def write(self, job: str, bodies: Iterable[bytes]) -> list[int]:
        """Put bodies behind those that are there, on disk, and return where each begins. Raises StoreError."""
        at = self._ends.get(job, 0)
        starts = []
        path = self._path(job)
        try:
            self._folder.mkdir(exist_ok=True)
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0) as file:
                file.seek(at)
                for body in bodies:
                    starts.append(at)
                    at += _written(file.fileno(), body)
                if self._synced:
                    _sync_data(file.fileno())
            if self._synced and job not in self._named:  # whoever made it may have died before
                sync(self._folder)
                sync(self._folder.parent)
                self._named.add(job)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}: is there room on its disk?") from error
        self._ends[job] = at
        return starts

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


def _written(descriptor: int, body: bytes) -> int:
    left = memoryview(body)
    while left:
        left = left[os.write(descriptor, left) :]
    return len(body)
