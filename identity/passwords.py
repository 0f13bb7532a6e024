"""What is kept of a password: Argon2id (RFC 9106), with all that is needed to try one, in one line of text.

    $argon2id$v=19$m=32768,t=3,p=1$SALT$HASH

32 MiB and three passes are above what OWASP's Password Storage Cheat Sheet has as its least (19 MiB and two), and a
third of a second of a small server. Trying one takes that memory, so whoever does it for strangers does one at a time.
"""

from __future__ import annotations

import re
import unicodedata

PASSES = 3
MEMORY_BYTES = 32 * 1024 * 1024
FEWEST = 10
"""Characters of a password."""
MOST = 1000
_HASH = re.compile(r"\$argon2id\$v=19\$m=(\d{1,6}),t=(\d{1,2}),p=1\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{22,86}")
_MOST_KIB, _MOST_PASSES = 262_144, 16
"""Of a hash that somebody else has made: what it takes to try one stays bounded."""


class PasswordError(ValueError):
    """A password, or what is kept of one, that cannot be used; the message says why and has none of it."""


def hashed(password: str) -> str:
    """Return what is kept of a password: another text each time. Raises PasswordError for one that is too short."""
    from nacl.pwhash import argon2id

    if len(password) < FEWEST:
        raise PasswordError(f"a password has {FEWEST} characters or more: a few words are easily kept in mind")
    if len(password) > MOST:
        raise PasswordError(f"a password has at most {MOST} characters")
    return argon2id.str(_said(password), opslimit=PASSES, memlimit=MEMORY_BYTES).decode("ascii")


def check_hash(text: str) -> None:
    """Raise PasswordError for what `hashed` would not give, or what takes too much to try."""
    found = _HASH.fullmatch(text)
    if found is None or int(found[1]) > _MOST_KIB or not 0 < int(found[2]) <= _MOST_PASSES:
        raise PasswordError("is not what is kept of a password: set it again")


def matches(text: str, password: str) -> bool:
    """Return whether this is the password of which the text was kept. It takes as long for a wrong one.

    Raises PasswordError for a text that is none.
    """
    from nacl.exceptions import InvalidkeyError
    from nacl.pwhash import argon2id

    check_hash(text)
    try:
        return argon2id.verify(text.encode("ascii"), _said(password[: MOST + 1]))
    except InvalidkeyError:
        return False


def _said(password: str) -> bytes:
    """Return the bytes of a password, the same however a keyboard composes its letters (RFC 8265, OpaqueString)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
