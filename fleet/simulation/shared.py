"""What the devices of a simulation share: each packet is read once, each version decoded once, for all of them.

Every device alone would come to the same: a packet says the same to all who hear it, and a body leads all who hold one
version to the same integers (that is what models/chain.py is for). So what is given out is the very object that the
first device got, and nobody may change it: messages are frozen, and the arrays of a version made read-only. What
belongs to one device alone, its rows, its outbox, its participant, is not here.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Generic, TypeVar

from broker.messages import Job, Message
from broker.transport import Packet
from broker.wire import Wire
from edge_agent.config import ModelSettings
from edge_agent.resend import Jitter
from edge_agent.resources import Resources
from models.buffers import NO_BUFFERS, Buffers
from models.chain import Chain, Held, begins_anywhere
from models.frozen import Find
from models.job import JobSpec
from models.nets.net import Net
from models.params import Spec
from runtime.faults import Marks, Place, limited

T = TypeVar("T")

PACKETS = 64
"""Packets of which it is remembered what they say: more than come between two devices' hearing the same one."""
KEPT_BYTES = 2**26
"""Versions, and the bodies that led there, that are kept for who takes the same way: eighty of 200,000 parameters."""
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


class SharedWire(Wire, frozen=True):
    """The wire of all devices of one fleet in one process: each packet is read once."""

    @cached_property
    def _read(self) -> Once[Message]:
        return Once(super().unpack)

    @cached_property
    def _presences(self) -> dict[str, tuple[bytes, Message]]:
        """By their topics, presences that one of two has read: the device, which hears itself, and who leads."""
        return {}

    @cached_property
    def _of_devices(self) -> str:
        return self.filter_for("device").removesuffix("+")

    @cached_property
    def _bodies_down(self) -> tuple[str, ...]:
        """What the topics begin with on which devices hear bodies;"""
        return tuple(self.filter_below(word).removesuffix("#") for word in ("round", "body"))

    @cached_property
    def _bodies_up(self) -> tuple[str, ...]:
        """And on which they send them."""
        return tuple(self.filter_below(word).removesuffix("#") for word in ("offer", "chunk"))

    @cached_property
    def _counted(self) -> Once[int]:
        return Once(self.blob_bytes)

    def heard_bytes(self, packet: Packet) -> int:
        """See `blob_bytes`: of a packet that devices hear."""
        return self._counted(packet) if packet.topic.startswith(self._bodies_down) else 0

    def sent_bytes(self, packet: Packet) -> int:
        """See `blob_bytes`: of a packet that a device sends."""
        return self.blob_bytes(packet) if packet.topic.startswith(self._bodies_up) else 0

    def unpack(self, packet: Packet) -> Message:
        """See `Wire`."""
        if not packet.topic.startswith(self._of_devices):
            return self._read(packet)
        known = self._presences.pop(packet.topic, None)
        if known is None or known[0] is not packet.payload:
            known = self._presences[packet.topic] = packet.payload, super().unpack(packet)
        return known[1]


class SharedResources(Resources):
    """The resources of all devices of one fleet in one process."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[dict[str, Any] | None, JobSpec]] = {}
        self._chains: dict[str, tuple[Net, Chain]] = {}

    def spec(self, job: Job) -> JobSpec:
        """See `Resources`."""
        said, spec = self._specs.get(job.job, (None, None))
        if spec is None or said != job.spec:
            spec = super().spec(job)
            self._specs[job.job] = job.spec, spec
        return spec

    def chain(self, job: str, spec: JobSpec, models: ModelSettings, find: Find | None = None) -> tuple[Net, Chain]:
        """See `Resources`."""
        if job not in self._chains:
            net, chain = super().chain(job, spec, models, find)
            self._chains[job] = net, SharedChain(chain.spec, spec, chain.buffers)
        return self._chains[job]

    def jitter(self, seed: str) -> Jitter:
        """See `Resources`. The numbers are the same ones."""
        return _Redrawn(seed)


class SharedChain(Chain):
    """A chain whose bodies are decoded once for all who take them.

    What a body leads to is known by the number of the version that it is taken from and by its bytes. The number is
    enough: all who share this object hold the versions of one run of one job. What was asked for last is kept, up to
    `most_bytes`.
    """

    def __init__(
        self, spec: Spec, job: JobSpec, buffers: Buffers = NO_BUFFERS, *, most_bytes: int = KEPT_BYTES
    ) -> None:
        super().__init__(spec, job, buffers)
        self._version_0 = _Known.of(super().first())
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._taken: OrderedDict[tuple[int, int, bytes], _Known] = OrderedDict()

    def first(self) -> Held:
        """Return version 0."""
        return self._version_0

    def take(self, held: Held, number: int, body: bytes) -> Held:
        """See `Chain`."""
        key = (-1 if begins_anywhere(body) else held.number), number, body
        found = self._taken.get(key)
        if found is None:
            found = _Known.of(super().take(held, number, body))
            self._keep(key, found)
        else:
            self._taken.move_to_end(key)
        return found

    def _keep(self, key: tuple[int, int, bytes], version: _Known) -> None:
        self._taken[key] = version
        self._n_bytes += version.n_bytes + len(key[2])
        while self._n_bytes > self._most_bytes and len(self._taken) > 1:
            (_, _, body), oldest = self._taken.popitem(last=False)
            self._n_bytes -= oldest.n_bytes + len(body)


class _Known(Held):
    """A version that nobody can change, and whose name is worked out once."""

    @classmethod
    def of(cls, held: Held) -> _Known:
        for ints in held.model.ints:
            ints.flags.writeable = False
        held.state.freeze()
        return cls(*held)

    @property
    def n_bytes(self) -> int:
        agreed = 0 if self.agreed is None else self.agreed.offset.nbytes + self.agreed.scale.nbytes
        buffers = sum(value.nbytes for value in self.buffers.values)
        return sum(ints.nbytes for ints in self.model.ints) + self.state.n_bytes + agreed + buffers

    def sha256(self) -> str:
        return self._name

    @cached_property
    def _name(self) -> str:
        return super().sha256()


class Unmarked(Marks):
    """Marks of a process that nobody comes back from: there is nobody to read them."""

    def __init__(self) -> None:
        """Look nowhere."""
        self._entered: set[tuple[str, Place]] = set()

    def reason(self, job: str) -> str:  # noqa: ARG002
        """Return that every job may be entered."""
        return ""

    def enter(self, job: str, place: Place, what: str) -> None:
        """Write nothing."""

    def step_out(self, job: str, place: Place) -> None:
        """Write nothing."""

    @contextmanager
    def entered(self, job: str, place: Place, what: str, *, most_s: float = math.inf) -> Iterator[None]:  # noqa: ARG002
        """See `Marks`. What a job's code has made once all devices share: it is not entered again, nor timed."""
        with limited(math.inf if (job, place) in self._entered else most_s):
            yield
        self._entered.add((job, place))

    def has_deaths(self, job: str, place: Place) -> bool:  # noqa: ARG002
        """Return that nobody has died."""
        return False

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

    def skip(self) -> None:
        """Pass a number over."""
        if self._kept is None:
            self._n += 1
        else:
            self._kept.random()

    def random(self) -> float:
        """See `random.Random`."""
        rng = self._kept
        if rng is None:
            rng = random.Random(self._seed)  # noqa: S311 -- jitter, no secret
            for _ in range(self._n):
                rng.random()
            self._n += 1
            if self._n > DRAWS:
                self._kept = rng
        return rng.random()
