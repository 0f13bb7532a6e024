"""Error feedback as explicit state: what the coder lost of earlier updates, added to the next one.

    encode:  whole = delta + residual,  body = code(whole)           -> Pending(whole, body)
    settle:  counted -> residual = whole - decode(body);  refused -> residual = whole

(Seide et al. 2014; Karimireddy et al. 2019, without decay.) A pending update waits for its verdict, on disk
if need be; the next encoding starts from the state that `settle` returns. `State()` has no residual: a new
device, or one that dropped it.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError
from models.params import Spec

Float32 = npt.NDArray[np.float32]
T = TypeVar("T")


class State(NamedTuple):
    """The residual of one device on one job, float32 in the shapes of the spec; () is none at all."""

    residual: tuple[Float32, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise with a checksum; `from_bytes` reads it back."""
        return _sealed((_raw(self.residual),))

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> State:
        """Read what `to_bytes` wrote. Raises CodecError when it is damaged or of another spec."""
        (raws,) = _opened(data, tuple[list[bytes]])
        return State(_arrays(raws, spec))


class Pending(NamedTuple):
    """An encoded update without verdict: what went in (() without error feedback) and the body that
    travels.
    """

    whole: tuple[Float32, ...]
    body: bytes

    def to_bytes(self) -> bytes:
        """Serialise with a checksum; `from_bytes` reads it back."""
        return _sealed((_raw(self.whole), self.body))

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> Pending:
        """Read what `to_bytes` wrote. Raises CodecError when it is damaged or of another spec."""
        raws, body = _opened(data, tuple[list[bytes], bytes])
        return Pending(_arrays(raws, spec), body)


def _raw(arrays: tuple[Float32, ...]) -> list[bytes]:
    return [array.astype("<f4", copy=False).tobytes() for array in arrays]


def _arrays(raws: list[bytes], spec: Spec) -> tuple[Float32, ...]:
    if raws and [len(raw) for raw in raws] != [4 * tensor.size for tensor in spec]:
        raise CodecError("stored residual has other shapes than the spec")
    pairs = zip(raws, spec, strict=False)
    return tuple(np.frombuffer(raw, "<f4").astype(np.float32).reshape(tensor.shape) for raw, tensor in pairs)


def _sealed(content: tuple[object, ...]) -> bytes:
    packed = msgspec.msgpack.encode(content)
    return zlib.crc32(packed).to_bytes(4, "little") + packed


def _opened(data: bytes, kind: type[T]) -> T:
    if int.from_bytes(data[:4], "little") != zlib.crc32(data[4:]):
        raise CodecError("stored codec state is damaged")
    try:
        return msgspec.msgpack.decode(data[4:], type=kind)
    except msgspec.MsgspecError as error:
        raise CodecError(f"stored codec state is damaged: {error}") from error
