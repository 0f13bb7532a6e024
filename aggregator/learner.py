"""The numbers of a job on the server: the model, the sum of the round, the strategy's state and the step's steering.

`next` computes what the sum makes of the model and changes nothing; once that is durable, `take` goes on from it. So a
learner is always what its last durable blob and the updates since then make of it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from aggregator import gates
from aggregator.strategies import STRATEGIES, Velocity
from models import codec, downlink
from models.codec import CodecError
from models.codec.steering import Observed, steer
from models.downlink import DownlinkError, ServerState
from models.fold import Fold, FoldError, exponents_for
from models.job import JobSpec
from models.lattice import Model
from models.nets import Net
from models.params import Spec

OBSERVED = 3
"""Rounds that the steering of the step looks back on."""


PEERS = 100
"""Norms that the gate looks back on."""


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
    observed: list[Observed]
    peers: tuple[float, ...]


class Learner:
    """One job's numbers, from the blob of its last version. Raises LearnerError when that is damaged."""

    def __init__(self, net: Net, spec: JobSpec, blob: bytes) -> None:
        self._net = net
        self._spec = spec
        self._take(_opened(blob, net.spec))

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

    def admit(self, body: bytes, weight: int, nmse: float | None) -> float:
        """Hold an update against the gates, add it to the sum and give its norm. Raises gates.RefusedError.

        Its peers are the updates of earlier versions: those of its own would make the verdict depend on who came first.
        """
        limit = gates.limit_of_norm(self._now.peers, self._model_norm, self._spec.aggregate.max_norm_ratio)
        norm = gates.admit(body, weight, self._net.spec, self._fold, limit)
        self._counted.append(Counted(weight, norm, nmse))
        return norm

    def next(self) -> Next:
        """Give what the sum makes of the model; nothing is changed. Raises LearnerError when it cannot be made."""
        rules, mean = self._spec.aggregate, self._fold.mean()
        step, velocity = STRATEGIES[rules.strategy](mean, self._now.velocity, rules)
        try:
            state = downlink.advance(self._now.state, step, self._net.spec, self._spec.coding)
        except DownlinkError as error:
            raise LearnerError(str(error)) from error
        seen = observe(self._counted, self._step_scale, sum(float(np.vdot(m, m)) for m in mean))
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
        self._model_norm = math.sqrt(sum(float(np.vdot(v, v)) for v in now.model.values()))
        coding = self._spec.coding
        self._step_scale = float(f"{steer(now.observed, coding.noise_share):.3g}") if coding.is_steered else 1.0


def _opened(blob: bytes, spec: Spec) -> Next:
    """Read what `Next.to_bytes` wrote. Raises LearnerError."""
    if int.from_bytes(blob[:4], "little") != zlib.crc32(blob[4:]):
        raise LearnerError("its checksum is wrong")
    try:
        stored = msgspec.msgpack.decode(blob[4:], type=_Stored)
        state = ServerState.from_bytes(stored.model, spec)
    except (msgspec.MsgspecError, DownlinkError) as error:
        raise LearnerError(str(error)) from error
    return Next(state, _velocity(stored.velocity, spec), tuple(stored.observed), stored.peers)


def _velocity(raws: Sequence[bytes], spec: Spec) -> Velocity:
    if raws and [len(raw) for raw in raws] != [8 * tensor.size for tensor in spec]:
        raise LearnerError("stored velocity has other shapes than the spec")
    pairs = zip(raws, spec, strict=False)
    return tuple(np.frombuffer(raw, "<f8").reshape(tensor.shape) for raw, tensor in pairs)


def start(net: Net, spec: JobSpec) -> Next:
    """Give version 0."""
    return Next(downlink.start(net.spec, spec.seed), (), (), ())


def observe(counted: Iterable[Counted], step_scale: float, mean_energy: float) -> Observed | None:
    """Sum a round up for the steering, or None where no device said what its coding lost.

    The order of arrival does not matter: fsum rounds once, at the end.
    """
    updates = list(counted)
    told = [u.nmse for u in updates if u.nmse is not None]
    total = sum(u.weight for u in updates)
    if not told or not total:
        return None
    return Observed(
        step_scale=step_scale,
        n_effective=total**2 / sum(u.weight**2 for u in updates),
        nmse=math.fsum(told) / len(told),
        energy=math.fsum(u.weight * u.norm**2 for u in updates) / total,
        mean_energy=mean_energy,
    )
