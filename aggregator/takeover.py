"""Throwing a device off: a client that connects under its id, which makes the broker hang up on it.

mosquitto cannot be told to end a connection, and forgets a client only when its id is taken over. Ids are global across
listeners, so this works from the aggregator's own listener, where they are free. Where that listener puts client ids on
user names, the one that is hung up on is the aggregator itself: guard.py notices.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from broker.transport import Offline, Online, SessionTakenOver, Transport

ANSWER_S = 5.0
CLOSE_S = 0.5


class Cutter(Protocol):
    """What ends the connections of others."""

    def cut(self, client_ids: Sequence[str]) -> None:
        """Begin to end the connections under these ids. Returns at once."""

    def failures(self) -> list[str]:
        """Return why it could not be done, as far as that has become known since this was asked last."""


class Takeover:
    """Takes client ids over, one after another, on a thread of its own, which lives while there are any.

    connect: makes a client of this id, not yet open. wake: called, on that thread, when there is a failure to tell.
    """

    def __init__(self, connect: Callable[[str], Transport], wake: Callable[[], None]) -> None:
        self._connect = connect
        self._wake = wake
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._at_work = False

    def cut(self, client_ids: Sequence[str]) -> None:
        """Begin to end the connections under these ids. Returns at once."""
        with self._lock:
            for client_id in client_ids:
                self._wanted.put(client_id)
            begin = not self._at_work and not self._wanted.empty()
            self._at_work = self._at_work or begin
        if begin:
            threading.Thread(target=self._work, name="takeover", daemon=True).start()

    def failures(self) -> list[str]:
        """Return why it could not be done, as far as that has become known since this was asked last."""
        told = []
        while not self._failed.empty():
            told.append(self._failed.get())
        return told

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._wanted.empty():
                    self._at_work = False
                    return
            if why := self._take(self._wanted.get()):
                self._failed.put(why)
                self._wake()

    def _take(self, client_id: str) -> str:
        """Be this client for a moment; return why that is not possible, if so."""
        transport = self._connect(client_id)
        transport.open()
        try:
            match transport.take(ANSWER_S):
                case Online() | SessionTakenOver():
                    return ""
                case Offline(reason):
                    return reason
                case _:
                    return f"the broker did not answer within {ANSWER_S:g} s"
        finally:
            transport.close(CLOSE_S)
