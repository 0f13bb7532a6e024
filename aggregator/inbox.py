"""Updates on their way in, chunk by chunk, within quotas.

Nothing here is durable: a chunk that is lost is asked for again. A device holds at most one assembly per job, of a size
that the coordinator has checked against the job; all assemblies together hold at most `most_bytes`.
"""

from __future__ import annotations

from broker import chunks
from broker.chunks import Assembly, to_bitmap
from broker.errors import WireError
from broker.messages import Chunk, Offer, Want

MOST_CHUNKS = 4096
"""Chunks that one body may be cut into."""


class Inbox:
    """The unfinished updates of all devices."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._waiting: dict[tuple[str, str], tuple[Offer, Assembly]] = {}
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of chunks in memory now."""
        return self._held

    def collect(self, offer: Offer) -> bytes | Want | None:
        """Give the body of a welcome offer if it is all here, else which chunks to ask for.

        None: the quota is used up, the device will offer again. Raises WireError when the body is not what the offer
        says.
        """
        if offer.body:
            return self._inline(offer)
        _, assembly = self._entry(offer)
        body = assembly.body()
        if body is not None:
            self.forget(offer.job, offer.device)
            return body
        if self._held + offer.n_bytes - assembly.held_bytes > self.most_bytes:
            return None
        return Want(offer.device, offer.job, offer.digest, to_bitmap(assembly.missing, assembly.n_chunks))

    def add(self, chunk: Chunk) -> Offer | None:
        """Take a chunk; give the offer when that was the last one missing.

        A chunk that nobody asked for is dropped. Raises WireError for one of a wrong index or length.
        """
        entry = self._waiting.get((chunk.job, chunk.device))
        if entry is None or entry[1].digest != chunk.digest:
            return None
        offer, assembly = entry
        if self._held + len(chunk.data) > self.most_bytes:
            return None
        before = assembly.held_bytes
        assembly.add(chunk.index, chunk.data)
        self._held += assembly.held_bytes - before
        return offer if not assembly.missing else None

    def forget(self, job: str, device: str) -> None:
        """Drop what has come of a device's update."""
        entry = self._waiting.pop((job, device), None)
        if entry is not None:
            self._held -= entry[1].held_bytes

    def forget_job(self, job: str) -> None:
        """Drop every unfinished update of a job: its base has been left."""
        for key in [key for key in self._waiting if key[0] == job]:
            self.forget(*key)

    def _entry(self, offer: Offer) -> tuple[Offer, Assembly]:
        entry = self._waiting.get((offer.job, offer.device))
        if entry is None or (entry[0].digest, entry[0].n_bytes) != (offer.digest, offer.n_bytes):
            self.forget(offer.job, offer.device)
            if chunks.count(offer.n_bytes, offer.chunk_bytes) > MOST_CHUNKS:
                raise WireError(f"chunks of {offer.chunk_bytes} bytes cut {offer.n_bytes} bytes too finely")
            entry = (offer, Assembly(offer.digest, offer.n_bytes, offer.chunk_bytes))
            self._waiting[offer.job, offer.device] = entry
        return entry

    @staticmethod
    def _inline(offer: Offer) -> bytes:
        if len(offer.body) != offer.n_bytes:
            raise WireError(f"an offer of {offer.n_bytes} bytes came with {len(offer.body)}")
        assembly = Assembly(offer.digest, offer.n_bytes, offer.n_bytes)
        assembly.add(0, offer.body)
        return assembly.body() or b""
