"""Throwing a device off: a client that connects under its id, which makes the broker hang up on it, and stays there.

mosquitto cannot be told to end a connection, and forgets a client only when its id is taken over. Ids are global across
listeners, so this works from the aggregator's own listener, where they are free. Where that listener puts client ids on
user names, the one that is hung up on is the aggregator itself: guard.py notices, and has us leave.

Who is thrown off and connects again takes its id back. So we take it again, at once, for as long as it is held off: it
has about a millisecond each time, and nftables/fedge.nft lets one address connect 20 times a second. What one
connection can leave at the broker in that time is little; with minutes it would fill its memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

MOST_KEPT = 32
"""Ids that are kept at one time: a thread each. Of more, each is taken once."""
LOOKS_S = 0.5
"""How often it is looked whether to leave."""
AGAIN_S = 0.5
"""After a connection that could not be made."""


class Occupant(Protocol):
    """A client of one id that does nothing (broker/occupant.py)."""

    def enter(self) -> None:
        """Take the id over. Raises OSError that says why that cannot be done."""

    def is_out(self, timeout_s: float) -> bool:
        """Return whether the id was taken back, or the connection lost, within so long."""

    def close(self) -> None:
        """Release the id."""


class Cutter(Protocol):
    """What ends the connections of others."""

    def cut(self, client_ids: Sequence[str], for_s: float = 0.0) -> None:
        """Begin to end the connections under these ids, and to keep them from others for so long. Returns at once."""

    def release(self) -> None:
        """Release all ids, soon. Returns at once."""

    def failures(self) -> list[str]:
        """Return why it could not be done, as far as that has become known since this was asked last."""


class Takeover:
    """Takes client ids over and keeps them, on a thread for each, which lives no longer than that.

    occupant: makes a client of this id, not yet there. wake: called, on that thread, when there is a failure to tell.
    """

    def __init__(self, occupant: Callable[[str], Occupant], wake: Callable[[], None]) -> None:
        self._occupant = occupant
        self._wake = wake
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._kept: dict[str, float] = {}
        """Id to until when it is kept."""

    def cut(self, client_ids: Sequence[str], for_s: float = 0.0) -> None:
        """Begin to end the connections under these ids, and to keep them from others for so long. Returns at once."""
        until = time.monotonic() + for_s
        for client_id in client_ids:
            with self._lock:
                begin = client_id not in self._kept
                if not begin or len(self._kept) < MOST_KEPT:
                    self._kept[client_id] = max(until, self._kept.get(client_id, until))
            if begin:
                threading.Thread(target=self._keep, args=(client_id,), name="takeover", daemon=True).start()

    def release(self) -> None:
        """Release all ids, soon. Returns at once."""
        with self._lock:
            self._kept = dict.fromkeys(self._kept, 0.0)

    def failures(self) -> list[str]:
        """Return why it could not be done, as far as that has become known since this was asked last."""
        told = []
        while not self._failed.empty():
            told.append(self._failed.get())
        return told

    def _keep(self, client_id: str) -> None:
        occupant, told = self._occupant(client_id), False
        try:
            while True:
                try:
                    occupant.enter()
                    while (left := self._left_s(client_id)) > 0 and not occupant.is_out(min(left, LOOKS_S)):
                        pass
                except OSError as error:
                    if not told:
                        told = True
                        self._failed.put(str(error))
                        self._wake()
                    time.sleep(min(AGAIN_S, max(0.0, self._left_s(client_id))))
                if self._is_over(client_id):
                    return
        finally:
            occupant.close()

    def _left_s(self, client_id: str) -> float:
        with self._lock:
            return self._kept.get(client_id, 0.0) - time.monotonic()

    def _is_over(self, client_id: str) -> bool:
        with self._lock:
            if self._kept.get(client_id, 0.0) > time.monotonic():
                return False
            self._kept.pop(client_id, None)
            return True
