"""Getting a version: the bodies on the shortest way from what is held, chunk by chunk from immutable topics."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from broker import ceilings
from broker.chunks import Assembly
from broker.messages import CHUNK_BYTES, PROOF_BYTES, Body, Head, Round, Version, body_name
from broker.wire import Wire
from models import chain
from models import deltas as ways
from models.chain import Chain
from models.codec import CodecError
from models.params import Spec
from models.trail import Trail

log = logging.getLogger(__name__)

MOST_CHUNKS = ceilings.MOST_CHUNKS
"""Of a body, and of all bodies of one way together."""
MOST_BODIES = 2
"""All bodies of one way together are no longer than so many of the longest: steps weigh no more than a snapshot."""
_NOTHING = 0, None


class FetchError(RuntimeError):
    """A version that cannot be had as its head, or the round that carries a way to it, describes it."""


class Fetch:
    """The bodies that lead to a version, on their way in; or here already, with a round."""

    def __init__(
        self,
        version: Version,
        source: Head | Round,
        spec: Spec,
        held: Version | None,
        *,
        held_since: int | None = None,
        since: int | None = None,
        most_bytes: int | None = None,
        whole_bytes: int = 0,
        by_body: bool = False,
    ) -> None:
        """Choose the way. source: says how to get the version. held: the version that is here.

        held_since: number of the first version from which on every one can be had here; the one held when not given.
        since: the same of what is wanted: of a version that is averaged. Where no such way is any good the version is
        fetched without. most_bytes: of one body, as the job has them; of any job with such a net when not given.
        whole_bytes: how long a body is that says a version whole, where that is known: then a round need not say it.
        by_body: whether one filter brings all chunks of a body, which a broker need not do. Raises FetchError when no
        way is any good.
        """
        self._most_bytes = chain.max_way_bytes(spec) if most_bytes is None else most_bytes
        self.job = source.job
        self.version = version
        self.sha256 = source.sha256
        near = held.number if held is not None and held.generation == self.version.generation else 0
        self.since = version.number if since is None else since
        """Number of the first version from which on every one is to be had when it is installed, if it can be."""
        self.start = 0
        """Number of the version that the way starts from."""
        self._here: list[tuple[int, bytes]] = []
        """Number of the version that each body of the way leads to, and its bytes, as far as they came with a round."""
        self._coming: dict[str, tuple[int, Assembly]] = {}
        """The same for the others, by name, in their order."""
        self.n_missing = 0
        """Chunks of all of them that have not come."""
        self._by_body = by_body
        self._forgets = False
        if isinstance(source, Round):
            self._take_along(source, near, whole_bytes)
        elif self.version.number:
            begins = near if near and (near if held_since is None else held_since) <= self.since else 0
            if self.since == version.number or not self._choose_to_pass(source, begins):
                self._choose(self._path(source, near), source.chunk_bytes)

    def _take_along(self, round_: Round, near: int, whole_bytes: int) -> None:
        if not self.version.number and len(round_.along) == PROOF_BYTES:
            return  # version 0 comes from the seed: its proof is all there is to say
        if whole_bytes and len(round_.along) == PROOF_BYTES:
            self._choose([ways.Delta(0, self.version.number, whole_bytes)], CHUNK_BYTES)
            return
        if not (round_.way and near + 1 == self.version.number):
            raise FetchError("the round's way does not start from what is here")
        self.start, self._here = near, [(self.version.number, round_.way)]

    def _choose_to_pass(self, head: Head, near: int) -> bool:
        """Choose a way that passes every version that is wanted. near: that does to begin at. False: there is none."""
        try:
            self._choose(self._path(head, near, self.since), head.chunk_bytes)
        except FetchError as error:
            log.info("job=%s the versions before %s cannot be had: %s", self.job, self.version, error)
            self._coming.clear()
            self.since = self.version.number
            return False
        return True

    def _path(self, head: Head, near: int, since: int | None = None) -> list[ways.Delta]:
        """Return the way. Raises FetchError where there is none."""
        self.start = near
        if near == self.version.number:
            return []
        named = (ways.Delta(way.start, way.number, way.n_bytes) for way in head.ways)
        path = ways.path(named, near, self.version.number, since)
        if not path:
            passing = "" if since is None else f" that passes every version from {since} on"
            raise FetchError(f"the head names no way from version 0{passing}")
        self.start = path[0].start
        return path

    def _choose(self, path: list[ways.Delta], chunk_bytes: int) -> None:
        most = self._most_bytes
        n_bytes = n_chunks = 0
        for way in path:
            n_bytes, n_chunks = n_bytes + way.n_bytes, n_chunks + -(-way.n_bytes // chunk_bytes)
            if way.n_bytes > most or n_bytes > MOST_BODIES * most or n_chunks > MOST_CHUNKS:
                raise FetchError(f"{n_bytes} bytes in {n_chunks} pieces are more than any version of this job has")
            name = body_name(Version(self.version.generation, way.number), way.start)
            self._coming[name] = way.number, Assembly(None, way.n_bytes, chunk_bytes)
        self.n_missing = n_chunks

    def filters(self, wire: Wire) -> list[str]:
        """Return what to listen to: a filter for each body, or the topic of each chunk; once it `forgets`, of each that
        is missing.
        """
        if self._by_body:
            return [wire.filter_for("body", job=self.job, name=name) for name in self._coming]
        return [
            self.filter(wire, name, index)
            for name, (_, assembly) in self._coming.items()
            for index in (sorted(assembly.missing) if self._forgets else range(assembly.n_chunks))
        ]

    def filter(self, wire: Wire, name: str, index: int) -> str:
        """Return the topic of one chunk."""
        return wire.filter_for("body", job=self.job, name=name, index=str(index))

    @property
    def forgets(self) -> bool:
        """Whether a chunk that has come is listened to no more."""
        return self._forgets

    def forget(self) -> None:
        """From now on listen to the topics of the chunks that are missing, and to nothing else."""
        self._by_body, self._forgets = False, True

    def add(self, chunk: Body) -> bool:
        """Take a chunk; return whether it was missing: one that nobody waits for is passed over.

        So is one at a place that the body does not have: a filter brings whatever lies at the broker under its name, as
        what was left of a finer cut, and nobody would ever write over that. Raises WireError for a wrong one.
        """
        _, assembly = self._coming.get(chunk.name, _NOTHING)
        if assembly is None or chunk.index >= assembly.n_chunks or not assembly.add(chunk.index, chunk.data):
            return False
        self.n_missing -= 1
        return True

    @property
    def most_pieces(self) -> int:
        """Chunks of the body that is cut into most."""
        return max((assembly.n_chunks for _, assembly in self._coming.values()), default=0)

    @property
    def done(self) -> bool:
        """Return whether all bodies are here."""
        return not self.n_missing

    def install(self, chain_: Chain, trail: Trail | None, wanted: int | None = None) -> Trail:
        """Return the version, with the way there. Raises FetchError when the bodies do not make what the head says.

        It can be called once: what has come is used up. trail: the version that the way was chosen from, which is gone
        on with. wanted: number of the first version that is wanted again, now or later; what was asked for when not
        given.
        """
        goes_on = trail is not None and trail.now.number == self.start and self.start
        found = trail if trail is not None and goes_on else Trail(chain_, chain_.first())
        try:
            for number, body in self._bodies():
                found.take(number, body, self.since if wanted is None else wanted)
        except CodecError as error:
            raise FetchError(f"a body does not decode: {error}") from error
        if not found.now.sha256().startswith(self.sha256):
            raise FetchError("the bodies make another model than was announced")
        return found

    def _bodies(self) -> Iterator[tuple[int, bytes]]:
        """Return the number of the version that each body of the way leads to, and the body; its pieces are dropped."""
        yield from self._here
        for number, assembly in self._coming.values():
            body = assembly.body() or b""
            assembly.drop()  # as much memory again, while the version is made of the body and trained on
            yield number, body
