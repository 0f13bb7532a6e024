"""Attributes that are other than they were for a while: how a world takes the place of clocks and disks, and a plant
that of a fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Patches:
    """What was changed, and how it was before."""

    def __init__(self) -> None:
        self._before: list[tuple[object, str, object]] = []

    def set(self, owner: object, name: str, value: object) -> None:
        """Put something in the place of an attribute, which must be there."""
        self._before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back, the last change first."""
        while self._before:
            setattr(*self._before.pop())


@contextmanager
def patching() -> Iterator[Patches]:
    """Return patches that are undone at the end of a block."""
    patches = Patches()
    try:
        yield patches
    finally:
        patches.undo()
