"""The bytes of a body, which leads from one version to another: its kinds, and what a step and a group are made of.

Formats of a body, by its first byte (integers little-endian; BODY.md):

    0x10 whole      float32 of every coordinate's distance from version 0, for jobs without compression
    0x20 step       flags; maybe the grids of a snapshot; late updates, each with its base; terms; the published sum
    0x21 group      steps, each behind its length in 4 bytes
    0x22 snapshot   flags, the grids, and for each bit plane of eight its length and its deflated bytes
    0x23 agreement  what the fleet agrees on (models/agreement.py)
    0x24 exact      any version at all, from nothing: its integers, and those of the state (models/exact.py)
    0x25 agreed     an agreement behind its length in 4 bytes; then a body that begins anywhere
    0x26 buffered   the buffers of its version behind their length in 4 bytes (models/buffers.py); then a step, or what
                    begins anywhere and has no agreement before it

What a snapshot, a whole version, an agreement and buffers hold is read where it is understood: chain.py, exact.py,
agreement.py, buffers.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from models.codec.decoded import CodecError
from models.codec.terms import Terms

WHOLE, STEP, GROUP, SNAPSHOT, AGREEMENT, EXACT, AGREED, BUFFERED = 0x10, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26
ANYWHERE = (WHOLE, SNAPSHOT, EXACT)
"""What begins from nothing. AGREED does too, and BUFFERED may: one of these is in it."""
_BEFORE = struct.Struct("<BI")
"""Of what stands before another body: its kind, its length."""
GRID, STATE = 1, 2
"""Flags: grids follow; among them one for the state of the server's optimizer."""
LATE = 4
"""Flags: times so many late updates, at most three."""
SPAN = 8
"""Steps in a group."""
_BITS_AT = 26
"""Terms are one uint32: buckets, and from this bit on the bits of each."""
LATE_HEAD = struct.Struct("<HHII")
"""Of a late update: how many versions its base lies back, its share (a step word), its terms, its length."""


class Grids(NamedTuple):
    """What a version is rounded to: two step words (steps.py); the state's is 0 where there is none."""

    model: int
    state: int = 0


class Late(NamedTuple):
    """A late update on its way to everybody: a body under the hash of its own base, and its share in the step."""

    back: int
    share: int
    terms: Terms
    body: bytes


class Step(NamedTuple):
    """What a step says. terms: of `sum`."""

    terms: Terms
    sum: bytes
    late: tuple[Late, ...] = ()
    grids: Grids | None = None


def kind_of(body: bytes) -> int:
    """Return the kind of a body, its first byte; of one behind an agreement or buffers, that one's. 0 for none."""
    at = 0
    for before in (AGREED, BUFFERED):
        if body[at : at + 1] == bytes((before,)):
            at += _BEFORE.size + int.from_bytes(body[at + 1 : at + _BEFORE.size], "little")
    return int.from_bytes(body[at : at + 1], "little")


def behind(kind: int, said: bytes, body: bytes) -> bytes:
    """Return a body with something before it: `kind` is AGREED or BUFFERED."""
    return _BEFORE.pack(kind, len(said)) + said + body


def unwrapped(body: bytes) -> tuple[bytes, bytes]:
    """Return what stands before a body, and that body. Raises CodecError or struct.error."""
    _, length = _BEFORE.unpack_from(body)
    end = _BEFORE.size + length
    if end >= len(body):
        raise CodecError("nothing stands behind what comes before a body")
    return body[_BEFORE.size : end], body[end:]


def begins_anywhere(body: bytes) -> bool:
    """Return whether a body leads to its version from nothing."""
    return kind_of(body) in ANYWHERE


def write(step: Step) -> bytes:
    """Return the body of a step."""
    flags = (GRID if step.grids else 0) | LATE * len(step.late)
    if step.grids and step.grids.state:
        flags |= STATE
    out = [struct.pack("<BB", STEP, flags)]
    if step.grids:
        out.append(struct.pack("<H", step.grids.model))
        if step.grids.state:
            out.append(struct.pack("<H", step.grids.state))
    for late in step.late:
        out += [LATE_HEAD.pack(late.back, late.share, _packed(late.terms), len(late.body)), late.body]
    return b"".join((*out, struct.pack("<I", _packed(step.terms)), step.sum))


def read(body: bytes) -> Step:
    """Read the body of a step. Raises CodecError, or struct.error where it ends early."""
    kind, flags = struct.unpack_from("<BB", body)
    if kind != STEP or flags >> 4 or flags & (GRID | STATE) == STATE:
        raise CodecError(f"a step of an unknown kind {kind:#04x}, {flags:#04x}")
    at, grids, late = 2, None, []
    if flags & GRID:
        words = struct.unpack_from("<HH" if flags & STATE else "<H", body, at)
        grids, at = Grids(*words), at + 2 * len(words)
    for _ in range(flags // LATE):
        back, share, terms, length = LATE_HEAD.unpack_from(body, at)
        at += LATE_HEAD.size
        late.append(Late(back, share, _unpacked(terms), body[at : at + length]))
        at += length
    (terms,) = struct.unpack_from("<I", body, at)
    return Step(_unpacked(terms), body[at + 4 :], tuple(late), grids)


def grouped(steps: Sequence[bytes]) -> bytes:
    """Return the group of these steps."""
    return bytes((GROUP,)) + b"".join(struct.pack("<I", len(step)) + step for step in steps)


def pieces(rest: bytes) -> Iterable[bytes]:
    """Return the steps of a group, given what follows its first byte. Raises CodecError or struct.error."""
    at, found = 0, []
    while at < len(rest):
        (length,) = struct.unpack_from("<I", rest, at)
        at += 4
        found.append(rest[at : at + length])
        if len(found[-1]) != length or len(found) > SPAN:
            raise CodecError("a group is not made of its steps")
        at += length
    return found


def _packed(terms: Terms) -> int:
    return terms.bits << _BITS_AT | terms.m


def _unpacked(word: int) -> Terms:
    return Terms(word & (1 << _BITS_AT) - 1, word >> _BITS_AT)
