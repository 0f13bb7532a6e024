"""Weights that operators send for jobs to start from, piece by piece, until a job is submitted that takes them.

Pieces come in order, each as a command of its own that is answered with how much is here. Nothing is made room for
before it has come, and what was announced takes none from others; all that is here together is bounded. What nobody has
gone on with for IDLE_S is dropped when another one begins; and after QUIET_S already where others need its room.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.messages import Upload

IDLE_S = 600.0
QUIET_S = 30.0
MOST_UPLOADS = 8


@dataclass
class _Coming:
    digest: str
    n_bytes: int
    heard_at: float
    data: bytearray = field(default_factory=bytearray)


class Uploads:
    """What is here of them, by who sends it: one for each. clock: seconds that only go forward. most_bytes: of all."""

    def __init__(self, clock: Callable[[], float], most_bytes: int) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._coming: dict[str, _Coming] = {}

    def take(self, piece: Upload) -> str:
        """Take a piece, unless it was taken before; return in words how many bytes are here. Raises ValueError."""
        now, coming = self._clock(), self._coming.get(piece.client)
        if coming is None or (coming.digest, coming.n_bytes) != (piece.digest, piece.n_bytes):
            coming = self._begin(piece, now)
        coming.heard_at, here = now, len(coming.data)
        if piece.at == here and here < coming.n_bytes:
            try:
                data = base64.b64decode(piece.data, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"a piece of the weights is no base64: {error}") from error
            if here + len(data) > coming.n_bytes:
                raise ValueError("the weights have more bytes than was said")
            self._make_room(piece, len(data), now)
            coming.data += data
        elif piece.at > here:
            raise ValueError(f"{here} bytes of the weights are here, and a piece begins at {piece.at}: begin again")
        return str(len(coming.data))

    def whole(self, digest: str) -> bytes:
        """Return weights that are all here, and keep them no longer; others of that name are passed over.

        Raises ValueError.
        """
        why = "the weights that it is to start from are not here, or not all of them: send them again"
        for client, coming in self._coming.items():
            if coming.digest == digest and len(coming.data) == coming.n_bytes:
                data = bytes(coming.data)
                if hashlib.sha256(data).hexdigest().startswith(digest):
                    del self._coming[client]
                    return data
                why = "the weights that have come are not those that were announced: send them again"
        raise ValueError(why)

    def _begin(self, piece: Upload, now: float) -> _Coming:
        self._coming.pop(piece.client, None)
        for client in [client for client, one in self._coming.items() if now > one.heard_at + IDLE_S]:
            del self._coming[client]
        if piece.at:
            raise ValueError("the beginning of the weights is not here any more: begin again")
        if piece.n_bytes > self._most_bytes:
            raise ValueError(self._full(piece, self._most_bytes))
        self._make_room(piece, 0, now)
        if len(self._coming) >= MOST_UPLOADS:
            raise ValueError(f"{MOST_UPLOADS} others are sending weights: try again in a minute")
        coming = self._coming[piece.client] = _Coming(piece.digest, piece.n_bytes, now)
        return coming

    def _make_room(self, piece: Upload, n_bytes: int, now: float) -> None:
        """Drop what others do not go on with, longest first, until so much more fits. Raises ValueError."""
        others = sorted((one.heard_at, client) for client, one in self._coming.items() if client != piece.client)
        while (left := self._most_bytes - sum(len(one.data) for one in self._coming.values())) < n_bytes or (
            len(self._coming) - (piece.client in self._coming) >= MOST_UPLOADS
        ):
            if not others or now <= others[0][0] + QUIET_S:
                if left < n_bytes:
                    raise ValueError(self._full(piece, left))
                return
            del self._coming[others.pop(0)[1]]

    @staticmethod
    def _full(piece: Upload, left: int) -> str:
        return (
            f"{piece.n_bytes:,} bytes of weights, where {left:,} are left of unassembled_bytes in [limits] of "
            "aggregator.toml"
        )
