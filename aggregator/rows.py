"""What the store gives back: its rows, each looked at as if a stranger had written it.

A disk may give back what was not written, and a file may come from anywhere. So every cell is held against its type
and its bounds, what is JSON against its checksum first, and whatever is wrong becomes a DamageError that names the job
and the table. Cells that went out to the wire, or will, have the wire's own types (broker/messages.py).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, TypeGuard, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from aggregator.bodies import Place
from aggregator.database import REMEDY, REPAIR, DamageError, OutOfRangeError, Row, crc
from aggregator.effects import Attempt, Close
from broker.ceilings import MOST_CHUNKS, MOST_GENERATION, Generation, Number
from broker.messages import Digest, Echo, Id, Offer, Short, Verdict, Version, start_of
from models import draw
from models.fold import MAX_WEIGHT
from models.job import JobSpec
from models.steering import Report

T = TypeVar("T")

Natural = Annotated[int, Meta(ge=0, le=2**53)]
"""What is only shown to people: an older fedge has written down whatever a device said."""
Norm = Annotated[float, Meta(ge=0, le=1e100)]
"""No update that the codec can write has a larger one, and the squares of these still add up."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


class JobRow(Struct, frozen=True):
    """A job as it is stored. ended: "", "finished" or "stopped"."""

    job: str
    name: str
    spec: JobSpec | None
    """None exactly where `damage` says why."""
    generation: int
    ended: str
    reason: str
    damage: str = ""


class Claim(Struct, frozen=True):
    """A counted update without its body: what its device said of it, and what it is in the sum."""

    device: Id
    n_examples: Natural
    weight: Annotated[int, Meta(ge=1, le=MAX_WEIGHT)]
    """In the sum; below n_examples where the update was late."""
    norm: Norm
    loss: float | None
    curvature: Annotated[float, Meta(ge=-1e30, le=1e30)] | None
    gain: Annotated[float, Meta(ge=-1e30, le=1e30)] | None

    @property
    def report(self) -> Report | None:
        """What it measured for the steering, if it said so."""
        return None if self.curvature is None else Report(self.curvature, self.gain, _who(self.device))


class Judgement(NamedTuple):
    """A verdict and what it is on: the offer, the weight and the norm of a counted update, and its body.

    place: where that lies already, and not here. seconds: from the opening of its round to its coming. evaluation: how
    its device scores the base.
    """

    verdict: Verdict
    offer: Offer | None = None
    weight: int = 0
    norm: float = 0.0
    body: bytes = b""
    seconds: float | None = None
    evaluation: bytes = b""
    place: Place | None = None


class UpdateRow(Claim, frozen=True):
    """A counted update: what goes into the sum, too."""

    number: Number
    """Of its base."""
    body: bytes


class AttemptRow(Struct, frozen=True):
    """A round as it is remembered; outcome is "open" while it is."""

    attempt: Attempt
    outcome: Literal["open", "committed", "abandoned", "stopped"]
    reason: str
    fates: dict[str, str]
    opened: str
    """When, in UTC."""
    closed: str | None


class BodyRow(Struct, frozen=True):
    """A body at the broker. number: of the version that it leads to."""

    name: Id
    number: Number
    chunk_bytes: Annotated[int, Meta(ge=1, le=2**28)]
    data: bytes

    @property
    def start(self) -> int:
        """Number of the version that it leads from."""
        return start_of(self.name)


AMONG_BODIES = b"="
"""Stands for a state that lies among the bodies: what leads to the version from nothing is all of it."""


class Kept(Struct, frozen=True):
    """What is stored of a version: a whole state; or what leads there from the version before; and what lies beside.

    State and record come with a checksum of their own; a step gets one in its cell (`sealed`).
    """

    state: bytes = b""
    step: bytes = b""
    record: bytes = b""


class Current(Struct, frozen=True):
    """The last version of a job, and how to come to it: a state, the steps from there on, and what lies beside.

    Where the state is empty, the first step leads there from nothing.
    """

    version: Version
    sha256: Digest
    state: bytes
    steps: tuple[bytes, ...] = ()
    record: bytes = b""


class VersionRow(Struct, frozen=True):
    """A version, the SHA-256 of its model, and its metrics as they are stored."""

    version: Version
    sha256: Digest
    metrics: object


class _Ended(Struct, frozen=True):
    generation: Generation
    ended: Literal["", "finished", "stopped"]
    reason: Short


class _Round(Struct, frozen=True):
    """A row of attempts but for its JSON."""

    base: Version
    number: Annotated[int, Meta(ge=1, le=2**53)]
    outcome: Literal["open", "committed", "abandoned", "stopped"]
    reason: str
    opened: str
    closed: str | None


class _Verdict(Struct, frozen=True):
    """The wire's `Verdict`, which says of a stored one what it must be."""

    device: Id
    job: str
    base: Version
    digest: Echo
    refused: Short


class LitterRow(Struct, frozen=True):
    """What remains of a body. chunks: into how many it was cut."""

    job: str
    name: str
    chunks: int


