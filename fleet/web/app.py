"""The page as a Starlette application: which address shows what, and what is said where something cannot be shown.

    /  /devices/ID  /jobs/ID  /jobs/ID/rounds/N  /events      pages; each under /live too, as a stream of its changes
    /api/…                                                    the same for scripts; events as JSON lines; who looks
    /jobs/ID/model.onnx                                       a version, written by a process of its own
    /static/…                                                 files of this package

Pages are made on threads of a small pool, since they read files; the loop does nothing but pass bytes on.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from aggregator.database import StoreError
from aggregator.looking_on import WebSettings
from fleet.web import devices, happenings, jobs
from fleet.web.export import Exporter, ExportFailedError
from fleet.web.guard import Guard, gateway
from fleet.web.queries import (
    EventsQuery,
    FleetQuery,
    JobQuery,
    ModelQuery,
    NoQuery,
    Query,
    QueryError,
    RoundQuery,
    parsed,
)
from fleet.web.site import FOLDER, Asked, MissingError, Screen, Sees, Site
from fleet.web.streams import Hub

log = logging.getLogger(__name__)

PIECE = 65_536
"""Bytes of a model that are read at a time."""
THREADS = 8
"""That make pages."""
Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Awaitable[Response]]


class Shown(NamedTuple):
    """What is shown at an address. look: as a page. data: for scripts, at `at`."""

    path: str
    query: type[Query]
    look: Callable[[Site, Asked[Any]], Screen] | None
    at: str
    data: Callable[[Site, Asked[Any]], Any] | None


TABLE: Sequence[Shown] = (
    Shown("/", FleetQuery, devices.fleet, "/api/devices", devices.devices_data),
    Shown("/devices/{device}", NoQuery, devices.device, "/api/devices/{device}", devices.device_data),
    Shown("/jobs/{job}", JobQuery, jobs.job, "/api/jobs/{job}", jobs.job_data),
    Shown(
        "/jobs/{job}/rounds/{number:int}",
        RoundQuery,
        jobs.round_,
        "/api/jobs/{job}/rounds/{number:int}",
        jobs.round_data,
    ),
    Shown("/events", EventsQuery, happenings.events, "/api/events", happenings.events_data),
    Shown("", NoQuery, None, "/api/fleet", devices.fleet_data),
    Shown("", NoQuery, None, "/api/jobs/{job}/curve", jobs.curve_data),
)


def app(
    lookout: Sees,
    settings: WebSettings,
    exporter: Exporter | None = None,
    more: Callable[[Site], Sequence[BaseRoute]] = lambda _site: (),
    inside: Sequence[Middleware] = (),
) -> Starlette:
    """Return the application. exporter: writes models, where that can be done. more: routes of others, as /metrics.

    inside: middleware behind the door: it sets `request.state.user` and `request.state.csrf`.
    """
    site = Site(lookout, settings)
    hub = Hub(site)
    limit = CapacityLimiter(THREADS)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.start()
        try:
            yield
        finally:
            await hub.stop()

    routes: list[BaseRoute] = []
    for shown in TABLE:
        if shown.look is not None:
            routes.append(Route(shown.path, _page(site, shown, limit), methods=["GET"]))
            routes.append(Route(f"/live{shown.path}", _Live(site, hub, shown), methods=["GET"]))
        if shown.data is not None:
            routes.append(Route(shown.at, _data(site, shown, limit), methods=["GET"]))
    routes += [
        Route("/api/looking", _looking(hub), methods=["GET"]),
        Route("/events.jsonl", _lines(site, limit), methods=["GET"]),
        *([] if exporter is None else [Route("/jobs/{job}/model.onnx", _model(site, exporter), methods=["GET"])]),
        Mount("/static", _Static(directory=FOLDER / "static")),
        *more(site),
    ]
    near = gateway() if settings.in_container else None
    guard = Middleware(Guard, hosts=settings.hosts, gateway=(near or "127.0.0.1") if settings.in_container else None)
    made = Starlette(routes=routes, middleware=[guard, *inside], exception_handlers=_handlers(site), lifespan=lifespan)
    made.state.hub, made.state.site = hub, site
    return made


def base_of(site: Site, request: Request) -> dict[str, Any]:
    """Return what every page shows beside its own."""
    query = request.url.query
    return {
        "path": request.url.path,
        "here": request.url.path + (f"?{query}" if query else ""),
        "user": getattr(request.state, "user", None),
        "csrf": getattr(request.state, "csrf", ""),
        "can_log_in": bool(site.settings.users_file),
        "form": secrets.token_hex(16),
        "only_looks": site.only_looks,
    }


def _page(site: Site, shown: Shown, limit: CapacityLimiter) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        def make() -> str:
            asked = Asked(_names(request), parsed(request.scope["query_string"], shown.query))
            assert shown.look is not None  # noqa: S101 -- else there is no such route
            screen = shown.look(site, asked)
            live = f"/live{request.url.path}{asked.query.link().removesuffix('?')}"
            return site.page(screen, {**base_of(site, request), "live_at": live})

        return HTMLResponse(await run_sync(make, limiter=limit), headers={"cache-control": "private, no-cache"})

    return endpoint


class _Live:
    """A stream of what changes on a page: an ASGI application, since it answers for as long as somebody looks."""

    def __init__(self, site: Site, hub: Hub, shown: Shown) -> None:
        self._site, self._hub, self._shown = site, hub, shown

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request, look = Request(scope), self._shown.look
        asked = Asked(_names(request), parsed(scope["query_string"], self._shown.query))
        assert look is not None  # noqa: S101 -- else there is no such route
        if scope["method"] == "HEAD":
            await PlainTextResponse("", media_type="text/event-stream")(scope, receive, send)
            return
        key, user = (request.url.path, asked.query), getattr(request.state, "user", None)
        name = "" if user is None else user.name
        await self._hub.stream(key, lambda: look(self._site, asked), scope, receive, send, user=name)


def _names(request: Request) -> dict[str, str]:
    return {name: str(value) for name, value in request.path_params.items()}


def _data(site: Site, shown: Shown, limit: CapacityLimiter) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        def make() -> bytes:
            assert shown.data is not None  # noqa: S101 -- else there is no such route
            asked = Asked(_names(request), parsed(request.scope["query_string"], shown.query))
            return msgspec.json.encode(shown.data(site, asked))

        return _json(await run_sync(make, limiter=limit))

    return endpoint


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})


def _looking(hub: Hub) -> Endpoint:
    """Return what says how many look on: the demo stays for them."""

    async def endpoint(_request: Request) -> Response:
        return _json(msgspec.json.encode({"streams": hub.n_streams}))

    return endpoint


def _lines(site: Site, limit: CapacityLimiter) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        def make() -> bytes:
            asked = Asked(_names(request), parsed(request.scope["query_string"], EventsQuery))
            return msgspec.json.Encoder().encode_lines(happenings.events_data(site, asked))

        body = await run_sync(make, limiter=limit)
        return Response(body, media_type="application/jsonl", headers={"cache-control": "no-store"})

    return endpoint


def _model(site: Site, exporter: Exporter) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        job, view = request.path_params["job"], site.view
        query = parsed(request.scope["query_string"], ModelQuery)
        if job not in view.jobs:
            raise MissingError("There is no job of that name.")
        if request.method == "HEAD":
            return Response(media_type="application/octet-stream")
        file = await exporter.export(job, query.version)
        name = "".join(c for c in job if c.isascii() and (c.isalnum() or c in "-_"))
        named = {"content-disposition": f'attachment; filename="{name}.onnx"', "cache-control": "no-store"}
        return StreamingResponse(_pieces(file), media_type="application/octet-stream", headers=named)

    return endpoint


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from iter(partial(file.read, PIECE), b"")


class _Static(StaticFiles):
    """Files of this package, kept for an hour; their links have the program's version in them."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        """Return a file."""
        response = super().file_response(*arguments, **more)
        response.headers["cache-control"] = "public, max-age=3600"
        return response


def _handlers(site: Site) -> dict[Any, Handler]:
    """Return what is said where something cannot be shown, by the error that it was."""

    def said(status: int, title: str, text: Callable[[Exception], str]) -> Handler:
        async def handler(request: Request, error: Exception) -> Response:
            if request.url.path.startswith(("/api/", "/live/", "/events.jsonl")):
                return _json(msgspec.json.encode({"error": text(error)}), status)
            screen = Screen(
                title, "error.html", ("banner",), {"view": site.view, "now": site.clock(), "text": text(error)}
            )
            return HTMLResponse(site.page(screen, {**base_of(site, request), "live_at": ""}), status)

        return handler

    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 -- its row says so
        if error.status_code == 404:
            return await said(404, "Not found", lambda _: "There is no such page.")(request, error)
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)

    return {
        MissingError: said(404, "Not found", str),
        QueryError: said(400, "Not understood", str),
        StoreError: said(503, "The store cannot be read", str),
        ExportFailedError: said(503, "No model", str),
        HTTPException: other,
        Exception: said(500, "A fault of ours", lambda _: "This cannot be shown; the log of the aggregator says why."),
    }
