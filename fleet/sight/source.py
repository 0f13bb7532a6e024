"""Who gives a Lookout what topics do not tell: the store beside it, or the aggregator, asked from afar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from fleet.sight.facts import Facts
from fleet.sight.readings import Readings
from fleet.sight.view import Happened


class Found(Struct, frozen=True):
    """What was found. happened: events since the last time, the earliest first."""

    facts: Facts
    happened: Sequence[Happened] = ()
    there: Mapping[str, bool] = {}
    """Which devices are there, as the aggregator knows it; none where it was not asked."""


class Source(Protocol):
    """Is polled about once a second, from one thread."""

    @property
    def readings(self) -> Readings | None:
        """What reads the store in detail; None where it cannot be read from here."""
        ...

    def poll(self) -> Found | None:
        """Return what is stored now; None where nothing has changed. Raises StoreError with a sentence for people."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...
