"""Bodies in pieces: cutting one up, and putting one together from a hostile wire.

An assembly holds at most `n_bytes` bytes, a number that its maker checked against its own specification, never the
sender's word alone; every chunk but the last has exactly `chunk_bytes` bytes; the whole must have the digest.
"""

from __future__ import annotations

import hashlib

from broker.errors import WireError


def digest(body: bytes, digits: int = 16) -> str:
    """Return the name of a body: the first digits of its SHA-256, 64 bits where nothing is said."""
    return hashlib.sha256(body).hexdigest()[:digits]


def count(n_bytes: int, chunk_bytes: int) -> int:
    """Count the chunks of a body."""
    return -(-n_bytes // chunk_bytes)


def cut(body: bytes, chunk_bytes: int) -> list[bytes]:
    """Cut a body into chunks."""
    return [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]


def to_bitmap(indices: set[int], n_chunks: int) -> str:
    """Write a set of chunk indices as a bitmap in hex; the lowest bit of the first byte is chunk 0."""
    bits = bytearray(max(1, -(-n_chunks // 8)))
    for index in indices:
        bits[index // 8] |= 1 << index % 8
    return bits.hex()


def from_bitmap(bitmap: str, n_chunks: int) -> set[int]:
    """Read a bitmap; bits beyond the last chunk are ignored."""
    bits = bytes.fromhex(bitmap)
    return {index for index in range(min(n_chunks, 8 * len(bits))) if bits[index // 8] >> index % 8 & 1}


class Assembly:
    """A body on its way in. Without a digest whoever asked for it has another way to tell whether it is right."""

    def __init__(self, digest_: str | None, n_bytes: int, chunk_bytes: int) -> None:
        self.digest = digest_
        self.n_bytes = n_bytes
        self.chunk_bytes = chunk_bytes
        self.n_chunks = count(n_bytes, chunk_bytes)
        self._chunks: dict[int, bytes] = {}

    @property
    def missing(self) -> set[int]:
        """Indices of the chunks that are still to come; to be asked for once a body, not at every chunk."""
        return set(range(self.n_chunks)) - self._chunks.keys()

    @property
    def complete(self) -> bool:
        """Whether no chunk is missing."""
        return len(self._chunks) == self.n_chunks

    def add(self, index: int, data: bytes) -> bool:
        """Take a chunk; return whether it was missing: one that is already here is passed over.

        Raises WireError for a wrong index or length.
        """
        if index >= self.n_chunks:
            raise WireError(f"chunk {index} of a body that has {self.n_chunks}")
        expected = min(self.chunk_bytes, self.n_bytes - index * self.chunk_bytes)
        if len(data) != expected:
            raise WireError(f"chunk {index} has {len(data)} bytes where {expected} belong")
        if index in self._chunks:
            return False
        self._chunks[index] = self._keep(index, data)
        return True

    def _keep(self, index: int, data: bytes) -> bytes:
        """Keep a chunk, and return what of it is to be in memory."""
        del index
        return data

    def _joined(self) -> bytes:
        return b"".join(self._chunks[index] for index in range(self.n_chunks))

    def drop(self) -> None:
        """Forget what has come."""
        self._chunks.clear()

    def body(self) -> bytes | None:
        """Return the whole body, or None while chunks are missing.

        Raises WireError when the whole does not have the digest; the chunks are then forgotten.
        """
        if not self.complete:
            return None
        body = self._joined()
        if self.digest is not None and digest(body, len(self.digest)) != self.digest:
            self._chunks.clear()
            raise WireError(f"the chunks of body {self.digest} do not make that body")
        return body
