"""Where a device keeps what it must not forget: the file system; or nowhere, for a device that lives once.

`edge_agent.files` is the disk of every real device; a module is a `Disk` as it stands. A simulated device has `NoDisk`:
no process of it ever follows another, so nobody reads what is written for that one, and thousands of devices in one
process make no folders and rename no files. What a process needs of its own it holds itself.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Protocol


@functools.lru_cache(maxsize=64)
def below(folder: Path, *names: str) -> Path:
    """Return a path in a folder: the same object again where it was asked for lately.

    To put one together takes longer than most of what is done with it, and the devices of a fleet in one process have
    the same ones.
    """
    return folder.joinpath(*names)


class Disk(Protocol):
    """What `files` does, and may raise."""

    def make_folder(self, path: Path) -> bool:
        """Make a folder and the parents it lacks; return whether it is new, with nothing in it. Raises OSError."""

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


class NoDisk:
    """The disk of a device that lives once: it takes everything, and whoever looks finds it as new."""

    __slots__ = ()

    def make_folder(self, path: Path) -> bool:  # noqa: ARG002
        """Return that it is new."""
        return True

    def seal(self, path: Path, content: bytes) -> None:
        """Take it."""

    def unseal(self, path: Path) -> bytes | None:  # noqa: ARG002
        """Return that there is no such file."""
        return None

    def overwrite(self, path: Path, content: bytes) -> None:
        """Take it."""

    def overwritten(self, path: Path) -> bytes | None:  # noqa: ARG002
        """Return that there is no such file."""
        return None

    def exists(self, path: Path) -> bool:  # noqa: ARG002
        """Return that there is no such file."""
        return False

    def remove(self, path: Path) -> None:
        """Find nothing to remove."""

    def discard(self, path: Path) -> None:
        """Find nothing to remove."""

    def folders(self, path: Path) -> list[str]:  # noqa: ARG002
        """Return that there is none."""
        return []

    def forget(self, path: Path) -> None:
        """Find nothing to remove."""
