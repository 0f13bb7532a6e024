"""What the devices of a simulation share: each packet is read once, each version decoded once, for all of them.

Every device alone would come to the same: a packet says the same to all who hear it, and a body leads all who hold one
version to the same integers (that is what models/chain.py is for). So what is given out is the very object that the
first device got, and nobody may change it: messages are frozen, and the arrays of a version made read-only. What
belongs to one device alone, its rows, its outbox, its participant, is not here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

from broker import topics
from broker.faults import Marks, Place
from broker.messages import Job, Message
from broker.transport import Packet
from edge_agent.config import ModelSettings
from edge_agent.participant import Jitter
from edge_agent.resources import Resources
from models.chain import SNAPSHOT, WHOLE, Chain, Held
from models.job import JobSpec
from models.nets import Net
from models.params import Spec

T = TypeVar("T")

PACKETS = 64
"""Packets of which it is remembered what they say: more than come between two devices' hearing the same one."""
DRAWS = 32
"""After so many draws a device keeps its generator, 2.5 kB, rather than draw them all again."""


class Once(Generic[T]):
    """What a function makes of a packet, worked out once for all who hold that very packet. Errors are not kept."""

    def __init__(self, make: Callable[[Packet], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Packet, T]] = {}
        """By the packet's id; the packet is kept too, so that no other one gets that id."""

    def __call__(self, packet: Packet) -> T:
        """Return what the function makes of a packet. Raises what it raises."""
        made = self._made.get(id(packet))
        if made is None:
            made = packet, self._make(packet)
            if len(self._made) >= PACKETS:
                self._made.clear()
            self._made[id(packet)] = made
        return made[1]


class SharedResources(Resources):
    """The resources of all devices of one fleet in one process."""

    def __init__(self, fleet: str) -> None:
        self._read = Once(lambda packet: topics.unpack(packet, fleet))
        self._specs: dict[str, tuple[dict[str, Any] | None, JobSpec]] = {}
        self._chains: dict[str, tuple[Net, Chain]] = {}

    def message(self, packet: Packet, fleet: str) -> Message:  # noqa: ARG002 -- it is that of all of them
        """See `Resources`."""
        return self._read(packet)

    def spec(self, job: Job) -> JobSpec:
        """See `Resources`."""
        said, spec = self._specs.get(job.job, (None, None))
        if spec is None or said != job.spec:
            spec = super().spec(job)
            self._specs[job.job] = job.spec, spec
        return spec

    def chain(self, job: str, spec: JobSpec, models: ModelSettings) -> tuple[Net, Chain]:
        """See `Resources`."""
        if job not in self._chains:
            net, chain = super().chain(job, spec, models)
            self._chains[job] = net, SharedChain(chain.spec, spec)
        return self._chains[job]

    def jitter(self, seed: str) -> Jitter:
        """See `Resources`. The numbers are the same ones."""
        return _Redrawn(seed)


class SharedChain(Chain):
    """A chain whose bodies are decoded once, for as long as no later version is asked for.

    A body is known by the number of the version that it is taken from and by its bytes. The number is enough: all who
    share this object hold the versions of one run of one job.
    """

    def __init__(self, spec: Spec, job: JobSpec) -> None:
        super().__init__(spec, job)
        self._version_0 = _Known.of(super().first())
        self._latest = 0
        self._taken: dict[tuple[int, int, bytes], Held] = {}

    def first(self) -> Held:
        """Return version 0."""
        return self._version_0

    def take(self, held: Held, number: int, body: bytes) -> Held:
        """See `Chain`."""
        if number > self._latest:
            self._latest = number
            self._taken.clear()
        start = -1 if body[:1] in (bytes((WHOLE,)), bytes((SNAPSHOT,))) else held.number  # -1: from anywhere
        found = self._taken.get((start, number, body))
        if found is None:
            found = self._taken[start, number, body] = _Known.of(super().take(held, number, body))
        return found


class _Known(Held):
    """A version that nobody can change, and whose name is worked out once."""

    @classmethod
    def of(cls, held: Held) -> _Known:
        for ints in held.model.ints:
            ints.flags.writeable = False
        for velocity in held.velocity:
            velocity.flags.writeable = False
        return cls(*held)

    def sha256(self) -> str:
        return self._name

    @cached_property
    def _name(self) -> str:
        return super().sha256()


class Unmarked(Marks):
    """Marks of a process that nobody comes back from: there is nobody to read them."""

    def __init__(self) -> None:
        """Look nowhere."""

    def reason(self, job: str) -> str:  # noqa: ARG002
        """Return that every job may be entered."""
        return ""

    def enter(self, job: str, place: Place, what: str) -> None:
        """Write nothing."""

    def step_out(self, job: str, place: Place) -> None:
        """Write nothing."""

    def gain(self, job: str, place: Place) -> None:
        """Write nothing."""

    def forgive(self, job: str) -> int:  # noqa: ARG002
        """Return that no job has rested for its marks."""
        return 0

    def leave(self, job: str, place: Place | None = None) -> None:
        """Write nothing."""


class _Redrawn:
    """The numbers of random.Random(seed), in a tenth of its room: it is seeded again for each."""

    __slots__ = ("_kept", "_n", "_seed")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._n = 0
        self._kept: random.Random | None = None

    def random(self) -> float:
        rng = self._kept
        if rng is None:
            rng = random.Random(self._seed)  # noqa: S311 -- jitter, no secret
            for _ in range(self._n):
                rng.random()
            self._n += 1
            if self._n > DRAWS:
                self._kept = rng
        return rng.random()
