"""Logging in at the page, and who is asking: `request.state.user`.

    cookie ──▶ session ──▶ the user as users.toml has it now ──▶ request.state.user, request.state.csrf
    POST ──▶ from this very site? (Origin, Sec-Fetch-Site) ──▶ the session's CSRF token in the form? ──▶ done

1. Who is unknown and who has a wrong password hears the same words after the same work.
2. One password is tried at a time, on a thread, and few wait for that: a flood of logins takes neither the pages' time
   nor memory.
3. A live stream ends soon after the session by which it was asked for.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.web.app import base_of
from fleet.web.sessions import Session, Sessions
from fleet.web.site import Screen, Site
from fleet.web.tries import Tries
from fleet.web.users import Entry, User, Users, WebRole
from identity.passwords import PasswordError, hashed, matches

log = logging.getLogger(__name__)

MOST_WAITING = 8
"""Logins that wait for the one that is looked at."""
OPEN = ("/login", "/static/")
"""What everybody may ask for."""
FOR_SCRIPTS = ("/api/", "/live/", "/events.jsonl", "/metrics")
SCRAPER = "fedge.scraper"
"""In a scope: the user by whose credentials /metrics is asked for (scrapers.py)."""
LOOK_S = 30.0
"""How often a stream is asked whether its session still holds."""
WRONG = "That is no name and password of a user here."


class NotAllowedError(Exception):
    """Somebody asks for what they may not. status: as HTTP has it; the message is for them. after_s: when to ask again,
    in seconds, where that is of use.
    """

    def __init__(self, status: int, why: str, after_s: int = 5) -> None:
        super().__init__(why)
        self.status, self.after_s = status, after_s


def require(request: Request, role: WebRole) -> User:
    """Return who asks. Raises NotAllowedError where it is nobody, or somebody without this role."""
    user: User | None = getattr(request.state, "user", None)
    if user is None:
        raise NotAllowedError(401, "This takes a login.")
    if not user.may(role):
        raise NotAllowedError(403, f"This takes the role {role}; {user.name} has the role {user.role}.")
    return user


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form that this very site has sent, with its session's token where there is a session.

    Raises NotAllowedError for any other.
    """
    if why := not_from_here(request):
        raise NotAllowedError(403, why)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise NotAllowedError(415, "This is no form of ours.")
    try:
        body = await request.body()
    except ClientDisconnect as error:  # nobody hears it
        raise NotAllowedError(400, "The form did not come to its end.") from error
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=16, errors="strict")
    except ValueError as error:
        raise NotAllowedError(400, "This is no form of ours.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NotAllowedError(400, "This is no form of ours.")
    session: Session | None = getattr(request.state, "session", None)
    if session is not None and not hmac.compare_digest(fields.get("csrf", "").encode(), session.csrf.encode()):
        raise NotAllowedError(403, "This form is of another session: go back, load the page anew and try again.")
    return fields


def not_from_here(request: Request) -> str:
    """Return why a request that changes something is not taken for one of this site's own pages; "" where it is."""
    foreign = "This was sent by a page of another site, or without saying by which: nothing was done."
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None and site != "same-origin":
        return foreign
    if origin is None or origin == "null":  # a page without a referrer says null, to its own site too
        return "" if site == "same-origin" else foreign
    try:
        said = urlsplit(origin)
    except ValueError:
        return foreign
    is_secure = request.scope["scheme"] == "https"
    here = said.netloc.lower() == request.headers.get("host", "").lower()
    return "" if here and said.scheme in (("https",) if is_secure else ("http", "https")) else foreign


class Door:
    """Who may come in. is_needed: whether looking takes a login, too."""

    def __init__(
        self, users: Users, *, is_needed: bool, sessions: Sessions | None = None, tries: Tries | None = None
    ) -> None:
        self.users = users
        self.is_needed = is_needed
        self.sessions = Sessions() if sessions is None else sessions
        self.tries = Tries() if tries is None else tries
        self._nobody = hashed(secrets.token_urlsafe(24))
        self._one_at_a_time = CapacityLimiter(1)
        self._waiting = 0

    def middleware(self) -> Middleware:
        """Return what says of each request who asks."""
        return Middleware(_Known, door=self)

    def routes(self, site: Site) -> Sequence[BaseRoute]:
        """Return /login and /logout."""
        return (
            Route("/login", self._endpoint(site, self._show), methods=["GET"]),
            Route("/login", self._endpoint(site, self._log_in), methods=["POST"]),
            Route("/logout", self._endpoint(site, self._log_out), methods=["POST"]),
        )

    def who(self, session: Session) -> User | None:
        """Return the user of a session; None where there is none any more, or the password is another."""
        entry = self.users.find(session.name)
        if entry is None or entry.password != session.kept:
            self.sessions.close(session)
            return None
        return User(session.name, entry.role)

    async def try_(self, address: str, name: str, password: str) -> tuple[str, Session] | None:
        """Return a new session and its token, or None for a wrong name or password. Raises as `verified` does."""
        entry = await self.verified(address, name, password)
        return None if entry is None else self.sessions.open(name, entry.password)

    def refuse_to_wait(self, address: str, name: str) -> None:
        """Raise NotAllowedError where there were too many wrong passwords, there or of that name."""
        if (wait_s := self.tries.wait_s(address, name)) > 0:
            after_s = math.ceil(wait_s)
            told = f"{after_s} second{'' if after_s == 1 else 's'}"
            raise NotAllowedError(429, f"There were too many wrong passwords: try again in {told}.", after_s)

    async def verified(self, address: str, name: str, password: str) -> Entry | None:
        """Return what the file has of a user, or None for a wrong name or password.

        Raises NotAllowedError where there were too many tries, there, of that name or altogether.
        """
        self.refuse_to_wait(address, name)
        if self._waiting >= MOST_WAITING:
            raise NotAllowedError(503, "Many people log in just now: try again in a moment.")
        self.tries.begin(address, name)
        entry = self.users.find(name)
        kept = self._nobody if entry is None else entry.password
        self._waiting += 1
        try:
            is_right = await run_sync(_tried, kept, password, limiter=self._one_at_a_time)
        finally:
            self._waiting -= 1
        if entry is None or not is_right:
            # never what was typed: people type passwords where a name goes
            log.warning("login=refused address=%s user=%s", address, "unknown" if entry is None else name)
            return None
        self.tries.succeed(address, name)
        log.info("login=done address=%s user=%s role=%s", address, name, entry.role)
        return entry

    # Pages.

    async def _show(self, site: Site, request: Request) -> Response:
        return await self._form(site, request, _own_path(request.query_params.get("next", "")))

    async def _log_in(self, site: Site, request: Request) -> Response:
        before: Session | None = getattr(request.state, "session", None)
        request.state.session = None  # who logs in has a form without a token: where it came from has to do
        fields = await form_of(request)
        to = _own_path(fields.get("next", ""))
        address = request.client.host if request.client else ""
        try:
            found = await self.try_(address, fields.get("name", ""), fields.get("password", ""))
        except NotAllowedError as error:
            if error.status == 503:  # a flood: the least that can be said
                return PlainTextResponse(f"{error}\n", 503, {"retry-after": "5", "cache-control": "no-store"})
            return await self._form(site, request, to, str(error), error.status)
        if found is None:
            return await self._form(site, request, to, WRONG, 401)
        if before is not None:
            self.sessions.close(before)
        response = RedirectResponse(to, 303)
        _set_cookie(response, request, found[0])
        return response

    async def _log_out(self, site: Site, request: Request) -> Response:  # noqa: ARG002 -- an endpoint as the others
        await form_of(request)
        session: Session | None = getattr(request.state, "session", None)
        if session is not None:
            self.sessions.close(session)
            log.info("logout user=%s", session.name)
        response = RedirectResponse("/", 303)
        _set_cookie(response, request, "")
        return response

    async def _form(self, site: Site, request: Request, to: str, told: str = "", status: int = 200) -> Response:
        self.users.find("")  # so that `trouble` is of now
        context = {"told": told, "to": to, "is_needed": self.is_needed, "trouble": self.users.trouble}
        return await page(site, request, "Log in", "login.html", context, status)

    @staticmethod
    def _endpoint(site: Site, answer: Callable[[Site, Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                response: Response = await answer(site, request)
            except NotAllowedError as error:
                return await refusal(site, request, error)
            return response

        return endpoint


async def page(
    site: Site, request: Request, title: str, template: str, context: dict[str, Any], status: int = 200
) -> Response:
    """Return a page that is of one user, and of now."""
    screen = Screen(title, template, ("banner",), {"view": site.view, "now": site.clock(), **context})
    more = {**base_of(site, request), "live_at": ""}
    text = await run_sync(site.page, screen, more, limiter=site.forms)
    return HTMLResponse(text, status, headers={"cache-control": "no-store"})


async def refusal(site: Site, request: Request, error: NotAllowedError) -> Response:
    """Return a page that says why something was not done."""
    return await page(site, request, "Not done", "error.html", {"text": str(error)}, error.status)


class _Known:
    """Says of each request who asks, and turns away whoever has to log in first."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = _token(scope)
        session = self._door.sessions.find(token) if token else None
        user = None if session is None else self._door.who(session)
        if user is None:
            session, user = None, scope.get(SCRAPER)
        said = {"user": user, "session": session, "csrf": session.csrf if session is not None else ""}
        scope["state"] = {**scope.get("state", {}), **said}
        path: str = scope["path"]
        if self._door.is_needed and user is None and not path.startswith(OPEN):
            await _turned_away(scope)(scope, receive, send)
        elif session is not None and path.startswith("/live/"):
            await self._stream(session, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _stream(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a stream as long as the session holds, by which it was asked for."""
        serving = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            while not (await asyncio.wait({serving}, timeout=LOOK_S))[0]:
                if not self._door.sessions.is_open(session) or self._door.who(session) is None:
                    scope.get("fedge.cut", lambda: None)()
                    break
        finally:
            if not serving.done():
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
        if not serving.cancelled():
            serving.result()


def to_scripts(error: str, status: int) -> Response:
    """Return in JSON why nothing is shown."""
    body = msgspec.json.encode({"error": error})
    return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})


def _turned_away(scope: Scope) -> Response:
    path, query = scope["path"], scope["query_string"].decode("latin-1")
    if path.startswith(FOR_SCRIPTS):
        response = to_scripts("this takes a login", 401)
        if path == "/metrics":
            response.headers["www-authenticate"] = 'Basic realm="fedge", charset="UTF-8"'
        return response
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("this takes a login\n", 401)
    here = _own_path(path + (f"?{query}" if query else ""))
    return RedirectResponse("/login" + (f"?{urlencode({'next': here})}" if here != "/" else ""), 303)


def _own_path(text: str) -> str:
    """Return where somebody goes after a login: a path of this site, and "/" where it is anything else."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\", "/login", "/logout", "/actions/"))
    return text if is_ours and text.isascii() and text.isprintable() and len(text) <= 1000 else "/"


def _tried(kept: str, password: str) -> bool:
    try:
        return matches(kept, password)
    except PasswordError:
        return False


# The cookie.


def _cookie_name(scope: Scope) -> str:
    """Return what the cookie is called: under TLS so that no other host can set it; else by its port, since browsers
    give the cookies of one address to all of its ports.
    """
    if scope["scheme"] == "https":
        return "__Host-fedge"
    server = scope.get("server") or ("", 0)
    return f"fedge-{server[1] or 0}"


def _token(scope: Scope) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        for header in Headers(scope=scope).getlist("cookie"):
            jar.load(header)
    except CookieError:
        return ""
    found = jar.get(_cookie_name(scope))
    return "" if found is None else found.value[:200]


def _set_cookie(response: Response, request: Request, token: str) -> None:
    response.set_cookie(
        _cookie_name(request.scope),
        token,
        max_age=None if token else 0,
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )
    response.headers["cache-control"] = "no-store"
