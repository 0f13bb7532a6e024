"""What a net has beside its parameters and travels: float buffers, such as BatchNorm's means and variances.

They are no direction in which to train, so they have no part in a delta: not in its sketch, whose noise would make
variances negative, nor in its norm. They travel as numbers, in the section "buffers" of an update and in the body that
leads to a version, tensor by tensor, in the order of the net:

    1 byte, how it is said       then
    0 same                       nothing: it is that of the base, bit for bit
    1 short                      each number in 2 bytes: sign, 8 bits of exponent, 7 of mantissa (bfloat16)
    2 change                     the same of what is added to the number of the base
    3 whole                      each number in float32

Who writes takes the first of 0, 2 and 1 that leaves every number of a tensor its sign (0 stays 0) and a relative error
of 2**-8 at most, and 3 where none does: so a variance above 0 arrives above 0. A change is the finer the smaller it is:
a mean of 1000 that moves by 1 is not rounded to the next multiple of 4, version after version.

The base is the version that an update or a step leaves; where a body begins from nothing all is said whole. BODY.md is
the prose. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from models.codec.decoded import CodecError
from models.params import Float32, Params, Spec, n_parameters

if TYPE_CHECKING:
    from models.nets.net import Net

Float64 = npt.NDArray[np.float64]

PRECISION = 2.0**-8
"""The largest error of a number, as a share of it."""
SAME, SHORT, CHANGE, WHOLE = range(4)
_WIDTH = {SAME: 0, SHORT: 2, CHANGE: 2, WHOLE: 4}
"""Bytes of a number."""
_MEAN, _VARIANCE = "running_mean", "running_var"
"""What BatchNorm calls its statistics, in Torch."""


class BuffersError(CodecError):
    """Bytes that say no buffers of a net, or numbers that no buffer can have."""


class Buffers(Struct, frozen=True, eq=False):
    """The buffers of a net that travel. Nobody changes them."""

    spec: Spec = ()
    values: tuple[Float32, ...] = ()
    """In the order of the spec, all finite."""

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.spec)

    def params(self) -> Params:
        """Return them by name: what a net is given beside its parameters."""
        return {tensor.name: value for tensor, value in zip(self.spec, self.values, strict=True)}

    def to_bytes(self) -> bytes:
        """Return all numbers in a row, float32 little-endian."""
        return b"".join(value.astype("<f4", copy=False).tobytes() for value in self.values)

    def __eq__(self, other: object) -> bool:
        """Compare by value, bit for bit."""
        return isinstance(other, Buffers) and self.spec == other.spec and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        """Hash by value."""
        return hash((self.spec, self.to_bytes()))


NO_BUFFERS = Buffers()


def named(values: Mapping[str, npt.NDArray[Any]], spec: Spec) -> Buffers:
    """Return buffers out of arrays by name. Raises BuffersError for numbers that are not finite."""
    for tensor in spec:
        if not np.isfinite(values[tensor.name]).all():
            raise BuffersError(f'buffer "{tensor.name}" has numbers that are not finite')
    return Buffers(spec, tuple(frozen(values[t.name].astype(np.float32).reshape(t.shape)) for t in spec))


def first_of(net: Net) -> Buffers:
    """Return what the code of a net gives its buffers: those of version 0."""
    return named(net.first_buffers, net.buffers) if net.buffers else NO_BUFFERS


def for_training(net: Net, base: Buffers) -> dict[str, npt.NDArray[Any]]:
    """Return fresh arrays of all that a training changes beside parameters.

    base: of the version that is trained on. What does not travel, as numbers of batches, begins as the code has it.
    """
    return {name: np.array(value) for name, value in (net.first_buffers | base.params()).items()}


def from_bytes(data: bytes, spec: Spec) -> Buffers:
    """Read what `Buffers.to_bytes` wrote. Raises BuffersError."""
    if len(data) != 4 * n_parameters(spec):
        raise BuffersError(f"{len(data)} bytes of buffers, where the net has {n_parameters(spec)} numbers")
    found, at = {}, 0
    for tensor in spec:
        found[tensor.name] = np.frombuffer(data, "<f4", tensor.size, at).astype(np.float32).reshape(tensor.shape)
        at += 4 * tensor.size
    return named(found, spec)


# How they travel.


def max_bytes(spec: Spec) -> int:
    """Return the most bytes that buffers may have on their way; 0 where there are none."""
    return len(spec) + 4 * n_parameters(spec)


def encode(now: Buffers, base: Buffers | None = None, *, whole: bool = False) -> bytes:
    """Return the bytes that say buffers to who holds those of the base; to anybody where there is no base.

    whole: in float32, whatever they are.
    """
    before: tuple[Float32 | None, ...] = (None,) * len(now.spec) if base is None else base.values
    return b"".join(_said(ours, theirs, whole=whole) for ours, theirs in zip(now.values, before, strict=True))


def decode(data: bytes, spec: Spec, base: Buffers | None = None) -> Buffers:
    """Read what `encode` wrote. Raises BuffersError, and nothing else, whatever the bytes.

    Nothing is allocated beyond the net's own size. A tensor that is the base's is that very array.
    """
    found: list[Float32] = []
    at = 0
    for index, tensor in enumerate(spec):
        how = data[at] if at < len(data) else -1
        theirs = None if base is None else base.values[index]
        if how not in _WIDTH or (theirs is None and how in (SAME, CHANGE)):
            raise BuffersError(f'buffer "{tensor.name}" is said in no way that there is')
        end = at + 1 + _WIDTH[how] * tensor.size
        if end > len(data):
            raise BuffersError(f'buffer "{tensor.name}" is cut off')
        value = _read(how, data[at + 1 : end], theirs)
        if not np.isfinite(value).all():
            raise BuffersError(f'buffer "{tensor.name}" has numbers that are not finite')
        found.append(value if value is theirs else frozen(value.reshape(tensor.shape)))
        at = end
    if at != len(data):
        raise BuffersError(f"{len(data) - at} bytes stand behind the last buffer")
    return Buffers(spec, tuple(found))


def _said(now: Float32, base: Float32 | None, *, whole: bool) -> bytes:
    """Return how it is said, and the numbers, of one tensor."""
    if base is not None and now.tobytes() == base.tobytes():
        return bytes((SAME,))
    for how in () if whole else (SHORT,) if base is None else (CHANGE, SHORT):
        with np.errstate(over="ignore"):
            apart = now if how == SHORT or base is None else (now.astype(np.float64) - base).astype(np.float32)
        data = _halved(apart)
        if _holds(now, _read(how, data, base)):
            return bytes((how,)) + data
    return struct.pack("B", WHOLE) + now.astype("<f4", copy=False).tobytes()


def _read(how: int, data: bytes, base: Float32 | None) -> Float32:
    """Return the numbers of a tensor, in the shape of the base where that counts, else in a row."""
    if how == WHOLE:
        return np.frombuffer(data, "<f4").astype(np.float32)
    if how == SHORT:
        return _widened(data)
    assert base is not None  # noqa: S101 -- callers have looked
    if how == SAME:
        return base
    with np.errstate(over="ignore", invalid="ignore"):
        # in float64, where each operation is rounded by itself: the same on every machine
        added: Float32 = (base.reshape(-1).astype(np.float64) + _widened(data)).astype(np.float32)
    return added


def _halved(values: Float32) -> bytes:
    """Return numbers as bfloat16: the upper half of a float32, rounded to the nearest, halves to even."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    rounded = bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)
    return (rounded >> 16).astype("<u2").tobytes()


