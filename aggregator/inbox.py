"""Updates on their way in, chunk by chunk, within quotas.

Nothing here is durable: a chunk that is lost is asked for again. A device has at most one assembly per job, of a size
that the coordinator has checked against the job. An assembly reserves room for the whole of its body, so that what was
begun can be finished; all of them together reserve at most `most_bytes`, and one that has not moved for IDLE_S gives
way when another device needs its room. Who finds no room stands in line, and is asked as soon as there is some: without
that it would offer again only after its own pause, which grows.

The first `in_memory_bytes` of them are in memory, as all are in a small fleet; the others lie on disk (spool.py).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from msgspec import Struct, structs

from aggregator.spool import Spool, SpooledAssembly, SpoolError
from broker import ceilings, chunks
from broker.chunks import Assembly, to_bitmap
from broker.errors import WireError
from broker.messages import Chunk, Offer, Want

MOST_CHUNKS = ceilings.MOST_CHUNKS
"""Chunks that one body may be cut into."""
IDLE_S = 120.0
"""A device whose last chunk is older than this has lost its turn: 100 kB at 20 kbit/s take 40 s."""
IN_MEMORY_BYTES = 4 * 2**20
MOST_IN_LINE = 1000
"""Offers that wait for room; of more, the oldest wait for their next resend instead."""


class _Entry(Struct):
    offer: Offer
    assembly: Assembly
    moved_at: float


class Inbox:
    """The unfinished updates of all devices.

    folder: where those lie that memory has no room for; None: all are in memory.
    """

    def __init__(self, most_bytes: int, folder: Path | None = None, *, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self.most_bytes = most_bytes
        self._in_memory_bytes = in_memory_bytes
        self._spool = None if folder is None else Spool(folder)
        self._in_memory = 0
        """Bytes that the assemblies in memory will have."""
        self._waiting: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        """In the order in which they moved last."""
        self._reserved = 0
        self._line: OrderedDict[tuple[str, str], Offer] = OrderedDict()
        self._freed = False

    @property
    def reserved_bytes(self) -> int:
        """Bytes that the assemblies here will have when they are complete."""
        return self._reserved

    def collect(self, offer: Offer, now: float) -> bytes | Want | None:
        """Return the body of a welcome offer if it is all here, else which chunks to ask for.

        None: the quota is used up, the device will offer again. Raises WireError when the body is not what the offer
        says, and SpoolError when the disk does not give it back; it is then forgotten.
        """
        if offer.body:
            return self._inline(offer)
        assembly = self._assembly(offer, now)
        if assembly is None:
            self._stand_in_line(offer)
            return None
        if not assembly.complete:
            return Want(offer.device, offer.job, offer.digest, to_bitmap(assembly.missing, assembly.n_chunks))
        try:
            return assembly.body()
        finally:
            self.forget(offer.job, offer.device)

    def add(self, chunk: Chunk, now: float) -> Offer | None:
        """Take a chunk; give the offer when that was the last one missing.

        A chunk that nobody asked for is dropped. Raises WireError for one of a wrong index or length, and SpoolError
        when the disk does not take it; what has come of the update is then forgotten.
        """
        entry = self._waiting.get((chunk.job, chunk.device))
        if entry is None or entry.assembly.digest != chunk.digest:
            return None
        try:
            entry.assembly.add(chunk.index, chunk.data)
        except SpoolError:
            self.forget(chunk.job, chunk.device)
            raise
        entry.moved_at = now
        self._waiting.move_to_end((chunk.job, chunk.device))
        return entry.offer if entry.assembly.complete else None

    def forget(self, job: str, device: str) -> None:
        """Drop what has come of a device's update."""
        entry = self._waiting.pop((job, device), None)
        if entry is not None:
            self._reserved -= entry.assembly.n_bytes
            if not isinstance(entry.assembly, SpooledAssembly):
                self._in_memory -= entry.assembly.n_bytes
            entry.assembly.drop()
            self._freed = bool(self._line)

    def forget_job(self, job: str) -> None:
        """Drop every unfinished update of a job: its base has been left."""
        for key in [key for key in self._waiting if key[0] == job]:
            self.forget(*key)
        for key in [key for key in self._line if key[0] == job]:
            del self._line[key]

    @property
    def has_called(self) -> bool:
        """Whether `call` may have somebody to give: room has been freed since it was asked last."""
        return self._freed

    def call(self) -> list[Offer]:
        """Return the offers in line that there is room for now; they are to be weighed again."""
        self._freed, free = False, self.most_bytes - self.reserved_bytes
        called = []
        while self._line and next(iter(self._line.values())).n_bytes <= free:
            _, offer = self._line.popitem(last=False)  # in turn: a large one is not passed by for ever
            free -= offer.n_bytes
            called.append(offer)
        return called

    def _stand_in_line(self, offer: Offer) -> None:
        self._line[offer.job, offer.device] = structs.replace(offer, body=b"")
        while len(self._line) > MOST_IN_LINE:
            self._line.popitem(last=False)

    def _assembly(self, offer: Offer, now: float) -> Assembly | None:
        """Return the assembly of this very offer, begun if there is room for it."""
        entry = self._waiting.get((offer.job, offer.device))
        if entry is not None and entry.offer == offer:
            return entry.assembly
        self.forget(offer.job, offer.device)
        if chunks.count(offer.n_bytes, offer.chunk_bytes) > MOST_CHUNKS:
            raise WireError(f"chunks of {offer.chunk_bytes} bytes cut {offer.n_bytes} bytes too finely")
        if not self._has_room(offer.n_bytes, now):
            return None
        assembly = self._begun(offer)
        self._waiting[offer.job, offer.device] = _Entry(offer, assembly, now)
        self._reserved += offer.n_bytes
        return assembly

    def _begun(self, offer: Offer) -> Assembly:
        if self._spool is not None and self._in_memory + offer.n_bytes > self._in_memory_bytes:
            return SpooledAssembly(offer.digest, offer.n_bytes, offer.chunk_bytes, self._spool)
        self._in_memory += offer.n_bytes
        return Assembly(offer.digest, offer.n_bytes, offer.chunk_bytes)

    def _has_room(self, n_bytes: int, now: float) -> bool:
        """Return whether there is room, once the idle have given way as far as need be: who is so for longest first."""
        while self._waiting and self._reserved + n_bytes > self.most_bytes:
            key, entry = next(iter(self._waiting.items()))
            if now - entry.moved_at < IDLE_S:
                break
            self.forget(*key)
        return self._reserved + n_bytes <= self.most_bytes

    @staticmethod
    def _inline(offer: Offer) -> bytes:
        if len(offer.body) != offer.n_bytes:
            raise WireError(f"an offer of {offer.n_bytes} bytes came with {len(offer.body)}")
        assembly = Assembly(offer.digest, offer.n_bytes, offer.n_bytes)
        assembly.add(0, offer.body)
        return assembly.body() or b""
