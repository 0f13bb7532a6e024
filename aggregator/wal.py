"""The log (WAL) that SQLite keeps beside a file, put on disk by whoever has told SQLite not to.

A sync that has failed is not simply tried again: the kernel has then forgotten which bytes are not on disk, and the
next sync would find nothing to do and succeed. So all of the log is written once more first, as it stands. And the log
is held open from before anything is written to it: an error is told once to each who has it open, and SQLite passes
over its own where it syncs the log for a checkpoint.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runtime.disk import sync

_sync_data = getattr(os, "fdatasync", os.fsync)
_PIECE = 2**20


class Wal:
    """The log of one file. Its methods raise OSError."""

    is_doubted = False
    """Whether a sync has failed, so that all is to be written again before the next one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._descriptor: int | None = None
        self._is_named = False
        """Whether its name is on disk: this process has seen to it."""

    def open(self) -> bool:
        """Hold it open from now on, and return whether it is there."""
        if self._descriptor is None:
            with suppress(FileNotFoundError):
                self._descriptor = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
        return self._descriptor is not None

    def close(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def sync(self) -> None:
        """Put it on disk; the first time its name as well."""
        try:
            _sync_data(self._opened())
        except OSError:
            self.is_doubted = True
            raise
        if not self._is_named:
            sync(self.file.parent)
            self._is_named = True
        self.is_doubted = False

    def write_again(self) -> None:
        """Write all of it over itself. Nobody else may write to it meanwhile."""
        at, descriptor = 0, self._opened()
        while piece := os.pread(descriptor, _PIECE, at):
            at += os.pwrite(descriptor, piece, at)

    def _opened(self) -> int:
        if not self.open() or self._descriptor is None:
            raise FileNotFoundError(2, "somebody has removed it", str(self.file))
        return self._descriptor
