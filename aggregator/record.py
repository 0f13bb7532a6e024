"""What the server keeps of a job between versions: one durable blob, with the version and the coding of its round."""

from __future__ import annotations

import math
import zlib
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from aggregator import peers, streaks
from aggregator.peers import Peer
from aggregator.rows import is_whole
from models import agreement, steering
from models import buffers as beside_params
from models.agreement import AgreementError
from models.buffers import NO_BUFFERS, Buffers, BuffersError, first_of
from models.chain import AGREEMENT, SPAN, STEP, WHOLE, Chain, Held, kind_of
from models.codec.terms import FLOAT32, INT8, WIDEST, Terms, terms_for
from models.job import CompressionSpec, JobSpec
from models.lattice import Model
from models.nets.net import Net
from models.params import Spec, n_parameters
from models.steering import Choice, RoundSummary
from models.strategies.state import State, StateError
from models.strategies.table import STRATEGIES
from runtime import formats

PEERS = peers.MOST
"""Norms that the gate looks back on."""
MOST_LEFT = 256
"""Bases before the current one whose terms are remembered, for late updates."""
_Natural = Annotated[int, Meta(ge=0, le=2**53)]
_Device = Annotated[str, Meta(max_length=80)]


class RecordError(ValueError):
    """A stored state that is damaged, or of another fedge."""


class RecordFormatError(RecordError):
    """A stored state in a format that this fedge does not read; the message says what to do."""


class Record(Struct, frozen=True, array_like=True):
    """What the server keeps beside the version itself."""

    terms: tuple[int, int]
    """How updates are coded that leave this version: it is durable before its first round opens."""
    down: Annotated[int, Meta(ge=1, le=32)]
    allowed: Annotated[float, Meta(ge=0)] | None
    octave: Annotated[int, Meta(ge=-200, le=200)] = 0
    """The energy of the noise in this version, as a power of two; 0 where that is not known."""
    history: Annotated[tuple[RoundSummary, ...], Meta(max_length=max(steering.WINDOWS))] = ()
    peers: Annotated[tuple[float, ...], Meta(max_length=PEERS)] = ()
    """Norms of the updates that made this version, and of earlier ones: what the gate of the next holds usual."""
    weight: _Natural = 0
    """Of the updates that made this version."""
    recent: Annotated[tuple[bytes, ...], Meta(max_length=SPAN)] = ()
    """The last steps, until they are a group."""
    since: _Natural = 0
    """Bytes of the steps since the last snapshot."""
    steps: _Natural = 0
    """Their number."""
    snapshot_bytes: _Natural = 0
    """Of the last snapshot."""
    left: Annotated[tuple[tuple[int, int], ...], Meta(max_length=MOST_LEFT)] = ()
    """The terms of the bases before this one, the latest last."""
    whose: Annotated[tuple[tuple[_Device, _Natural], ...], Meta(max_length=PEERS)] = ()
    """Of each of `peers`: which device sent it, and to which base. Empty where that is not known: what an older fedge
    wrote has none, and one that reads this does without."""
    streaks: Annotated[tuple[tuple[_Device, _Natural], ...], Meta(max_length=streaks.MOST)] = ()
    """Devices that were refused when they were heard last, and how often in a row. Older fedges have none."""

    def norms(self, number: int) -> tuple[Peer, ...]:
        """Return `peers` with what is known of them. number: of this version, for those of whom nothing is."""
        whose = self.whose or (("", number),) * len(self.peers)
        return tuple(Peer(norm, device, base) for norm, (device, base) in zip(self.peers, whose, strict=True))

    @property
    def choice(self) -> Choice:
        """How the next round is coded."""
        return Choice(Terms(*self.terms), self.down, math.inf if self.allowed is None else self.allowed)


class Next(NamedTuple):
    """The version after this one, and all that the learner is once it is taken."""

    held: Held
    record: Record
    ways: tuple[tuple[int, bytes], ...] = ()
    """The bodies that lead to it: for each the number of the version that it starts from, and its bytes."""
    metrics: tuple[tuple[str, float], ...] = ()
    alarm: str = ""
    """What an operator should know of it."""

    @property
    def sha256(self) -> str:
        """What the version goes by; in float32 without its optimizer's state, which the server alone keeps."""
        is_whole = self.record.choice.terms == FLOAT32
        return (self.held._replace(state=State()) if is_whole else self.held).sha256()

    @property
    def model(self) -> Model:
        """The version as published."""
        return self.held.model

    def to_bytes(self) -> bytes:
        """Serialise, with a checksum; a `Learner` is made from it."""
        held = self.held
        cells = held.number, held.model.to_bytes(), held.state.parts(), self.record
        agreed = b"" if held.agreed is None else held.agreed.to_bytes()
        if held.buffers:
            return _sealed(_Buffered(_WITH_BUFFERS, *cells, agreed, held.buffers.to_bytes()))
        if not agreed:  # as an older fedge reads it
            return _sealed(_Stored(_FORMAT, *cells))
        return _sealed(_Agreed(_WITH_AGREEMENT, *cells, agreed))

    def beside(self) -> bytes:
        """Serialise what is kept beside the version itself, with a checksum."""
        return _sealed(_Beside(_FORMAT, self.held.number, self.record))

    @property
    def step(self) -> bytes:
        """The body that leads to it from the version before, or from nothing; empty where there is none."""
        return next((body for start, body in self.ways if kind_of(body) in _STEPS), b"")


