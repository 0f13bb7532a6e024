"""The outermost layer of a body: one byte that names the coding, then what that coding wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.codec.adaptive import read_adaptive, write_adaptive
from models.codec.decoded import CodecError, Decoded
from models.codec.exact import write_exactly
from models.codec.plain import float32_bytes, int8_bytes, read_float32, read_int8
from models.codec.rans import LANES
from models.codec.steps import STEP_BYTES
from models.params import Spec, TensorSpec

Float32 = npt.NDArray[np.float32]

FLOAT32, INT8, ADAPTIVE, STOCHASTIC = 0x10, 0x11, 0x20, 0x24
"""First byte of a body. ADAPTIVE + i is a stream of LANES[i] lanes, rounded to nearest; STOCHASTIC + i, at random."""
TENSOR_OVERHEAD = 16
"""Bytes that any tensor may cost beyond its float32 values."""
STREAM_OVERHEAD = 16 + 4 * LANES[-1]


def max_body_bytes(spec: Spec) -> int:
    """Return the most bytes that a body of this spec may have; a receiver refuses larger ones unread."""
    return STREAM_OVERHEAD + sum(4 * tensor.size + TENSOR_OVERHEAD for tensor in spec)


def write_plain(tensors: Sequence[Float32], codec: str) -> bytes:
    """Code finite tensors as "float32" or "int8"."""
    if codec == "float32":
        return bytes((FLOAT32,)) + b"".join(map(float32_bytes, tensors))
    return bytes((INT8,)) + b"".join(map(int8_bytes, tensors))


def write_integers(tensors: Sequence[Decoded]) -> bytes:
    """Code integers times powers of two without loss. Raises CodecError where they are too large or too far
    apart.
    """
    lanes, stream = write_exactly(tensors)
    return bytes((ADAPTIVE + LANES.index(lanes),)) + stream


def write(
    tensors: Sequence[Float32],
    units: Sequence[Float32],
    codec: str,
    step: float,
    rng: np.random.Generator,
    *,
    stochastic: bool = False,
) -> bytes:
    """Code finite tensors by any codec; `step`, in rms of `units`, and `stochastic` rounding are for "adaptive"."""
    if codec != "adaptive":
        return write_plain(tensors, codec)
    lanes, stream = write_adaptive(tensors, units, step, rng, stochastic=stochastic)
    coding = STOCHASTIC if stochastic else ADAPTIVE
    return _shortest(bytes((coding + LANES.index(lanes),)) + stream, tensors)


def _shortest(body: bytes, tensors: Sequence[Float32]) -> bytes:
    """Return a plain body instead where it is shorter and no worse: for a handful of coordinates, or a tiny
    step.
    """
    size = sum(tensor.size for tensor in tensors)
    if len(body) > 1 + size + STEP_BYTES * len(tensors):
        int8 = write_plain(tensors, "int8")
        if _lost(int8, tensors) <= _lost(body, tensors):
            return int8
    return body if len(body) <= 1 + 4 * size else write_plain(tensors, "float32")


def _lost(body: bytes, tensors: Sequence[Float32]) -> float:
    spec = tuple(TensorSpec("", tensor.shape) for tensor in tensors)
    pairs = zip(tensors, decode(body, spec), strict=True)
    return sum(float(np.square(tensor - decoded.values()).sum()) for tensor, decoded in pairs)


def decode(body: bytes, spec: Spec) -> tuple[Decoded, ...]:
    """Decode a body, tensor by tensor. Raises CodecError, and nothing else, for bytes that are not one of
    this spec.

    Memory is bounded by the spec, whatever the bytes say.
    """
    if not 1 <= len(body) <= max_body_bytes(spec):
        raise CodecError(f"body of {len(body)} bytes")
    match body[0]:
        case 0x10:
            return _decode_float32(memoryview(body)[1:], spec)
        case 0x11:
            return _decode_int8(memoryview(body)[1:], spec)
        case 0x20 | 0x21 | 0x22:
            return read_adaptive(LANES[body[0] - ADAPTIVE], memoryview(body)[1:], spec, stochastic=False)
        case 0x24 | 0x25 | 0x26:
            return read_adaptive(LANES[body[0] - STOCHASTIC], memoryview(body)[1:], spec, stochastic=True)
    raise CodecError(f"unknown coding {body[0]:#04x}")


def _decode_float32(rest: memoryview, spec: Spec) -> tuple[Decoded, ...]:
    if len(rest) != 4 * sum(tensor.size for tensor in spec):
        raise CodecError("float32 body has another length than its tensors")
    decoded, at = [], 0
    for tensor in spec:
        decoded.append(read_float32(rest[at : at + 4 * tensor.size], tensor.shape))
        at += 4 * tensor.size
    return tuple(decoded)


def _decode_int8(rest: memoryview, spec: Spec) -> tuple[Decoded, ...]:
    decoded, at = [], 0
    for tensor in spec:
        if rest[at : at + STEP_BYTES] == bytes(STEP_BYTES):
            decoded.append(Decoded(np.zeros(tensor.shape, np.int64), 0))
            at += STEP_BYTES
            continue
        end = at + STEP_BYTES + tensor.size
        if end > len(rest):
            raise CodecError("int8 body ends early")
        decoded.append(read_int8(rest[at:end], tensor.shape))
        at = end
    if at != len(rest):
        raise CodecError("int8 body goes on after its last tensor")
    return tuple(decoded)
