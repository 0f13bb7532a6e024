"""The fleet's page, a row a device, and the page of one device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.sight.readings import FatePoint
from fleet.sight.view import DeviceView, JobView, View
from fleet.web import curves
from fleet.web.listing import seen
from fleet.web.queries import FleetQuery, NoQuery
from fleet.web.shown import fate_of
from fleet.web.site import Asked, MissingError, Screen, Site, attempt

COLUMNS: Sequence[tuple[str, str]] = (
    ("name", "Device"),
    ("state", "State"),
    ("seen", "Last seen"),
    ("version", "Serves"),
    ("heat", "Heat"),
    ("disk", "Disk free"),
    ("bytes", "Bytes today"),
)
"""What rows can be sorted by, and its title."""
MOST_EVENTS = 20
MOST_FATES = 100
UNFOLDED = 10
"""Of these so many are seen at once."""
FULL_BYTES = 500_000_000
"""Less disk than this is marked."""
HOT = 80.0
"""Degrees Celsius from which heat is marked: a Raspberry Pi begins to slow down there."""


def fleet(site: Site, asked: Asked[FleetQuery]) -> Screen:
    """Return the fleet's page."""
    query, view = asked.query, site.view
    return Screen(
        "Fleet",
        "fleet.html",
        ("banner", "overview", "devices"),
        {
            "view": view,
            "now": site.clock(),
            "query": query,
            "summary": site.summary(view),
            "page": site.listing.find(view, query),
            "columns": COLUMNS,
            "seen": seen,
            "jobs_of": lambda device: jobs_of(view, device),
            "round_of": round_of,
            "hot": HOT,
            "full": FULL_BYTES,
        },
    )


def jobs_of(view: View, device: DeviceView) -> list[tuple[str, str]]:
    """Return ids and names of the jobs that a device takes part in or serves, in the order of their names."""
    return sorted(
        ((job, view.jobs[job].name) for job in {*device.parts, *device.serves} if job in view.jobs),
        key=lambda pair: pair[1],
    )


def round_of(job: JobView) -> Mapping[str, int] | None:
    """Return how many devices of a job's open round are drawn, have offered and were counted; None without one."""
    if job.round is None:
        return None
    return {
        "drawn": len(job.round.drawn),
        "offered": len(job.round.offered),
        "counted": len(job.round.counted),
        "refused": len(job.round.refused),
    }


def fleet_data(site: Site, _asked: Asked[NoQuery]) -> Any:
    """Return a fleet in a few numbers, with its jobs, for scripts."""
    view = site.view
    summary = site.summary(view)
    return {
        "fleet": view.fleet,
        "at": view.at,
        "connected": view.connected,
        "trouble": view.trouble,
        "aggregator": view.aggregator,
        "devices": {"all": len(view.devices), "alarms": summary.alarms, **summary.states},
        "jobs": [job_line(job) for job in view.jobs.values()],
    }


def job_line(job: JobView) -> Mapping[str, Any]:
    """Return a job for scripts, its round in numbers."""
    return {
        "job": job.job,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "version": job.version,
        "best": job.best,
        "at": job.at,
        "metrics": job.metrics,
        "ready": job.ready,
        "round": None if job.round is None else {**(round_of(job) or {}), "ends_at": job.round.ends_at},
    }


def devices_data(site: Site, asked: Asked[FleetQuery]) -> Any:
    """Return a page of devices for scripts."""
    page = site.listing.find(site.view, asked.query)
    return {"n": page.n, "page": page.number, "pages": page.n_pages, "devices": page.rows}


def _find(site: Site, asked: Asked[NoQuery]) -> tuple[View, DeviceView]:
    view, name = site.view, asked.names["device"]
    if name not in view.devices:
        raise MissingError("There is no device of that name: it has never been heard of, or it was cleared away.")
    return view, view.devices[name]


def device(site: Site, asked: Asked[NoQuery]) -> Screen:
    """Return the page of a device. Raises MissingError."""
    view, one = _find(site, asked)
    history, trouble = attempt(lambda: site.readings.history(one.device, MOST_FATES), [])
    events, _ = attempt(lambda: site.readings.events(device=one.device, most=MOST_EVENTS), [])
    return Screen(
        one.device,
        "device.html",
        ("banner", "device", "rounds", "events"),
        {
            "view": view,
            "now": site.clock(),
            "device": one,
            "seen": seen(one),
            "jobs": view.jobs,
            "history": history,
            "unfolded": UNFOLDED,
            "tally": tally(history),
            "times": times(history),
            "width": curves.WIDTH,
            "height": curves.HEIGHT,
            "events": events,
            "store_trouble": trouble,
            "hot": HOT,
            "full": FULL_BYTES,
            "empty": "Nothing has been written down about it.",
        },
    )


def device_data(site: Site, asked: Asked[NoQuery]) -> Any:
    """Return a device for scripts, with its past. Raises MissingError, StoreError."""
    _, one = _find(site, asked)
    return {"device": one, "history": site.readings.history(one.device, MOST_FATES)}


def tally(history: Sequence[FatePoint]) -> Sequence[tuple[str, str, int]]:
    """Return how often a device met each kind of fate: its sign, its kind, how often; the most frequent first."""
    kinds = Counter(fate_of(point.fate)[:2] for point in history)
    return [(sign, kind, n) for (kind, sign), n in kinds.most_common()]


def times(history: Sequence[FatePoint]) -> curves.Drawing | None:
    """Return how long a device took in its rounds, as a drawing from the earliest to the latest."""
    known = [point.seconds for point in reversed(history) if point.seconds is not None]
    return curves.drawn(range(len(known)), known) if len(known) > 1 else None
