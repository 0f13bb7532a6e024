"""The numbers of a job on the server: the model, the sum of the round, the strategy's state and the step's steering.

`next` computes what the sum makes of the model and changes nothing; once that is durable, `take` goes on from it. So a
learner is always what its last durable blob and the updates since then make of it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct

from aggregator import gates
from aggregator.rows import is_whole
from aggregator.strategies import STRATEGIES, Velocity
from models import codec, downlink, fold
from models.codec import CodecError, Decoded
from models.codec.steering import Observed, steer
from models.downlink import DownlinkError, ServerState, read_floats
from models.fold import Fold, FoldError, exponents_for
from models.job import JobSpec
from models.lattice import Model
from models.nets import Net
from models.params import Spec

OBSERVED = 3
"""Rounds that the steering of the step looks back on."""


PEERS = 100
"""Norms that the gate looks back on."""
LARGEST_NMSE = 1e6
"""A device that says it lost more is broken, and one of them must not hide what all others say."""


class LearnerError(ValueError):
    """A stored state that is damaged, or a step that the model cannot take."""


class Counted(Struct, frozen=True):
    """What the steering needs to know of an update in the sum."""

    weight: int
    norm: float
    nmse: float | None
    """What its device lost in coding it, if it said so."""


class Next(NamedTuple):
    """The version after this one, and all that the learner is once it is taken."""

    state: ServerState
    velocity: Velocity
    observed: tuple[Observed, ...]
    peers: tuple[float, ...]
    """Norms of the updates that made this version, and of earlier ones: what the gate of the next holds usual."""

    @property
    def model(self) -> Model:
        """The version as published."""
        return self.state.model

    def to_bytes(self) -> bytes:
        """Serialise, with a checksum; a `Learner` is made from it."""
        velocity = [v.astype("<f8", copy=False).tobytes() for v in self.velocity]
        packed = msgspec.msgpack.encode(_Stored(self.state.to_bytes(), velocity, list(self.observed), self.peers))
        return zlib.crc32(packed).to_bytes(4, "little") + packed


class _Stored(Struct, frozen=True, array_like=True):
    model: bytes
    velocity: list[bytes]
    observed: Annotated[list[Observed], Meta(max_length=OBSERVED)]
    peers: Annotated[tuple[float, ...], Meta(max_length=PEERS)]


class Learner:
    """One job's numbers, from the blob of its last version.

    number, sha256: what the blob must hold, where that is known. Raises LearnerError when it is damaged, or another's.
    """

    def __init__(
        self, net: Net, spec: JobSpec, blob: bytes, number: int | None = None, sha256: str | None = None
    ) -> None:
        self._net = net
        self._spec = spec
        now = _opened(blob, net.spec)
        if now.state.seed != spec.seed:
            raise LearnerError(f"it began with seed {now.state.seed}, the job with {spec.seed}")
        if number is not None and now.state.version != number:
            raise LearnerError(f"it is version {now.state.version}, not {number}")
        if sha256 is not None and now.model.sha256() != sha256:
            raise LearnerError("its model has another SHA-256")
        self._take(now)

    @property
    def now(self) -> Next:
        """The current version."""
        return self._now

    @property
    def step_scale(self) -> float:
        """The factor on the job's quantiser step that devices use to leave the current version."""
        return self._step_scale

    def restore(self, body: bytes, counted: Counted) -> None:
        """Add an update that was counted before to the sum. Raises LearnerError when it is damaged."""
        try:
            self._fold.add(codec.decode(body, self._net.spec), counted.weight)
        except (CodecError, FoldError) as error:
            raise LearnerError(f"a stored update: {error}") from error
        self._counted.append(counted)

    def admit(self, body: bytes, weight: int, nmse: float | None) -> gates.Admitted:
        """Hold an update against the gates and add it to the sum. Raises gates.RefusedError.

        Its peers are the updates of earlier versions: those of its own would make the verdict depend on who came first.
        As a job converges most norms shrink and some do not: what is far from its peers', and smaller than the model
        itself, is no explosion, and weighs less. Refused for good it would leave too few devices on the base.
        """
        limit = gates.limit_of_norm(self._now.peers, self._model_norm, self._spec.aggregate.max_norm_ratio)
        admitted = gates.admit(body, weight, self._net.spec, self._fold, limit, most=self._model_norm)
        self._counted.append(Counted(admitted.weight, admitted.norm, nmse))
        return admitted

    def next(self) -> Next:
        """Return what the sum makes of the model; nothing is changed. Raises LearnerError when it cannot be made."""
        rules, mean = self._spec.aggregate, self._fold.mean()
        step, velocity = STRATEGIES[rules.strategy](mean, self._now.velocity, rules)
        try:
            state = downlink.advance(self._now.state, step, self._net.spec, self._spec.coding)
        except DownlinkError as error:
            raise LearnerError(str(error)) from error
        seen = observe(self._counted, self._step_scale, self._fold.mean_energy())
        observed = (*self._now.observed, *([seen] if seen else []))[-OBSERVED:]
        peers = (*sorted(counted.norm for counted in self._counted), *self._now.peers)[:PEERS]
        return Next(state, velocity, observed, peers)

    def take(self, following: Next) -> None:
        """Go on from a version that is durable, with an empty sum."""
        self._take(following)

    def _take(self, now: Next) -> None:
        self._now = now
        self._fold = Fold(self._net.spec, exponents_for(now.model))
        self._counted: list[Counted] = []
        self._model_norm = _norm(now.model)
        coding = self._spec.coding
        self._step_scale = float(f"{steer(now.observed, coding.noise_share):.3g}") if coding.is_steered else 1.0


def _opened(blob: bytes, spec: Spec) -> Next:
    """Read what `Next.to_bytes` wrote. Raises LearnerError."""
    if not is_whole(blob):
        raise LearnerError("its checksum is wrong")
    try:
        stored = msgspec.msgpack.decode(blob[4:], type=_Stored)
        state = ServerState.from_bytes(stored.model, spec)
        velocity = read_floats(stored.velocity, spec) if stored.velocity else ()
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LearnerError(str(error)) from error
    return Next(state, velocity, tuple(stored.observed), stored.peers)


def _norm(model: Model) -> float:
    """Return the norm of a model, from its integers: what an update is held against has the same bits everywhere."""
    pairs = zip(model.ints, model.exponents, strict=True)
    return fold.norm([Decoded(ints.astype(np.int64), exponent) for ints, exponent in pairs])


def start(net: Net, spec: JobSpec) -> Next:
    """Return version 0."""
    return Next(downlink.start(net.spec, spec.seed), (), (), ())


def observe(counted: Iterable[Counted], step_scale: float, mean_energy: float) -> Observed | None:
    """Sum a round up for the steering, or None where no device said what its coding lost.

    Neither the order of arrival nor the machine matters: integers are added as they are, floats by fsum, which rounds
    once, at the end, and a square is a product (a power goes by the C library's own pow).
    """
    updates = list(counted)
    told = [u.nmse for u in updates if u.nmse is not None and u.nmse <= LARGEST_NMSE]
    total = sum(u.weight for u in updates)
    if not told or not total:
        return None
    return Observed(
        step_scale=step_scale,
        n_effective=total**2 / sum(u.weight**2 for u in updates),
        nmse=math.fsum(told) / len(told),
        energy=math.fsum(u.weight * (u.norm * u.norm) for u in updates) / total,
        mean_energy=mean_energy,
    )
