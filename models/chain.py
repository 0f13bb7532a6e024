"""Versions, and the bodies that lead from one to the next: the same integers, and so the same SHA-256, for everybody.

    version v  =  version v-1  +  what the server's optimizer makes of the published sum of its round

    v-8 ──┬─▶ v-7 ─▶ … ─▶ v-1 ─▶ v        a step: the sum, a bit or two a bucket
          └──────────────────────▶ v        a group: eight steps in one piece, for who has missed them
    anything ────────────────────▶ s        a snapshot: for who is new, or was away for long
    v ──▶ v+1                               an agreement: the same numbers, and what the fleet has agreed on of its rows

The buffers of a net (models/buffers.py) are in the version, beside its integers: what leads to it says them too.

A snapshot is not a copy of a version: its version is rounded to a grid *as part of the version*, by all who hold it,
and so can be said in a few bits a coordinate. The grid is chosen so that this adds less noise than the round itself.

What a body is byte for byte stands in body.py, and how long one may be in lengths.py.
Every function is pure; `Held` is all there is to keep of a version.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from models import agreement, exact
from models.agreement import Agreed, AgreementError
from models.body import (
    AGREED,
    AGREEMENT,
    ANYWHERE,
    BUFFERED,
    EXACT,
    GRID,
    GROUP,
    SNAPSHOT,
    SPAN,
    STATE,
    STEP,
    WHOLE,
    Grids,
    Late,
    Step,
    begins_anywhere,
    behind,
    grouped,
    kind_of,
    pieces,
    read,
    unwrapped,
    write,
)
from models.buffers import NO_BUFFERS, Buffers, decode, encode
from models.codec import planes
from models.codec.coding import Coding, Tensors, shaped
from models.codec.decoded import CodecError, Decoded, rounded
from models.codec.decoded import exact as exactly
from models.codec.plain import read_float32, write_float32
from models.codec.plan import Float64
from models.codec.steps import read_step
from models.codec.terms import Terms
from models.grid import COARSEST, counted, measured
from models.integers import Int64, bits, rescale
from models.job import JobSpec
from models.lattice import EXPONENT, LatticeError, Model, add, add_row, initial
from models.lengths import SLACK, agreed_bytes, max_step_bytes, max_way_bytes, max_way_bytes_of, whole_bytes
from models.params import Params, Spec, n_parameters
from models.rows import carved
from models.strategies.state import State
from models.strategies.table import STRATEGIES

__all__ = [
    "AGREED",
    "AGREEMENT",
    "BUFFERED",
    "EXACT",
    "GROUP",
    "SLACK",
    "SNAPSHOT",
    "SPAN",
    "STEP",
    "WHOLE",
    "Chain",
    "Grids",
    "Held",
    "Late",
    "Step",
    "begins_anywhere",
    "grouped",
    "kind_of",
    "max_step_bytes",
    "max_way_bytes",
    "max_way_bytes_of",
    "read",
    "write",
]

SLAB = 2**14
"""Coordinates that are rounded at a time."""


class Held(NamedTuple):
    """A version as everybody holds it."""

    number: int
    model: Model
    state: State = State()
    """Of the server's optimizer: none in version 0, whose state follows from the job, nor where it keeps none."""
    agreed: Agreed | None = None
    """What the fleet has agreed on before it trained; None before that, and in jobs where there is nothing of it."""
    buffers: Buffers = NO_BUFFERS
    """What its net has beside parameters; none for most nets."""

    def params(self, spec: Spec) -> Params:
        """Return the parameters of a net of this spec and its buffers, by name."""
        return self.model.params(spec) | self.buffers.params()

    def sha256(self) -> str:
        """Return what the version goes by: the model's SHA-256, or one over that, the state, the agreement and the
        buffers, if there are any.
        """
        name = self.model.sha256()
        if not self.state and self.agreed is None and not self.buffers:
            return name
        digest = hashlib.sha256(name.encode())
        for part in self.state.digested():
            digest.update(part)
        if self.agreed is not None:
            digest.update(bytes((AGREEMENT,)) + self.agreed.to_bytes())
        if self.buffers:
            digest.update(bytes((BUFFERED,)) + self.buffers.to_bytes())
        return digest.hexdigest()


