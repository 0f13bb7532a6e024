r"""The downlink: a star of key frames and one delta, the same for everybody.

            initial(seed)                 free: every device draws it
                 |  key body              one every `key_every` versions
            key version
          /      |      \                 delta body: one per version, always against its key
      version  version  version

Whoever joins, however late, reads at most two bodies and holds the very integers, and so the very SHA-256,
that everybody holds. The server's own model is finer than what it publishes: `fine` is the exact sum of all
steps, a version is what the coder makes of it, and since every delta is coded from `fine`, what one version
rounds away the next one carries. Every function is pure; `ServerState` is all there is to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError
from models.codec.frame import decode, write
from models.job import CompressionSpec
from models.lattice import LatticeError, Model, add, initial
from models.params import Spec

Float64 = npt.NDArray[np.float64]


class DownlinkError(ValueError):
    """A step that cannot be taken, or stored bytes that are not a server state of this spec."""


class Bodies(NamedTuple):
    """What a device reads to hold a version: first the key (None: the key is version 0), then the delta
    (None: the version is its key).
    """

    key: bytes | None
    delta: bytes | None


class ServerState(NamedTuple):
    """All that the server keeps of the model between versions."""

    seed: int
    version: int
    """Number of `model`."""
    key_version: int
    model: Model
    """The version as published."""
    key: Model
    bodies: Bodies
    """What leads from the seed to `model`."""
    fine: tuple[Float64, ...]
    """The sum of all steps, unrounded by the coder: what `model` follows."""

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` reads it back."""
        fine = [values.astype("<f8", copy=False).tobytes() for values in self.fine]
        models = (self.model.to_bytes(), self.key.to_bytes())
        return msgspec.msgpack.encode((self.seed, self.version, self.key_version, *models, *self.bodies, fine))

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> ServerState:
        """Read what `to_bytes` wrote. Raises DownlinkError when it is not a server state of this spec."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
            model, key = Model.from_bytes(stored.model, spec), Model.from_bytes(stored.key, spec)
        except (msgspec.MsgspecError, LatticeError) as error:
            raise DownlinkError(f"stored server state is damaged: {error}") from error
        if [len(raw) for raw in stored.fine] != [8 * tensor.size for tensor in spec]:
            raise DownlinkError("stored server state has other shapes than the spec")
        pairs = zip(stored.fine, spec, strict=True)
        fine = tuple(np.frombuffer(raw, "<f8").astype(np.float64).reshape(t.shape) for raw, t in pairs)
        bodies = Bodies(stored.key_body, stored.delta_body)
        return ServerState(stored.seed, stored.version, stored.key_version, model, key, bodies, fine)


def start(spec: Spec, seed: int) -> ServerState:
    """Give the state of version 0."""
    model = initial(spec, seed)
    return ServerState(seed, 0, 0, model, model, Bodies(None, None), model.values())


def advance(
    state: ServerState, mean: Sequence[Float64], spec: Spec, coding: CompressionSpec
) -> tuple[ServerState, Bodies, Model]:
    """Take one step: `mean` is added to the fine model, and the version after `state.version` published from
    it.

    `mean` has one float64 array per tensor, the server's learning rate already in it. Every `key_every`
    versions the version becomes the new key, coded against version 0; all others are coded against the key.
    The same state and mean give the same bodies on one machine. Raises DownlinkError for steps that are not
    finite or leave the lattice.
    """
    _check(mean, spec)
    fine = tuple(old + step for old, step in zip(state.fine, mean, strict=True))
    version = state.version + 1
    try:
        if version % coding.key_every == 0:
            body, model = _coded(fine, initial(spec, state.seed), spec, coding, version)
            following = ServerState(state.seed, version, version, model, model, Bodies(body, None), fine)
        else:
            body, model = _coded(fine, state.key, spec, coding, version)
            bodies = Bodies(state.bodies.key, body)
            following = ServerState(state.seed, version, state.key_version, model, state.key, bodies, fine)
    except (CodecError, LatticeError) as error:
        raise DownlinkError(f"version {version} cannot be coded: {error}") from error
    return following, following.bodies, following.model


def install(spec: Spec, seed: int, key_body: bytes | None, delta_body: bytes | None) -> Model:
    """Give the version that two bodies lead to, from nothing but the seed. Raises CodecError for anything
    wrong.
    """
    model = initial(spec, seed)
    for body in (key_body, delta_body):
        if body is not None:
            model = _add(model, body, spec)
    return model


def _coded(
    fine: tuple[Float64, ...], base: Model, spec: Spec, coding: CompressionSpec, version: int
) -> tuple[bytes, Model]:
    """Code what leads from `base` to `fine`, and apply it as a device does."""
    change = tuple(np.asarray(f - b, np.float32) for f, b in zip(fine, base.values(), strict=True))
    codec = coding.codec if coding.downlink_step else "float32"
    body = write(change, change, codec, coding.downlink_step, np.random.default_rng(version))
    return body, _add(base, body, spec)


def _add(model: Model, body: bytes, spec: Spec) -> Model:
    try:
        return add(model, decode(body, spec))
    except LatticeError as error:
        raise CodecError(f"a body leaves the lattice: {error}") from error


def _check(mean: Sequence[Float64], spec: Spec) -> None:
    if [step.shape for step in mean] != [tensor.shape for tensor in spec]:
        raise DownlinkError("a step has other shapes than the spec")
    for step, tensor in zip(mean, spec, strict=True):
        if not (np.abs(step) < 2.0**100).all():
            raise DownlinkError(f"step of tensor {tensor.name} is not finite or far too large")


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    seed: int
    version: int
    key_version: int
    model: bytes
    key: bytes
    key_body: bytes | None
    delta_body: bytes | None
    fine: list[bytes]
