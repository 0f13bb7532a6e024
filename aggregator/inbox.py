"""Updates on their way in, chunk by chunk, within quotas.

Nothing here is durable: a chunk that is lost is asked for again. A device has at most one assembly per job, of a size
that the coordinator has checked against the job. Who has room, who gives way and who is next is the law of room.py;
here are the bytes. Who finds no room stands in line, and is asked as soon as there is some: without that it would offer
again only after its own pause, which grows.

The first `in_memory_bytes` of them are in memory, as all are in a small fleet; the others lie on disk (spool.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from aggregator.room import Key, Room
from aggregator.spool import Spool, SpooledAssembly, SpoolError
from broker import ceilings, chunks
from broker.chunks import Assembly, to_bitmap
from broker.errors import WireError
from broker.messages import Chunk, Offer, Want

MOST_CHUNKS = ceilings.MOST_CHUNKS
"""Chunks that one body may be cut into."""
IN_MEMORY_BYTES = 4 * 2**20


class _Entry(Struct):
    offer: Offer
    assembly: Assembly


class Inbox:
    """The unfinished updates of all devices.

    folder: where those lie that memory has no room for; None: all are in memory.
    """

    def __init__(self, most_bytes: int, folder: Path | None = None, *, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self.room = Room(most_bytes)
        self._in_memory_bytes = in_memory_bytes
        self._spool = None if folder is None else Spool(folder)
        self._in_memory = 0
        """Bytes that the assemblies in memory will have."""
        self._waiting: dict[Key, _Entry] = {}
        self._freed = False

    def collect(self, offer: Offer, now: float) -> bytes | Want | None:
        """Return the body of a welcome offer if it is all here, else which chunks to ask for.

        None: there is no room, the device is called or will offer again. Raises WireError when the body is not what the
        offer says, and SpoolError when the disk does not give it back; it is then forgotten.
        """
        if offer.body:
            return self._inline(offer)
        assembly = self._assembly(offer, now)
        if assembly is None:
            return None
        if not assembly.complete:
            return Want(offer.device, offer.job, offer.digest, to_bitmap(assembly.missing, assembly.n_chunks))
        try:
            body = assembly.body()
            self.room.end((offer.job, offer.device), whole_at=now)
        except WireError:
            self.room.make_guest(offer.device, now)
            raise
        finally:
            self.forget(offer.job, offer.device)
        return body

    def add(self, chunk: Chunk, now: float) -> Offer | None:
        """Take a chunk; give the offer when that was the last one missing.

        A chunk that nobody asked for is dropped. Raises WireError for one of a wrong index or length, and SpoolError
        when the disk does not take it; what has come of the update is then forgotten.
        """
        entry = self._waiting.get((chunk.job, chunk.device))
        if entry is None or entry.assembly.digest != chunk.digest:
            return None
        try:
            was_missing = entry.assembly.add(chunk.index, chunk.data)
        except SpoolError:
            self.forget(chunk.job, chunk.device)
            raise
        if was_missing:
            self.room.move((chunk.job, chunk.device), len(chunk.data), now)
        return entry.offer if entry.assembly.complete else None

    def forget(self, job: str, device: str) -> None:
        """Drop what has come of a device's update."""
        self.room.end((job, device))
        entry = self._waiting.pop((job, device), None)
        if entry is not None:
            if not isinstance(entry.assembly, SpooledAssembly):
                self._in_memory -= entry.assembly.n_bytes
            entry.assembly.drop()
            self._freed = self.room.is_wanted

    def forget_job(self, job: str) -> None:
        """Drop every unfinished update of a job: its base has been left."""
        for key in [key for key in self._waiting if key[0] == job]:
            self.forget(*key)
        self.room.forget_job(job)

    @property
    def deadline(self) -> float:
        """When `tick` may have something to do; inf for never."""
        return self.room.deadline

    def tick(self, now: float) -> None:
        """Evict the unfinished updates whose time is up while others wait."""
        self._drop(self.room.tick(now))

    @property
    def has_called(self) -> bool:
        """Whether `call` may have somebody to give: room has been freed since it was asked last."""
        return self._freed

    def call(self, now: float) -> list[Offer]:
        """Return the offers in line that there is room for now; they are to be weighed again."""
        self._freed = False
        return self.room.call(now)

    def _drop(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.forget(*key)

    def _assembly(self, offer: Offer, now: float) -> Assembly | None:
        """Return the assembly of this very body, begun if there is room for it."""
        key = (offer.job, offer.device)
        entry = self._waiting.get(key)
        if entry is not None:
            if _cut(entry.offer) == _cut(offer):
                entry.offer = offer  # its base may have got another name
                return entry.assembly
            self.forget(*key)
            if self.room.is_wanted:  # begun anew again and again it would never end, and never be late
                self.room.make_guest(offer.device, now)
        if chunks.count(offer.n_bytes, offer.chunk_bytes) > MOST_CHUNKS:
            raise WireError(f"chunks of {offer.chunk_bytes} bytes cut {offer.n_bytes} bytes too finely")
        begins, gone = self.room.begin(offer, now)
        self._drop(gone)
        if not begins:
            return None
        assembly = self._begun(offer)
        self._waiting[key] = _Entry(offer, assembly)
        return assembly

    def _begun(self, offer: Offer) -> Assembly:
        if self._spool is not None and self._in_memory + offer.n_bytes > self._in_memory_bytes:
            return SpooledAssembly(offer.digest, offer.n_bytes, offer.chunk_bytes, self._spool)
        self._in_memory += offer.n_bytes
        return Assembly(offer.digest, offer.n_bytes, offer.chunk_bytes)

    @staticmethod
    def _inline(offer: Offer) -> bytes:
        if len(offer.body) != offer.n_bytes:
            raise WireError(f"an offer of {offer.n_bytes} bytes came with {len(offer.body)}")
        assembly = Assembly(offer.digest, offer.n_bytes, offer.n_bytes)
        assembly.add(0, offer.body)
        return assembly.body() or b""


def _cut(offer: Offer) -> tuple[str, int, int]:
    """Return what says which body it is, and how it is cut."""
    return offer.digest, offer.n_bytes, offer.chunk_bytes
