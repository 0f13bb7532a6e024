"""Disks of made-up machines: real folders, which can be copied, restored, emptied and full.

Where memory is roomy they lie in memory. A process that dies within a step leaves what was on the disk at that very
moment: `freeze` keeps it, so that nothing that the ruins of the process still do on the way out counts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.world.record import Record, copied

MEMORY_DISK = Path("/dev/shm")  # noqa: S108 -- a folder of its own is made there
ROOM_BYTES = 2**26


class Disk:
    """One machine's state directory, and what the laws know of it."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record
        self.full = False
        """Whether every write is refused."""
        self.shared = False
        """Whether several processes run here, against all rules."""
        self.place = 0
        """Where its files lie, as file system and inode say it: another place after a restore that makes them anew."""
        self._frozen: Path | None = None
        self._n_copies = 0

    def copy(self) -> Disk:
        """Return another disk with the same content. Between two steps of a process nothing is half written."""
        self._n_copies += 1
        other = Disk(self.folder.with_name(f"{self.folder.name}.{self._n_copies}"), copied(self.record))
        other.place = self.place + 1
        _copy(self.folder, other.folder)
        return other

    def restore(self, backup: Disk, *, in_place: bool = False) -> None:
        """Put the content of another disk here. Nothing may run on this one; the other stays as it is.

        in_place: written over the files that are there.
        """
        self.place += not in_place
        self._clear()
        _copy(backup.folder, self.folder)
        self.record = copied(backup.record)

    def empty(self) -> None:
        """Put in a new card. Nothing may run on this disk."""
        self._clear()
        self.record = type(self.record)()

    def freeze(self) -> None:
        """Keep what is here now, while a dying process may still write."""
        if not self.shared:
            self._frozen = self.folder.with_name(f"{self.folder.name}.frozen")
            _copy(self.folder, self._frozen)

    def thaw(self) -> None:
        """Go on from what was kept, if it was: the process is dead, its files are closed."""
        if self._frozen is not None:
            self._clear()
            if self._frozen.exists():
                self._frozen.rename(self.folder)
            self._frozen = None

    def n_files(self) -> int:
        """Count the files here."""
        return sum(1 for path in self.folder.rglob("*") if path.is_file()) if self.folder.exists() else 0

    def _clear(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        # SQLite makes its wal-index anew from the log; a copy of it would belong to the other process.
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*-shm"), copy_function=shutil.copyfile)


@contextmanager
def shelf() -> Iterator[Path]:
    """Return a folder for disks, in memory where there is room, for the length of a block."""
    try:
        roomy = shutil.disk_usage(MEMORY_DISK).free > ROOM_BYTES
    except OSError:
        roomy = False
    with tempfile.TemporaryDirectory(prefix="fedge-world-", dir=MEMORY_DISK if roomy else None) as folder:
        yield Path(folder)
