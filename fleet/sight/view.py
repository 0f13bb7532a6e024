"""A fleet at one moment, as plain frozen values. Everything that people look at stands on these and on nothing else.

    topics ──messages──▶ Sight (sight.py) ──▶ View ──▶ page, terminal, metrics, Home Assistant, notices
    store  ──readings──▶

A view is cheap to make (what has not changed is the same object again) and never changes. Times are seconds since 1970
by the clock of this machine, unless their name says otherwise. Words of devices are cleaned where they come in, and
still have to be escaped where they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from broker.messages import Version, Vitals

DeviceState = Literal["online", "offline", "silent", "quarantined", "unknown"]
"""offline: it, or its last will, has said so. silent: retained words only, which nobody has confirmed. unknown: it has
rows in the store and nothing at the broker."""
JobState = Literal["waiting", "running", "paused", "resting", "finished", "stopped"]
Doing = Literal["idle", "drawn", "training", "offering", "counted", "refused", "reading", "fetching", "waiting"]


class Part(Struct, frozen=True, gc=False):
    """A device's part in one job."""

    examples: int | None = None
    """None: it does not take part."""
    why: str = ""
    """Why it does not, or why its last training failed."""
    trouble: str = ""
    """What goes wrong though it takes part."""


class DeviceView(Struct, frozen=True, gc=False):
    """One device."""

    device: str
    state: DeviceState
    since: float
    """When that state was first seen."""
    heard_at: float | None = None
    """When it last said anything, live; None: not since this process looks on."""
    doing: Doing = "idle"
    job: str = ""
    """The job that it does that for."""
    progress: float | None = None
    """0 to 1, where its vitals tell."""
    why: str = ""
    """What it waits for, or why it is out: one sentence."""
    labels: Mapping[str, str] = {}
    parts: Mapping[str, Part] = {}
    """By job id."""
    software: str = ""
    serves: Mapping[str, Version] = {}
    """Job id to the version that its applications are answered by."""
    vitals: Vitals | None = None
    vitals_at: float | None = None
    """When these were heard live; None: they lay at the broker."""
    clock_offset_s: float | None = None
    """Its clock less ours as its vitals were heard live."""
    alarm: str = ""
    """What an operator should look at, as two devices under one id."""
    quarantine: str = ""
    """Why it is in quarantine; "" where it is not."""


class RoundView(Struct, frozen=True, gc=False):
    """The open round of a job."""

    base: Version
    attempt: int
    seen_at: float
    ends_at: float
    drawn: frozenset[str] = frozenset()
    offered: frozenset[str] = frozenset()
    """Drawn or not, they have an update that waits for its verdict, or was counted."""
    counted: frozenset[str] = frozenset()
    refused: Mapping[str, str] = {}
    """Device to why."""
    target: int | None = None
    """How many updates end it early; None: all of its devices."""


class JobView(Struct, frozen=True, gc=False):
    """One job."""

    job: str
    name: str
    state: JobState
    version: Version
    reason: str = ""
    """Why it has ended, rests, or what it waits for."""
    metrics: Mapping[str, float] = {}
    """Of its current version."""
    best: int | None = None
    """The number of its best version."""
    at: float | None = None
    """When its current version was made."""
    round: RoundView | None = None
    ready: int = 0
    """Devices that are there and can take part."""


class Happened(Struct, frozen=True, gc=False):
    """An event: a row of the store's table. kind: see aggregator/events.py."""

    n: int
    at: float
    kind: str
    text: str
    job: str = ""
    device: str = ""


class AggregatorView(Struct, frozen=True):
    """Who leads the fleet."""

    online: bool = False
    term: int = 0
    nonce: str = ""
    since: float | None = None
    """When it was first heard, live, as it is now."""
    software: str = ""
    """The version of fedge that looks on: the same wheel."""


class View(Struct, frozen=True):
    """A whole fleet."""

    fleet: str
    at: float
    n: int = 0
    """Counts views: another number, another view."""
    connected: bool = False
    """Whether this process is connected to the broker."""
    trouble: str = ""
    """Why the store cannot be read now; "" where it can."""
    aggregator: AggregatorView = AggregatorView()
    devices: Mapping[str, DeviceView] = {}
    """By id, sorted."""
    jobs: Mapping[str, JobView] = {}
    """By job id, sorted."""
