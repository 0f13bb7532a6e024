"""Fields as a row: MessagePack, without their names, for the two messages that every device sends or hears each round.

    0                       1         1 + n
    ├ n, less than "{" ─────┼ array ──┼ bytes that travel along ──▶

A payload that begins with "{" (0x7B) is JSON instead; so n, the length of the array, is at most 122. Fields at the end
of a row that are at their defaults are left out. A number with three significant digits, as a device says a loss, is
four bytes: extension 1 of two bytes, big-endian, in which 32 * digits + exponent + 24 stands for digits * 10**exponent.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

import msgspec

from broker.errors import WireError

END = ord("{")
"""The first length that is none: JSON begins like that."""
_DECIMAL = 1
_LOWEST, _HIGHEST = -24, 7
"""Exponents of ten that a short number may have."""
_SHORT = struct.Struct(">h")
_PARTS = re.compile(r"\A(-?)(\d)\.(\d\d)e([+-]\d+)\Z")

_encoder = msgspec.msgpack.Encoder()


def write(values: Sequence[object]) -> bytes | None:
    """Return a row and its length before it; None where it is too long for one. values: what MessagePack knows."""
    row = _encoder.encode([_shortened(value) for value in values])
    return bytes((len(row),)) + row if len(row) < END else None


def split(payload: bytes) -> tuple[bytes, bytes]:
    """Return a row and the bytes behind it. Raises WireError where the payload is shorter than its row."""
    end = 1 + payload[0]
    if len(payload) < end:
        raise WireError(f"a row of {payload[0]} bytes where {len(payload) - 1} are left")
    return payload[1:end], payload[end:]


def read(row: bytes) -> list[object]:
    """Return the values of a row. Raises WireError."""
    try:
        values = _decoder.decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a row: {error}") from error
    if not _are_finite(values):
        raise WireError("a row: a number that is not finite")
    return values


def _are_finite(values: list[object]) -> bool:
    for value in values:
        if type(value) is float:
            if not math.isfinite(value):
                return False
        elif type(value) is list and not _are_finite(value):
            return False
    return True


def _shortened(value: object) -> object:
    if isinstance(value, float):
        short = _short(value)
        return value if short is None else msgspec.msgpack.Ext(_DECIMAL, _SHORT.pack(short))
    return [_shortened(one) for one in value] if type(value) is tuple else value


def _short(value: float) -> int | None:
    """Return the two bytes that stand for a number; None where it has more digits than they have room for."""
    parts = _PARTS.match(f"{value:.2e}")
    if parts is None:
        return None  # not finite
    sign, first, others, exponent = parts.groups()
    exponent = int(exponent) - 2
    if not _LOWEST <= exponent <= _HIGHEST or _long(int(sign + first + others), exponent) != value:
        return 0 if value == 0 else None
    return int(sign + first + others) * 32 + exponent - _LOWEST


def _long(digits: int, exponent: int) -> float:
    return float(f"{digits}e{exponent}")


def _opened(code: int, data: memoryview) -> float:
    if code != _DECIMAL or len(data) != _SHORT.size:
        raise WireError(f"a row: an extension {code} of {len(data)} bytes")
    (short,) = _SHORT.unpack(data)
    return _long(short >> 5, (short & 31) + _LOWEST)


_decoder = msgspec.msgpack.Decoder(list[object], ext_hook=_opened)