def litter_of(cells: Row) -> LitterRow | None:
    """Return what remains of a body, or None where a row of it makes no sense: there is nothing to clear by it."""
    job, name, chunks = cells
    if not (is_id(job) and is_id(name) and isinstance(chunks, int) and 0 < chunks <= MOST_CHUNKS):
        return None
    return LitterRow(job, name, chunks)


def is_whole(blob: bytes) -> bool:
    """Return whether the state of a version is what was written: its checksum comes first."""
    return int.from_bytes(blob[:4], "little") == zlib.crc32(blob[4:])


def sealed(step: bytes) -> bytes:
    """Return the cell of a step: its checksum, then the step."""
    return zlib.crc32(step).to_bytes(4, "little") + step


def step_of(job: str, number: int, cell: object) -> bytes:
    """Return the step that leads to the version of this number. Raises DamageError."""
    if not isinstance(cell, bytes) or len(cell) <= 4:
        raise damaged(job, "versions", f"the step to version {number} is missing")
    if not is_whole(cell):
        raise damaged(job, "versions", f"the checksum of the step to version {number} is wrong")
    return cell[4:]


def is_id(cell: object) -> TypeGuard[str]:
    """Return whether a cell is what a job is called."""
    return isinstance(cell, str) and _ID.fullmatch(cell) is not None


def damaged(job: str, table: str, why: object) -> DamageError:
    """Return the error that names the place."""
    return DamageError(f"job {job} is damaged in the state directory (table {table}): {why}: {REMEDY}")


def check_generation(job: str, generation: object) -> None:
    """Raise OutOfRangeError for a generation that no store of this fedge gives, and that no device would hear of."""
    if isinstance(generation, int) and generation > MOST_GENERATION:
        raise OutOfRangeError(
            f"job {job} is left as it is: its generation is {generation}, where {MOST_GENERATION} is the highest; an "
            f"older fedge has believed what somebody said: {REPAIR}"
        )


def read(kind: type[T], job: str, table: str, cells: object) -> T:
    """Return cells, by name or in order, as `kind`. Raises DamageError unless every one is what the type says."""
    try:
        return msgspec.convert(cells, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError) as error:
        raise damaged(job, table, error) from error


