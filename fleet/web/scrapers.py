"""Who asks for /metrics where looking takes a login: HTTP's Basic credentials (RFC 7617), of any user there is.

    GET /metrics, Authorization: Basic … ──▶ must this one wait? ──▶ remembered? ──▶ in
                                                                     else tried as a login is ──▶ remembered, in

1. Nothing but GET of /metrics is answered by it, no session begins, and a form is never taken for it.
2. A scrape says its password every few seconds, and Argon2id is slow by intent: what was right is remembered for
   REMEMBERED_S, as a keyed hash, while the file has the same of that user.
3. Who waits after wrong passwords is not compared with what is remembered, and what is not remembered is a try: nobody
   guesses faster here than at the form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.web.login import SCRAPER, Door, NotAllowedError, to_scripts
from fleet.web.users import User

PATH = "/metrics"
REMEMBERED_S = 600.0
MOST_REMEMBERED = 16


class Remembered:
    """Credentials that were right. clock: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._right: dict[str, tuple[bytes, float]] = {}
        """Name to hash, and until when; what was remembered first comes first."""

    def has(self, name: str, password: str, kept: str) -> bool:
        """Return whether this was right a while ago. kept: what the users' file has of the password now."""
        right, until = self._right.get(name, (b"", 0.0))
        return self._clock() < until and hmac.compare_digest(right, self._hash(name, password, kept))

    def add(self, name: str, password: str, kept: str) -> None:
        """Remember that this is right."""
        self._right.pop(name, None)
        while len(self._right) >= MOST_REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[name] = self._hash(name, password, kept), self._clock() + REMEMBERED_S

    def _hash(self, *parts: str) -> bytes:
        made = hashlib.blake2b(key=self._secret)
        for part in parts:
            said = part.encode("utf-8", "surrogatepass")
            made.update(len(said).to_bytes(8) + said)
        return made.digest()


class Scrapers:
    """Lets them in, before whoever has no session is turned away."""

    def __init__(self, app: ASGIApp, door: Door, remembered: Remembered | None = None) -> None:
        self._app, self._door = app, door
        self._remembered = Remembered() if remembered is None else remembered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        said = None
        if self._door.is_needed and scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", PATH):
            said = credentials(scope)
        if said is not None:
            try:
                user = await self._who(scope, *said)
            except NotAllowedError as error:
                await _refusal(error)(scope, receive, send)
                return
            scope = scope if user is None else {**scope, SCRAPER: user}
        await self._app(scope, receive, send)

    async def _who(self, scope: Scope, name: str, password: str) -> User | None:
        """Return whose credentials these are, None for wrong ones. Raises NotAllowedError after too many of them."""
        address = (scope.get("client") or ("",))[0]
        self._door.refuse_to_wait(address, name)
        entry = self._door.users.find(name)
        if entry is None or not self._remembered.has(name, password, entry.password):
            entry = await self._door.verified(address, name, password)
            if entry is None:
                return None
            self._remembered.add(name, password, entry.password)
        return User(name, entry.role)


def credentials(scope: Scope) -> tuple[str, str] | None:
    """Return the name and password of a request; None where it has none, or none that can be read."""
    said = Headers(scope=scope).getlist("authorization")
    scheme, _, token = said[0].partition(" ") if len(said) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(token.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None


def _refusal(error: NotAllowedError) -> Response:
    response = to_scripts(str(error), error.status)
    response.headers["retry-after"] = str(error.after_s)
    return response
