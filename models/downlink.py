r"""The downlink: all versions lie on one coarse grid, so that any two of them differ by a few small integers.

    version v  =  initial(seed)  +  offset_v,        offset_v = integers * 2**grid      (a grid for each
    tensor)

    initial ──────────────── way from 0 ────────────────▶ v      for whoever is new, or has been away for long
       v-8 ───────── way from v-8 ──────▶ v                      for whoever was here eight versions ago
             v-2 ─── way from v-2 ─▶ v
                v-1 ─ way from v-1 ▶ v                           for whoever holds the version before

A way is the entropy-coded difference of two offsets: exact, so whichever one a device takes it holds the very
integers, and so the very SHA-256, that everybody holds; and whoever joins, however late, reads one body.

The server's own model is finer than the grid: `fine` is the exact sum of all steps, and the offset follows
it, moving by whole grid steps where it has fallen HYSTERESIS behind. So what one version leaves out a later
one carries, and a coordinate on the edge between two grid points does not cross it back and forth. Every
function is pure; `ServerState` is all there is to keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError, Decoded
from models.codec.frame import decode, write_integers, write_plain
from models.job import CompressionSpec
from models.lattice import LatticeError, Model, add, bits, initial, rescale
from models.params import Spec

Float64 = npt.NDArray[np.float64]
Offset = tuple[Decoded, ...]
"""What leads from version 0 to another, one for each tensor; () is nothing at all."""

LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""Versions back from which there is a way to the current one, besides version 0."""
HYSTERESIS = 0.8
"""Grid steps that a coordinate falls behind before it moves."""
MOST_OCTAVES = 14
"""A tensor's grid is at most so many octaves finer than the coarsest one's."""


class DownlinkError(ValueError):
    """A step that cannot be taken, or stored bytes that are not a server state of this spec."""


class Way(NamedTuple):
    """The body that leads from the version of number `start` to the current one; from 0: for anybody."""

    start: int
    body: bytes


