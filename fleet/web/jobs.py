"""The page of a job, and the page of one of its rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from aggregator.database import StoreError
from broker.messages import Version
from fleet.local.toml import written
from fleet.sight.readings import AttemptPoint
from fleet.sight.view import JobView, RoundView, View
from fleet.web import curves
from fleet.web.listing import paged
from fleet.web.queries import LARGEST, JobQuery, RoundQuery
from fleet.web.shown import fate_of
from fleet.web.site import Asked, MissingError, Screen, Site, attempt

MOST_VERSIONS = 20
UNFOLDED = 5
"""Of these so many are seen at once."""
MOST_EVENTS = 12
NAMED = 5
"""So many devices that a round waits for are named."""


def _find(site: Site, asked: Asked[Any]) -> tuple[View, JobView]:
    view, name = site.view, asked.names["job"]
    if name not in view.jobs:
        raise MissingError("There is no job of that name: it was never submitted, or it has been deleted.")
    return view, view.jobs[name]


def job(site: Site, asked: Asked[JobQuery]) -> Screen:
    """Return the page of a job. Raises MissingError."""
    query, (view, one) = asked.query, _find(site, asked)
    points, trouble = attempt(lambda: site.curve(view, one.job), [])
    found = curves.curves_of(points)
    xs = found.numbers if query.x == "round" else found.at
    events, _ = attempt(lambda: site.readings.events(job=one.job, most=MOST_EVENTS), [])
    spec, _ = attempt(lambda: site.readings.spec(one.job), {})
    latest = points[-1] if points else None
    measures, stop = curves.measures_of(points), spec.get("rounds", {}).get("stop") or {}
    generations = {point.number: point.generation for point in points}
    return Screen(
        one.name,
        "job.html",
        ("banner", "job", "round", "versions", "events"),
        {
            "view": view,
            "now": site.clock(),
            "job": one,
            "query": query,
            "live": None if one.round is None else live(view, one, one.round),
            "waits": waits(view, one),
            "drawings": [(series, curves.drawn(xs, series.values)) for series in found.series],
            "numbers": found.numbers,
            "width": curves.WIDTH,
            "height": curves.HEIGHT,
            "called": lambda number: str(Version(generations.get(number, one.version.generation), number)),
            "points": points[: -MOST_VERSIONS - 1 : -1],
            "unfolded": UNFOLDED,
            "unfolded_curves": curves.unfolded(found.series, measures, stop.get("metric", "")),
            "measures": measures[:6],
            "n_points": len(points),
            "spread": None if latest is None else latest.federated,
            "serves": site.summary(view).serves.get(one.job, ()),
            "spec": written(spec) if spec else "",
            "events": events,
            "store_trouble": trouble,
            "empty": "Nothing has been written down about it.",
        },
    )


def live(view: View, job: JobView, now: RoundView) -> Sequence[tuple[str, str, int]]:
    """Return what the devices of an open round do: a class, a word and how many; they add up to all of them."""
    counted = now.counted
    refused = set(now.refused) - counted
    offered = now.offered - counted - refused
    others = now.drawn - counted - refused - offered
    training = {name for name in others if _trains(view, name, job.job)}
    return [
        ("counted", "counted", len(counted)),
        ("offered", "have offered, wait for their verdict", len(offered)),
        ("training", "training", len(training)),
        ("refused", "refused", len(refused)),
        ("rest", "nothing heard yet", len(others) - len(training)),
    ]


def _trains(view: View, name: str, job: str) -> bool:
    device = view.devices.get(name)
    return device is not None and device.doing == "training" and device.job == job


def waits(view: View, job: JobView) -> str:
    """Return what a job waits for, in a sentence; "" where it has ended."""
    if job.state in ("finished", "stopped"):
        return ""
    if job.state == "paused":
        return "An operator has paused it; it goes on when it is resumed."
    if job.round is None:
        return job.reason or f"No round is open; {job.ready} devices are there and can take part."
    now = job.round
    missing = sorted(now.drawn - now.counted - now.offered - set(now.refused))
    gone = [name for name in missing if name not in view.devices or view.devices[name].state != "online"]
    need = len(now.drawn) if now.target is None else now.target
    more = max(0, need - len(now.counted))
    if not more:
        return "It has all updates that it needs; the version is being made."
    named = ", ".join(missing[:NAMED]) + (" …" if len(missing) > NAMED else "")
    waiting = len(now.offered - now.counted - set(now.refused))
    text = f"It waits for {more} more update{'' if more == 1 else 's'}"
    text += f", of which {waiting} {'has' if waiting == 1 else 'have'} arrived" if waiting else ""
    text += (
        f"; nothing has come of {len(missing)} device{'' if len(missing) == 1 else 's'}: {named}." if missing else "."
    )
    return text + (f" {len(gone)} of these are not online." if gone else "")


def job_data(site: Site, asked: Asked[Any]) -> Any:
    """Return a job for scripts. Raises MissingError, StoreError."""
    view, one = _find(site, asked)
    return {
        "job": one,
        "waits_for": waits(view, one),
        "serves": site.summary(view).serves.get(one.job, ()),
        "spec": site.readings.spec(one.job),
    }


def curve_data(site: Site, asked: Asked[Any]) -> Any:
    """Return the curves of a job for scripts, thinned where it has thousands of versions. Raises as `job_data`."""
    view, one = _find(site, asked)
    return curves.curves_of(site.curve(view, one.job))


def _attempts(site: Site, asked: Asked[Any]) -> tuple[View, JobView, int, list[AttemptPoint]]:
    """Return the attempts to make a version, with one that goes on now. Raises MissingError, StoreError."""
    view, one = _find(site, asked)
    number = int(asked.names["number"])
    found = site.readings.round(one.job, number) if number <= LARGEST else []
    now = one.round
    if now is not None and now.base.number + 1 == number and all(a.attempt != now.attempt for a in found):
        found = [*found, _open(now)]
    if not found:
        raise MissingError(f"Nothing is known of a round that makes version {number}: it has not begun, or is too old.")
    return view, one, number, found


def _open(now: RoundView) -> AttemptPoint:
    fates = dict.fromkeys(sorted(now.drawn), "awaited: nothing has arrived yet")
    fates |= dict.fromkeys(now.offered, "awaited: its update waits for its verdict")
    fates |= {name: f"refused: {why}" for name, why in now.refused.items()}
    fates |= dict.fromkeys(now.counted, "counted")
    return AttemptPoint(
        *(now.attempt, now.base.number, "open"),
        opened=now.seen_at,
        target=now.target,
        fates=dict(sorted(fates.items())),
        generation=now.base.generation,
    )


def round_(site: Site, asked: Asked[RoundQuery]) -> Screen:
    """Return the page of a round. Raises MissingError."""
    query = asked.query
    try:
        view, one, number, found = _attempts(site, asked)
        trouble = ""
    except StoreError as error:
        (view, one), number, found, trouble = _find(site, asked), int(asked.names["number"]), [], str(error)
    shown = next((a for a in found if a.attempt == query.attempt), found[-1] if found else None)
    rows = [] if shown is None else [(name, *fate_of(told)) for name, told in shown.fates.items()]
    kinds = Counter((kind, sign) for _, kind, sign, _ in rows)
    wanted = query.q.casefold()
    rows = [
        row
        for row in rows
        if (not query.fate or row[1] == query.fate) and (not wanted or wanted in f"{row[0]} {row[3]}".casefold())
    ]
    return Screen(
        f"{one.name}, round {number}",
        "round.html",
        ("banner", "fates"),
        {
            "view": view,
            "now": site.clock(),
            "job": one,
            "number": number,
            "query": query,
            "attempts": found,
            "shown": shown,
            "kinds": kinds.most_common(),
            "page": paged(rows, query.page),
            "store_trouble": trouble,
        },
    )


def round_data(site: Site, asked: Asked[Any]) -> Any:
    """Return the attempts to make a version for scripts. Raises MissingError, StoreError."""
    _, one, number, found = _attempts(site, asked)
    return {"job": one.job, "number": number, "attempts": found}
