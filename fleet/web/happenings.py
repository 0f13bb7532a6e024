"""The page of what has happened, and the same as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.sight.view import Happened
from fleet.web.queries import EventsQuery
from fleet.web.site import Asked, Screen, Site, attempt

KINDS = ("job", "round", "version", "device", "words", "aggregator", "store")
"""What kinds of events begin with (aggregator/events.py)."""


def events(site: Site, asked: Asked[EventsQuery]) -> Screen:
    """Return the page of events."""
    query = asked.query
    found, trouble = attempt(lambda: events_data(site, asked), [])
    view = site.view
    return Screen(
        "Events",
        "events.html",
        ("banner", "events"),
        {
            "view": view,
            "now": site.clock(),
            "query": query,
            "kinds": KINDS,
            "events": found,
            "more": query.link(before=found[-1].n) if len(found) == query.most and query.since is None else "",
            "store_trouble": trouble,
            "empty": "Nothing of that kind has been written down.",
        },
    )


def events_data(site: Site, asked: Asked[EventsQuery]) -> list[Happened]:
    """Return events for scripts. Raises StoreError."""
    query = asked.query
    found: Sequence[Happened] = site.readings.events(
        since=query.since, before=query.before, kind=query.kind, job=query.job, device=query.device, most=query.most
    )
    return list(found)
