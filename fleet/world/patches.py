"""Attributes that are other than they were for a while: how a world takes the place of clocks and disks, and a plant
that of a fix; and loggers that are silent.
"""

from __future__ import annotations

import logging
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


@contextmanager
def silence(*names: str) -> Iterator[None]:
    """Have these loggers log nothing: services of a world live thousands of lives, and each has much to say."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
