"""The body of an update is made of named sections: the delta, and what else a job's rules ask of a device.

    the delta alone          its own bytes (models/codec), and nothing else: no byte more
    anything else            FF FF FF FF, the number of this format, how many sections; of each its number (1 byte) and
                             its length (4 bytes, little-endian); then what is in them, in the same order

No delta begins with four bytes FF: a sketch and int8 begin with a step word, of which FF FF is none, and in float32
they are a NaN. So the first bytes alone say how a body is read, whoever sent it. One content has one body: numbers
ascend, no section is empty, and a delta alone is never put into a frame.

Which sections an update may have, and how long each may be, follows from its job (`allowed`), never from what is in the
body. All that is said of sections is checked before any is taken out. BODY.md is the prose.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from models import buffers, statistic
from models.codec.coding import max_body_bytes
from models.job import JobSpec
from models.measures import table, tally
from models.params import Spec

FORMAT = 1
MARK = b"\xff\xff\xff\xff"
"""What a body with other sections than a delta begins with."""
_ROW = struct.Struct("<BI")
"""Of a section: its number, its length."""
_HEADER_BYTES = len(MARK) + 2
DELTA = "delta"
STATISTICS = "statistics"
"""What a device says of its rows, before anybody trains (models/statistic.py)."""
BUFFERS = "buffers"
"""What a device's training has made of the buffers of the net (models/buffers.py)."""
EVALUATION = "evaluation"
"""How a device scores the base on rows that it holds back: a tally (models/measures/tally.py)."""


class SectionError(ValueError):
    """A body that is not made of sections as a job allows them; the message names the section."""


class Section(NamedTuple):
    """What there is to know of a section."""

    number: int
    """On the wire: never given to another."""
    max_bytes: Callable[[JobSpec, Spec, Spec], int]
    """How long it may be in an update to this job, whose net has these parameters and buffers; 0: there is none."""


def _none(_job: JobSpec, _spec: Spec, _buffers: Spec) -> int:
    return 0


def curves_of(job: JobSpec) -> bool:
    """Return whether devices score with histograms: they weigh far more than all else, and only two measures want
    them.
    """
    return table.split(job.rounds.stop.metric)[0] in ("auc", "average_precision")


def scores_versions(job: JobSpec) -> bool:
    """Return whether devices say how versions do on their rows: on those that they hold back; and where they find
    anomalies also without such, since the fleet's threshold is made of it.
    """
    return job.contract.validation > 0 or job.model.finds_anomalies


def _evaluation(job: JobSpec, _spec: Spec, _buffers: Spec) -> int:
    return tally.max_bytes(job.model, curves=curves_of(job)) if scores_versions(job) else 0


REGISTRY: dict[str, Section] = {
    DELTA: Section(1, lambda _job, spec, _buffers: max_body_bytes(spec)),
    "control": Section(2, _none),
    BUFFERS: Section(3, lambda _job, _spec, of_buffers: buffers.max_bytes(of_buffers)),
    STATISTICS: Section(4, lambda job, _spec, _buffers: statistic.max_bytes(job)),
    "masked": Section(5, _none),
    EVALUATION: Section(6, _evaluation),
}
"""All there are. A row whose limit is `_none` keeps its name and number for what comes: no job has it."""
_NAMES = {section.number: name for name, section in REGISTRY.items()}


def allowed(job: JobSpec, spec: Spec, of_buffers: Spec = ()) -> dict[str, int]:
    """Return the sections that an update to this job may have, each with the most bytes of it.

    spec, of_buffers: the parameters of its net, and the buffers.
    """
    limits = {name: section.max_bytes(job, spec, of_buffers) for name, section in REGISTRY.items()}
    return {name: most for name, most in limits.items() if most}


def most_bytes(limits: Mapping[str, int]) -> int:
    """Return the most bytes that a body with these sections may have."""
    if not limits.keys() - {DELTA}:
        return limits.get(DELTA, 0)
    return _HEADER_BYTES + sum(_ROW.size + most for most in limits.values())


def is_evaluation_alone(body: bytes) -> bool:
    """Return whether a body begins as one that has no other section than an evaluation."""
    return body[: _HEADER_BYTES + 1] == MARK + bytes((FORMAT, 1, REGISTRY[EVALUATION].number))


def join(sections: Mapping[str, bytes]) -> bytes:
    """Return the body that has these sections. Raises SectionError for a name that there is not, or an empty one."""
    for name, content in sections.items():
        if name not in REGISTRY:
            raise SectionError(f'there is no section "{name}"')
        if not content:
            raise SectionError(f'section "{name}" is empty')
    if not sections:
        raise SectionError("a body has one section at least")
    if sections.keys() == {DELTA}:
        if sections[DELTA][: len(MARK)] == MARK:
            raise SectionError('section "delta" begins as a body of several sections does: no codec writes that')
        return sections[DELTA]
    ordered = sorted(sections, key=lambda name: REGISTRY[name].number)
    table = b"".join(_ROW.pack(REGISTRY[name].number, len(sections[name])) for name in ordered)
    return b"".join((MARK, bytes((FORMAT, len(ordered))), table, *(sections[name] for name in ordered)))


def split(body: bytes, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return the sections of a body, by name. limits: those that it may have, each with the most bytes of it.

    Raises SectionError, and nothing else, whatever the bytes are; nothing is taken out of a body before all that it
    says of itself is so.
    """
    if body[: len(MARK)] != MARK:
        _check(DELTA, len(body), limits)
        return {DELTA: body}
    lengths = _table(body, limits)
    found, at = {}, _HEADER_BYTES + _ROW.size * len(lengths)
    for name, length in lengths.items():
        found[name] = body[at : at + length]
        at += length
    return found


def _table(body: bytes, limits: Mapping[str, int]) -> dict[str, int]:
    """Return name and length of each section, in order. Raises SectionError unless they make up the body."""
    if len(body) < _HEADER_BYTES:
        raise SectionError(f"a body of several sections ends after {len(body)} bytes")
    number, n_sections = body[len(MARK)], body[len(MARK) + 1]
    if number != FORMAT:
        raise SectionError(f"its sections are of format {number}, where this fedge reads {FORMAT}")
    end = _HEADER_BYTES + _ROW.size * n_sections
    if len(body) < end:
        raise SectionError(f"the table of its {n_sections} sections is cut off")
    lengths: dict[str, int] = {}
    before, total = 0, 0
    for section, length in _ROW.iter_unpack(body[_HEADER_BYTES:end]):
        if section not in _NAMES:
            raise SectionError(f"section {section} is none that this fedge knows")
        name = _NAMES[section]
        if section <= before:
            raise SectionError(f'section "{name}" stands behind number {before}')
        _check(name, length, limits)
        lengths[name], before, total = length, section, total + length
    if total != len(body) - end:
        raise SectionError(f"its sections have {total} bytes, and it has {len(body) - end} for them")
    if not lengths.keys() - {DELTA}:
        raise SectionError("it has no other section than the delta, which stands alone then")
    return lengths


def _check(name: str, length: int, limits: Mapping[str, int]) -> None:
    """Raise SectionError for a section that is not wanted, is empty or is too long."""
    most = limits.get(name, 0)
    if not most:
        raise SectionError(f'section "{name}" is not wanted by this job')
    if not 0 < length <= most:
        raise SectionError(f'section "{name}" has {length} bytes, where this job wants 1 to {most}')
