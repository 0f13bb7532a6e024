"""A whole fleet on one screen, as lines of text. Pure.

fleet, aggregator, how many devices are how                        one line
what is missing, where something is                                a line
JOB  STATE  VERSION  its round as a bar, and what is measured      up to a quarter of the screen
DEVICE  STATE  what it does  when it was last seen  why      what is left: all, or those first that need a look
what has happened last                                             up to a quarter
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from fleet.console.display import duration
from fleet.console.ink import Colour, Ink, cell, width_of
from fleet.sight.view import DeviceState, DeviceView, Happened, JobView, RoundView, View

STATES: tuple[DeviceState, ...] = ("online", "silent", "offline", "quarantined", "unknown")
COLOURS: dict[str, Colour] = {
    "online": "good",
    "silent": "warn",
    "offline": "bad",
    "quarantined": "bad",
    "unknown": "faint",
    "running": "good",
    "waiting": "warn",
    "paused": "warn",
    "resting": "bad",
    "finished": "busy",
    "stopped": "faint",
    "training": "busy",
    "offering": "busy",
    "fetching": "busy",
    "reading": "busy",
    "counted": "good",
    "refused": "bad",
}
"""The colour of a state; its word says the same."""
FEWEST = 40
"""Columns below which nothing more is left out."""
BAR = 8
Line = Sequence[tuple[str, Colour]]


def picture(view: View, happened: Sequence[Happened], columns: int, rows: int, now: float, ink: Ink) -> list[str]:
    """Return the lines of a screen of so many columns and rows: no more rows, and none of them wider."""
    columns = max(columns, FEWEST)
    head = [_title(view, now)]
    if missing := missing_of(view):
        head.append([(missing, "warn")])
    free = max(0, rows - len(head))
    jobs = _jobs(view, max(2, free // 4), now, ink)
    events = _events(happened, max(0, min(len(happened), free // 4)))
    devices = _devices(view, free - len(jobs) - len(events), now)
    lines: list[Line] = [*head, *jobs, *devices, *events]
    return [_inked(line, columns, ink) for line in lines[:rows]]


def missing_of(view: View) -> str:
    """Return what is missing of the view, or nothing."""
    if not view.connected:
        return "no connection to the broker: what follows is how things were"
    if view.trouble:
        return view.trouble
    if not view.aggregator.online:
        return "no aggregator leads this fleet: is it running, and may this user hear it?"
    return ""


def _inked(line: Line, columns: int, ink: Ink) -> str:
    left, told = columns, ""
    for text, colour in line:
        shown = ink.plain(cell(text, left, pad=False))
        told += ink.paint(shown, colour)
        left -= width_of(shown)
        if left <= 0:
            break
    return told.rstrip() if not ink.coloured else told


def _title(view: View, now: float) -> Line:
    leader = view.aggregator
    leads = f"aggregator online, term {leader.term}" if leader.online else "no aggregator"
    counts = Counter(device.state for device in view.devices.values())
    n, of = len(view.devices), ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    devices = f"{n} device{'s' * (n != 1)}" + (f": {of}" if of else "")
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    return [
        (f"{view.fleet}", "strong"),
        (f"  {clock}  ", ""),
        (leads, "good" if leader.online else "bad"),
        (f"  {devices}", ""),
    ]


# Jobs.


def _jobs(view: View, most: int, now: float, ink: Ink) -> list[Line]:
    if not view.jobs:
        return [[("no job: fedge job submit JOB.toml starts one", "faint")]]
    live = sorted(view.jobs.values(), key=lambda job: (job.state in ("finished", "stopped"), job.name, job.job))
    lines: list[Line] = [[(f"{'JOB':<20} {'STATE':<9} {'VERSION':<9} {'ROUND':<24} MEASURED", "faint")]]
    for job in live[: most - 1]:
        state = f"{job.state:<9}"
        lines.append(
            [
                (f"{cell(job.name, 20)} ", ""),
                (state, COLOURS.get(job.state, "")),
                (f" {job.version!s:<9} {cell(_round(job, now, ink), 24)} ", ""),
                (_measured(job), ""),
            ]
        )
    if len(live) > most - 1:
        lines[-1] = [(f"... and {len(live) - most + 2} jobs more", "faint")]
    return lines


def _round(job: JobView, now: float, ink: Ink) -> str:
    if job.round is None:
        return job.reason or "-"
    done, of, left = *progress_of(job.round), max(0.0, job.round.ends_at - now)
    full = min(BAR, round(BAR * done / of)) if of else 0
    bar = ("█" * full + "░" * (BAR - full)) if ink.blocks else ("#" * full + "." * (BAR - full))
    return f"{bar} {done}/{of} {duration(left)}"


def progress_of(round_: RoundView) -> tuple[int, int]:
    """Return how many updates of a round count, and how many are to."""
    wanted = len(round_.drawn | round_.counted)
    return len(round_.counted), min(wanted, round_.target) if round_.target is not None else wanted


def _measured(job: JobView) -> str:
    known = [name for name in ("accuracy", "loss") if name in job.metrics]
    known += [name for name in job.metrics if name not in (*known, "participants", "buckets", "bits", "noise")]
    return "  ".join(f"{name} {job.metrics[name]:.4g}" for name in known[:2])


# Devices.


def _devices(view: View, most: int, now: float) -> list[Line]:
    if most < 2:
        return []
    devices = list(view.devices.values())
    if len(devices) > most - 1:
        devices.sort(key=lambda device: (_urgency(device), -device.since, device.device))
    lines: list[Line] = [[(f"{'DEVICE':<20} {'STATE':<12} {'DOES':<19} {'LAST SEEN':<9} WHY", "faint")]]
    room = most - 1 if len(devices) <= most - 1 else most - 2
    names = {job.job: job.name for job in view.jobs.values()}
    for device in devices[:room]:
        doing = does(device, names)
        lines.append(
            [
                (f"{cell(device.device, 20)} ", ""),
                (f"{device.state:<12}", COLOURS.get(device.state, "")),
                (f" {cell(doing, 19)} ", COLOURS.get(device.doing, "")),
                (f"{ago(device.heard_at, now):<9} ", "faint"),
                (why_of(device), "bad" if device.alarm else ""),
            ]
        )
    if len(devices) > room:
        lines.append([(f"... and {len(devices) - room} devices more", "faint")])
    return lines


def _urgency(device: DeviceView) -> int:
    """Return what a person should look at first: the lower, the sooner."""
    if device.alarm:
        return 0
    if device.state in ("offline", "quarantined"):
        return 1
    if device.doing == "refused" or device.why:
        return 2
    return {"silent": 3, "unknown": 6}.get(device.state, 5 if device.doing == "idle" else 4)


def does(device: DeviceView, names: dict[str, str]) -> str:
    """Return what a device does, in a few words. names: of jobs, by their ids."""
    if device.state not in ("online", "silent"):
        return "-"
    share = "" if device.progress is None else f" {device.progress:.0%}"
    job = f" {names.get(device.job, device.job)}" if device.job else ""
    return f"{device.doing}{share}{job}"


def why_of(device: DeviceView) -> str:
    """Return what there is to say of a device: an alarm first."""
    troubles = [part.trouble for part in device.parts.values() if part.trouble]
    return "; ".join(filter(None, (device.alarm, device.quarantine, device.why, *troubles[:1])))


def ago(at: float | None, now: float) -> str:
    """Return how long ago something was, in short."""
    if at is None:
        return "-"
    seconds = max(0.0, now - at)
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _events(happened: Sequence[Happened], most: int) -> list[Line]:
    return [[(event_line(event), "faint")] for event in happened[-most:]] if most else []


def event_line(event: Happened) -> str:
    """Return an event in a line."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    return f"{at}  {event.kind:<18} {event.text}"
