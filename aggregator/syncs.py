"""When what is written to the store is put on disk: each transaction by itself, or those of a block in one.

    transaction ─ sync   transaction ─ sync              outside a block: each is on disk when it is over
    [ transaction ─ transaction ─ transaction ] ─ sync   in a block: all of them are when the block is over

SQLite appends the transactions of a file to its log (WAL), so a sync of the log puts all on disk that have been made by
then, and a power cut takes the last ones whole, never one before another. With synchronous = NORMAL SQLite syncs none
of them, with FULL each; the start of a log and a checkpoint are synced either way. (OFF would leave out those as well,
and then a power cut could mix two states of the file.) A process that dies loses nothing of what it has written.

What a block has written is owed a sync until there was one, and so is what a process finds that has died in a block.
Where that fails, nothing is read or written before it has succeeded: nobody goes on from what may not be there after a
power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Level = Literal["FULL", "NORMAL"]


class Syncs:
    """The syncs of one file that keeps a log. What its two functions raise goes through.

    set_level: has SQLite sync so much; None where that is never changed. sync_log: puts all on disk that is written.
    is_owed: whether something may have been written before that is not.
    """

    def __init__(
        self, set_level: Callable[[Level], None] | None, sync_log: Callable[[], None], *, is_owed: bool = False
    ) -> None:
        self._set_level = set_level
        self._sync_log = sync_log
        self._level: Level = "FULL"
        self._is_block = False
        self._is_owed = is_owed

    def begin(self) -> None:
        """Note that a transaction is about to begin."""
        if self._set_level is None:
            return
        if self._is_block:
            self._is_owed = True
            self._set("NORMAL")
        else:
            self.pay()
            self._set("FULL")

    @contextmanager
    def once(self) -> Iterator[None]:
        """Put what the transactions of a block have written on disk when it is over, however it ends."""
        if self._is_block:
            yield
            return
        self._is_block = True
        try:
            yield
        finally:
            self._is_block = False
            self.pay()

    @contextmanager
    def none(self) -> Iterator[None]:
        """Leave the transaction of a block to the next sync of others."""
        self._set("NORMAL")
        try:
            yield
        finally:
            self._set("FULL")

    def before_reading(self) -> None:
        """Note that something is about to be read: outside a block only what is on disk."""
        if not self._is_block:
            self.pay()

    def pay(self) -> None:
        """Put on disk what is owed."""
        if self._is_owed:
            self._sync_log()
            self._is_owed = False

    def _set(self, level: Level) -> None:
        if self._set_level is not None and level != self._level:
            self._set_level(level)
            self._level = level
