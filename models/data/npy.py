"""An array in an NPZ file, read some rows at a time.

What is compressed is streamed; nothing is allocated on the word of a header: its shape has to go with the bytes that
there are. Nothing is unpickled, ever: a pickle is a program. An array in Fortran's order (which DataFrames often give)
has its rows all over the file: it is mapped where it is not compressed, and else read whole.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LOCAL = struct.Struct("<26xHH")
"""The end of a ZIP member's own header: how long its name and its extra field are."""


class Array(NamedTuple):
    """An array that is in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_columns: bool
    """Whether it is in Fortran's order, and that makes a difference."""
    n_header: int
    """Bytes before its numbers."""

    @property
    def n_rows(self) -> int:
        """Return its length."""
        return self.shape[0] if self.shape else 0

    @property
    def row_bytes(self) -> int:
        """Return what one row takes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def header_of(file: zipfile.ZipFile, name: str) -> Array:
    """Return what an array of a file is, without reading it. Raises what NPZ_ERRORS has."""
    member = f"{name}.npy"
    if member not in file.namelist():
        member = name
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(stream)
        n_header = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} is a pickle, which is a program: store numbers or text")
    array = Array(name, shape, dtype, in_columns and len(shape) > 1, n_header)
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes != file.getinfo(member).file_size - n_header:
        raise ValueError(f"{name} says that it has {n_bytes:,} bytes, and has not")
    return array


def rows(file: zipfile.ZipFile, array: Array, n_rows: int) -> Iterator[NDArray[Any]]:
    """Yield an array's rows, so many at a time. Raises what NPZ_ERRORS has."""
    if array.in_columns:
        whole = _mapped(file, array)
        for first in range(0, array.n_rows, n_rows):
            yield np.ascontiguousarray(whole[first : first + n_rows])
        return
    with file.open(_member(file, array.name)) as stream:
        _exactly(stream, array.n_header)
        for first in range(0, array.n_rows, n_rows):
            n = min(n_rows, array.n_rows - first)
            found = np.frombuffer(_exactly(stream, n * array.row_bytes), array.dtype) if array.row_bytes else None
            yield np.zeros((n, *array.shape[1:]), array.dtype) if found is None else found.reshape(n, *array.shape[1:])
        stream.read(1)  # it is here that its checksum is looked at


def _member(file: zipfile.ZipFile, name: str) -> str:
    return f"{name}.npy" if f"{name}.npy" in file.namelist() else name


def _exactly(stream: Any, n_bytes: int) -> bytearray:
    found = bytearray()
    while len(found) < n_bytes and (more := stream.read(n_bytes - len(found))):
        found += more
    if len(found) < n_bytes:
        raise EOFError("it ends in the middle of an array")
    return found


def _mapped(file: zipfile.ZipFile, array: Array) -> NDArray[Any]:
    """Return an array in Fortran's order: mapped, or whole where it is compressed."""
    info = file.getinfo(_member(file, array.name))
    if info.compress_type != zipfile.ZIP_STORED:
        with file.open(info) as stream:
            return np.lib.format.read_array(io.BytesIO(_exactly(stream, info.file_size)), allow_pickle=False)
    own: Any = file.fp
    return np.memmap(own, array.dtype, "r", _begin(own, info.header_offset) + array.n_header, array.shape, "F")


def _begin(own: BinaryIO, header_offset: int) -> int:
    """Return where a member's bytes begin."""
    own.seek(header_offset)
    name, extra = _LOCAL.unpack(own.read(_LOCAL.size))
    return header_offset + _LOCAL.size + int(name) + int(extra)