class Chain:
    """The versions of one job. buffers: those that its net has in version 0."""

    def __init__(self, spec: Spec, job: JobSpec, buffers: Buffers = NO_BUFFERS) -> None:
        self.spec = spec
        self.buffers = buffers
        self.d = n_parameters(spec)
        self._job = job
        self._rules = job.aggregate
        self._strategy = STRATEGIES[job.aggregate.strategy]
        self._first = initial(spec, job.seed)
        self._last: Coding | None = None
        self.most_bytes = max_way_bytes(spec, buffers.spec) + 2 * agreed_bytes(job)
        """That a body may have."""

    @cached_property
    def most_way_bytes(self) -> int:
        """The most bytes that a body of a version may have, by what this job writes: what a device lets in."""
        return max_way_bytes_of(self._job, self.spec, self.buffers.spec)

    @cached_property
    def whole_bytes(self) -> int:
        """How long a body is that says a version whole, where all are as long; else 0."""
        return whole_bytes(self._job, self.spec, self.buffers.spec)

    def first(self) -> Held:
        """Return version 0."""
        return Held(0, self._first, buffers=self.buffers)

    def state(self, held: Held) -> State:
        """Return the state of the server's optimizer from which a version is left; False where it keeps none."""
        return held.state or self._strategy.init(self.spec, self._rules)

    def optimized(self, held: Held, published: Tensors) -> tuple[Tensors, State]:
        """Return what the server's optimizer makes of a published sum: the step, and its state after it.

        Raises CodecError where there is none.
        """
        return self._strategy.step(published, self.state(held), self._rules)

    def coding(self, number: int, terms: Terms) -> Coding:
        """Return how updates are coded that leave the version of this number. Raises CodecError for wrong terms."""
        key = f"{self._job.seed}:{number}"
        if self._last is not None and (self._last.key, self._last.terms) == (key, terms):
            return self._last
        coding = Coding(self.spec, terms, key)
        if terms.is_sketch:
            if self._last is not None and self._last.plan == coding.plan:
                coding.hash = self._last.hash  # the same for the updates that leave a version and for their sum
            self._last = coding
        return coding

    def take(self, held: Held, number: int, body: bytes) -> Held:
        """Return the version of this number, to which a body leads. Raises CodecError, and nothing else, if it does
        not.

        held: the version that the body begins from; nothing of it counts for a body that begins anywhere.
        """
        last = held
        for found in self.walk(held, number, body):
            last = found
        return last

    def walk(self, held: Held, number: int, body: bytes) -> Iterator[Held]:
        """Return every version on the way of a body, which leads to that of this number. Raises CodecError as `take`
        does, maybe only at its end.
        """
        if not 1 <= len(body) <= self.most_bytes:
            raise CodecError(f"a body of {len(body)} bytes")
        at = held.number
        try:
            for found in self._walk(held, number, body):
                at = found.number
                yield found
        except (LatticeError, AgreementError, struct.error) as error:
            raise CodecError(f"a body leads nowhere: {error}") from error
        if at != number:
            raise CodecError(f"a body leads to version {at} where {number} was wanted")

    def _walk(self, held: Held, number: int, body: bytes) -> Iterator[Held]:
        match body[0]:
            case 0x10:
                yield Held(number, self._from_first(memoryview(body)[1:]), buffers=self.buffers)
            case 0x20:
                yield self.step(held, read(body))
            case 0x23 if self._job.contract.agrees:
                yield self._stepped(held, body)
            case 0x21:
                for piece in pieces(body[1:]):
                    held = self._stepped(held, piece)
                    yield held
            case 0x22:
                yield self._open(number, body)
            case 0x24:
                rows = self._strategy.rows(self._rules)
                model, state = exact.read(body[1:], self._first, self.spec, rows, self._strategy)
                yield Held(number, model, state, buffers=self.buffers)
            case 0x26 if self.buffers:
                buffers, rest = self._unbuffered(held, body)
                for found in self._walk(held, number, rest):
                    yield found._replace(buffers=buffers)
            case 0x25 if self._job.contract.agrees:
                agreed, rest = self._unwrapped(body)
                for found in self._walk(held, number, rest):
                    yield found._replace(agreed=agreed)
            case _:
                raise CodecError(f"a body of an unknown kind {body[0]:#04x}")

    # What the fleet agrees on.

    def agreement(self, held: Held, agreed: Agreed) -> bytes:
        """Return the body that leads from a version to the next, which has the same numbers and this agreement.

        Raises CodecError where it has one.
        """
        if held.agreed is not None:
            raise CodecError(f"version {held.number} has an agreement already")
        return bytes((AGREEMENT,)) + agreed.to_bytes()

    def wrapped(self, body: bytes, agreed: Agreed | None, buffers: Buffers = NO_BUFFERS) -> bytes:
        """Return a body that begins anywhere, with the buffers of its version and what the fleet has agreed on before
        it, if there are any.
        """
        if buffers:
            body = behind(BUFFERED, encode(buffers, whole=True), body)
        return body if agreed is None else behind(AGREED, agreed.to_bytes(), body)

    def _unwrapped(self, body: bytes) -> tuple[Agreed, bytes]:
        said, rest = unwrapped(body)
        if kind_of(rest) not in ANYWHERE or rest[0] == AGREED:
            raise CodecError("an agreement stands before a body that does not begin from nothing")
        return agreement.from_bytes(said, self._job), rest

    # What a net has beside its parameters.

    def say(self, after: Buffers, before: Buffers) -> bytes:
        """Return how buffers travel to who holds those from before; empty where they are the same."""
        return b"" if after == before else encode(after, before, whole=self._job.coding.codec == "float32")

    def hear(self, said: bytes, before: Buffers) -> Buffers:
        """Return the buffers that were said so. Raises CodecError."""
        return decode(said, self.buffers.spec, before) if said else before

    def buffered(self, step: bytes, said: bytes) -> bytes:
        """Return a step with what is said of the buffers of the version that it leads to, if anything is."""
        return behind(BUFFERED, said, step) if said else step

    def _unbuffered(self, held: Held, body: bytes) -> tuple[Buffers, bytes]:
        said, rest = unwrapped(body)
        if rest[0] not in (STEP, *ANYWHERE):
            raise CodecError("buffers stand before a body that says no version")
        return decode(said, self.buffers.spec, held.buffers if rest[0] == STEP else None), rest

    def _stepped(self, held: Held, body: bytes) -> Held:
        """Return the version that a step leads to, or an agreement."""
        if body[:1] == bytes((BUFFERED,)) and self.buffers and kind_of(body) == STEP:
            buffers, rest = self._unbuffered(held, body)
            return self.step(held, read(rest))._replace(buffers=buffers)
        if body[:1] != bytes((AGREEMENT,)):
            return self.step(held, read(body))
        agreed = agreement.from_bytes(body[1:], self._job)
        if held.agreed is not None:
            raise CodecError(f"version {held.number} has an agreement already")
        return held._replace(number=held.number + 1, agreed=agreed)

    # Steps.

    def step(self, held: Held, step: Step) -> Held:
        """Return the version that a step leads to. Raises CodecError or LatticeError where there is none."""
        after = self._straight(held, step) or self._by_tensor(held, step)
        return after if step.grids is None else self._rounded(after, step.grids)

    def _straight(self, held: Held, step: Step) -> Held | None:
        """Return the same in one pass over all coordinates, where nothing stands between the sum and the model."""
        exponents = set(held.model.exponents)
        if step.late or not self._strategy.is_plain(self._rules) or len(exponents) != 1:
            return None
        coding = self.coding(held.number, step.terms)
        row = coding.rounded(coding.decode(step.sum), exponents.pop())
        model = None if row is None else add_row(held.model, row, self.spec)
        return None if model is None else held._replace(number=held.number + 1, model=model, state=State())

    def moved(self, held: Held, row: Float64) -> tuple[Model, State]:
        """Return the model and the optimizer's state to which a published sum leads: finite floats, shape (d,).

        Raises CodecError or LatticeError where there is none.
        """
        exponents = set(held.model.exponents)
        steps = rounded(row, exponents.pop()) if self._strategy.is_plain(self._rules) and len(exponents) == 1 else None
        model = None if steps is None else add_row(held.model, steps, self.spec)
        if model is not None:
            return model, State()
        found, state = self.optimized(held, shaped(exactly(row), self.spec))
        return add(held.model, found), state

    def _by_tensor(self, held: Held, step: Step) -> Held:
        steps, state = self.optimized(held, self._published(held.number, step))
        return held._replace(number=held.number + 1, model=add(held.model, steps), state=state)

    def _published(self, number: int, step: Step) -> Tensors:
        coding = self.coding(number, step.terms)
        whole = coding.tensors(coding.decode(step.sum))
        for late in step.late:
            if not 1 <= late.back <= number:
                raise CodecError(f"a late update to a version {late.back} before {number}")
            theirs = self.coding(number - late.back, late.terms)
            mantissa, exponent = read_step(late.share)
            parts = theirs.tensors(theirs.decode(late.body))
            whole = tuple(_plus(a, _times(b, mantissa, exponent)) for a, b in zip(whole, parts, strict=True))
        return whole

    # Whole versions.

    def whole(self, model: Model, agreed: Agreed | None = None, buffers: Buffers = NO_BUFFERS) -> bytes:
        """Return the body that says a model in float32, with what the fleet has agreed on and the buffers, if any.

        What it leads to may differ in the last bits; the buffers do not.
        """
        return self.wrapped(self._floats(model), agreed, buffers)

    def _floats(self, model: Model) -> bytes:
        if model.exponents == self._first.exponents:
            row = np.subtract(model.row, self._first.row).astype(np.float32)
            row *= np.float32(2.0**EXPONENT)
            return bytes((WHOLE,)) + row.astype("<f4", copy=False).tobytes()
        return bytes((WHOLE,)) + write_float32(
            [there - here for there, here in zip(model.values(), self._first.values(), strict=True)]
        )

    def exact(self, held: Held) -> bytes:
        """Return the body that says a version exactly, from nothing, with all that it has beside its model."""
        said = bytes((EXACT,)) + exact.write(held.model, held.state, self._first)
        return self.wrapped(said, held.agreed, held.buffers)

    def _from_first(self, floats: memoryview) -> Model:
        memory = np.empty(self.d, np.int32)  # of the floats first, then of the integers
        row = read_float32(floats, self.d, memory.view(np.float32)).rounded(EXPONENT, memory)
        model = None if row is None else add_row(self._first, row, self.spec)
        return add(self._first, read_float32(floats, self.d).tensors(self.spec)) if model is None else model

    def snapshot(self, held: Held, grids: Grids) -> bytes:
        """Return the body that leads to this version from anywhere. It must have been rounded to these grids."""
        flags = GRID | (STATE if held.state else 0)
        head = struct.pack("<BBH", SNAPSHOT, flags, grids.model)
        counts = [*self._counts(held.model, grids.model)]
        if held.state:
            head += struct.pack("<H", grids.state)
            counts += self._strategy.counts(held.state, grids.state, self._rules)
        said = head + planes.write(np.concatenate([count.reshape(-1) for count in counts]))
        return self.wrapped(said, held.agreed, held.buffers)

    def _open(self, number: int, body: bytes) -> Held:
        _, flags, grid = struct.unpack_from("<BBH", body)
        rows = self._strategy.rows(self._rules)
        if flags != (GRID | STATE if rows else GRID):
            raise CodecError(f"a snapshot of a version of another kind: flags {flags:#04x}")
        at, of_state = 4, 0
        if rows:
            (of_state,) = struct.unpack_from("<H", body, at)
            at += 2
        counts = planes.read(body[at:], self.d * (1 + rows))
        model = self._at(carved(counts[: self.d], self.spec), grid)
        if not rows:
            return Held(number, model, buffers=self.buffers)
        rest = carved(counts[self.d :], self.spec * rows)
        state = self._strategy.restored(rest, of_state, self.spec, self._rules)
        return Held(number, model, state, buffers=self.buffers)

    def _rounded(self, held: Held, grids: Grids) -> Held:
        model = self._near(held.model, grids.model)
        if model is None:
            model = self._at(self._counts(held.model, grids.model), grids.model)
        return held._replace(model=model, state=self._rounded_state(held.state, grids.state))

    def _rounded_state(self, state: State, grid: int) -> State:
        if not state:
            return state
        counts = self._strategy.counts(state, grid, self._rules)
        return self._strategy.restored(counts, grid, self.spec, self._rules)

    def _near(self, model: Model, grid: int) -> Model | None:
        """Return the version on the grid in one pass over all coordinates, where it is on the lattice of version 0.

        A slab at a time: in int64 the model would be the most that a device ever holds.
        """
        mantissa, exponent = read_step(grid)
        lattices = {*model.exponents, *self._first.exponents}
        down = exponent - min(lattices, default=0)
        if len(lattices) != 1 or not 0 <= down <= COARSEST:
            return None
        row, first = np.empty(self.d, np.int32), self._first.row
        for at in range(0, self.d, SLAB):
            slab = slice(at, at + SLAB)
            steps = counted(model.row[slab].astype(np.int64) - first[slab], exponent - down, grid)
            steps *= mantissa << down
            if bits(steps) > 30:
                return None
            row[slab] = steps
        return add_row(self._first, row, self.spec)

    def _counts(self, model: Model, grid: int) -> Iterator[Int64]:
        """Return how many steps of the grid every coordinate is away from version 0."""
        for there, here, exponent, first in zip(
            model.ints, self._first.ints, model.exponents, self._first.exponents, strict=True
        ):
            yield counted(there.astype(np.int64) - rescale(here.astype(np.int64), first - exponent), exponent, grid)

    def _at(self, counts: Iterable[Int64], grid: int) -> Model:
        """Return the model that is so many steps away, tensor by tensor: a device holds no more than one in int64."""
        return add(self._first, (measured(cells, grid) for cells in counts))


def _times(value: Decoded, mantissa: int, exponent: int) -> Decoded:
    spare = max(0, bits(value.integers) - 53)
    return Decoded(rescale(value.integers, -spare) * mantissa, value.exponent + spare + exponent)


def _plus(a: Decoded, b: Decoded) -> Decoded:
    """Add two tensors, rounded half to even onto the finest lattice that has room for both."""
    if not a.integers.any() or not b.integers.any():
        return a if a.integers.any() else b
    top = max(bits(a.integers) + a.exponent, bits(b.integers) + b.exponent)
    common = max(min(a.exponent, b.exponent), top - 60)
    return Decoded(rescale(a.integers, a.exponent - common) + rescale(b.integers, b.exponent - common), common)
