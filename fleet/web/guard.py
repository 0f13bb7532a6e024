"""Who stands at the door of the page: what is asked has to be small, for us, and a question; answers carry their rules.

    only GET and HEAD; POST below /login, /logout and /actions/     405
    Host is an address, localhost, or a configured name             421   a stranger's page whose name leads here (DNS
                                                                          rebinding) has a name of its own
    asked by another site's page, other than by a link              403   an image at a model's address starts a process
    in a container: from its gateway or itself alone                403
    no long address, no long head, no long body                     414, 431, 413

Every answer says that nothing but this site's own files may run, style or be asked, that nobody may frame it, and that
types are not guessed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.looking_on import is_loopback
from fleet.web.queries import MOST_BYTES

MOST_PATH = 1000
MOST_HEAD = 16_384
"""Bytes of all headers."""
MOST_BODY = 16_384
"""Bytes of a form."""
HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(:[0-9]{0,5})?")
"""Of a request, in small letters: nothing else may stand in an address that a redirection repeats."""
ACTS = ("/actions/", "/login", "/logout")
RULES = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with "no-referrer" a form to this very site has no origin to be known by
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class TooLongError(ValueError):
    """A body is longer than any form of ours."""


class Guard:
    """The outermost layer. hosts: names that lead here beside localhost. gateway: where alone requests come from, else
    None.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), gateway: str | None = None) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def ruled(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in RULES.items():
                    headers.setdefault(name, value)
            await send(message)

        if (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, ruled)
            return
        try:
            await self._app(scope, _bounded(receive), ruled)
        except TooLongError as error:
            if not begun:
                await PlainTextResponse(f"{error}\n", 413)(scope, receive, ruled)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        client = scope.get("client")
        if self._gateway is not None and not self._is_near(client[0] if client else ""):
            return PlainTextResponse("this page is for the machine that its container runs on\n", 403)
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return PlainTextResponse(
                "this page is not known by that name: ask for it by its address, or add the name to hosts in [web]\n",
                421,
            )
        if len(scope["query_string"]) > MOST_BYTES or len(scope.get("raw_path") or b"") > MOST_PATH:
            return PlainTextResponse("what is asked is too long\n", 414)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD:
            return PlainTextResponse("what is said beside the question is too long\n", 431)
        if _is_of_another_page(Headers(scope=scope)):
            return PlainTextResponse("this page answers no other site's page\n", 403)
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") or (method == "POST" and path.startswith(ACTS)):
            return None
        return PlainTextResponse("this page is read, and nothing else\n", 405, {"allow": "GET, HEAD"})

    def _is_ours(self, host: str) -> bool:
        """Return whether a Host header has a name of ours, or an address, to which no name of a stranger can lead."""
        parts = HOST.fullmatch(host.lower())
        if parts is None:
            return False
        name = parts["address"] or parts["name"]
        return name.removesuffix(".") in self._hosts or _is_address(name)

    def _is_near(self, client: str) -> bool:
        return client == self._gateway or is_loopback(client)


def _is_of_another_page(headers: Headers) -> bool:
    """Return whether a browser says that a page of another site asks this, and that nobody goes here by it."""
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
    return site not in ("same-origin", "none") and mode != "navigate"


def _bounded(receive: Receive) -> Receive:
    """Return the same, which raises TooLongError for a body beyond MOST_BODY."""
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > MOST_BODY:
            raise TooLongError("what is sent is too long")
        return message

    return counted


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def gateway(table: Path = Path("/proc/net/route")) -> str | None:
    """Return the IPv4 address of the default gateway, as Linux's table of routes has it; None without one.

    In a container on a bridge that is the host: what the host's loopback interface passes in comes from there, and
    what is passed in from another machine keeps that machine's address.
    """
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        _, destination, via, flags, *_ = line.split()
        if destination == "00000000" and int(flags, 16) & 2:  # RTF_GATEWAY
            return str(ipaddress.ip_address(bytes.fromhex(via)[::-1]))
    return None
