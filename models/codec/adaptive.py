"""The adaptive coding: for each tensor, by actual cost, factors, single coordinates, bytes or nothing.

All tensors share one step, so the error goes where it saves most (reverse water-filling), except that a
tensor of smaller entries than the whole has a step smaller by octaves. The stream begins with the step's 16
bits; then, tensor by tensor, 2 bits of mode and what tensors.py writes for it.

Rounding is to nearest, for the smallest error, or stochastic, without bias: then the mean over devices
converges to the mean of their updates however coarse the step, and nothing needs to be fed back. A stochastic
stream has a salt of 8 bits after the step: with the step word it seeds the dither of its factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError, Decoded
from models.codec.dither import SALT_BITS, Dither
from models.codec.steps import read_step, step_at_least
from models.codec.symbols import Reader, Writer
from models.codec.tensors import Coder, read_lowrank, read_raw, read_scalar, read_zero, rms
from models.params import Spec

Float32 = npt.NDArray[np.float32]

MAX_OCTAVES = 14
_OCTAVES_CLASS = 10
"""Class of a tensor's octaves: expected to be 1/8, nearly always 0."""
_SMALLEST = 2.0**-160
"""Far below the smallest float32, and MAX_OCTAVES above the smallest step."""

_READERS = (read_zero, read_scalar, read_lowrank, read_raw)


def write_adaptive(
    tensors: Sequence[Float32],
    units: Sequence[Float32],
    step: float,
    rng: np.random.Generator,
    *,
    stochastic: bool,
) -> tuple[int, bytes]:
    """Code finite tensors with a step counted in rms of `units`. Give the number of lanes and the stream."""
    sizes = [rms(unit) for unit in units]
    if not any(sizes):
        sizes = [rms(tensor) for tensor in tensors]
    common = _common(sizes, tensors)
    word = step_at_least(max(step * common, _SMALLEST))
    salt = int(rng.integers(1 << SALT_BITS)) if stochastic else None
    writer = Writer()
    writer.uniform([word >> 8, word & 255], 8)
    writer.uniform([] if salt is None else [salt], SALT_BITS)
    for number, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
        octaves = _octaves(size, common)
        best = Coder(tensor, word - 128 * octaves, rng, _dither(word, salt, number)).cheapest()
        writer.uniform([best.mode], 2)
        if best.mode:
            writer.integers(np.array([octaves]), np.array([_OCTAVES_CLASS]))
        writer.extend(best.writer)
    return writer.stream()


def _dither(word: int, salt: int | None, number: int) -> Dither | None:
    return None if salt is None else Dither(word << SALT_BITS | salt, number)


def read_adaptive(lanes: int, stream: memoryview, spec: Spec, *, stochastic: bool) -> tuple[Decoded, ...]:
    """Read what `write_adaptive` wrote. Raises CodecError for anything else."""
    reader = Reader(lanes, stream)
    high, low = reader.uniform(2, 8).tolist()
    word = high << 8 | low
    salt = reader.number(SALT_BITS) if stochastic else None
    decoded = tuple(
        _read_tensor(reader, word, tensor.shape, _dither(word, salt, number)) for number, tensor in enumerate(spec)
    )
    reader.close()
    return decoded


def _read_tensor(reader: Reader, word: int, shape: tuple[int, ...], dither: Dither | None) -> Decoded:
    mode = reader.number(2)
    if mode:
        octaves = int(reader.integers(np.array([_OCTAVES_CLASS]))[0])
        if not 0 <= octaves <= MAX_OCTAVES:
            raise CodecError(f"a step {octaves} octaves below the common one")
        word -= 128 * octaves
    return _READERS[mode](reader, shape, read_step(word), dither)


def _common(sizes: Sequence[float], tensors: Sequence[Float32]) -> float:
    energy = sum(size * size * tensor.size for size, tensor in zip(sizes, tensors, strict=True))
    return math.sqrt(energy / max(1, sum(tensor.size for tensor in tensors)))


def _octaves(size: float, common: float) -> int:
    if not 0 < size < common:
        return 0
    return min(round(math.log2(common / size)), MAX_OCTAVES)
