"""What all pages of a fleet stand on: who looks on, the templates, and what is worked out once for everybody.

    Lookout ──View──▶ Site ──▶ Screen (a page: its parts and what they show) ──▶ HTML of a page, or of one part
                                                                              └─▶ JSON for scripts

A screen is made of a view and of short reads of the store, on a thread that is not the server's. Nothing here writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from anyio import CapacityLimiter
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from aggregator.database import StoreError
from aggregator.looking_on import WebSettings
from fleet.sight.readings import Readings, VersionPoint
from fleet.sight.view import Happened, View
from fleet.web import shown
from fleet.web.listing import Listing, Summary, summed_up
from fleet.web.queries import Query
from runtime.software import VERSION

FOLDER = Path(__file__).parent
CURVE_FOR_S = 5.0
"""How long what was read of a curve is shown again, unless a version was made."""
MOST_CURVES = 16
Of = TypeVar("Of", bound=Query)


class Sees(Protocol):
    """Somebody who looks on: fleet.sight.lookout.Lookout, or a made-up one."""

    @property
    def view(self) -> View:
        """The latest view."""

    @property
    def readings(self) -> Readings | None:
        """What reads the store; None where there is none to read."""

    def subscribe(self, callback: Callable[[View, Sequence[Happened]], None], /) -> object:
        """Have this called, on a thread of the caller's own, with each new view and what has happened."""


class MissingError(LookupError):
    """There is no such device, job or round; the message says so."""


class Screen(NamedTuple):
    """A page. template: of its frame; parts: names of templates below parts/, each a live piece with its name as id."""

    title: str
    template: str
    parts: Sequence[str]
    context: Mapping[str, Any]


class Asked(NamedTuple, Generic[Of]):
    """What a request asks for. names: what stands in its path."""

    names: Mapping[str, str]
    query: Of


class Site:
    """What pages share. clock: seconds since 1970."""

    def __init__(self, lookout: Sees, settings: WebSettings, clock: Callable[[], float] = time.time) -> None:
        self.lookout = lookout
        self.settings = settings
        self.clock = clock
        self.forms = CapacityLimiter(2)
        """Of threads that answer forms: a flood of logins leaves those that make pages alone."""
        self.only_looks = "nobody can log in here: [web] names no users_file"
        """Why this page cannot act, whoever asks; "" where it can."""
        self.listing = Listing()
        self.software = VERSION
        self._summary: tuple[View, Summary] | None = None
        self._curves: dict[str, tuple[object, float, list[VersionPoint]]] = {}
        self._lock = threading.Lock()
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(shown.FILTERS)

    @property
    def view(self) -> View:
        """The fleet as it is seen now."""
        return self.lookout.view

    @property
    def readings(self) -> Readings:
        """What reads the store. Its calls raise StoreError, and so does this where there is no store to read."""
        if (readings := self.lookout.readings) is None:
            raise StoreError("there is no store here to read")
        return readings

    def summary(self, view: View) -> Summary:
        """Return a view in a few numbers, which are worked out once."""
        known = self._summary
        if known is not None and known[0] is view:
            return known[1]
        summary = summed_up(view)
        self._summary = (view, summary)
        return summary

    def curve(self, view: View, job: str) -> list[VersionPoint]:
        """Return the versions of a job, read again where one was made, or a while has passed. Raises StoreError."""
        now, made = time.monotonic(), view.jobs[job].version if job in view.jobs else None
        with self._lock:
            known = self._curves.get(job)
            if known is not None and known[0] == made and now - known[1] < CURVE_FOR_S:
                return known[2]
        points = self.readings.curve(job)
        with self._lock:
            if len(self._curves) >= MOST_CURVES:
                self._curves.pop(next(iter(self._curves)))
            self._curves[job] = (made, now, points)
        return points

    def page(self, screen: Screen, more: Mapping[str, Any]) -> str:
        """Return a page as HTML."""
        return self._templates.get_template(screen.template).render(
            title=screen.title, software=self.software, **screen.context, **more
        )

    def part(self, screen: Screen, name: str) -> str:
        """Return one live piece of a page as HTML."""
        return self._templates.get_template(f"parts/{name}.html").render(**screen.context)


def attempt(read: Callable[[], Any], otherwise: Any) -> tuple[Any, str]:
    """Return what was read and "", or something else and why the store could not be read."""
    try:
        return read(), ""
    except StoreError as error:
        return otherwise, str(error)
