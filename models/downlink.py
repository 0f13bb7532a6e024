r"""The downlink: all versions lie on one coarse grid, so that any two of them differ by a few small integers.

    version v  =  initial(seed) + offset_v,      offset_v = integers * 2**grid,  a grid for each tensor

    initial ──────────────── way from 0 ────────────────▶ v      for whoever is new, or has been away for long
       v-8 ───────── way from v-8 ──────▶ v                      for whoever was here eight versions ago
             v-2 ─── way from v-2 ─▶ v
                v-1 ─ way from v-1 ▶ v                           for whoever holds the version before

A way is the entropy-coded difference of two offsets: exact, so whichever one a device takes it holds the very
integers, and so the very SHA-256, that everybody holds; and whoever joins, however late, reads one body.

The server's own model is finer than the grid: `fine` is the sum of all steps, and the offset follows it,
moving by whole grid steps where it has fallen more than HYSTERESIS of them behind. So what one version leaves
out a later one carries, nothing is lost, and a coordinate on the edge between two grid points does not cross
it back and forth. The grids are chosen once, from the first step that moves anything: a power of two or three of one.

Rounding costs little, being behind costs rounds: what moves steadily is half a grid step late on its way to the next
point, and all coordinates are late in the direction of descent. So the offset follows not `fine` but where it will be:

    fine + lead * drift,    drift' = (drift + step) / 2,    persistence = <step, drift> / <drift, drift>, smoothed

As long as steps go on as they went (LEADS), the lead is a round; where each undoes the last, as on very unequal data
with few devices a round, there is none. It is Nesterov's look-ahead (Sutskever et al. 2013, eq. 3-4) put to the use of
a predictor, without his momentum: `fine` itself is the plain sum.

Without a grid (downlink_step = 0) a version has one way, from 0: the fine model in float32. Every function is
pure; `ServerState` is all there is to keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.codec.decoded import BUDGET, CodecError, Decoded
from models.codec.frame import decode, max_body_bytes, write_integers, write_plain
from models.job import CompressionSpec
from models.lattice import LatticeError, Model, add, bits, initial, rescale
from models.params import Spec

Float64 = npt.NDArray[np.float64]
Offset = tuple[Decoded, ...]
"""What leads from version 0 to another, one for each tensor; () is nothing at all."""

LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""Versions back from which there is a way to the current one, besides version 0."""
HYSTERESIS = 0.55
"""Grid steps that a coordinate falls behind before it moves."""
LEADS = (0.3, 0.55)
"""Persistence up to which a version does not lead at all, and from which it leads in full."""
UNKNOWN = 0.5
"""Persistence before anything is known of it."""
FORGETTING = 0.4
"""Weight of the latest step in the persistence."""
MOST_OCTAVES = 14
"""A tensor's grid is at most so many octaves finer than the coarsest one's."""
LARGEST_STEP = 2.0**100
"""No coordinate moves so far in one step, unless the job has diverged."""
LARGEST_SUM = 2.0**400
"""Sums of steps are far smaller; the squares of these still add up."""
GRIDS = (-200, 200)
"""Grids beyond these are nonsense, and what leads there is refused."""


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
    """What leads from version 0 to it; () for version 0. Multiples of `unit`."""
    fine: tuple[Float64, ...]
    """The sum of all steps from version 0 on, off the grid: what `offset` follows."""
    trail: tuple[Offset, ...]
    """The differences of the last versions, newest first."""
    ways: tuple[Way, ...]
    """What devices read to hold `model`, the nearest start first, version 0 last; none for version 0."""
    unit: int = 1
    """One step on a tensor's grid is `unit` times two to the power of its offset's exponent."""
    drift: tuple[Float64, ...] = ()
    """The moving average of the steps; () for zeros."""
    persistence: float = UNKNOWN
    """How much of the drift a step goes on with: 1 all of it, 0 nothing."""

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` reads it back."""
        fine = [values.astype("<f8", copy=False).tobytes() for values in self.fine]
        trail = [write_integers(step) for step in self.trail]
        ways = [(way.start, way.body) for way in self.ways]
        grids = [tensor.exponent for tensor in self.offset]
        drift = [values.astype("<f8", copy=False).tobytes() for values in self.drift]
        return msgspec.msgpack.encode(
            (self.seed, self.version, grids, self.unit, fine, trail, ways, drift, self.persistence)
        )

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> ServerState:
        """Read what `to_bytes` wrote. Raises DownlinkError, and nothing else, when it is no server state of this spec.

        Memory is bounded by the spec, whatever the bytes say.
        """
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
            fine, drift = read_floats(stored.fine, spec), read_floats(stored.drift, spec) if stored.drift else ()
            model, offset = install(spec, stored.seed, stored.whole(spec))
            offset = _on_grids(offset, stored.grids)
            trail = tuple(_on_grids(decode(body, spec), stored.grids) for body in stored.trail)
        except (msgspec.MsgspecError, CodecError, RecursionError) as error:
            raise DownlinkError(f"stored server state is damaged: {error}") from error
        ways = tuple(Way(start, body) for start, body in stored.ways)
        return ServerState(
            stored.seed, stored.version, model, offset, fine, trail, ways, stored.unit, drift, stored.persistence
        )


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    seed: int
    version: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    grids: list[Annotated[int, msgspec.Meta(ge=-400, le=400)]]
    unit: Literal[1, 2, 3, 6]
    fine: list[bytes]
    trail: Annotated[list[bytes], msgspec.Meta(max_length=max(LADDER))]
    ways: Annotated[list[tuple[int, bytes]], msgspec.Meta(max_length=len(LADDER) + 1)]
    drift: list[bytes] = []
    persistence: Annotated[float, msgspec.Meta(ge=0, le=1)] = UNKNOWN

    def whole(self, spec: Spec) -> bytes | None:
        """Return the way from version 0, None if this is version 0. Raises CodecError where there is none."""
        starts = [start for start, _ in self.ways]
        if starts != sorted({start for start in starts if 0 <= start < self.version}, reverse=True):
            raise CodecError("its ways begin where none can")
        if not all(1 <= len(body) <= max_body_bytes(spec) for _, body in self.ways):
            raise CodecError("a way is longer than any of this spec, or empty")
        if not self.version:
            return None
        if not starts or starts[-1]:
            raise CodecError("there is no way from version 0")
        return self.ways[-1][1]


def read_floats(raws: Sequence[bytes], spec: Spec) -> tuple[Float64, ...]:
    """Read stored float64 tensors: steps, or sums of them. Raises DownlinkError unless all is of this spec and sane."""
    if [len(raw) for raw in raws] != [8 * tensor.size for tensor in spec]:
        raise DownlinkError("stored server state has other shapes than the spec")
    pairs = zip(raws, spec, strict=True)
    found = tuple(np.frombuffer(raw, "<f8").astype(np.float64).reshape(tensor.shape) for raw, tensor in pairs)
    if not all((np.abs(values) < LARGEST_SUM).all() for values in found):
        raise DownlinkError("stored server state has values that are not finite or far too large")
    return found


def start(spec: Spec, seed: int) -> ServerState:
    """Return the state of version 0."""
    nothing = tuple(np.zeros(tensor.shape) for tensor in spec)
    return ServerState(seed, 0, initial(spec, seed), (), nothing, (), ())


def advance(state: ServerState, mean: Sequence[Float64], spec: Spec, coding: CompressionSpec) -> ServerState:
    """Take one step: `mean` is added to the fine model, and the next version published from it.

    `mean` has one float64 array per tensor, the server's learning rate already in it. The same state and mean
    give the same version on every machine, spelt in the same bytes on one. Raises DownlinkError for steps that
    are not finite, leave the lattice, or go farther than a body on the job's grids can say.
    """
    _check(mean, spec)
    fine = tuple(old + step for old, step in zip(state.fine, mean, strict=True))
    number = state.version + 1
    try:
        if not coding.downlink_step:
            model, offset, ways = _plainly(fine, spec, state.seed)
            return ServerState(state.seed, number, model, offset, fine, (), ways)
        here, unit = (state.offset, state.unit) if _under_way(state) else _origin(fine, coding.downlink_step)
        drift, persistence = _drift(state, mean)
        lead = coding.downlink_lead * _lead(persistence)
        step = _behind(here, unit, [f + lead * d for f, d in zip(fine, drift, strict=True)])
        offset, trail = _sum(here, step), (step, *state.trail)[: max(LADDER)]
        ways = (*_ladder(trail, number), Way(0, write_integers(offset)))
        model = add(initial(spec, state.seed), offset)
    except (CodecError, LatticeError) as error:
        raise DownlinkError(f"version {number} cannot be coded: {error}") from error
    return ServerState(state.seed, number, model, offset, fine, trail, ways, unit, drift, persistence)


def install(spec: Spec, seed: int, body: bytes | None, held: Offset = ()) -> tuple[Model, Offset]:
    """Return the version that a way leads to, and its offset for the next time.

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


def _plainly(fine: Sequence[Float64], spec: Spec, seed: int) -> tuple[Model, Offset, tuple[Way, ...]]:
    """Publish the fine model as it is, in float32."""
    whole = Way(0, write_plain([np.asarray(values, np.float32) for values in fine], "float32"))
    return *install(spec, seed, whole.body), (whole,)


def _under_way(state: ServerState) -> bool:
    """Return whether anything lies on the grids already."""
    return any(f.any() for f in state.fine) or any(tensor.integers.any() for step in state.trail for tensor in step)


def _drift(state: ServerState, step: Sequence[Float64]) -> tuple[tuple[Float64, ...], float]:
    """Return the moving average of the steps with this one in it, and how much of the old one it went on with."""
    size = sum(float(np.vdot(d, d)) for d in state.drift)
    if not size:
        return tuple(s / 2 for s in step), state.persistence
    onward = sum(float(np.vdot(s, d)) for s, d in zip(step, state.drift, strict=True))
    repeats = min(max(onward / size, 0.0), 1.0)
    persistence = state.persistence + FORGETTING * (repeats - state.persistence)
    return tuple((d + s) / 2 for d, s in zip(state.drift, step, strict=True)), persistence


def _lead(persistence: float) -> float:
    """Return by how many rounds a version is to lead, 0 to 1."""
    none, full = LEADS
    return min(max((persistence - none) / (full - none), 0.0), 1.0)


def _origin(fine: Sequence[Float64], downlink_step: float) -> tuple[Offset, int]:
    """Return the offset of version 0 on the grids that suit this first move, and their unit."""
    grids, unit = _grids(fine, downlink_step)
    pairs = zip(fine, grids, strict=True)
    return tuple(Decoded(np.zeros(values.shape, np.int64), grid) for values, grid in pairs), unit


def _grids(first: Sequence[Float64], downlink_step: float) -> tuple[list[int], int]:
    """Choose the grids: about `downlink_step` times the rms of the first move, finer where a tensor moves less."""
    sizes = [math.sqrt(float(np.square(f).mean())) if f.size else 0.0 for f in first]
    energy = sum(size**2 * f.size for size, f in zip(sizes, first, strict=True))
    whole = math.sqrt(energy / max(1, sum(f.size for f in first)))
    if not whole:
        return [0] * len(sizes), 1
    top, unit = _step(whole * downlink_step)
    if not GRIDS[0] + MOST_OCTAVES <= top <= GRIDS[1]:
        raise CodecError(f"a grid of 2**{top} is out of range")
    return [top - min(max(0, _octave(whole / size)), MOST_OCTAVES) if size else top for size in sizes], unit


def _step(value: float) -> tuple[int, int]:
    """Return the exponent and the unit of what is nearest to a float, of powers of two and three times them."""
    if not 0 < value < math.inf:
        return 10_000, 1
    fraction, exponent = math.frexp(value)
    if fraction <= math.sqrt(0.375):
        return exponent - 1, 1
    return (exponent - 2, 3) if fraction <= math.sqrt(0.75) else (exponent, 1)


def _octave(value: float) -> int:
    """Return log2 of a float, rounded: by comparing, which is the same everywhere. 0 and inf are beyond all grids."""
    if not 0 < value < math.inf:
        return 10_000
    fraction, exponent = math.frexp(value)
    return exponent if fraction > math.sqrt(0.5) else exponent - 1


def _behind(offset: Offset, unit: int, fine: Sequence[Float64]) -> Offset:
    """Return the whole grid steps that the offset must move by to follow the fine model."""
    steps = []
    for here, there in zip(offset, fine, strict=True):
        behind = (np.ldexp(there, -here.exponent) - here.integers) / unit
        moves = np.where(np.abs(behind) > HYSTERESIS, np.rint(behind), 0.0)
        if not (unit * np.abs(moves) < 2.0**BUDGET).all():
            raise CodecError("a step goes too far for the grid")
        steps.append(Decoded(unit * moves.astype(np.int64), here.exponent))
    return tuple(steps)


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


def _on_grids(offset: Offset, grids: Sequence[int]) -> Offset:
    """Return what was written on these grids as it was, whatever exponents its body spells it with."""
    if len(offset) != len(grids):
        raise CodecError("an offset and its grids have different lengths")
    return tuple(_on_grid(tensor, grid) for tensor, grid in zip(offset, grids, strict=True))


def _on_grid(tensor: Decoded, grid: int) -> Decoded:
    if not tensor.integers.any():
        return Decoded(np.zeros_like(tensor.integers), grid)
    finer = grid - tensor.exponent
    twos = int(np.bitwise_or.reduce(tensor.integers, axis=None))
    if bits(tensor.integers) - finer > 61 or (finer > 0 and (twos & -twos).bit_length() <= finer):
        raise CodecError("an offset lies on other grids than it says")
    return Decoded(rescale(tensor.integers, -finer), grid)


def _check(mean: Sequence[Float64], spec: Spec) -> None:
    if [step.shape for step in mean] != [tensor.shape for tensor in spec]:
        raise DownlinkError("a step has other shapes than the spec")
    for step, tensor in zip(mean, spec, strict=True):
        if not (np.abs(step) < LARGEST_STEP).all():
            raise DownlinkError(f"step of tensor {tensor.name} is not finite or far too large")
