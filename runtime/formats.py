"""The formats in which things lie on disk have numbers; here is what is said of one that is not read.

    what                                        where its number stands                       written, read
    aggregator.sqlite, and all in its rows      SQLite's user_version (aggregator/schema.py)  6, from 1 on
      … updates/JOB.bin beside it               the same: what lies where stands in a row
      … state and record of a version           first in the blob (aggregator/record.py)      2; 3: agreed; 4: buffers
    a backup                                    in its seal, none is 1 (aggregator/backup.py) 1
    STATE/heard                                 `format`, none is 1 (edge_agent/heard.py)     1
    trust.json, registry.json                   `format`, none is 1 (identity)                1
    STATE/device, of the whole directory        `format`, none is 1 (edge_agent/home.py)      1, and one without a mark
    update.bin, update2.bin                     `format`, none is 1 (edge_agent/outbox.py)    1
    settled.bin; residual.bin before it         `format`, none is 1                           1
    checkpoint.bin                              `format`, none is 1                           1
      … the training in it                      eighth byte (models/training/checkpoint.py)   1; 2: squares, buffers
    model.json, of a model slot                 `format`, none is 1 (edge_agent/card.py)      1 to 4 (contract, int8)
    entered/JOB.PLACE, on both sides            `format`, none is 1 (runtime/faults.py)       2, from 1 on
    segments of a ring of live rows             `format` of the head (models/data/ring_file.py)   1
    authority.json                              `format`, none is 1 (identity/record.py)      1; 2: stewards
    tokens.json                                 `format`, none is 1 (identity/tokens.py)      1
    registry.json                               `format`, none is 1 (identity/registry.py)    1
    trust.json                                  `format`, none is 1 (identity/trust.py)       1; 2: stewards
    a bundle                                    `format` of its manifest (identity/bundle.py) 1

A number is raised when an older fedge would misread what is written, or lose something of it. Fields that an older one
may do without are added under the same number. (A lock holds a process id for people, and model.onnx and model.npz
have numbers of others: they are no formats of ours.)

1. What is older than is read is refused by its number, and so is what is newer. Nothing else is done with a newer one:
   it is not written over, not removed and not taken for absent where that would lose something.
2. What has rotted is no newer format: a number is believed only where the checksum over it is right.
3. `tests/formats` holds files of every fedge that has ever written one of these numbers. What reads them stays.
"""

from __future__ import annotations

import re
import zlib

MOST = 9999
"""A higher number is none: what says it is damaged, or hostile."""
ZEROS = "00000000"
"""What stands where a checksum goes, while it is made."""
_STAMP = re.compile(rb'"checksum":( ?)"([0-9a-f]{8})"')


class FormatError(ValueError):
    """A format that this fedge does not read: which it is, which are read, and what to do."""


class NewerFormatError(FormatError):
    """What a newer fedge has written, and this one must leave alone."""


def check(
    what: str,
    found: int,
    newest: int,
    *,
    oldest: int = 1,
    newer: str = "upgrade this one",
    older: str = "use that one again",
) -> None:
    """Raise FormatError, or NewerFormatError, unless what is found is a number that is read.

    what: names it for people. newer, older: what an operator does then.
    """
    if found > MOST:
        raise FormatError(f"{what} has format {found}, which no fedge will ever write")
    reads = f"this one reads {oldest} to {newest}" if oldest < newest else f"this one reads {newest}"
    if found > newest:
        raise NewerFormatError(f"{what} has format {found}, of a newer fedge, where {reads}: {newer}")
    if found < oldest:
        raise FormatError(f"{what} has format {found}, of an older fedge, where {reads}: {older}")


def stamped(text: bytes) -> bytes:
    """Return JSON with its checksum in it. text: with `ZEROS` as its field `checksum`, which comes last."""
    stamp = list(_STAMP.finditer(text))[-1]
    return text[: stamp.start(2)] + f"{zlib.crc32(text):08x}".encode() + text[stamp.end(2) :]


def is_stamped(text: bytes) -> bool:
    """Return whether JSON has a checksum, right or wrong."""
    return _STAMP.search(text) is not None


def is_whole(text: bytes) -> bool:
    """Return whether JSON is what `stamped` gave."""
    stamps = list(_STAMP.finditer(text))
    if not stamps:
        return False
    at, end = stamps[-1].span(2)
    return zlib.crc32(text[:at] + ZEROS.encode() + text[end:]) == int(text[at:end], 16)