_FORMAT = 2
_WITH_AGREEMENT = 3
"""Of a state with what the fleet has agreed on; others are of the format before, which older fedges read."""
_WITH_BUFFERS = 4
"""Of one whose net has buffers that travel."""
_OLDER = "use that one again, or begin the job anew"
_STEPS = (STEP, WHOLE, AGREEMENT)


class _Stored(Struct, frozen=True, array_like=True):
    format: int
    number: Annotated[int, Meta(ge=0, le=2**53)]
    model: bytes
    state: list[bytes]
    """Of the server's optimizer, as its strategy writes it."""
    record: Record


class _Agreed(_Stored, frozen=True, array_like=True):
    agreed: bytes = b""


class _Buffered(_Agreed, frozen=True, array_like=True):
    buffers: bytes = b""


class _Numbered(Struct, frozen=True, array_like=True):
    """What every format begins with, but the first, which had a blob of its own there."""

    format: int | bytes


class _Beside(Struct, frozen=True, array_like=True):
    format: int
    number: Annotated[int, Meta(ge=0, le=2**53)]
    record: Record


T = TypeVar("T", _Buffered, _Beside)


def _sealed(stored: _Stored | _Beside) -> bytes:
    packed = msgspec.msgpack.encode(stored)
    return zlib.crc32(packed).to_bytes(4, "little") + packed


def opened(blob: bytes, spec: Spec, job: JobSpec, first: Buffers = NO_BUFFERS) -> Next:
    """Read what `Next.to_bytes` wrote of this job. first: the buffers of version 0. Raises RecordError.

    What an older fedge has stored of a net with buffers has those of version 0: it left all others on the devices.
    """
    stored = _read(blob, _Buffered, spec)
    try:
        model = Model.from_bytes(stored.model, spec)
    except ValueError as error:
        raise RecordError(f"it is damaged, or of a fedge with another codec: {error}") from error
    try:
        state = STRATEGIES[job.aggregate.strategy].read(stored.state, spec)
        agreed = agreement.from_bytes(stored.agreed, job) if stored.agreed else None
        buffers = beside_params.from_bytes(stored.buffers, first.spec) if stored.buffers else first
    except (StateError, AgreementError, BuffersError) as error:
        raise RecordError(str(error)) from error
    return Next(Held(stored.number, model, state, agreed, buffers), stored.record)


def beside(blob: bytes, number: int, spec: Spec) -> Record:
    """Read what `Next.beside` wrote for the version of this number. Raises RecordError."""
    stored = _read(blob, _Beside, spec)
    if stored.number != number:
        raise RecordError(f"it lies beside version {stored.number}, not {number}")
    return stored.record


def _read(blob: bytes, kind: type[T], spec: Spec) -> T:
    if not is_whole(blob):
        raise RecordError("its checksum is wrong")
    try:
        number = msgspec.msgpack.decode(blob[4:], type=_Numbered).format
        found = 1 if isinstance(number, bytes) else number
        newest = _WITH_BUFFERS if kind is _Buffered else _FORMAT
        formats.check("its server state", found, newest, oldest=_FORMAT, older=_OLDER)
        stored = msgspec.msgpack.decode(blob[4:], type=kind)
    except formats.FormatError as error:
        raise RecordFormatError(str(error)) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RecordError(f"it is damaged, or of a fedge with another codec: {error}") from error
    if len(stored.record.whose) not in (0, len(stored.record.peers)):
        raise RecordError("it has norms of nobody, or devices without one")
    terms, down = Terms(*stored.record.terms), stored.record.down
    if not terms.are_for(n_parameters(spec)) or (terms.is_sketch and down > WIDEST):
        raise RecordError("it codes updates in a way that there is not for its net")
    return stored


def start(net: Net, spec: JobSpec) -> Next:
    """Return version 0."""
    d, coding = n_parameters(net.spec), spec.coding
    choice = _first(d, coding)
    return Next(
        Chain(net.spec, spec, first_of(net)).first(), Record((choice.terms.m, choice.terms.bits), choice.down, None)
    )


def _first(d: int, coding: CompressionSpec) -> Choice:
    """Return how the first round of a job is coded."""
    if coding.codec == "float32":
        return Choice(FLOAT32, 32, math.inf)
    if coding.codec == "int8":
        return Choice(INT8, 8, math.inf)
    if coding.buckets is None:
        return steering.first(d)
    terms = terms_for(d, coding.buckets, coding.bits if coding.buckets >= d else 1)
    return Choice(terms, coding.bits_down, math.inf)
