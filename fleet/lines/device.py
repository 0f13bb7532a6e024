"""`fedge device …` and `fedge events`: the devices of a fleet, and what has happened in it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from fleet.lines.options import Table, add, add_config, count, group
from fleet.lines.saying import say_as_it_comes

if TYPE_CHECKING:
    from fleet.console.devices import EventRow


def add_device(table: Table) -> None:
    """Add `fedge device`."""
    device = group(table, "device", "The devices of a running fleet.", "fedge device list")
    list_ = add(device, "list", device_list, "Show every device: how it is, and what it does.", "fedge device list")
    show = add(
        device,
        "show",
        device_show,
        "Show one device: how it is, what it waits for, what became of it in the last rounds, its events.",
        "fedge device show pi-1",
    )
    quarantine = add(
        device,
        "quarantine",
        device_quarantine,
        "Draw a device no more and count nothing of it, in any job, until it is released.",
        'fedge device quarantine pi-1 --why "its sensor is loose"',
    )
    quarantine.add_argument("--why", default="", metavar="TEXT", help="for people, up to 500 characters")
    release = add(device, "release", device_release, "Take a device out of quarantine.", "fedge device release pi-1")
    for parser in (show, quarantine, release):
        parser.add_argument("name", metavar="NAME")
    for parser in (list_, show, quarantine, release):
        add_config(parser, "aggregator.toml")
        parser.add_argument("--json", action="store_true")


def add_events(table: Table) -> None:
    """Add `fedge events`."""
    events = add(
        table,
        "events",
        events_say,
        "Say what has happened in a fleet: jobs, rounds that came to nothing, devices that come and go, alarms.",
        "fedge events --follow --kind device",
    )
    events.add_argument("--follow", action="store_true", help="go on with what happens next, until Ctrl-C")
    events.add_argument("--kind", default="", metavar="KIND", help="of this kind alone: device, device.gone, round")
    events.add_argument("--job", default="", metavar="NAME", help="of this job alone: its name, or its id")
    events.add_argument("--device", default="", metavar="NAME", help="of this device alone")
    events.add_argument("--most", type=count, default=50, metavar="N", help="so many of the last ones (50)")
    events.add_argument("--json", action="store_true", help="a line of JSON for each")
    add_config(events, "aggregator.toml")


def device_list(arguments: argparse.Namespace) -> int:
    from fleet.console import devicelines, watching
    from fleet.console.operator import as_json, load_config
    from fleet.console.picture import missing_of

    view = watching.glance(load_config(arguments.config))
    if arguments.json:
        print(as_json(devicelines.SeenDevices(list(view.devices.values()))))
        return 0
    if missing := missing_of(view):
        print(f"fedge: {missing}", file=sys.stderr)
    print("\n".join(devicelines.rows(view, time.time(), watching.ink(is_terminal=sys.stdout.isatty()))))
    return 0


def device_show(arguments: argparse.Namespace) -> int:
    from fleet.console import devicelines, watching
    from fleet.console.operator import as_json, load_config

    seen, view = devicelines.show(load_config(arguments.config), arguments.name)
    if arguments.json:
        print(as_json(seen))
        return 0
    style = watching.ink(is_terminal=sys.stdout.isatty())
    print("\n".join(devicelines.described(seen, view, time.time(), style)))
    return 0


def device_quarantine(arguments: argparse.Namespace) -> int:
    from fleet.console import devices
    from fleet.console.operator import load_config

    return _done(arguments, devices.quarantine(load_config(arguments.config), arguments.name, arguments.why))


def device_release(arguments: argparse.Namespace) -> int:
    from fleet.console import devices
    from fleet.console.operator import load_config

    return _done(arguments, devices.release(load_config(arguments.config), arguments.name))


def _done(arguments: argparse.Namespace, text: str) -> int:
    print(json.dumps({"device": arguments.name, "text": text}, indent=2) if arguments.json else text)
    return 0


def events_say(arguments: argparse.Namespace) -> int:
    import msgspec

    from fleet.console import devicelines
    from fleet.console.operator import load_config
    from fleet.console.picture import event_line

    def line_of(row: EventRow) -> str:
        return msgspec.json.encode(row).decode() if arguments.json else event_line(devicelines.happened(row))

    found = devicelines.events(
        load_config(arguments.config),
        follow=arguments.follow,
        kind=arguments.kind,
        job=arguments.job,
        device=arguments.device,
        most=arguments.most,
    )
    return say_as_it_comes(map(line_of, found))
