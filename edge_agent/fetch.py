"""Getting a version: at most two bodies, chunk by chunk, from their immutable topics."""

from __future__ import annotations

from collections.abc import Callable

from broker import topics
from broker.chunks import Assembly
from broker.errors import WireError
from broker.messages import Body, BodyRef, Head
from models import codec, downlink
from models.codec import CodecError
from models.lattice import Model
from models.params import Spec

MOST_CHUNKS = 4096


class FetchError(RuntimeError):
    """A version that cannot be had as the head describes it."""


class Fetch:
    """The bodies of one head, on their way in."""

    def __init__(self, head: Head, spec: Spec, kept: Callable[[str], bytes | None]) -> None:
        """Start with what is here already. Raises FetchError when the head names bodies that no version has."""
        self.head = head
        self._bodies: dict[str, bytes] = {}
        self._assemblies: dict[str, Assembly] = {}
        self._most_bytes = codec.max_body_bytes(spec)
        for ref in (head.key, head.delta):
            if ref is not None:
                self._want(ref, head.inline if ref is head.delta else b"", kept)

    def _want(self, ref: BodyRef, inline: bytes, kept: Callable[[str], bytes | None]) -> None:
        if ref.n_bytes > self._most_bytes or ref.n_bytes > MOST_CHUNKS * ref.chunk_bytes:
            raise FetchError(f"a body of {ref.n_bytes} bytes is more than any version of this job has")
        assembly = Assembly(ref.digest, ref.n_bytes, ref.n_bytes if inline else ref.chunk_bytes)
        if inline:
            try:
                assembly.add(0, inline)
                self._bodies[ref.digest] = assembly.body() or b""
            except WireError as error:
                raise FetchError(str(error)) from error
        elif body := kept(ref.digest):
            self._bodies[ref.digest] = body
        else:
            self._assemblies[ref.digest] = assembly

    def filters(self, fleet: str) -> list[str]:
        """Give the topics to subscribe to, one for each chunk that is missing."""
        return [
            topics.filter_for(fleet, "body", job=self.head.job, digest=digest, index=str(index))
            for digest, assembly in self._assemblies.items()
            for index in sorted(assembly.missing)
        ]

    def add(self, chunk: Body) -> None:
        """Take a chunk; one that nobody waits for is passed over. Raises WireError for a wrong one."""
        assembly = self._assemblies.get(chunk.digest)
        if assembly is None:
            return
        assembly.add(chunk.index, chunk.data)
        body = assembly.body()
        if body is not None:
            self._bodies[chunk.digest] = body
            del self._assemblies[chunk.digest]

    @property
    def done(self) -> bool:
        """Tell whether every body is here."""
        return not self._assemblies

    @property
    def key_body(self) -> bytes | None:
        """The key frame, once it is here."""
        return self._bodies[self.head.key.digest] if self.head.key else None

    def install(self, spec: Spec, seed: int) -> Model:
        """Give the version. Raises FetchError when the bodies do not make what the head says."""
        delta = self._bodies[self.head.delta.digest] if self.head.delta else None
        try:
            model = downlink.install(spec, seed, self.key_body, delta)
        except CodecError as error:
            raise FetchError(f"a body does not decode: {error}") from error
        if not model.sha256().startswith(self.head.sha256):
            raise FetchError("the bodies make another model than the head names")
        return model
