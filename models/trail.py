"""A version that is held, and how to walk to it once more from an older one: so that a mean needs few models at once.

    base ──body──▶ ──body──▶ … ──body──▶ now

What is kept is `now`, `base`, which lies at or before the first version that is wanted, and the bodies between them.
A mean is formed by walking: that takes one more version at a time, of however many it is. Where nothing before `now` is
wanted, `base` is `now`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models import average
from models.buffers import NO_BUFFERS, Buffers
from models.chain import Chain, Held
from models.codec import CodecError
from models.deltas import is_snapshot
from models.lattice import LatticeError, Model
from models.params import Params, Spec


class Served(NamedTuple):
    """What of a version is put into service, or exported."""

    model: Model
    since: int | None = None
    """Number of the first version that it is the mean of; None: it is the version itself."""
    why: str = ""
    """Why it is the version itself, where a mean was asked for."""
    buffers: Buffers = NO_BUFFERS
    """Of the last version, also beside a mean: they are one over its rows, and no other's."""

    def params(self, spec: Spec) -> Params:
        """Return the parameters of a net and its buffers, by name."""
        return self.model.params(spec) | self.buffers.params()


class Trail:
    """The way to a version. It begins at one that is held."""

    def __init__(self, chain: Chain, held: Held) -> None:
        self._chain = chain
        self._base = self.now = held
        """`now` is the version that is held."""
        self._bodies: list[tuple[int, bytes]] = []
        """Number of the version that each leads to, and the body."""

    @property
    def since(self) -> int:
        """Number of the first version from which on every one can be had again."""
        return self._base.number

    @property
    def n_bytes(self) -> int:
        """Bytes of the bodies."""
        return sum(len(body) for _, body in self._bodies)

    def take(self, number: int, body: bytes, wanted: int) -> None:
        """Go on to the version of this number, to which a body leads. Raises CodecError, and is then as it was.

        wanted: number of the first version that is wanted again, now or later. What a body steps over is lost, and so
        is everything before `now` once the bodies weigh more than any one body of the job may.
        """
        now = self._chain.take(self.now, number, body)
        self.now = now
        if number <= wanted or is_snapshot(body) or self.n_bytes + len(body) > self._chain.most_bytes:
            self._bodies.clear()
            self._base = now
            return
        self._bodies.append((number, body))
        while self._bodies[0][0] <= wanted:
            self._base = self._chain.take(self._base, *self._bodies.pop(0))

    def mean(self, first: int) -> Model:
        """Return the mean of the versions from the one of this number to `now`.

        Raises CodecError where the trail begins later, or where their lattices have nothing in common.
        """
        if not self.since <= first <= self.now.number:
            raise CodecError(f"version {first} is not on the way here, from {self.since} to {self.now.number}")
        try:
            return average.mean(held.model for held in self._walk() if held.number >= first)
        except LatticeError as error:
            raise CodecError(f"no mean of versions {first} to {self.now.number}: {error}") from error

    def served(self, first: int) -> Served:
        """Return the mean of the versions from the one of this number to `now`, or `now` alone where that is all.

        Where the mean cannot be had it is `now` as well, with the reason: a version in service is worth more than none.
        """
        if first >= self.now.number:
            return Served(self.now.model, buffers=self.now.buffers)
        try:
            return Served(self.mean(first), first, buffers=self.now.buffers)
        except CodecError as error:
            return Served(self.now.model, why=str(error), buffers=self.now.buffers)

    def _walk(self) -> Iterator[Held]:
        at = self._base
        yield at
        for number, body in self._bodies:
            for found in self._chain.walk(at, number, body):
                at = found
                yield found
