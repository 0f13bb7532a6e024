"""Bodies that nobody needs any more and that may still lie at the broker: cleared there until that has surely arrived.

Nothing is queued while the broker is away, and a process may end between two packets. So the store keeps the names of
what is to be cleared (`Store.litter`); all of it is cleared again at each connection, and forgotten when a connection
has lasted for SURE_S after that. However often there is more to clear, what has lain so long is forgotten: in one
transaction about every SURE_S, so that what the store keeps is of twice that time at most.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from aggregator.database import StoreError
from aggregator.projection import Clear, Out
from aggregator.store import LitterRow, Store
from broker.messages import Body

SURE_S = 300.0
log = logging.getLogger(__name__)


class Litter:
    """What is still to be cleared. clock: seconds that only go forward. send: is given what to say."""

    def __init__(self, store: Store, *, clock: Callable[[], float], send: Callable[[Iterable[Out]], None]) -> None:
        self.deadline = math.inf
        """When `tick` has something to do; inf for never."""
        self._store = store
        self._clock = clock
        self._send = send
        self._cleared: dict[LitterRow, float] = {}
        """What was cleared on this connection, and when."""

    def clear(self) -> None:
        """Clear what has not been cleared on this connection."""
        try:
            rows = [row for row in self._store.litter() if row not in self._cleared]
        except StoreError as error:
            log.error("what is to be cleared at the broker cannot be read: %s", error)
            return
        for row in rows:
            self._send(Clear(Body(row.job, row.name, index, b"")) for index in range(row.chunks))
        now = self._clock()
        self._cleared.update(dict.fromkeys(rows, now))
        if rows:
            self.deadline = min(self.deadline, now + SURE_S)

    def doubt(self) -> None:
        """Hold nothing for cleared: the connection was lost, or has just been made."""
        self._cleared.clear()
        self.deadline = math.inf

    def tick(self, now: float) -> None:
        """Forget what was cleared, when that has surely arrived."""
        if now < self.deadline:
            return
        sure = [row for row, at in self._cleared.items() if now >= at + SURE_S]
        try:
            self._store.forget_litter(sure)
        except StoreError as error:
            log.error("what was cleared at the broker cannot be forgotten: %s", error)
        for row in sure:
            del self._cleared[row]
        self.deadline = max(self._cleared.values(), default=math.inf) + SURE_S
