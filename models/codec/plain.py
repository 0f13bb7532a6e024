"""The two plain codings of a tensor: float32 as it is, and int8 with one step for the tensor.

Both are the yardstick: no coding of a tensor may cost more than `int8` at an error as low.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError, Decoded, exact
from models.codec.steps import STEP_BYTES, read_step, step_at_least, step_value

Float32 = npt.NDArray[np.float32]


def float32_bytes(values: Float32) -> bytes:
    """Code a tensor as little-endian float32: 4 bytes a coordinate."""
    return values.astype("<f4", copy=False).tobytes()


def read_float32(body: memoryview, shape: tuple[int, ...]) -> Decoded:
    """Read 4 bytes a coordinate. Raises CodecError for a value that is not finite."""
    values = np.frombuffer(body, "<f4").astype(np.float64).reshape(shape)
    if not np.isfinite(values).all():
        raise CodecError("a float32 value is not finite")
    return exact(values)


def int8_bytes(values: Float32) -> bytes:
    """Code a tensor as a step and one byte a coordinate; an all-zero tensor is its step alone, which is 0."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    if largest == 0.0:
        return bytes(STEP_BYTES)
    word = step_at_least(largest / 127)
    symbols = np.rint(values.astype(np.float64) / step_value(word)).astype(np.int8)
    return word.to_bytes(STEP_BYTES, "little") + symbols.tobytes()


def read_int8(body: memoryview, shape: tuple[int, ...]) -> Decoded:
    """Read symbols after their step, integers = symbol * mantissa."""
    mantissa, exponent = read_step(int.from_bytes(body[:STEP_BYTES], "little"))
    symbols = np.frombuffer(body[STEP_BYTES:], np.int8).astype(np.int64).reshape(shape)
    return Decoded(symbols * mantissa, exponent)