class ServerState(NamedTuple):
    """All that the server keeps of the model between versions."""

    seed: int
    version: int
    """Number of `model`."""
    model: Model
    """The version as published."""
    offset: Offset
    """What leads from version 0 to it; () for version 0."""
    fine: tuple[Float64, ...]
    """The sum of all steps from version 0 on, off the grid: what `offset` follows."""
    trail: tuple[Offset, ...]
    """The differences of the last versions, newest first."""
    ways: tuple[Way, ...]
    """What devices read to hold `model`, the nearest start first, version 0 last; none for version 0."""

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` reads it back."""
        fine = [values.astype("<f8", copy=False).tobytes() for values in self.fine]
        trail = [write_integers(step) for step in self.trail]
        ways = [(way.start, way.body) for way in self.ways]
        grids = [tensor.exponent for tensor in self.offset]
        return msgspec.msgpack.encode((self.seed, self.version, grids, fine, trail, ways))

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> ServerState:
        """Read what `to_bytes` wrote. Raises DownlinkError when it is not a server state of this spec."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
            whole = next((way.body for way in stored.ways if way.start == 0), None)
            model, offset = install(spec, stored.seed, whole)
            if stored.grids:
                offset = _on_grids(offset, stored.grids)
            trail = tuple(_on_grids(decode(body, spec), stored.grids) for body in stored.trail)
        except (msgspec.MsgspecError, CodecError) as error:
            raise DownlinkError(f"stored server state is damaged: {error}") from error
        if [len(raw) for raw in stored.fine] != [8 * tensor.size for tensor in spec]:
            raise DownlinkError("stored server state has other shapes than the spec")
        pairs = zip(stored.fine, spec, strict=True)
        fine = tuple(np.frombuffer(raw, "<f8").astype(np.float64).reshape(t.shape) for raw, t in pairs)
        ways = tuple(Way(way.start, way.body) for way in stored.ways)
        return ServerState(stored.seed, stored.version, model, offset, fine, trail, ways)


class _Way(msgspec.Struct, frozen=True, array_like=True):
    start: int
    body: bytes


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    seed: int
    version: int
    grids: list[int]
    fine: list[bytes]
    trail: list[bytes]
    ways: list[_Way]


def start(spec: Spec, seed: int) -> ServerState:
    """Give the state of version 0."""
    nothing = tuple(np.zeros(tensor.shape) for tensor in spec)
    return ServerState(seed, 0, initial(spec, seed), (), nothing, (), ())


def advance(state: ServerState, mean: Sequence[Float64], spec: Spec, coding: CompressionSpec) -> ServerState:
    """Take one step: `mean` is added to the fine model, and the next version published from it.

    `mean` has one float64 array per tensor, the server's learning rate already in it. The same state and mean
    give the same bodies on every machine with IEEE arithmetic. Raises DownlinkError for steps that are not
    finite or leave the lattice.
    """
    _check(mean, spec)
    fine = tuple(old + step for old, step in zip(state.fine, mean, strict=True))
    number = state.version + 1
    try:
        if not coding.downlink_step:
            ways: tuple[Way, ...] = (Way(0, write_plain([np.asarray(f, np.float32) for f in fine], "float32")),)
            trail: tuple[Offset, ...] = ()
            model, offset = install(spec, state.seed, ways[0].body)
        else:
            offset, step = _follow(state.offset, fine, coding.downlink_step)
            trail = (step, *state.trail)[: max(LADDER)]
            ways = (*_ladder(trail, number), Way(0, write_integers(offset)))
            model = add(initial(spec, state.seed), offset)
    except (CodecError, LatticeError) as error:
        raise DownlinkError(f"version {number} cannot be coded: {error}") from error
    return ServerState(state.seed, number, model, offset, fine, trail, ways)


def install(spec: Spec, seed: int, body: bytes | None, held: Offset = ()) -> tuple[Model, Offset]:
    """Give the version that a way leads to, and its offset for the next time.

    body: the way; None for version 0. held: the offset of the version that it starts from; () from version 0.
    Raises CodecError for anything wrong.
    """
    step = decode(body, spec) if body is not None else ()
    offset = _sum(held, step)
    first = initial(spec, seed)
    try:
        return (add(first, offset) if offset else first), offset
    except LatticeError as error:
        raise CodecError(f"a body leaves the lattice: {error}") from error


def _on_grids(offset: Offset, grids: Sequence[int]) -> Offset:
    """Give what was written on these grids as it was, whatever exponents a body spells it with."""
    if len(offset) != len(grids):
        raise CodecError("a step and its grids have different lengths")
    pairs = zip(offset, grids, strict=True)
    return tuple(Decoded(rescale(tensor.integers, tensor.exponent - grid), grid) for tensor, grid in pairs)


def _follow(offset: Offset, fine: Sequence[Float64], downlink_step: float) -> tuple[Offset, Offset]:
    """Move the offset after the fine model, and give it with what it moved by."""
    offset = offset or tuple(
        Decoded(np.zeros(f.shape, np.int64), grid) for f, grid in zip(fine, _grids(fine, downlink_step), strict=True)
    )
    steps = []
    for here, there in zip(offset, fine, strict=True):
        behind = np.ldexp(there, -here.exponent) - here.integers
        moves = np.where(np.abs(behind) > HYSTERESIS, np.rint(behind), 0.0)
        steps.append(Decoded(moves.astype(np.int64), here.exponent))
    return _sum(offset, tuple(steps)), tuple(steps)


def _grids(first_step: Sequence[Float64], downlink_step: float) -> list[int]:
    """Choose the grids from the first step: about `downlink_step` times its rms, finer where a tensor moves
    less.
    """
    sizes = [math.sqrt(float(np.square(s).mean())) if s.size else 0.0 for s in first_step]
    whole = math.sqrt(
        sum(size**2 * s.size for size, s in zip(sizes, first_step, strict=True))
        / max(1, sum(s.size for s in first_step))
    )
    if not whole:
        return [0] * len(sizes)
    top = round(math.log2(whole * downlink_step))
    return [top - min(max(0, round(math.log2(whole / size))), MOST_OCTAVES) if size else top for size in sizes]


def _ladder(trail: Sequence[Offset], number: int) -> list[Way]:
    ways: list[Way] = []
    total: Offset = ()
    for back, step in enumerate(trail, start=1):
        total = _sum(total, step)
        if back in LADDER and back < number:
            ways.append(Way(number - back, write_integers(total)))
    return ways


def _sum(left: Offset, right: Offset) -> Offset:
    """Add two offsets exactly. Raises CodecError where the sum would not fit an int64."""
    if not left or not right:
        return left or right
    return tuple(_plus(a, b) for a, b in zip(left, right, strict=True))


def _plus(a: Decoded, b: Decoded) -> Decoded:
    if not b.integers.any():
        return a
    if not a.integers.any():
        return b
    exponent = min(a.exponent, b.exponent)
    if max(bits(a.integers) + a.exponent, bits(b.integers) + b.exponent) - exponent > 61:
        raise CodecError("a way leads beyond what its start can be added to")
    return Decoded((a.integers << a.exponent - exponent) + (b.integers << b.exponent - exponent), exponent)


def _check(mean: Sequence[Float64], spec: Spec) -> None:
    if [step.shape for step in mean] != [tensor.shape for tensor in spec]:
        raise DownlinkError("a step has other shapes than the spec")
    for step, tensor in zip(mean, spec, strict=True):
        if not (np.abs(step) < 2.0**100).all():
            raise DownlinkError(f"step of tensor {tensor.name} is not finite or far too large")
