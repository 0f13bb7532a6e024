"""The lattice a model lives on: int32 multiples of a power of two, one exponent per tensor.

    value = integers * 2**exponent

Everybody who holds a version holds the same integers, so its SHA-256 is the same everywhere. An update is
added with `add`: decoded integers are rounded half-even onto the tensor's lattice, and where the sum would
leave +-LIMIT the exponent of that tensor rises first. Nothing ever wraps. All arithmetic is on integers.

Version 0 costs nothing to send: `initial` draws it from the seed by splitmix64, a counter-based generator
that any machine repeats bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from models import energy, splitmix
from models.codec.decoded import Decoded, exact
from models.integers import bits, largest, rescale
from models.params import Params, Spec, TensorSpec, n_parameters
from models.rows import carved, copy_of, params_of, row_of

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

EXPONENT = -24
"""Exponent of every tensor of version 0: a resolution of 6e-8 and room for values up to 64 before it
rises."""
LIMIT = 2**30
"""Largest magnitude of a stored integer: half of what an int32 holds, so that a sum is checked before it is
narrow."""
SAFE_LOWEST, SAFE_HIGHEST = -100, 60
"""Exponents between which every value is a normal float32, or zero."""
SLAB = 2**15
"""Coordinates that are drawn at a time."""
LOWEST, HIGHEST = -200, 200
"""Exponents beyond these are nonsense; whatever leads there is refused."""


class LatticeError(ValueError):
    """A model that its lattice cannot hold, or stored bytes that are not a model of this spec."""


@dataclass(frozen=True, eq=False)
class Model:
    """One version of a model: `ints` in the order and shapes of the spec, one exponent for each."""

    ints: tuple[Int32, ...]
    exponents: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if not isinstance(other, Model) or self.exponents != other.exponents:
            return False
        return len(self.ints) == len(other.ints) and all(map(np.array_equal, self.ints, other.ints))

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self.sha256())

    @cached_property
    def row(self) -> Int32:
        """All integers in a row, in the order of the spec; not to be written to."""
        return row_of(self.ints) if self.ints else np.empty(0, np.int32)

    def sha256(self) -> str:
        """Return the hex SHA-256 over the exponents and then the integers, all little-endian int32. Hashed once."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(np.array(self.exponents, "<i4").tobytes())
        digest.update(self.row.astype("<i4", copy=False).data)
        return digest.hexdigest()

    @cached_property
    def norm(self) -> float:
        """The Euclidean norm, of the integers and rounded once: what decisions hang on has the same bits everywhere."""
        lowest = min(self.exponents, default=0)
        if set(self.exponents) == {lowest}:
            return energy.root(energy.square_of_row(self.row), lowest)
        pairs = zip(self.ints, self.exponents, strict=True)
        squares = (energy.square_of_row(ints.reshape(-1)) << 2 * (exponent - lowest) for ints, exponent in pairs)
        return energy.root(sum(squares), lowest)

    def values(self) -> tuple[npt.NDArray[np.float64], ...]:
        """Return the exact values, float64."""
        return tuple(
            np.asarray(np.ldexp(i.astype(np.float64), e)) for i, e in zip(self.ints, self.exponents, strict=True)
        )

    def params(self, spec: Spec) -> Params:
        """Return the values as float32, each rounded once: fresh arrays, in a row (models/rows.py).

        What is beyond float32, as somebody may say of a version, is infinite; training on that ends with an error.
        """
        if len(set(self.exponents)) == 1 and SAFE_LOWEST <= self.exponents[0] <= SAFE_HIGHEST:
            values = self.row.astype(np.float32)
            values *= np.float32(2.0 ** self.exponents[0])  # exact: a power of two, and far from the smallest float
            return params_of(values, spec)
        with np.errstate(over="ignore"):
            rounded = {t.name: np.asarray(value, np.float32) for t, value in zip(spec, self.values(), strict=True)}
        return copy_of(rounded)

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` reads it back."""
        return msgspec.msgpack.encode((self.exponents, [i.astype("<i4", copy=False).data for i in self.ints]))

    @staticmethod
    def from_bytes(data: bytes, spec: Spec) -> Model:
        """Read what `to_bytes` wrote. Raises LatticeError when it is not a model of this spec."""
        try:
            exponents, raws = msgspec.msgpack.decode(data, type=tuple[tuple[int, ...], list[bytes]])
        except msgspec.MsgspecError as error:
            raise LatticeError(f"stored model is damaged: {error}") from error
        if [len(raw) for raw in raws] != [4 * t.size for t in spec] or len(exponents) != len(spec):
            raise LatticeError("stored model has other shapes than the spec")
        row = np.frombuffer(b"".join(raws), "<i4").astype(np.int32)
        if largest(row) > LIMIT:
            raise LatticeError("stored model has integers beyond the lattice")
        return Model(carved(row, spec), tuple(_exponent(e) for e in exponents))


def of_params(params: Mapping[str, npt.NDArray[np.floating]], spec: Spec) -> Model:
    """Return the model whose values lie next to these, of the spec's names and shapes.

    Raises LatticeError, with the tensor's name, where one is not finite or too large.
    """
    zero = Model(tuple(np.zeros(t.shape, np.int32) for t in spec), (EXPONENT,) * len(spec))
    for tensor in spec:
        if not np.isfinite(params[tensor.name]).all():
            raise LatticeError(f"{tensor.name} has numbers that are not finite")
    return add(zero, [exact(np.asarray(params[t.name], np.float64)) for t in spec])


def initial(spec: Spec, seed: int) -> Model:
    """Draw version 0 from `seed`, the same integers on every machine.

    Coordinate k of the net (counted from 0 through all tensors in order) owns the word u_k, output k + 1 of
    splitmix64 (Steele, Lea and Flood 2014) started at state `seed`. A tensor with two or more axes is uniform
    on +-sqrt(6 / fan_in) (He et al. 2015), fan_in = prod(shape[1:]):

        bound = isqrt(6 * 4**24 // fan_in),   integer = ((u_k >> 32) * (2 bound + 1) >> 32) - bound

    with exponent -24. Tensors with fewer axes are zero, or one where the name ends in "weight" (the scale of
    a norm).
    """
    row = np.empty(n_parameters(spec), np.int32)
    start = 0
    for tensor, ints in zip(spec, carved(row, spec), strict=True):
        ints[...] = _drawn(tensor, seed, start)
        start += tensor.size
    return Model(carved(row, spec), (EXPONENT,) * len(spec))


def add(model: Model, update: Iterable[Decoded]) -> Model:
    """Add a decoded update to a model, each tensor rounded half-even onto its lattice.

    Raises LatticeError when a sum leaves every lattice there is.
    """
    sums = [_sum(i, e, d) for i, e, d in zip(model.ints, model.exponents, update, strict=True)]
    return Model(tuple(ints for ints, _ in sums), tuple(exponent for _, exponent in sums))


def add_row(model: Model, row: Int32, spec: Spec) -> Model | None:
    """Add integers that are on the lattice of every tensor, as int32 of shape (d,) below 2**30: `row` is used up.

    None where a sum leaves the lattice, which `add` finds another one for; `row` is then lost.
    """
    row += model.row
    if bits(row) > 30:
        return None
    return Model(carved(row, spec), model.exponents)


def _sum(ints: Int32, exponent: int, update: Decoded) -> tuple[Int32, int]:
    if not update.integers.any():
        return ints, exponent
    top = bits(update.integers) + update.exponent
    common = _exponent(max(exponent, top - 30))
    total = rescale(ints.astype(np.int64), exponent - common)
    total = total + rescale(update.integers, update.exponent - common)
    while bits(total) > 30:
        common = _exponent(common + 1)
        total = rescale(total, -1)
    return np.asarray(total, np.int32), common  # of one number too, which NumPy makes a scalar of


def _exponent(value: int) -> int:
    if not LOWEST <= value <= HIGHEST:
        raise LatticeError(f"exponent {value} is outside {LOWEST}..{HIGHEST}")
    return value


def _drawn(tensor: TensorSpec, seed: int, start: int) -> Int32:
    if len(tensor.shape) < 2:
        one = len(tensor.shape) == 1 and tensor.name.endswith("weight")
        return np.full(tensor.shape, 2**-EXPONENT if one else 0, np.int32)
    bound = math.isqrt(6 * 4**-EXPONENT // max(1, math.prod(tensor.shape[1:])))
    row = np.empty(tensor.size, np.int32)
    for at in range(0, tensor.size, SLAB):
        words = splitmix.outputs(seed, start + at, min(SLAB, tensor.size - at))
        words >>= np.uint64(32)
        words *= np.uint64(2 * bound + 1)
        words >>= np.uint64(32)
        row[at : at + SLAB] = words.view(np.int64)
    row -= bound
    return row.reshape(tensor.shape)
