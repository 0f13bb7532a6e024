"""The two plain codings: float32 as it is, and int8 with one step for each tensor.

float32    4 bytes a coordinate, little-endian
int8       for each tensor a step (steps.py) and one byte a coordinate; an all-zero tensor is its step alone, 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError, Decoded, exact
from models.codec.steps import STEP_BYTES, read_step, step_at_least, step_value
from models.params import Spec
from models.rows import carved

Floating = npt.NDArray[np.float32] | npt.NDArray[np.float64]
SLAB = 2**15
"""Coordinates at a time: what is made on the way stays in the cache."""
EXACT = 100
"""Exponents of a power of two up to this, either way, leave every float32 that is not far too small as it is."""


class Floats(NamedTuple):
    """A float32 body, as it came: all coordinates in a row, shape (d,), finite."""

    row: npt.NDArray[np.float32]
    size: float | None = None
    """The largest magnitude, where whoever has made this has looked."""

    @property
    def magnitude(self) -> float:
        """The largest magnitude."""
        return magnitude(self.row) if self.size is None else self.size

    def tensors(self, spec: Spec) -> tuple[Decoded, ...]:
        """Return what it says of every tensor."""
        return tuple(exact(values.astype(np.float64)) for values in carved(self.row, spec))

    def rounded(self, exponent: int, out: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.int32] | None:
        """Return every coordinate rounded half to even to a multiple of 2**exponent: int32, shape (d,).

        out: where to; it may be the memory of the coordinates, which are then used up.

        None where one is 2**27 such multiples or more: below that no bit of a coordinate which this rounding sees is
        finer than what `exact` keeps, so that it is the same as rounding the tensors.
        """
        if not self.magnitude < 2.0 ** (exponent + 27):
            return None
        # In float32 a power of two is a factor that loses nothing, and rint and the integers are exact; where it has
        # no such factor float64 has one.
        factor = np.float32(2.0**-exponent) if abs(exponent) <= EXACT else np.float64(2.0**-exponent)
        found = np.empty(self.row.shape, np.int32) if out is None else out
        for at in range(0, self.row.size, SLAB):
            slab = slice(at, at + SLAB)
            scaled = self.row[slab] * factor
            found[slab] = np.rint(scaled, out=scaled)
        return found


def magnitude(row: npt.NDArray[np.floating]) -> float:
    """Return the largest magnitude; nan where there is one among them, 0 for an empty row."""
    return max(float(row.max()), -float(row.min())) if row.size else 0.0


def write_float32(tensors: Sequence[Floating]) -> bytes:
    """Code finite tensors as float32."""
    written = [np.asarray(values, "<f4").tobytes() for values in tensors]
    return written[0] if len(written) == 1 else b"".join(written)


def read_float32(body: bytes | memoryview, d: int, out: npt.NDArray[np.float32] | None = None) -> Floats:
    """Read float32 coordinates. Raises CodecError for another length, and for a value that is not finite.

    out: where they are copied to, shape (d,): those that begin at an odd byte would be copied again by each pass.
    """
    if len(body) != 4 * d:
        raise CodecError(f"a float32 body of {len(body)} bytes has another length than its tensors")
    row = np.frombuffer(body, "<f4").astype(np.float32, copy=False)
    if out is not None:
        out[...] = row
        row = out
    size = magnitude(row)
    if not np.isfinite(size):
        raise CodecError("a float32 value is not finite")
    return Floats(row, size)


def write_int8(tensors: Sequence[Floating], rng: np.random.Generator) -> bytes:
    """Code finite tensors as int8, rounded up or down at random, so that no mean of many is off to one side."""
    return b"".join(_int8(np.asarray(values, np.float64), rng) for values in tensors)


def read_int8(body: bytes, spec: Spec) -> tuple[Decoded, ...]:
    """Read int8 tensors: integers = symbol * mantissa. Raises CodecError for another length or a step that is none."""
    decoded, at = [], 0
    for tensor in spec:
        word = int.from_bytes(body[at : at + STEP_BYTES], "little")
        at += STEP_BYTES
        if not word:
            decoded.append(Decoded(np.zeros(tensor.shape, np.int64), 0))
            continue
        if at + tensor.size > len(body):
            raise CodecError("an int8 body ends early")
        mantissa, exponent = read_step(word)
        symbols = np.frombuffer(body, np.int8, tensor.size, at).astype(np.int64).reshape(tensor.shape)
        decoded.append(Decoded(symbols * mantissa, exponent))
        at += tensor.size
    if at != len(body):
        raise CodecError(f"an int8 body of {len(body)} bytes has another length than its tensors")
    return tuple(decoded)


def _int8(values: npt.NDArray[np.float64], rng: np.random.Generator) -> bytes:
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return bytes(STEP_BYTES)
    word = step_at_least(largest / 126)  # rounding up at random stays within 127
    symbols = np.floor(values / step_value(word) + rng.random(values.shape)).astype(np.int8)
    return word.to_bytes(STEP_BYTES, "little") + symbols.tobytes()
