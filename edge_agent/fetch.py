"""Getting a version: one body, by the shortest way from what is held, chunk by chunk from immutable topics."""

from __future__ import annotations

from broker import topics
from broker.chunks import Assembly
from broker.messages import Body, Head, Version, body_name
from models import codec, downlink
from models.codec import CodecError
from models.downlink import Offset
from models.lattice import Model
from models.params import Spec

MOST_CHUNKS = 4096


class FetchError(RuntimeError):
    """A version that cannot be had as the head describes it."""


class Fetch:
    """The body that leads to the version of a head, on its way in."""

    def __init__(self, head: Head, spec: Spec, held: Version | None) -> None:
        """Choose the way. held: the version whose offset is here. Raises FetchError when no way is any good."""
        self.head = head
        self.start = 0
        """Number of the version that the way starts from."""
        self._spec = spec
        self._body: bytes | None = None
        self._assembly: Assembly | None = None
        if head.version.number == 0:
            return
        near = held.number if held is not None and held.generation == head.version.generation else 0
        if head.inline and near == head.version.number - 1:
            self.start, self._body = near, head.inline
        else:
            self._choose(near)

    def _choose(self, near: int) -> None:
        ways = {way.start: way.n_bytes for way in self.head.ways}
        self.start = near if near in ways else 0
        if self.start not in ways:
            raise FetchError("the head names no way from version 0")
        n_bytes, chunk_bytes = ways[self.start], self.head.chunk_bytes
        if n_bytes > codec.max_body_bytes(self._spec) or n_bytes > MOST_CHUNKS * chunk_bytes:
            raise FetchError(f"a body of {n_bytes} bytes is more than any version of this job has")
        self._assembly = Assembly(None, n_bytes, chunk_bytes)

    @property
    def name(self) -> str:
        """The name of the body."""
        return body_name(self.head.version, self.start)

    def filters(self, fleet: str) -> list[str]:
        """Give the topics to subscribe to, one for each chunk that is missing."""
        missing = sorted(self._assembly.missing) if self._assembly else []
        return [topics.filter_for(fleet, "body", job=self.head.job, name=self.name, index=str(i)) for i in missing]

    def add(self, chunk: Body) -> None:
        """Take a chunk; one that nobody waits for is passed over. Raises WireError for a wrong one."""
        if self._assembly is None or chunk.name != self.name:
            return
        self._assembly.add(chunk.index, chunk.data)
        self._body = self._assembly.body()

    @property
    def done(self) -> bool:
        """Tell whether the body is here."""
        return self._assembly is None or not self._assembly.missing

    def install(self, spec: Spec, seed: int, held: Offset) -> tuple[Model, Offset]:
        """Give the version and its offset. Raises FetchError when the body does not make what the head says.

        held: the offset of the version that the way was chosen from.
        """
        try:
            model, offset = downlink.install(spec, seed, self._body, held if self.start else ())
        except CodecError as error:
            raise FetchError(f"a body does not decode: {error}") from error
        if not model.sha256().startswith(self.head.sha256):
            raise FetchError("the body makes another model than the head names")
        return model, offset
