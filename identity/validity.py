"""Until when a certificate holds, read without a library: an agent asks it every day, and has no room for one.

    Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serial, signature, issuer, validity, … }, … }

(RFC 5280, section 4.1; DER as in X.690.) Nothing is verified: OpenSSL does that at every connection.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]{1,65536}?)-----END CERTIFICATE-----")
_SEQUENCE, _VERSION, _UTC, _GENERAL = 0x30, 0xA0, 0x17, 0x18
LATE = 3
"""Who has less than one part in so many of his certificate's time left is warned."""


class ValidityError(ValueError):
    """No certificate, or a damaged one."""


class Validity(NamedTuple):
    """From when and until when."""

    since: dt.datetime
    until: dt.datetime

    def left(self, now: dt.datetime) -> dt.timedelta:
        """Return how long it still holds; negative where it does not."""
        return self.until - now

    def is_late(self, now: dt.datetime) -> bool:
        """Return whether less than a third of its time is left."""
        return self.left(now) * LATE < self.until - self.since


def validity_of(pem: bytes) -> Validity:
    """Return when the first certificate of a PEM file holds. Raises ValidityError, whatever the bytes."""
    found = _PEM.search(pem)
    if found is None:
        raise ValidityError("holds no certificate in PEM")
    try:
        certificate = base64.b64decode(b"".join(found[1].split()), validate=True)
        tbs = _inside(_inside(certificate, _SEQUENCE)[0], _SEQUENCE)[0]
        if tbs[0] == _VERSION:
            tbs = _inside(tbs, _VERSION)[1]
        for _ in ("serial", "signature", "issuer"):
            tbs = _inside(tbs, tbs[0])[1]
        times = _inside(tbs, _SEQUENCE)[0]
        since, rest = _inside(times, times[0])
        until, _ = _inside(rest, rest[0])
        return Validity(_time(times[0], since), _time(rest[0], until))
    except (IndexError, ValueError, OverflowError, binascii.Error) as error:
        raise ValidityError(f"holds a certificate that is damaged: {error}") from error


def clock(now: dt.datetime) -> str:
    """Return what to say of this machine's clock where something is out of its time."""
    return (
        f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC. The clock may be wrong: a Pi has none until it has "
        "synchronised its time; `timedatectl` says whether it has, `timedatectl set-ntp true` has it do so"
    )


def _inside(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return what is inside the first value of DER bytes, and what follows it."""
    if der[0] != tag:
        raise ValueError(f"tag {der[0]:#x} where {tag:#x} belongs")
    n, at = der[1], 2
    if n & 0x80:
        at += n & 0x7F
        if at > 6:
            raise ValueError("a length of more than four bytes")
        n = int.from_bytes(der[2:at], "big")
    if at + n > len(der):
        raise ValueError("it is cut off")
    return der[at : at + n], der[at + n :]


def _time(tag: int, text: bytes) -> dt.datetime:
    if tag not in (_UTC, _GENERAL):
        raise ValueError(f"tag {tag:#x} is no time")
    digits = text.decode("ascii")
    if tag == _UTC:  # of 1950 to 2049
        digits = ("19" if digits >= "50" else "20") + digits
    return dt.datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)
