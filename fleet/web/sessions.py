"""Who is in: sessions of the page, in the memory of its process alone.

    login ──▶ a token of 256 random bits, in the cookie ──▶ its SHA-256, here ──▶ name, CSRF token
                                                              ends: log out; IDLE_S without a request; LONGEST_S;
                                                              the user is gone, or has another password; a restart

1. A token is made at a login and never taken from a request; the one that came along with the login ends.
2. Only the hash of a token is here, so that looking one up tells nothing by the time that it takes.
3. There are MOST_OF_ONE of a user and MOST of all; a new one puts out the one that was asked by the longest ago.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

IDLE_S = 3600.0
LONGEST_S = 12 * 3600.0
MOST_OF_ONE = 10
MOST = 500


@dataclass
class Session:
    """Of one browser. kept: what is kept of the password that was given. csrf: stands in every form."""

    name: str
    kept: str
    csrf: str
    began: float
    asked: float
    key: bytes


class Sessions:
    """All of them. clock: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        """The one that was asked by the longest ago first."""

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, name: str, kept: str) -> tuple[str, Session]:
        """Return a new session and its token."""
        token, now = secrets.token_urlsafe(32), self._clock()
        session = Session(name, kept, secrets.token_urlsafe(32), now, now, _key(token))
        with self._lock:
            self._sweep(now)
            mine = [key for key, one in self._sessions.items() if one.name == name]
            for key in mine[: max(0, len(mine) - MOST_OF_ONE + 1)]:
                del self._sessions[key]
            while len(self._sessions) >= MOST:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[session.key] = session
        return token, session

    def find(self, token: str) -> Session | None:
        """Return the session of a token, which was asked by just now."""
        with self._lock:
            session = self._sessions.get(key := _key(token))
            if session is None or not self._holds(session, now := self._clock()):
                self._sessions.pop(key, None)
                return None
            session.asked = now
            self._sessions[key] = self._sessions.pop(key)
            return session

    def is_open(self, session: Session) -> bool:
        """Return whether a session has not ended; nobody has asked by it."""
        with self._lock:
            return self._sessions.get(session.key) is session and self._holds(session, self._clock())

    def close(self, session: Session) -> None:
        """End it."""
        with self._lock:
            self._sessions.pop(session.key, None)

    @staticmethod
    def _holds(session: Session, now: float) -> bool:
        return now - session.asked < IDLE_S and now - session.began < LONGEST_S

    def _sweep(self, now: float) -> None:
        for key in [key for key, one in self._sessions.items() if not self._holds(one, now)]:
            del self._sessions[key]


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
