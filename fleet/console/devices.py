"""What an operator asks of the devices of a fleet, over MQTT: list, show, events, quarantine, release."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from broker.messages import Devices, Events, History, Quarantine, Release
from fleet.console.operator import Console, OperatorConfig, OperatorError
from runtime.settings import convert

MOST_EVENTS = 200
"""Events that are given where nothing else is said."""


class JobOfDevice(Struct, frozen=True):
    """A device's part in one job."""

    examples: int | None = None
    """None: it does not take part."""
    why: str = ""
    """Why not."""


class DeviceRow(Struct, frozen=True):
    """A device as the aggregator knows it."""

    device: str
    state: str
    """online, offline, silent (nothing but retained words), quarantined, or unknown."""
    since_s: float | None = None
    """Seconds since it went offline, where that is known."""
    heard_s: float | None = None
    """Seconds since it said anything, live."""
    software: str = ""
    labels: dict[str, str] = {}
    jobs: dict[str, JobOfDevice] = {}
    """By the name of the job."""
    trouble: dict[str, str] = {}
    """Job to what goes wrong though it takes part."""
    alarm: str = ""
    """What an operator should look at: two devices under one id."""
    quarantine: str = ""
    """Why it is in quarantine; "" where it is not."""


class DeviceList(Struct, frozen=True):
    """Every device there is, by id."""

    devices: list[DeviceRow]


class FateRow(Struct, frozen=True):
    """What became of a device in one round."""

    job: str
    name: str
    number: int
    """Of the version that the round would make."""
    attempt: int
    fate: str
    closed: str = ""
    """When it ended, in UTC."""
    seconds: float | None = None
    """From the opening of the round to the coming of its update."""
    loss: float | None = None


class FateList(Struct, frozen=True):
    """What became of a device, the latest first."""

    rounds: list[FateRow]


class EventRow(Struct, frozen=True):
    """Something that has happened. at: seconds since 1970."""

    n: int
    at: float
    kind: str
    text: str
    job: str = ""
    device: str = ""


class EventList(Struct, frozen=True):
    """What has happened."""

    events: list[EventRow]


class DeviceDetails(Struct, frozen=True):
    """All there is to know of one device."""

    device: DeviceRow
    rounds: list[FateRow]
    events: list[EventRow]


def devices(config: OperatorConfig) -> list[DeviceRow]:
    """Return every device of the fleet, by id. Raises OperatorError."""
    with Console(config) as fleet:
        return list(devices_of(fleet))


def show(config: OperatorConfig, device: str, most: int = 50) -> DeviceDetails:
    """Return all there is to know of one device, with its last rounds and events. Raises OperatorError."""
    with Console(config) as fleet:
        found = next((row for row in devices_of(fleet, device) if row.device == device), None)
        rounds = list(islice(_history(fleet, device), most))
        happened = list(islice(events_of(fleet, Events(fleet.client, "", device=device)), most))
    if found is None:
        if not (rounds or happened):
            raise OperatorError(
                f"nothing has been heard of a device {device}: `fedge device list` names those there are"
            )
        found = DeviceRow(device, "unknown")
    return DeviceDetails(found, rounds, happened)


def events(
    config: OperatorConfig,
    *,
    since: int | None = None,
    kind: str = "",
    job: str = "",
    device: str = "",
    most: int = MOST_EVENTS,
) -> list[EventRow]:
    """Return so many events at most, the latest first; or those with a number above `since`, the earliest first.

    kind: as "device.gone", or "device" for all of that kind. job: name or id. Raises OperatorError.
    """
    with Console(config) as fleet:
        command = Events(fleet.client, "", since=since, kind=kind, job=job, device=device)
        return list(islice(events_of(fleet, command), most))


def quarantine(config: OperatorConfig, device: str, why: str = "") -> str:
    """Draw a device no more and count nothing of it until it is released. Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(Quarantine(fleet.client, secrets.token_hex(4), device, why)).text


def release(config: OperatorConfig, device: str) -> str:
    """Take a device out of quarantine. Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(Release(fleet.client, secrets.token_hex(4), device)).text


def devices_of(fleet: Console, only: str = "") -> Iterator[DeviceRow]:
    """Give the devices of all pages; with `only`, from the page on which that one stands."""
    after = only[:-1] + chr(ord(only[-1]) - 1) + "~" if only else ""
    for page in fleet.pages(Devices(fleet.client, "", after=after)):
        yield from convert(page, DeviceList, "the aggregator's answer").devices
        if only:
            return


def _history(fleet: Console, device: str) -> Iterator[FateRow]:
    for page in fleet.pages(History(fleet.client, "", device)):
        yield from convert(page, FateList, "the aggregator's answer").rounds


def events_of(fleet: Console, command: Events) -> Iterator[EventRow]:
    for page in fleet.pages(command):
        yield from convert(page, EventList, "the aggregator's answer").events
