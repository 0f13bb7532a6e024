"""What is read of the store where a view is too little: one job's curve, one round's fates, a device's past, events.

Each call is a short read of its own and gives plain frozen values. All raise aggregator.store.StoreError, with a
sentence that is fit for the page, where the store is missing, locked, damaged or newer than this fedge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from fleet.sight.view import Happened

MOST = 200
"""Rows that a call gives where nothing else is said."""


class Spread(Struct, frozen=True):
    """How good a version is by what its devices say of the rows that they hold back."""

    mean: float
    """Of the measure that the job is judged by."""
    spread: float | None = None
    """Standard deviation between devices."""
    worst: float | None = None
    worst_device: str = ""
    measure: str = ""
    """Which measure that is."""
    devices: int = 0
    """How many have said."""


class VersionPoint(Struct, frozen=True):
    """A version of a job, as a point of its curve."""

    number: int
    at: float
    """When it was made: seconds since 1970."""
    metrics: Mapping[str, float] = {}
    participants: int = 0
    bytes_up: int | None = None
    """Of the bodies of the updates that it was made of."""
    bytes_down: int | None = None
    """Of the body that leads to it, once."""
    seconds: float | None = None
    """From the opening of its round to its making."""
    federated: Spread | None = None
    generation: int = 1


class AttemptPoint(Struct, frozen=True):
    """An attempt to make a version. opened, closed: seconds since 1970; None where it is not known, or still open."""

    attempt: int
    base: int
    """The number of the version that it leaves."""
    outcome: str
    reason: str = ""
    opened: float | None = None
    closed: float | None = None
    target: int | None = None
    """How many updates end it early; None: all of its devices."""
    fates: Mapping[str, str] = {}
    """Device to what became of it, as in aggregator/fates.py, with its reason."""
    generation: int = 1
    """Of the version that it leaves."""


class FatePoint(Struct, frozen=True):
    """What became of one device in one attempt."""

    job: str
    number: int
    """Of the version that the attempt would make."""
    attempt: int
    fate: str
    closed: float | None = None
    seconds: float | None = None
    """How long it took, where that is known."""
    loss: float | None = None
    """Of its training, where it tells."""


class Readings(Protocol):
    """Somebody who reads the store."""

    def curve(self, job: str) -> list[VersionPoint]:
        """Return the versions of a job, the earliest first; none of a job that is not known. Raises StoreError."""
        ...

    def round(self, job: str, number: int) -> list[AttemptPoint]:
        """Return the attempts to make version `number` of a job, the earliest first. Raises StoreError."""
        ...

    def history(self, device: str, most: int = MOST) -> list[FatePoint]:
        """Return what became of a device in the last attempts of all jobs, the latest first. Raises StoreError."""
        ...

    def events(
        self,
        *,
        since: int | None = None,
        before: int | None = None,
        kind: str = "",
        job: str = "",
        device: str = "",
        most: int = MOST,
    ) -> list[Happened]:
        """Return events, the latest first; those with a number above `since`, where it is given, the earliest first.

        before: only those with a lower number. kind: those whose kind is this, or begins with it and a dot.
        Raises StoreError.
        """
        ...

    def spec(self, job: str) -> dict[str, Any]:
        """Return the specification of a job as plain values; empty for a job that is not known. Raises StoreError."""
        ...
