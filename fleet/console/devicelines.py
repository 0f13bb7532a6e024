"""`fedge device …` and `fedge events`: what is known of devices, and what has happened, in lines."""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec import Struct

from fleet.console import devices
from fleet.console.devices import EventRow, FateRow
from fleet.console.display import duration, n_bytes
from fleet.console.ink import Ink, cell
from fleet.console.operator import OperatorConfig, OperatorError
from fleet.console.picture import COLOURS, ago, does, event_line, why_of
from fleet.console.watching import glance
from fleet.sight.view import DeviceView, Happened, View

FOLLOW_S = 2.0


class SeenDevices(Struct, frozen=True):
    """Every device there is, by id."""

    devices: list[DeviceView]


class SeenDevice(Struct, frozen=True):
    """One device, with its last rounds and events, the latest first."""

    device: DeviceView
    rounds: list[FateRow]
    events: list[EventRow]


def rows(view: View, now: float, ink: Ink) -> list[str]:
    """Return a line a device."""
    names = {job.job: job.name for job in view.jobs.values()}
    head = f"{'DEVICE':<24} {'STATE':<12} {'DOES':<20} {'LAST SEEN':<9} {'DISK FREE':<10} {'HEAT':<6} WHY"
    lines = [ink.paint(head, "faint")]
    for one in view.devices.values():
        vitals = one.vitals
        disk = n_bytes(vitals.disk_free) if vitals is not None and vitals.disk_free is not None else "-"
        heat = f"{vitals.heat:.0f} C" if vitals is not None and vitals.heat is not None else "-"
        state = ink.paint(f"{one.state:<12}", COLOURS.get(one.state, ""))
        told = f"{cell(does(one, names), 20)} {ago(one.heard_at, now):<9} {disk:<10} {heat:<6} {why_of(one)}"
        lines.append(f"{cell(one.device, 24)} {state} {told}".rstrip())
    return lines


def show(config: OperatorConfig, device: str) -> tuple[SeenDevice, View]:
    """Return all there is to know of one device, and the fleet that it belongs to. Raises OperatorError."""
    view = glance(config)
    details = devices.show(config, device) if view.aggregator.online else None
    found = view.devices.get(device)
    if found is None and details is None:
        raise OperatorError(f"nothing has been heard of a device {device}, and no aggregator is there to be asked")
    if found is None:
        found = DeviceView(device, "unknown", view.at)
    return SeenDevice(found, details.rounds if details else [], details.events if details else []), view


def described(seen: SeenDevice, view: View, now: float, ink: Ink) -> list[str]:
    """Return all of a device in lines."""
    one, names = seen.device, {job.job: job.name for job in view.jobs.values()}
    vitals = one.vitals
    facts = [
        ("state", ink.paint(one.state, COLOURS.get(one.state, "")) + f", as seen {ago(one.since, now)} ago"),
        ("does", does(one, names)),
        ("last seen", "-" if one.heard_at is None else f"{ago(one.heard_at, now)} ago"),
        ("why", why_of(one)),
        ("labels", ", ".join(f"{name}={value}" for name, value in one.labels.items())),
        ("software", one.software),
        ("serves", ", ".join(f"{names.get(job, job)} {version}" for job, version in one.serves.items())),
        ("clock", "" if one.clock_offset_s is None else f"{one.clock_offset_s:+.1f} s from ours"),
    ]
    if vitals is not None:
        facts += [
            ("disk free", "" if vitals.disk_free is None else n_bytes(vitals.disk_free)),
            ("heat", "" if vitals.heat is None else f"{vitals.heat:.0f} degrees Celsius"),
            ("load", "" if vitals.load is None else f"{vitals.load:.2f} a processor"),
            ("bytes today", n_bytes(vitals.bytes_today)),
            ("uptime", duration(vitals.uptime_s)),
        ]
    lines = [ink.paint(one.device, "strong"), *(f"    {name:<12} {value}" for name, value in facts if value)]
    for job, part in one.parts.items():
        share = "takes no part" if part.examples is None else f"{part.examples} examples"
        lines.append(f"    job {names.get(job, job):<18} {'; '.join(filter(None, (share, part.why, part.trouble)))}")
    if seen.rounds:
        lines.append(f"{'JOB':<20} {'VERSION':<8} {'ATTEMPT':<8} {'ENDED (UTC)':<20} FATE")
    lines += [
        f"{cell(row.name or row.job, 20)} {row.number:<8} {row.attempt:<8} {row.closed:<20} {row.fate}"
        for row in seen.rounds
    ]
    return [*lines, *(event_line(happened(row)) for row in seen.events)]


def happened(row: EventRow) -> Happened:
    """Return an event as it is shown."""
    return Happened(row.n, row.at, row.kind, row.text, row.job, row.device)


def events(
    config: OperatorConfig, *, follow: bool, kind: str = "", job: str = "", device: str = "", most: int = 50
) -> Iterator[EventRow]:
    """Give the last events, the earliest first; with `follow` also those to come, for ever. Raises OperatorError.

    While the aggregator or the broker is away, following waits.
    """
    last = 0
    for row in reversed(devices.events(config, kind=kind, job=job, device=device, most=most)):
        last = max(last, row.n)
        yield row
    while follow:
        time.sleep(FOLLOW_S)
        try:
            new = devices.events(config, since=last, kind=kind, job=job, device=device)
        except OperatorError:
            continue
        for row in new:
            last = max(last, row.n)
            yield row
