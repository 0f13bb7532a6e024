"""A session of two: from an exchange key of each, one key a direction, and the counts that were used and heard.

    key of a direction = BLAKE2b(key = X25519 of the two, fleet, device, both public keys, direction)

Both exchange keys are drawn when a process starts and are never written down. So what was said in a session of
yesterday fails in that of today, whoever of the two was started again.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from broker.envelope import Envelope, Window, proved
from identity.keys import ExchangeKey, mac


class Session:
    """One side of a session. Raises ValueError for a public key that is none."""

    __slots__ = ("_count", "_heard", "_hears", "_says", "presence", "theirs")

    def __init__(self, mine: ExchangeKey, theirs: bytes, fleet: str, device: str, *, of_device: bool) -> None:
        shared = mine.shared(theirs)
        keys = (mine.public, theirs) if of_device else (theirs, mine.public)
        up, down = (_derived(shared, fleet, device, keys, way) for way in ("up", "down"))
        self._says, self._hears = (up, down) if of_device else (down, up)
        self._count = 0
        self._heard = Window()
        self.theirs = theirs
        self.presence = 0
        """Count of the last presence of this life of the device."""

    def close(self, said: bytes) -> Envelope:
        """Return the envelope of what is said next."""
        self._count += 1
        return Envelope(self._count, mac(self._says, proved(said, self._count)))

    def opens(self, said: bytes, envelope: Envelope) -> bool:
        """Return whether the other one of this session has said it."""
        return hmac.compare_digest(mac(self._hears, proved(said, envelope.count)), envelope.proof)

    def is_new(self, envelope: Envelope) -> bool:
        """Note that it was heard; return whether for the first time."""
        return self._heard.take(envelope.count)


def _derived(shared: bytes, fleet: str, device: str, keys: tuple[bytes, bytes], way: str) -> bytes:
    told = msgspec.msgpack.encode(["fedge session", fleet, device, *keys, way])
    return hashlib.blake2b(told, digest_size=32, key=shared).digest()
