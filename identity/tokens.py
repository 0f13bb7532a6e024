"""One-time tokens: each is a user of the broker for as long as it takes to enroll one device, and may do that alone.

    open ──a request of its own──▶ waiting ──approved──▶ issuing ──▶ issued ──"it has come", or the end──▶ gone
                                      └──rejected──▶ rejected ──────────────────────────────────────▶ gone

Its law:
1. The first request that a token proves is its only one: with other keys, or for another name, it is refused.
2. What is approved is remembered before anything is certified (issuing), so that a process that dies in between goes on
   with the same request; what was issued stays to be fetched until the device has it.
3. At its end a token is gone, whatever it has come to; issued, it can be fetched for FETCH longer.
4. At most MOST of them, and one request each: nothing grows by what devices send.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
import secrets
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, structs

from identity.asking import Request, Secret
from identity.keys import text_of
from runtime import formats
from runtime.words import clean

FORMAT = 1
MOST = 1000
FETCH = dt.timedelta(days=1)
_PREFIX = "token."
"""No name of a device has a dot, so no token can pass for one, and no device for a token."""
_ITERATIONS, _SALT_BYTES = 101, 12
"""As mosquitto_passwd does it; a secret of 160 random bits needs no slower one."""
_LINE = "fedge-token://"


PASSWORDS = "# Made by `fedge ca`: the tokens that are about, as users of the broker.\n"


class TokenError(ValueError):
    """What cannot be done with a token; the message is one line and says what to do. Nothing was changed."""


class Token(Struct, frozen=True, omit_defaults=True):
    """One. hash: of its password, as mosquitto has it. proof: the key of its proofs, as text.

    device: the only name that it enrolls; None: any that is free. again: also one that is enrolled, whose older self is
    out then. asked, since: its request, and when that came.
    """

    made: dt.datetime
    until: dt.datetime
    hash: str
    proof: str
    device: str | None = None
    labels: dict[str, str] = {}
    rows: int | None = None
    again: bool = False
    state: Literal["open", "waiting", "issuing", "issued", "rejected"] = "open"
    asked: Request | None = None
    since: dt.datetime | None = None

    def gone_at(self) -> dt.datetime:
        """Return when it is gone (law 3)."""
        return self.until + FETCH if self.state in ("issuing", "issued") else self.until


class Tokens(Struct, frozen=True):
    """All of an authority: tokens.json. window: until then requests are approved as they come."""

    fleet: str
    tokens: dict[str, Token] = {}
    window: dt.datetime | None = None
    format: int = FORMAT

    def with_(self, name: str, token: Token | None) -> Tokens:
        """Return them with one in another state, or gone."""
        tokens = {n: t for n, t in self.tokens.items() if n != name}
        return structs.replace(self, tokens=tokens if token is None else tokens | {name: token})

    def without_gone(self, now: dt.datetime) -> Tokens:
        """Return those that are not gone."""
        return structs.replace(self, tokens={n: t for n, t in self.tokens.items() if t.gone_at() > now})

    def find(self, fingerprint: str) -> tuple[str, Token]:
        """Return the token whose request has this fingerprint. Raises TokenError."""
        for name, token in self.tokens.items():
            if token.asked is not None and token.asked.fingerprint == fingerprint.strip().lower():
                return name, token
        raise TokenError(f"{fingerprint[:60]}: no request has this fingerprint; `fedge ca requests` lists all")

    def is_open_window(self, now: dt.datetime) -> bool:
        """Return whether requests are approved as they come."""
        return self.window is not None and now < self.window

    @property
    def passwords(self) -> str:
        """Return the password file that mosquitto reads."""
        return PASSWORDS + "".join(f"{name}:{token.hash}\n" for name, token in sorted(self.tokens.items()))


ACCESS = """\
# Made by `fedge ca`: what a token may do at the listener for enrolment, and nobody else is known there.
pattern write fedge-ca/1/+/enroll/%u
pattern read fedge-ca/1/+/issued/%u
"""


class Line(NamedTuple):
    """What an operator hands to a device's owner. root: SHA-256 of the root's certificate (DER), in hex."""

    host: str
    port: int
    fleet: str
    device: str | None
    token: str
    secret: str
    root: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = self.fleet if self.device is None else f"{self.fleet}/{self.device}"
        return f"{_LINE}{self.token}:{self.secret}@{host}:{self.port}/{path}#{self.root}"


def draw(
    now: dt.datetime,
    minutes: float,
    *,
    device: str | None,
    labels: dict[str, str],
    rows: int | None,
    again: bool,
) -> tuple[str, str, Token]:
    """Return a new token's name, its secret and what is kept of it."""
    name = _PREFIX + base64.b32encode(secrets.token_bytes(10)).decode().lower()
    text = base64.b32encode(secrets.token_bytes(20)).decode().lower()
    secret = Secret(text)
    until = now + dt.timedelta(minutes=minutes)
    proof = text_of(secret.proof_key)
    token = Token(now, until, password_hash(secret.password, secrets.token_bytes(_SALT_BYTES)), proof)
    return name, text, structs.replace(token, device=device, labels=labels, rows=rows, again=again)


def password_hash(password: str, salt: bytes) -> str:
    """Return what mosquitto keeps of a password: $7$iterations$salt$hash, PBKDF2 with HMAC-SHA-512 (RFC 8018)."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


_PARTS = re.compile(r"/(?P<fleet>[A-Za-z0-9_-]{1,64})(/(?P<device>[A-Za-z0-9_-]{1,64}))?/?")


def read_line(text: str) -> Line:
    """Return what a token's line says. Raises TokenError."""
    text = text.strip()
    wrong = f"this is no token: it is one line that begins with {_LINE}, as `fedge ca token` prints it"
    if not text.startswith(_LINE) or len(text) > 1000:
        raise TokenError(wrong)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TokenError(f"{wrong}: {clean(str(error))}") from error
    path, name, secret = _PARTS.fullmatch(parts.path), parts.username or "", parts.password or ""
    is_whole = (
        host
        and port
        and path
        and re.fullmatch(r"token\.[a-z2-7]{16}", name)
        and re.fullmatch(r"[a-z2-7]{32}", secret)
        and re.fullmatch(r"[0-9a-f]{64}", parts.fragment)
    )
    if not (is_whole and host and port and path):
        raise TokenError(f"{wrong}; a part of this one is missing or was changed: copy it again, whole")
    return Line(host, port, path["fleet"], path["device"], name, secret, parts.fragment)


def parse_tokens(text: bytes, source: str) -> Tokens:
    """Return the tokens of a file. Raises TokenError."""
    try:
        formats.check(source, msgspec.json.decode(text, type=_Numbered).format, FORMAT)
        return msgspec.json.decode(text, type=Tokens)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TokenError(f"{source}: is damaged: {clean(str(error))}; remove it, and hand out new tokens") from error
    except formats.FormatError as error:
        raise TokenError(str(error)) from error


def refusal(token: Token, request: Request, now: dt.datetime) -> str:
    """Return why a request cannot be that of this token; "" where it can."""
    if now >= token.gone_at():
        return f"this token has expired on {token.until:%Y-%m-%d %H:%M} UTC: have a new one made (`fedge ca token`)"
    if token.asked is not None and token.asked.digest != request.digest:
        return (
            f"this token was used already, by the request {token.asked.fingerprint} for {token.asked.device}: a token "
            "is good for one device; have a new one made (`fedge ca token`)"
        )
    if token.device is not None and token.device != request.device:
        return f"this token is for the device {token.device}, and not for {request.device}"
    return ""


class _Numbered(Struct):
    format: Annotated[int, Meta(ge=0)] = 1
