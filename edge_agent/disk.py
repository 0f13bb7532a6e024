"""Where a device keeps what it must not forget: the file system, or memory for a device that no process outlives.

`edge_agent.files` is the disk of every real device; a module is a `Disk` as it stands. `MemoryDisk` is its twin for
simulated ones, held to the same tests: thousands of them in one process would otherwise make folders and rename files
for nobody, and for the page cache.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """What `files` does, and may raise."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and the parents it lacks. Raises OSError."""

    def seal(self, path: Path, content: bytes) -> None:
        """Write a whole file over the one that is there. Raises OSError; that one is then untouched."""

    def unseal(self, path: Path) -> bytes | None:
        """Return what `seal` wrote; None where there is no such file, or it has rotted. Raises OSError."""

    def overwrite(self, path: Path, content: bytes) -> None:
        """Write a whole file over one that is of no use any more. Raises OSError; that one may then be gone."""

    def overwritten(self, path: Path) -> bytes | None:
        """Return what `overwrite` wrote, or `seal`; None and OSError as `unseal`."""

    def exists(self, path: Path) -> bool:
        """Return whether there is such a file, rotten or not."""

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there, durably."""

    def discard(self, path: Path) -> None:
        """Remove a file, if it is there; it may come back. Raises OSError."""

    def folders(self, path: Path) -> list[str]:
        """Return the names of the folders in a folder, sorted; none where it is not there. Raises OSError."""

    def forget(self, path: Path) -> None:
        """Remove a folder with all that is in it, if it is there. Raises OSError; it can be called again."""


class MemoryDisk:
    """The files of one simulated device."""

    __slots__ = ("_files",)

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def make_folder(self, path: Path) -> None:
        """Do nothing: a folder is there as soon as a file is in it."""

    def seal(self, path: Path, content: bytes) -> None:
        """See `Disk`."""
        self._files[sys.intern(str(path))] = content  # thousands of disks have the same few names

    def unseal(self, path: Path) -> bytes | None:
        """See `Disk`. Nothing rots here."""
        return self._files.get(str(path))

    def overwrite(self, path: Path, content: bytes) -> None:
        """See `Disk`."""
        self.seal(path, content)

    def overwritten(self, path: Path) -> bytes | None:
        """See `Disk`."""
        return self.unseal(path)

    def exists(self, path: Path) -> bool:
        """See `Disk`."""
        return str(path) in self._files

    def remove(self, path: Path) -> None:
        """See `Disk`."""
        self._files.pop(str(path), None)

    def discard(self, path: Path) -> None:
        """See `Disk`."""
        self.remove(path)

    def folders(self, path: Path) -> list[str]:
        """See `Disk`."""
        above = f"{path}/"
        below = (name.removeprefix(above).split("/") for name in self._files if name.startswith(above))
        return sorted({words[0] for words in below if len(words) > 1})

    def forget(self, path: Path) -> None:
        """See `Disk`."""
        for name in [name for name in self._files if name.startswith(f"{path}/")]:
            del self._files[name]