def read_json(kind: type[T], job: str, table: str, cell: object, checksum: object = None) -> T:
    """Return a cell of JSON as `kind`. Raises DamageError.

    checksum: what lies beside it, where something does.
    """
    if not isinstance(cell, bytes | str):
        raise damaged(job, table, f"{type(cell).__name__} where JSON belongs")
    if checksum is not None and checksum != crc(cell):
        raise damaged(job, table, "a checksum is wrong")
    try:
        return msgspec.json.decode(cell, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise damaged(job, table, error) from error


def job_row(job: object, name: object, cells: Sequence[object]) -> JobRow:
    """Return a row of jobs, whatever is wrong with it. cells: spec, crc, generation, ended, reason."""
    if not is_id(job):
        shown = f"damaged-{crc(repr(job)):08x}"
        return _unreadable(shown, name, damaged(shown, "jobs", f"its id is {repr(job)[:100]}"))
    spec, checksum, *rest = cells
    try:
        check_generation(job, rest[0])
        found = read(_Ended, job, "jobs", dict(zip(_Ended.__struct_fields__, rest, strict=True)))
        read_spec = spec_of(job, spec, checksum)
    except DamageError as error:
        ended = rest[1] if rest[1] in ("finished", "stopped") else ""
        return _unreadable(job, name, error, str(ended))
    return JobRow(job, read_spec.name, read_spec, found.generation, found.ended, found.reason)


def unreadable(job: object, name: object, error: DamageError) -> JobRow:
    """Return a row of jobs that cannot be read at all."""
    row = job_row(job, name, (None,) * 5)
    return structs.replace(row, damage=str(error)) if row.job == job else row


def _unreadable(job: str, name: object, error: DamageError, ended: str = "") -> JobRow:
    readable = name if is_id(name) else job
    return JobRow(job, readable, None, 0, ended, "", str(error))


def spec_of(job: str, cell: object, checksum: object) -> JobSpec:
    """Return a specification. Raises DamageError for one that this fedge does not understand."""
    if not isinstance(cell, bytes | str) or checksum != crc(cell):
        raise damaged(job, "jobs", "the checksum of its specification is wrong")
    try:
        return msgspec.json.decode(cell, type=JobSpec)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamageError(
            f"job {job} was written by another fedge and is not understood here: {error}: "
            f"use that one again, or {REMEDY}"
        ) from error


def attempt_row(job: str, cells: Sequence[object]) -> AttemptRow:
    """Return a row of attempts. cells: generation, number, attempt, round, crc, outcome, reason, fates, opened, closed.

    The base is what the columns say: a base that is renamed then takes its rounds along as they are.
    """
    generation, number, attempt, round_, checksum, outcome, reason, fates, opened, closed = cells
    found = read(
        _Round,
        job,
        "attempts",
        {
            "base": (generation, number),
            "number": attempt,
            "outcome": outcome,
            "reason": reason,
            "opened": opened,
            "closed": closed,
        },
    )
    return AttemptRow(
        attempt_of(job, found.base, found.number, round_, checksum),
        found.outcome,
        found.reason,
        read_json(dict[str, str], job, "attempts", fates),
        found.opened,
        found.closed,
    )


def attempt_of(job: str, base: Version, number: int, cell: object, checksum: object) -> Attempt:
    """Return the round of one row of attempts. Raises DamageError."""
    if checksum is None:
        raise damaged(job, "attempts", "a checksum is missing")
    found = read_json(Attempt, job, "attempts", cell, checksum)
    wrong = (
        (found.number != number, f"round {found.number} stands where {number} belongs"),
        (not 0 <= found.threshold <= draw.MAX_TICKET, f"threshold {found.threshold}"),
        (found.target is not None and not 0 <= found.target <= 2**53, f"target {found.target}"),
        (not all(map(_ID.fullmatch, found.cohort)), "a device of its cohort has no id"),
    )
    for is_so, why in wrong:
        if is_so:
            raise damaged(job, "attempts", why)
    return structs.replace(found, base=base)


def verdict_row(job: str, cells: Sequence[object]) -> Verdict:
    """Return a row of updates as its verdict. cells: device, generation, number, digest, refused."""
    device, generation, number, digest, refused = cells
    row = {"device": device, "job": job, "base": (generation, number), "digest": digest, "refused": refused}
    found = read(_Verdict, job, "updates", row)
    return Verdict(found.device, job, found.base, found.digest, found.refused)


def version_row(job: str, cells: Sequence[object]) -> VersionRow:
    """Return a row of versions. cells: generation, number, sha256, metrics."""
    generation, number, sha256, metrics = cells
    return read(VersionRow, job, "versions", {"version": (generation, number), "sha256": sha256, "metrics": metrics})


MOST_REPORTED = 1e12
"""A device that reports more has measured nothing."""


def report_of(offer: Offer) -> Report | None:
    """Return what a device says for the steering; nothing where it makes no sense."""
    told = offer.report
    if not told or not all(abs(value) <= MOST_REPORTED for value in told):
        return None
    return Report(told[0], told[1] if len(told) > 1 else None, _who(offer.device))


def _who(device: str) -> int:
    """Return what tells the reports of a device from those of others."""
    return zlib.crc32(device.encode()) % 65_535 + 1


def judged(one: Judgement) -> tuple[object, ...]:
    """Return a row of updates."""
    verdict, offer, place = one.verdict, one.offer, one.place
    kept = one.body if verdict.counted else None
    at, n_bytes, checksum = place or (None, None, None if kept is None else crc(kept))
    n_examples, loss = (offer.n_examples, offer.loss) if offer else (0, None)
    report = report_of(offer) if offer else None
    told = (None, None) if report is None else (report.curvature, report.gain)
    return (
        *(verdict.job, verdict.device, verdict.base.generation, verdict.base.number, verdict.digest, verdict.refused),
        *(n_examples, one.weight, one.norm, loss, kept, checksum, *told, at, n_bytes),
        *(None if offer is None else offer.n_bytes, one.seconds, sealed(one.evaluation) if one.evaluation else None),
    )


def claim_row(job: str, cells: Sequence[object]) -> Claim:
    """Return what is said of a counted update. cells: the fields."""
    return read(Claim, job, "updates", dict(zip(Claim.__struct_fields__, cells, strict=True)))


def update_row(job: str, cells: Sequence[object]) -> UpdateRow:
    """Return a counted update. cells: the fields, and the checksum of the body."""
    *rest, checksum = cells
    found = read(UpdateRow, job, "updates", dict(zip(UpdateRow.__struct_fields__, rest, strict=True)))
    if checksum != crc(found.body):
        raise damaged(job, "updates", f"the checksum of the update of {found.device} is wrong")
    return found


def refusal_row(job: str, cells: Sequence[object]) -> tuple[str, float]:
    """Return who was refused, and the norm that it was for; 0 where it was for something else. cells: device, norm."""
    return read(tuple[Id, Norm], job, "updates", tuple(cells))


def body_row(job: str, cells: Sequence[object]) -> BodyRow:
    """Return a body at the broker. cells: the fields, and the checksum of the data."""
    *rest, checksum = cells
    found = read(BodyRow, job, "bodies", dict(zip(BodyRow.__struct_fields__, rest, strict=True)))
    if checksum != crc(found.data):
        raise damaged(job, "bodies", f"the checksum of {found.name} is wrong")
    return found


def closing(job: str, close: Close) -> tuple[object, ...]:
    """Return what an UPDATE of attempts wants: round, crc, outcome, reason, fates, and which row."""
    attempt, base = close.attempt, close.attempt.base
    round_ = msgspec.json.encode(attempt)
    return (
        *(round_, crc(round_), close.outcome, close.reason, msgspec.json.encode(close.fates)),
        *(job, base.generation, base.number, attempt.number),
    )
