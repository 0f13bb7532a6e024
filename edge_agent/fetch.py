"""Getting a version: the bodies on the shortest way from what is held, chunk by chunk from immutable topics."""

from __future__ import annotations

from broker import topics
from broker.chunks import Assembly
from broker.messages import PROOF_BYTES, Body, Head, Round, Version, body_name
from models import chain, ways
from models.chain import Chain, Held
from models.codec import CodecError
from models.params import Spec

MOST_CHUNKS = 4096
"""Of a body, and of all bodies of one way together."""
MOST_BODIES = 2
"""All bodies of one way together are no longer than so many of the longest: steps weigh no more than a snapshot."""


class FetchError(RuntimeError):
    """A version that cannot be had as its head, or the round that carries a way to it, describes it."""


class Fetch:
    """The bodies that lead to a version, on their way in; or here already, with a round."""

    def __init__(self, version: Version, source: Head | Round, spec: Spec, held: Version | None) -> None:
        """Choose the way. source: says how to get the version. held: the version that is here.

        Raises FetchError when no way is any good.
        """
        self.job = source.job
        self.version = version
        self.sha256 = source.sha256
        self._spec = spec
        near = held.number if held is not None and held.generation == self.version.generation else 0
        self.start = 0
        """Number of the version that the way starts from."""
        self._here: list[tuple[int, bytes]] = []
        """Number of the version that each body of the way leads to, and its bytes, as far as they came with a round."""
        self._coming: dict[str, tuple[int, Assembly]] = {}
        """The same for the others, by name, in their order."""
        if isinstance(source, Round):
            self._take_along(source, near)
        elif self.version.number:
            self._choose(source, near)

    def _take_along(self, round_: Round, near: int) -> None:
        if not self.version.number and len(round_.along) == PROOF_BYTES:
            return  # version 0 comes from the seed: its proof is all there is to say
        if not (round_.way and near + 1 == self.version.number):
            raise FetchError("the round's way does not start from what is here")
        self.start, self._here = near, [(self.version.number, round_.way)]

    def _choose(self, head: Head, near: int) -> None:
        path = ways.path((ways.Way(way.start, way.number, way.n_bytes) for way in head.ways), near, self.version.number)
        if not path:
            raise FetchError("the head names no way from version 0")
        self.start, most = path[0].start, chain.max_way_bytes(self._spec)
        n_bytes = n_chunks = 0
        for way in path:
            n_bytes, n_chunks = n_bytes + way.n_bytes, n_chunks + -(-way.n_bytes // head.chunk_bytes)
            if way.n_bytes > most or n_bytes > MOST_BODIES * most or n_chunks > MOST_CHUNKS:
                raise FetchError(f"{n_bytes} bytes in {n_chunks} pieces are more than any version of this job has")
            name = body_name(Version(self.version.generation, way.number), way.start)
            self._coming[name] = way.number, Assembly(None, way.n_bytes, head.chunk_bytes)

    def filters(self, fleet: str) -> list[str]:
        """Return the topics to subscribe to, one for each chunk that is missing."""
        return [
            topics.filter_for(fleet, "body", job=self.job, name=name, index=str(index))
            for name, (_, assembly) in self._coming.items()
            for index in sorted(assembly.missing)
        ]

    def add(self, chunk: Body) -> None:
        """Take a chunk; one that nobody waits for is passed over. Raises WireError for a wrong one."""
        if chunk.name in self._coming:
            self._coming[chunk.name][1].add(chunk.index, chunk.data)

    @property
    def done(self) -> bool:
        """Return whether all bodies are here."""
        return not any(assembly.missing for _, assembly in self._coming.values())

    def install(self, chain_: Chain, held: Held | None) -> Held:
        """Return the version. Raises FetchError when the bodies do not make what the head says.

        held: the version that the way was chosen from.
        """
        found = held if held is not None and held.number == self.start and self.start else chain_.first()
        came = [(number, assembly.body() or b"") for number, assembly in self._coming.values()]
        try:
            for number, body in (*self._here, *came):
                found = chain_.take(found, number, body)
        except CodecError as error:
            raise FetchError(f"a body does not decode: {error}") from error
        if not found.sha256().startswith(self.sha256):
            raise FetchError("the bodies make another model than was announced")
        return found
