"""What an operator does at the page, by forms alone:

    POST /actions/jobs/JOB/pause  resume  stop  roll-back           stop and roll-back ask once more before
    POST /actions/devices/DEVICE/quarantine  release

A form has the session's token, and an id of its own by which it is done once (orders.py). Nothing is ever deleted here,
and no job handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from aggregator.looking_on import WebSettings, is_loopback
from fleet.web.login import Door, NotAllowedError, form_of, page, refusal, require
from fleet.web.orders import Order, Orders, Send, Told
from fleet.web.scrapers import Scrapers
from fleet.web.site import Site
from fleet.web.users import Users

FORM = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(r"best|([0-9]{1,10}\.)?[0-9]{1,9}")
MOST_WHY = 200
ASKED_ONCE_MORE = {
    "stop": "Stop {name} for good? Its versions stay; it is not resumed, only submitted anew.",
    "roll-back": "Roll {name} back to {word}? It becomes the next version, and every device is sent it.",
}
TITLES = {
    "pause": "Pause",
    "resume": "Resume",
    "stop": "Stop",
    "roll-back": "Roll back",
    "quarantine": "Quarantine",
    "release": "Release",
}
OF_JOBS = ("pause", "resume", "stop", "roll-back")
OF_DEVICES = ("quarantine", "release")


def routes(site: Site, send: Send) -> list[BaseRoute]:
    """Return where forms are sent."""
    orders = Orders(send)

    async def act(request: Request) -> Response:
        try:
            return await _act(site, orders, request)
        except NotAllowedError as error:
            return await refusal(site, request, error)

    return [
        Route("/actions/jobs/{job}/{kind}", act, methods=["POST"]),
        Route("/actions/devices/{device}/{kind}", act, methods=["POST"]),
    ]


def way_in(web: WebSettings, only_looks: str, send: Send) -> tuple[Callable[[Site], list[BaseRoute]], list[Middleware]]:
    """Return what lets the users of a page in, for `fleet.web.app.app`: `more` and `inside`.

    only_looks: why nobody can act, "" where operators can. send: sends what they ask for.
    """
    is_near = is_loopback(web.bind.rpartition(":")[0]) or web.in_container
    door = Door(Users(Path(web.users_file)), is_needed=not is_near)
    door.users.find("")  # so that a file that cannot be read is told of now

    def more(site: Site) -> list[BaseRoute]:
        site.only_looks = only_looks
        return [*door.routes(site), *routes(site, send)]

    return more, [Middleware(Scrapers, door=door), door.middleware()]


async def _act(site: Site, orders: Orders, request: Request) -> Response:
    user = require(request, "operator")
    fields = await form_of(request)
    names, view = request.path_params, site.view
    if site.only_looks:
        raise NotAllowedError(403, f"This page can only look: {site.only_looks}.")
    form, kind = fields.get("form", ""), names["kind"]
    if not FORM.fullmatch(form):
        raise NotAllowedError(400, "This is no form of ours.")
    if "job" in names:
        if kind not in OF_JOBS or names["job"] not in view.jobs:
            raise NotAllowedError(404, "There is no such job, or nothing of that kind is done to one.")
        job = names["job"]
        order = Order(kind, job, _version(fields) if kind == "roll-back" else "")
        shown = {"name": view.jobs[job].name, "back": f"/jobs/{job}"}
    else:
        if kind not in OF_DEVICES or names["device"] not in view.devices:
            raise NotAllowedError(404, "There is no such device, or nothing of that kind is done to one.")
        order = Order(kind, names["device"], _why(fields) if kind == "quarantine" else "")
        shown = {"name": order.target, "back": f"/devices/{order.target}"}
    if kind in ASKED_ONCE_MORE and fields.get("confirmed") != "yes":
        word = "its best version" if order.word == "best" else f"version {order.word}"
        question = ASKED_ONCE_MORE[kind].format(name=shown["name"], word=word)
        return await _page(site, request, order, {**shown, "question": question, "same_form": form, "told": None})
    told = await orders.give(order, form, user.name)
    return await _page(site, request, order, {**shown, "question": "", "told": told}, 200 if told.is_done else 409)


async def _page(site: Site, request: Request, order: Order, context: dict[str, Any], status: int = 200) -> Response:
    """Return the question whether it is meant, or what came of it."""
    told: Told | None = context["told"]
    title = TITLES[order.kind] + ("?" if told is None else ": done" if told.is_done else ": not done")
    return await page(site, request, title, "actions/done.html", {"order": order, **context}, status)


def _version(fields: dict[str, str]) -> str:
    version = fields.get("version", "").strip().lower()
    if not VERSION.fullmatch(version):
        raise NotAllowedError(400, 'A version is a number, or "best".')
    return version


def _why(fields: dict[str, str]) -> str:
    why = " ".join(fields.get("why", "").split())
    if len(why) > MOST_WHY or not why.isprintable():
        raise NotAllowedError(400, f"Say why in {MOST_WHY} characters or fewer.")
    return why
