"""Devices of a view, searched, filtered, sorted and in pages; and what a view comes to in a few numbers.

Twenty thousand devices are a list that no page shows as a whole. Words to search are made once for each device that has
changed, since unchanged ones are the same object from view to view.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from fleet.sight.view import DeviceView, View
from fleet.web.queries import FleetQuery, Sort

ROWS = 50
"""Of a page."""
MOST_LABELS = 100
"""Labels to choose from."""
Item = TypeVar("Item")


class Page(NamedTuple, Generic[Item]):
    """Some rows of many. n: of all; number: of this page, from 1."""

    rows: Sequence[Item]
    n: int
    number: int
    n_pages: int

    @property
    def first(self) -> int:
        """The number of its first row, from 1."""
        return (self.number - 1) * ROWS + 1


def paged(rows: Sequence[Item], number: int) -> Page[Item]:
    """Return a page of them; the last one where there are not so many."""
    n_pages = max(1, -(-len(rows) // ROWS))
    number = min(number, n_pages)
    return Page(rows[(number - 1) * ROWS : number * ROWS], len(rows), number, n_pages)


class Summary(Struct, frozen=True):
    """A view in a few numbers."""

    states: Mapping[str, int]
    alarms: int
    labels: Sequence[tuple[str, int]]
    """The most frequent ones as "key=value", with how many devices have them; sorted by name."""
    serves: Mapping[str, Sequence[tuple[int, int]]]
    """Job id to numbers of versions and how many devices serve each, the latest version first."""


def summed_up(view: View) -> Summary:
    """Return a view in a few numbers: one pass over its devices."""
    devices = view.devices.values()
    states = Counter(map(attrgetter("state"), devices))
    alarms = len(devices) - [device.alarm for device in devices].count("")
    sets = [device.labels for device in devices]
    by_id = dict(zip(map(id, sets), sets, strict=True))
    labels: Counter[str] = Counter()
    for which, n in Counter(map(id, sets)).items():  # those that devices share are one object
        for key, value in by_id[which].items():
            labels[f"{key}={value}"] += n
    serves: dict[str, Counter[int]] = defaultdict(Counter)
    for device in devices:
        for job, version in device.serves.items():
            serves[job][version.number] += 1
    most = sorted(labels.most_common(MOST_LABELS))
    return Summary(states, alarms, most, {job: sorted(found.items(), reverse=True) for job, found in serves.items()})


class Listing:
    """Finds devices. Used by one thread at a time or many: what it remembers is replaced, never half-made."""

    def __init__(self) -> None:
        self._words: dict[str, tuple[DeviceView, str]] = {}

    def find(self, view: View, query: FleetQuery) -> Page[DeviceView]:
        """Return the page of a view's devices that a query asks for."""
        found = list(view.devices.values())
        if query.state == "alarm":
            found = [device for device in found if device.alarm]
        elif query.state:
            found = [device for device in found if device.state == query.state]
        if query.job:
            found = [device for device in found if query.job in device.parts or query.job in device.serves]
        if query.label:
            key, equals, value = query.label.partition("=")
            found = [device for device in found if key in device.labels and (not equals or device.labels[key] == value)]
        if query.q:
            wanted = query.q.casefold().split()
            found = [device for device in found if all(word in self._said(device) for word in wanted)]
        by = KEYS[query.sort]
        if by is not None:
            found.sort(key=lambda device: _last(by(device, query.job), turned=bool(query.order)))
        if query.order:
            found.reverse()
        self._forget(view)
        return paged(found, query.page)

    def _said(self, device: DeviceView) -> str:
        """Return all words of a device that can be searched."""
        known = self._words.get(device.device)
        if known is not None and known[0] is device:
            return known[1]
        labels = " ".join(f"{key}={value}" for key, value in device.labels.items())
        words = f"{device.device} {device.state} {labels} {device.software} {device.why} {device.alarm}".casefold()
        self._words[device.device] = (device, words)
        return words

    def _forget(self, view: View) -> None:
        if len(self._words) > 2 * len(view.devices) + 1000:
            self._words = {}


def _last(value: Any, *, turned: bool) -> tuple[bool, Any]:
    """Return a key by which what is not known comes last, in either order."""
    return ((value is None) != turned, 0 if value is None else value)


_ALARMING = {"quarantined": 0, "offline": 1, "silent": 2, "unknown": 3, "online": 4}


def _served(device: DeviceView, job: str) -> int | None:
    numbers = [version.number for of, version in device.serves.items() if not job or of == job]
    return max(numbers, default=None)


KEYS: Mapping[Sort, Callable[[DeviceView, str], Any] | None] = {
    "name": None,
    "state": lambda device, _: (not device.alarm, _ALARMING[device.state]),
    "seen": lambda device, _: None if (at := seen(device)) is None else -at,
    "version": _served,
    "heat": lambda device, _: None if device.vitals is None else device.vitals.heat,
    "disk": lambda device, _: None if device.vitals is None else device.vitals.disk_free,
    "bytes": lambda device, _: None if device.vitals is None else device.vitals.bytes_today,
}
"""What rows are sorted by, given the device and the job that is looked at, if one is; None: they are already."""


def seen(device: DeviceView) -> float | None:
    """Return when a device was last seen: when it spoke, or when it went."""
    return device.heard_at if device.heard_at is not None else (device.since or None)
