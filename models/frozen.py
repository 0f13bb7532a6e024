"""The tensors of a net that stay as they are, as bytes: known by their SHA-256, given once and never sent again.

    "fedge frozen tensors 1", and a line's end
    names and shapes, in the order of the net, as JSON: [["0.weight",[8,4]],…]; spaces and a line's
    end up to a multiple of 64
    all values, float32, little-endian, in the same order

The length follows from names and shapes, which everybody has from the net itself: it is checked before anything is
kept, and what is read is held against names, shapes and hash before it is used. A file of them is mapped into memory,
so that its pages are the kernel's, and a process has one copy at most.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.params import Float32, Params, Spec, n_parameters

MAGIC = b"fedge frozen tensors 1\n"
ENDING = ".base"
"""Of a file that has these bytes; any other one is NPZ, with an array for each tensor, by name."""
ALIGNED = 64
SLAB = 2**20
HEAD_BYTES = 4096
"""What an array may have in an NPZ beside its numbers."""

Own = Callable[[], Params]
"""Makes what the tensors are where nothing is given."""
Find = Callable[[Spec, Own], Params]
"""Gives the values of frozen tensors. Raises ModelError, or MissingError."""


class FrozenError(ValueError):
    """Bytes or a file that are not the tensors that were meant; the message says what to change."""


class MissingError(RuntimeError):
    """The tensors that a job names are not here; the message says which."""

    def __init__(self, message: str, spec: Spec) -> None:
        super().__init__(message)
        self.spec = spec


def head(spec: Spec) -> bytes:
    """Return what stands before the values."""
    said = MAGIC + json.dumps([[t.name, list(t.shape)] for t in spec], separators=(",", ":")).encode()
    return said + b" " * (-(len(said) + 1) % ALIGNED) + b"\n"


def n_bytes(spec: Spec) -> int:
    """Return how many bytes say these tensors."""
    return len(head(spec)) + 4 * n_parameters(spec)


def parts(params: Params, spec: Spec) -> Iterator[bytes | memoryview]:
    """Return the bytes, piece by piece: nothing large is copied."""
    yield head(spec)
    for tensor in spec:
        flat = np.ascontiguousarray(params[tensor.name], "<f4").reshape(-1)
        for at in range(0, len(flat), SLAB):
            yield flat[at : at + SLAB].data.cast("B")


def sha256(params: Params, spec: Spec) -> str:
    """Return what these tensors go by."""
    digest = hashlib.sha256()
    for part in parts(params, spec):
        digest.update(part)
    return digest.hexdigest()


def from_bytes(data: bytes | bytearray, spec: Spec, wanted: str) -> Params:
    """Return the tensors that bytes say, in their memory where that may be written. Raises FrozenError.

    wanted: their SHA-256; "" for any.
    """
    return _read(np.frombuffer(data, np.uint8), spec, wanted, "the base")


def read(path: Path, spec: Spec, wanted: str = "") -> Params:
    """Return the tensors of a file. Those of one of ours are mapped: its pages are read when they are needed.

    wanted: their SHA-256; "" for any. Raises FrozenError, or OSError.
    """
    if path.suffix == ENDING:
        if path.stat().st_size != n_bytes(spec):
            raise FrozenError(f"{path}: {path.stat().st_size:,} bytes, where the frozen tensors have {n_bytes(spec):,}")
        return _read(np.memmap(path, np.uint8, mode="c"), spec, wanted, str(path))
    found = read_npz(path, spec)
    if wanted and sha256(found, spec) != wanted:
        raise FrozenError(f"{path}: its tensors are others than those of SHA-256 {wanted}")
    return found


def _read(data: np.ndarray[Any, np.dtype[np.uint8]], spec: Spec, wanted: str, what: str) -> Params:
    begins = head(spec)
    if len(data) != n_bytes(spec):
        raise FrozenError(f"{what}: {len(data):,} bytes, where the frozen tensors have {n_bytes(spec):,}")
    if data[: len(begins)].tobytes() != begins:
        raise FrozenError(f"{what}: its tensors have other names or shapes than the frozen ones of this job")
    if wanted and _digest(data) != wanted:
        raise FrozenError(f"{what}: its SHA-256 is another than {wanted}")
    values, found, at = data[len(begins) :].view("<f4"), Params(), 0
    for tensor in spec:
        part: Float32 = values[at : at + tensor.size]
        _check_finite(part, f"{what}: {tensor.name}")
        found[tensor.name] = part.reshape(tensor.shape)
        at += tensor.size
    return found


def _digest(data: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for at in range(0, len(data), SLAB):
        digest.update(data[at : at + SLAB].data)
    return digest.hexdigest()


def _check_finite(values: Float32, what: str) -> None:
    for at in range(0, len(values), SLAB):
        if not np.isfinite(values[at : at + SLAB]).all():
            raise FrozenError(f"{what} has values that are not finite")


def names_in(path: Path) -> set[str]:
    """Return the names of the arrays of an NPZ. Raises FrozenError, or OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy") for info in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise FrozenError(f"{path}: it cannot be read as NPZ: {error}") from error


def read_npz(path: Path, spec: Spec) -> Params:
    """Return these arrays of an NPZ, which may have others, in float32. Raises FrozenError, or OSError.

    Names, shapes and lengths are looked at before an array is read.
    """
    lacking = [tensor.name for tensor in spec if tensor.name not in names_in(path)]
    if lacking:
        raise FrozenError(f"{path}: it has no array {lacking[0]!r}; the frozen tensors are {_named(spec)}")
    found: Params = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for tensor in spec:
                info = archive.getinfo(f"{tensor.name}.npy")
                if info.file_size > 16 * tensor.size + HEAD_BYTES:
                    raise FrozenError(f"{path}: array {tensor.name!r} has more numbers than the net's {tensor.shape}")
                with archive.open(info) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                if array.shape != tensor.shape or array.dtype.kind not in "fiu":
                    raise FrozenError(
                        f"{path}: array {tensor.name!r} is {array.dtype} of shape {array.shape}, where the net has "
                        f"float32 of {tensor.shape}; the frozen tensors are {_named(spec)}"
                    )
                with np.errstate(over="ignore"):
                    values = np.ascontiguousarray(array, np.float32)
                _check_finite(values.reshape(-1), f"{path}: array {tensor.name!r}")
                found[tensor.name] = values
    except (zipfile.BadZipFile, EOFError, NotImplementedError, KeyError) as error:
        raise FrozenError(f"{path}: it cannot be read as NPZ: {error}") from error
    except FrozenError:
        raise
    except ValueError as error:  # of NumPy's reader
        raise FrozenError(f"{path}: it cannot be read as NPZ: {error}") from error
    return found


def _named(spec: Spec) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape}" for tensor in spec)[:1000]
