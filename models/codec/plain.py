"""The two plain codings: float32 as it is, and int8 with one step for each tensor.

float32    4 bytes a coordinate, little-endian
int8       for each tensor a step (steps.py) and one byte a coordinate; an all-zero tensor is its step alone, 0
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError, Decoded, exact
from models.codec.steps import STEP_BYTES, read_step, step_at_least, step_value
from models.params import Spec

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def write_float32(tensors: Sequence[Floats]) -> bytes:
    """Code finite tensors as float32."""
    return b"".join(np.asarray(values, "<f4").tobytes() for values in tensors)


def read_float32(body: bytes, spec: Spec) -> tuple[Decoded, ...]:
    """Read float32 tensors. Raises CodecError for another length, and for a value that is not finite."""
    if len(body) != 4 * sum(tensor.size for tensor in spec):
        raise CodecError(f"a float32 body of {len(body)} bytes has another length than its tensors")
    decoded, at = [], 0
    for tensor in spec:
        values = np.frombuffer(body, "<f4", tensor.size, at).reshape(tensor.shape)
        if not np.isfinite(values).all():
            raise CodecError("a float32 value is not finite")
        decoded.append(exact(values.astype(np.float64)))
        at += 4 * tensor.size
    return tuple(decoded)


def write_int8(tensors: Sequence[Floats], rng: np.random.Generator) -> bytes:
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
