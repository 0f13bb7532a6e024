"""Getting a version: one body, by the shortest way from what is held, chunk by chunk from immutable topics."""

from __future__ import annotations

from broker import topics
from broker.chunks import Assembly
from broker.messages import PROOF_BYTES, Body, Head, Round, Version, body_name
from models import codec, downlink
from models.codec import CodecError
from models.downlink import Offset
from models.lattice import Model
from models.params import Spec

MOST_CHUNKS = 4096


class FetchError(RuntimeError):
    """A version that cannot be had as its head, or the round that carries a way to it, describes it."""


class Fetch:
    """The body that leads to a version, on its way in; or here already, with a round."""

    def __init__(self, version: Version, source: Head | Round, spec: Spec, held: Version | None) -> None:
        """Choose the way. source: says how to get the version. held: the version whose offset is here.

        Raises FetchError when no way is any good.
        """
        self.job = source.job
        self.version = version
        self.sha256 = source.sha256
        self.start = 0
        """Number of the version that the way starts from."""
        self._spec = spec
        self._body: bytes | None = None
        self._assembly: Assembly | None = None
        near = held.number if held is not None and held.generation == self.version.generation else 0
        if isinstance(source, Round):
            self._take_along(source, near)
        elif self.version.number:
            self._choose(source, near)

    def _take_along(self, round_: Round, near: int) -> None:
        if not self.version.number and len(round_.along) == PROOF_BYTES:
            return  # version 0 comes from the seed: its proof is all there is to say
        if not (round_.way and near + 1 == self.version.number):
            raise FetchError("the round's way does not start from what is here")
        self.start, self._body = near, round_.way

    def _choose(self, head: Head, near: int) -> None:
        ways = {way.start: way.n_bytes for way in head.ways}
        self.start = near if near in ways else 0
        if self.start not in ways:
            raise FetchError("the head names no way from version 0")
        n_bytes, chunk_bytes = ways[self.start], head.chunk_bytes
        if n_bytes > codec.max_body_bytes(self._spec) or n_bytes > MOST_CHUNKS * chunk_bytes:
            raise FetchError(f"a body of {n_bytes} bytes is more than any version of this job has")
        self._assembly = Assembly(None, n_bytes, chunk_bytes)

    @property
    def name(self) -> str:
        """The name of the body."""
        return body_name(self.version, self.start)

    def filters(self, fleet: str) -> list[str]:
        """Return the topics to subscribe to, one for each chunk that is missing."""
        missing = sorted(self._assembly.missing) if self._assembly else []
        return [topics.filter_for(fleet, "body", job=self.job, name=self.name, index=str(i)) for i in missing]

    def add(self, chunk: Body) -> None:
        """Take a chunk; one that nobody waits for is passed over. Raises WireError for a wrong one."""
        if self._assembly is None or chunk.name != self.name:
            return
        self._assembly.add(chunk.index, chunk.data)
        self._body = self._assembly.body()

    @property
    def done(self) -> bool:
        """Return whether the body is here."""
        return self._assembly is None or not self._assembly.missing

    def install(self, spec: Spec, seed: int, held: Offset) -> tuple[Model, Offset]:
        """Return the version and its offset. Raises FetchError when the body does not make what the head says.

        held: the offset of the version that the way was chosen from.
        """
        try:
            model, offset = downlink.install(spec, seed, self._body, held if self.start else ())
        except CodecError as error:
            raise FetchError(f"a body does not decode: {error}") from error
        if not model.sha256().startswith(self.sha256):
            raise FetchError("the body makes another model than was announced")
        return model, offset
