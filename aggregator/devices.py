"""What operators ask of devices, and the answers: which there are, what became of one, what has happened, quarantine.

`commands.py` hands these on. What devices have said is shown as it was said, and cleaned where it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from aggregator import events, quarantine
from aggregator.askers import asker
from aggregator.pages import PAGE_BYTES, page
from aggregator.roster import Known
from broker.messages import Devices, Events, History, Quarantine, Release
from runtime.words import clean

if TYPE_CHECKING:
    from aggregator.service import Aggregator

Page = tuple[str, dict[str, Any], str]
"""Of an answer: its text, what is on this page, and where the next one begins."""
MOST_JOBS, MOST_LABELS, MOST_WORDS = 32, 32, 200
"""Of one device a line names so many jobs and labels, and so much of what it says of each: it has to fit a page."""
EVENTS_A_PAGE = 200
MOST_ROUNDS = 1000
"""Rounds of one device that are told of, in all pages."""

Question = Devices | History | Events


def answer(aggregator: Aggregator, command: Question) -> Page:
    """Return the page of an answer that is asked for. Raises StoreError, or ValueError for what is no page."""
    match command:
        case Devices(after=after):
            lines, more = page(_lines(aggregator, after), after, lambda line: str(line["device"]))
            return f"{len(lines)} devices", {"devices": lines}, more
        case History():
            return _history(aggregator, command)
        case Events():
            return _events(aggregator, command)


# Which devices there are.


def _lines(aggregator: Aggregator, after: str) -> Iterator[dict[str, Any]]:
    roster, now = aggregator.roster, aggregator.clock()
    names = {run.job: run.spec.name for run in aggregator.runs.values()}
    for device in sorted(name for name in roster.devices.keys() | roster.quarantined.keys() if name > after):
        why = roster.quarantined.get(device, "")
        known = roster.devices.get(device)
        line = {"device": device, "state": "unknown"} if known is None else _line(device, known, names, now)
        yield (line | {"state": "quarantined", "quarantine": why[:500]}) if why else line


def _line(device: str, known: Known, names: dict[str, str], now: float) -> dict[str, Any]:
    said = known.presence
    line: dict[str, Any] = {
        "device": device,
        "state": "offline" if not said.online else "online" if known.live else "silent",
        "software": said.software[:MOST_WORDS],
        "labels": dict(islice(sorted(said.labels.items()), MOST_LABELS)),
    }
    if known.gone_at is not None:
        line["since_s"] = max(0.0, now - known.gone_at)
    if math.isfinite(known.heard_at):
        line["heard_s"] = max(0.0, now - known.heard_at)
    jobs = {
        name: {"why": said.unready[job][:MOST_WORDS]} if job in said.unready else {"examples": said.ready[job]}
        for job, name in islice(names.items(), MOST_JOBS)
        if job in said.unready or job in said.ready
    }
    trouble = {name: said.trouble[job][:MOST_WORDS] for job, name in names.items() if job in said.trouble}
    beside = {"jobs": jobs, "trouble": dict(islice(trouble.items(), MOST_JOBS)), "alarm": known.alarm[:500]}
    return line | {name: value for name, value in beside.items() if value}


# What became of one.


def _history(aggregator: Aggregator, command: History) -> Page:
    begins = int(command.after) if command.after.isascii() and command.after.isdigit() else 0
    found = aggregator.store.past_of(command.device, MOST_ROUNDS)
    lines: list[dict[str, Any]] = []
    left = PAGE_BYTES
    for one in found[begins:]:
        line = {name: value for name, value in msgspec.to_builtins(one).items() if value is not None}
        line |= {"name": _name_of(aggregator, one.job), "fate": one.fate[:500]}
        left -= len(msgspec.json.encode(line)) + 1
        if left < 0 and lines:
            return f"{len(found)} rounds", {"rounds": lines}, str(begins + len(lines))
        lines.append(line)
    return f"{len(found)} rounds", {"rounds": lines}, ""


def _name_of(aggregator: Aggregator, job: str) -> str:
    run = aggregator.runs.get(job)
    return run.spec.name if run is not None else job.rpartition("-")[0]


# What has happened.


def _events(aggregator: Aggregator, command: Events) -> Page:
    """Return a page of events: without `since` from the latest one back, with it from there on."""
    at = int(command.after) if command.after.isascii() and command.after.isdigit() else None
    since = command.since if at is None or command.since is None else at
    before = at if command.since is None else None
    limits = {"kind": command.kind, "job": command.job, "device": command.device}
    found = aggregator.store.happened(since=since, before=before, most=EVENTS_A_PAGE + 1, **limits)
    lines: list[dict[str, Any]] = []
    left = PAGE_BYTES
    for event in found[:EVENTS_A_PAGE]:
        line = _event(event)
        left -= len(msgspec.json.encode(line)) + 1
        if left < 0 and lines:
            break
        lines.append(line)
    more = str(lines[-1]["n"]) if lines and len(lines) < len(found) else ""
    return f"{len(lines)} events", {"events": lines}, more


def _event(event: events.Event) -> dict[str, Any]:
    line = {"n": event.n, "at": event.seconds, "kind": event.kind, "text": event.text}
    return line | {name: value for name, value in (("job", event.job), ("device", event.device)) if value}


# Quarantine.


def put(aggregator: Aggregator, command: Quarantine) -> str:
    """Put a device in quarantine, durably; return that in words. Raises ValueError or StoreError."""
    roster, device, why = aggregator.roster, command.device, clean(command.why) or quarantine.UNSAID
    if device not in roster.quarantined and len(roster.quarantined) >= quarantine.MOST:
        raise ValueError(
            f"{quarantine.MOST:,} devices are in quarantine: release some, or revoke them (fedge ca revoke)"
        )
    if roster.quarantined.get(device) != why:
        aggregator.store.quarantine(device, why, asker(command.client))
        roster.quarantined[device] = why
        aggregator.jobs.tell_of(device)
    unknown = "" if device in roster.devices else "; nothing has been heard of such a device yet"
    return f"{device} is in quarantine: {why}"[: 500 - len(unknown)] + unknown


def release(aggregator: Aggregator, command: Release) -> str:
    """Take a device out of quarantine, durably; return that in words. Raises ValueError or StoreError."""
    roster, device = aggregator.roster, command.device
    if device not in roster.quarantined:
        raise ValueError(f"{device} is not in quarantine")
    aggregator.store.quarantine(device, "", asker(command.client))
    del roster.quarantined[device]
    aggregator.jobs.tell_of(device)
    return f"{device} is released from quarantine: it takes part again from the next round on"
