"""What the store says of a fleet beside its topics, as plain values: whoever reads it makes them, Sight takes them.

The same object again says that nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from broker.messages import Version


class OpenAttempt(Struct, frozen=True):
    """The open attempt to leave a version."""

    base: Version
    number: int
    cohort: frozenset[str]
    """Devices that were drawn."""
    target: int | None = None
    """How many updates end it early; None: all of its devices."""


class JobFacts(Struct, frozen=True):
    """One job."""

    job: str
    name: str
    version: Version
    ended: str = ""
    """"", "finished" or "stopped"."""
    reason: str = ""
    """Why it has ended, or what it waits for."""
    paused: str = ""
    """Who has paused it, and since when; "" where it is not paused."""
    metrics: Mapping[str, float] = {}
    """Of its current version."""
    best: int | None = None
    at: float | None = None
    """When its current version was made: seconds since 1970."""
    attempt: OpenAttempt | None = None
    counted: frozenset[str] = frozenset()
    """Devices whose updates to the current version count."""
    refused: Mapping[str, str] = {}
    """Device to why its update to the current version was refused."""


class Facts(Struct, frozen=True):
    """A whole store."""

    jobs: Mapping[str, JobFacts] = {}
    """By job id."""
    quarantined: Mapping[str, str] = {}
    """Device to why."""
    devices: frozenset[str] = frozenset()
    """Those that have rows there."""
