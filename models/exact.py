"""A version said exactly, from nothing: the integers of its model and of the server optimizer's state, byte for byte.

What the other bodies say follows from a round, or from a grid. This one says any weights there are: those of a kept
version, of another job, of a file. It is deflated, and else as long as what it says.

    flags (1 byte: 1, a state follows), then for each tensor its exponent (int16)
    the planes of the model: int32, each tensor less version 0's where that has the same exponent, modulo 2**32
    with a state: the length of its form (1 byte), the form (ASCII), the planes of its arrays, int64

    planes    zigzag (that of int32, or int64), and of each byte of all integers, the lowest first:
              length (uint32), deflated bytes
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError
from models.integers import bits, largest
from models.lattice import HIGHEST, LIMIT, LOWEST, Model
from models.params import Spec, n_parameters
from models.rows import carved
from models.strategies.fixed import MOST_BITS
from models.strategies.state import State, StateError

STATE = 1
_OF_MODEL, _OF_STATE = 4, 8
"""Bytes of an integer."""


class Reads(Protocol):
    """What of a strategy's row is needed: it reads what `State.parts` wrote."""

    def read(self, parts: Sequence[bytes], spec: Spec) -> State:
        """Return the state. Raises StateError."""


def write(model: Model, state: State, first: Model) -> bytes:
    """Return the bytes that say a model and a state. first: version 0 of the job."""
    head = struct.pack(f"<B{len(model.exponents)}h", STATE if state else 0, *model.exponents)
    row = model.row - _subtrahend(model.exponents, first)  # wraps, and comes back the same way
    out = [head, _planes(((row << 1) ^ (row >> 31)).astype("<u4"), _OF_MODEL)]
    if state:
        form = state.form.encode("ascii")
        cells = np.concatenate([array.reshape(-1) for array in state.arrays])
        out += [bytes((len(form),)), form, _planes(((cells << 1) ^ (cells >> 63)).astype("<u8"), _OF_STATE)]
    return b"".join(out)


def read(body: bytes, first: Model, spec: Spec, rows: int, reads: Reads) -> tuple[Model, State]:
    """Return the model and the state that bytes say. Raises CodecError for anything else, struct.error at their end.

    Memory is bounded by the net, whatever they say. rows: arrays of the net's shape that a state of the job has.
    """
    flags, *exponents = struct.unpack_from(f"<B{len(spec)}h", body)
    if flags & ~STATE or (flags and not rows):
        raise CodecError(f"a version of another kind, said exactly: flags {flags:#04x}")
    if not all(LOWEST <= exponent <= HIGHEST for exponent in exponents):
        raise CodecError("a version said exactly has an exponent that there is not")
    folded, at = _read(body, 1 + 2 * len(spec), n_parameters(spec), _OF_MODEL)
    row = (folded >> np.uint32(1)).view(np.int32) ^ -(folded & np.uint32(1)).view(np.int32)
    row += _subtrahend(tuple(exponents), first)
    if largest(row) > LIMIT:
        raise CodecError("a version said exactly has integers beyond the lattice")
    model = Model(carved(row, spec), tuple(exponents))
    if not flags:
        _check_end(body, at)
        return model, State()
    (length,) = struct.unpack_from("<B", body, at)
    form, at = body[at + 1 : at + 1 + length], at + 1 + length
    wide, at = _read(body, at, rows * n_parameters(spec), _OF_STATE)
    _check_end(body, at)
    cells = (wide >> np.uint64(1)).view(np.int64) ^ -(wide & np.uint64(1)).view(np.int64)
    if bits(cells) > MOST_BITS:
        raise CodecError("a version said exactly has a state beyond its lattice")
    arrays = [array.astype("<i8", copy=False).tobytes() for array in carved(cells, spec * rows)]
    try:
        return model, reads.read([form, *arrays] if form else arrays, spec)
    except StateError as error:
        raise CodecError(f"a version said exactly: {error}") from error


def max_bytes(n: int, rows: int) -> int:
    """Return the most bytes of it, but for exponents and form, where a state has so many rows of the n coordinates."""
    return _OF_MODEL * _stored(n) + _OF_STATE * _stored(n * rows)


def _stored(n: int) -> int:
    return 4 + n + n // 1000 + 64


def _subtrahend(exponents: Sequence[int], first: Model) -> npt.NDArray[np.int32]:
    """Return what of version 0 is taken off, in a row: nothing where a tensor has come to another lattice."""
    if tuple(exponents) == first.exponents:
        return first.row
    parts = [
        ints.reshape(-1) if exponent == own else np.zeros(ints.size, np.int32)
        for ints, exponent, own in zip(first.ints, exponents, first.exponents, strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _planes(folded: npt.NDArray[np.unsignedinteger], width: int) -> bytes:
    cells = folded.view(np.uint8).reshape(-1, width)
    out = []
    for plane in range(width):
        packer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
        packed = packer.compress(cells[:, plane].tobytes()) + packer.flush()
        out += [struct.pack("<I", len(packed)), packed]
    return b"".join(out)


def _read(body: bytes, at: int, n: int, width: int) -> tuple[npt.NDArray[np.unsignedinteger], int]:
    """Return n integers of so many bytes, which begin there, and where they end."""
    cells = np.empty((n, width), np.uint8)
    for plane in range(width):
        (length,) = struct.unpack_from("<I", body, at)
        at += 4
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(body[at : at + length], n + 1)
        except zlib.error as error:
            raise CodecError(f"a version said exactly does not inflate: {error}") from error
        if len(found) != n or not unpacker.eof or unpacker.unused_data:
            raise CodecError("a version said exactly has other lengths than its net")
        cells[:, plane] = np.frombuffer(found, np.uint8)
        at += length
    return cells.view(f"<u{width}").reshape(-1).astype(f"u{width}", copy=False), at


def _check_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise CodecError("a version said exactly goes on behind its end")