def _widened(data: bytes) -> Float32:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def _holds(now: Float32, said: Float32) -> bool:
    """Return whether what is said is as near as PRECISION to every number, with its sign."""
    ours, theirs = now.reshape(-1).astype(np.float64), said.reshape(-1).astype(np.float64)
    if not np.isfinite(theirs).all():
        return False
    is_near = np.abs(theirs - ours) <= PRECISION * np.abs(ours)
    return bool((is_near & (np.sign(theirs) == np.sign(ours))).all())


def frozen(value: Float32) -> Float32:
    """Return an array that nobody changes any more."""
    value.flags.writeable = False
    return value


# What of them is BatchNorm's.


def statistics(spec: Spec) -> dict[int, int]:
    """Return of each mean of a BatchNorm, by its place, the place of the variance beside it."""
    places = {tensor: at for at, tensor in enumerate(spec)}
    found = {}
    for tensor, at in places.items():
        beside = tensor._replace(name=tensor.name.removesuffix(_MEAN) + _VARIANCE)
        if tensor.name.endswith(_MEAN) and beside in places:
            found[at] = places[beside]
    return found


def check_statistics(said: Buffers) -> None:
    """Raise BuffersError for variances below 0, which no rows have."""
    for at in statistics(said.spec).values():
        if (said.values[at] < 0).any():
            raise BuffersError(f'buffer "{said.spec[at].name}" has a variance below 0')
