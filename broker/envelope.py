"""What stands in front of a payload that says who sends it: one byte, a count, and a signature or a MAC.

    ├ FE ┼ count ┼ 64 bytes, Ed25519 ─┼ the payload as it is without        what one says to all
    ├ FD ┼ count ┼ 16 bytes, BLAKE2b ─┼ the payload as it is without        what one of two says to the other

No payload begins with either byte where an envelope may stand: a row begins with 122 at most, JSON with 123. The count
is a natural number in groups of seven bits, the lowest first, the high bit of a byte saying that another follows, as
short as can be. Proved are the canonical bytes of the message (canonical.py), and behind them the count in 8 bytes.
"""

from __future__ import annotations

from msgspec import Struct

from broker import varint
from broker.errors import WireError

SIGNED, SEALED = 0xFE, 0xFD
PROOF_BYTES = {SIGNED: 64, SEALED: 16}
MOST_COUNT_BYTES = 5
"""Of a count: enough for a thousand words a second for a year."""
WIDTH = 64
"""So many counts below the highest one that was heard may still come."""


class Envelope(Struct, frozen=True):
    """A count, and what proves the message with it: a signature of 64 bytes, or a MAC of 16."""

    count: int
    proof: bytes

    @property
    def is_signature(self) -> bool:
        """Whether anybody who has the public key can check it."""
        return len(self.proof) == PROOF_BYTES[SIGNED]

    def to_bytes(self) -> bytes:
        """Return what stands in front of the payload."""
        kind = SIGNED if self.is_signature else SEALED
        return bytes((kind,)) + varint.write(self.count) + self.proof


def proved(said: bytes, count: int) -> bytes:
    """Return the bytes that a signature or a MAC is over. said: the canonical bytes of the message."""
    return said + count.to_bytes(8, "big")


def split(payload: bytes) -> tuple[Envelope | None, bytes]:
    """Return the envelope of a payload, if it has one, and what is behind it. Raises WireError for a broken one."""
    kind = payload[0] if payload else 0
    if kind not in PROOF_BYTES:
        return None, payload
    count, start = _read(payload)
    end = start + PROOF_BYTES[kind]
    if len(payload) <= end:
        raise WireError("an envelope that ends before its payload")
    return Envelope(count, payload[start:end]), payload[end:]


def _read(payload: bytes) -> tuple[int, int]:
    """Return the count behind the first byte, and where it ends. Raises WireError."""
    count = 0
    for place in range(MOST_COUNT_BYTES):
        at = 1 + place
        if at >= len(payload):
            break
        count |= (payload[at] & 0x7F) << 7 * place
        if payload[at] < 0x80:
            if place and not payload[at]:
                raise WireError("the count of an envelope is written longer than it is")
            return count, at + 1
    raise WireError("an envelope without a count")


class Window:
    """Which counts of a session were heard: each is taken once, in any order that a network makes of them.

    What is older than the last WIDTH counts is taken for heard.
    """

    __slots__ = ("_bits", "_highest")

    def __init__(self) -> None:
        self._highest = 0
        self._bits = 0
        """Bit n: whether the count that is n below the highest was heard."""

    def take(self, count: int) -> bool:
        """Note a count; return whether it is new. (Counts begin at 1.)"""
        behind = self._highest - count
        if behind < 0:
            self._bits = (self._bits << min(-behind, WIDTH) | 1) & (1 << WIDTH) - 1
            self._highest = count
            return True
        if behind >= WIDTH or not count or self._bits >> behind & 1:
            return False
        self._bits |= 1 << behind
        return True
