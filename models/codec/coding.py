"""How one base's updates are coded: the terms of its round, and what follows from them and the base's number.

coding = Coding(spec, terms, key)
body = coding.encode(delta, rng)      # on the device
update = coding.decode(body)          # the same integers on every machine
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from models.codec import plain, sketch
from models.codec.decoded import CodecError, Decoded, exact
from models.codec.plain import Floats
from models.codec.plan import Hash, Int32, Plan, plan
from models.codec.sketch import Sketch
from models.codec.steps import STEP_BYTES
from models.codec.terms import FLOAT32, Terms
from models.integers import bits, rescale
from models.params import Params, ParamsError, Spec, check, check_shapes, n_parameters
from models.rows import carved, is_finite, row_of

Update = Sketch | Floats | tuple[Decoded, ...]
"""A decoded update: in buckets, in a row, or tensor by tensor."""
Tensors = tuple[Decoded, ...]


class Coding:
    """Raises CodecError for terms that no update of this spec can have.

    key: names the base, the same for everybody ("seed:number" of its job and version).
    """

    def __init__(self, spec: Spec, terms: Terms, key: str) -> None:
        self.spec = spec
        self.terms = terms
        self.d = n_parameters(spec)
        if not terms.are_for(self.d):
            raise CodecError(f"no update of {self.d} coordinates is coded in {terms.m} buckets of {terms.bits} bits")
        self.key = key

    @cached_property
    def plan(self) -> Plan:
        """The plan of a sketch."""
        return plan(self.d, self.terms.m, self.key)

    @cached_property
    def hash(self) -> Hash:
        """Its hash and signs."""
        return Hash(self.plan)

    @property
    def max_bytes(self) -> int:
        """The most bytes that a body may have; a receiver refuses larger ones unread."""
        return max_body_bytes(self.spec, self.terms)

    @property
    def is_random(self) -> bool:
        """Whether coding an update takes random numbers, as int8 does."""
        return not self.terms.is_sketch and self.terms != FLOAT32

    def encode(self, delta: Params, rng: np.random.Generator | None = None) -> bytes:
        """Code an update. rng: where it `is_random`. Raises CodecError for wrong shapes, and for nan or inf."""
        try:
            check_shapes(delta, self.spec)
            tensors = list(delta.values())
            row = None if self.is_random or not tensors else row_of(tensors)
            if row is None or not is_finite(row):  # then it says which tensor is not
                check(delta, self.spec)
        except ParamsError as error:
            raise CodecError(str(error)) from error
        if row is not None and self.terms.is_sketch:
            return sketch.encode(row, self.hash, self.terms.bits)
        if row is not None:
            return plain.write_float32([row])
        if not self.is_random:
            return b""
        assert rng is not None, "int8 is rounded at random"  # noqa: S101 -- a fault of the caller
        return plain.write_int8(tensors, rng)

    def decode(self, body: bytes) -> Update:
        """Decode a body. Raises CodecError, and nothing else, whatever the bytes are."""
        if self.terms.is_sketch:
            return sketch.decode(body, self.plan, self.terms.bits)
        return plain.read_float32(body, self.d) if self.terms == FLOAT32 else plain.read_int8(body, self.spec)

    def tensors(self, update: Update) -> Tensors:
        """Return what an update says of every tensor. Raises CodecError where what is beside leaves all bounds."""
        if isinstance(update, Floats):
            return update.tensors(self.spec)
        if not isinstance(update, Sketch):
            return update
        return shaped(_with_beside(sketch.unfold(update, self.hash), update), self.spec)

    def rounded(self, update: Update, exponent: int) -> Int32 | None:
        """Return what an update says of all coordinates, on the lattice of this exponent: int32, shape (d,).

        None where it takes longer: `tensors` then says it.
        """
        if isinstance(update, Floats):
            return update.rounded(exponent)
        if not isinstance(update, Sketch) or update.beside.size:
            return None
        return sketch.rounded(update, self.hash, exponent)


def max_body_bytes(spec: Spec, terms: Terms | None = None) -> int:
    """Return the most bytes that a body of this spec may have, on these terms or on any."""
    d = n_parameters(spec)
    if terms is not None and terms.is_sketch:
        return sketch.max_bytes(plan(d, terms.m, ""), terms.bits)
    return 4 * d + STEP_BYTES * len(spec) + 1024


def shaped(whole: Decoded, spec: Spec) -> Tensors:
    """Cut a row of coordinates into the tensors of a net."""
    return tuple(Decoded(integers, whole.exponent) for integers in carved(whole.integers, spec))


ROOM = 60
"""Bits that integers may have with what is beside added to them."""


def _with_beside(whole: Decoded, found: Sketch) -> Decoded:
    """Add the coordinates beside, half to even onto the finest lattice that has room for both."""
    index, values = found.beside["index"].astype(np.int64), found.beside["value"].astype(np.float64)
    if not values.any():
        return whole
    added = exact(values)
    if not whole.integers.any():
        whole = Decoded(whole.integers, added.exponent)
    top = max(bits(added.integers) + added.exponent, bits(whole.integers) + whole.exponent)
    common = max(whole.exponent, top - ROOM)
    integers = rescale(whole.integers, whole.exponent - common)
    integers[index] += rescale(added.integers, max(-62, added.exponent - common))
    return Decoded(integers, common)
