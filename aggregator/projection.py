"""What lies at the broker of a job: a projection of the store, as messages. Nothing here changes anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from aggregator import evaluation
from aggregator.effects import Announce
from aggregator.store import BodyRow
from broker import chunks
from broker.messages import (
    CHUNK_BYTES,
    MOST_SETTLED,
    MOST_WAYS,
    Body,
    DeltaAt,
    Head,
    Job,
    Message,
    Round,
    Status,
    Version,
    along,
)
from broker.seal import Seal
from models import draw
from models.deltas import Delta
from models.measures.table import THRESHOLD

if TYPE_CHECKING:
    from aggregator.run import Run

FETCH_BYTES = 330
"""What it costs a device to read a head and a body at their own topics, beside the body."""
LONGEST_WAY = 32_768
"""No longer way travels with a round: whoever connects while it lies at the broker gets it too."""
MOST_ALIASES = 8
SETTLED_BYTES = 16_384
"""Room for the names of devices in the announcement of a round."""


class Clear(Struct, frozen=True):
    """Clear the retained topic of this message."""

    message: Message


class Question(Struct, frozen=True):
    """Ask these devices for a sign of life."""

    devices: dict[str, float]
    """Device to when its job heard it last; -inf for never."""


Out = Message | Clear | Question


def retained(run: Run) -> list[Out]:
    """Return everything of a job that should lie at the broker, the head last."""
    lying: list[Out] = [m for row in run.bodies() for m in chunks_of(run, row)]
    lying += base(run)
    described: list[Out] = [head(run), status(run)]
    return [*lying, *described, job(run)] if run.coordinator.ended else [job(run), *lying, *described]


def tombstone(job: str, term: int) -> list[Out]:
    """Return what takes a job off the broker, beside its bodies (litter.py)."""
    none = Version(1, 0)
    described = (Head(job, term, none, "0" * 32), Status(job, none, "stopped"), Round(job, term, none, 0.0))
    return [Job(job, term), *(Clear(message) for message in described)]


def job(run: Run) -> Job:
    """Return the job as devices read it."""
    last = run.version if run.coordinator.ended else None
    if run.signed is not None:
        return structs.replace(run.signed.said(run.job, run.term, last), base=run.base)
    return Job(run.job, run.term, msgspec.to_builtins(run.spec), last, base=run.base)


def base(run: Run) -> list[Body]:
    """Return what is frozen of the job's net, in pieces, where devices may have to fetch it."""
    if run.base is None:
        return []
    pieces = chunks.cut(run.base_bytes(), run.base.chunk_bytes)
    return [Body(run.job, run.base.name, index, piece) for index, piece in enumerate(pieces)]


def head(run: Run) -> Head:
    """Return how to get the current version."""
    return Head(
        run.job,
        run.term,
        run.version,
        run.sha256[: run.head_digits],
        state=run.coordinator.state,
        ways=tuple(DeltaAt(*way) for way in run.ways[-MOST_WAYS:]),
        chunk_bytes=run.chunk_bytes,
        threshold=run.metrics.get(THRESHOLD),
    )


def status(run: Run) -> Status:
    """Return what people see of the job."""
    state = "resting" if run.resting else run.coordinator.state
    return Status(run.job, run.version, state, run.reason, evaluation.announced(run.metrics, run.spec.rounds.stop))


def round_(run: Run, announce: Announce) -> Round:
    """Return the announcement of a round."""
    attempt = announce.attempt
    way = _way_along(run, attempt.threshold / draw.MAX_TICKET) if announce.first else b""
    proves = way or not attempt.base.number or _lies_whole(run)
    return Round(
        run.job,
        run.term,
        attempt.base,
        math.ceil(announce.seconds_left),
        terms=(*run.terms, run.octave),
        attempt=attempt.number,
        threshold=attempt.threshold,
        aliases=run.aliases[-MOST_ALIASES:],
        settled=_settled(run) if run.aliases else (),
        along=along(run.sha256, way) if proves else b"",
    )


def _lies_whole(run: Run) -> bool:
    """Return whether the current version lies at the broker as who knows the job expects it: whole, and cut as bodies
    are where nobody says otherwise. Who holds its proof then needs no head. In a fleet with keys the proof is too
    short: who puts pieces under a topic is not known.
    """
    n = run.whole_bytes
    is_cut_so = run.chunk_bytes == CHUNK_BYTES or n <= min(run.chunk_bytes, CHUNK_BYTES)
    return bool(n) and is_cut_so and run.head_digits == Seal.head_digits and Delta(0, run.version.number, n) in run.ways


def _settled(run: Run) -> tuple[str, ...]:
    """Return who is done with a base that was given another name, as far as a packet has room for the names.

    Who is left out trains on it again, and is refused.
    """
    names: list[str] = []
    room = min(run.chunk_bytes, SETTLED_BYTES)
    for device in run.coordinator.ledger.settled:
        room -= len(device) + len('"",')
        if room < 0 or len(names) == MOST_SETTLED:
            break
        names.append(device)
    return tuple(names)


def no_round(run: Run) -> Clear:
    """Clear the topic of a round that is over."""
    return Clear(Round(run.job, run.term, run.version, 0.0))


def chunks_of(run: Run, row: BodyRow) -> list[Body]:
    """Return a body in pieces."""
    return [Body(run.job, row.name, index, piece) for index, piece in enumerate(chunks.cut(row.data, row.chunk_bytes))]


def _way_along(run: Run, drawn: float) -> bytes:
    """Return the way from the version before, if sending it to everybody costs less than fetching it does.

    drawn: share of the devices that this round draws. Who was drawn to leave the version before holds it.
    """
    step = run.step
    if not step or len(step) > min(LONGEST_WAY, run.chunk_bytes):
        return b""
    useful = drawn**2
    return step if (1 - useful) * len(step) <= useful * FETCH_BYTES else b""
