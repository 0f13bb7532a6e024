"""How a job has gone, for whoever asks: a line a version, or a line for each device that was drawn to leave one.

A page has lines up to so many bytes of JSON, and one at least. What says where it goes on is the number of the last
version on it; with devices "NUMBER:DEVICE". Who asks on with anything else gets the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from aggregator.contributions import Contribution, Point
from aggregator.run import Run
from aggregator.store import Store
from models.measures.table import is_detail

AT_ONCE = 64
"""Versions that are read in one go."""
Page = tuple[list[dict[str, Any]], str]


def versions(run: Run, store: Store, after: str, page_bytes: int) -> Page:
    """Return a line for each version behind one, and where to go on. Raises StoreError."""
    lines = ((str(point.version.number), _told(point, page_bytes // 2)) for point in _points(run, store, after))
    return _page(lines, page_bytes)


def _points(run: Run, store: Store, after: str) -> Iterator[Point]:
    at = _number(after, -1)
    while points := store.curve(run.job, after=at, most=AT_ONCE):
        yield from points
        at = points[-1].version.number


def _told(point: Point, most_bytes: int) -> dict[str, Any]:
    """Return a version as plain values: without the confusion matrix and, where they are too long, single classes."""
    known = {name: value for name, value in point.metrics.items() if not is_detail(name)}
    if len(msgspec.json.encode(known)) > most_bytes:
        known = {name: value for name, value in known.items() if ":" not in name}
    told: dict[str, Any] = {"version": str(point.version), "at": point.at, "metrics": known}
    return told | ({"federated": point.federated} if point.federated else {})


def devices(run: Run, store: Store, after: str, page_bytes: int) -> Page:
    """Return a line for each device and version that it was drawn to leave, and where to go on. Raises StoreError."""
    number, _, device = after.partition(":")
    return _page(_device_lines(run, store, _number(number, 0), device), page_bytes)


def _device_lines(run: Run, store: Store, first: int, behind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number in range(first, run.version.number + 1):
        brought = {one.device: one for one in store.contributions(run.job, number)}
        fates = _fates(run, store, number)
        for device in sorted(brought.keys() | fates.keys()):
            if number > first or device > behind:
                yield f"{number}:{device}", _of_device(run, number, device, brought.get(device), fates.get(device))


def _fates(run: Run, store: Store, number: int) -> dict[str, str]:
    """Return what became of each device in the last round that tried to leave a version."""
    attempt = run.coordinator.attempt
    if attempt is not None and attempt.base.number == number:
        return run.fates()
    last = store.last_round(run.job, number)
    return {} if last is None else last.fates


def _of_device(run: Run, number: int, device: str, brought: Contribution | None, fate: str | None) -> dict[str, Any]:
    line: dict[str, Any] = {"version": number, "device": device}
    if fate is not None:
        line["fate"] = fate
    if brought is not None:
        said = {name: getattr(brought, name) for name in Contribution.__struct_fields__ if name != "evaluation"}
        line |= {name: value for name, value in said.items() if value is not None}
        line |= {"scores": scores} if (scores := run.poll.scores_of(brought)) else {}
    return line


def _page(lines: Iterable[tuple[str, dict[str, Any]]], page_bytes: int) -> Page:
    page: list[dict[str, Any]] = []
    left, last = page_bytes, ""
    for key, line in lines:
        left -= len(msgspec.json.encode(line)) + 1
        if left < 0 and page:
            return page, last
        page.append(line)
        last = key
    return page, ""


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise
