"""Faults to plant in how an aggregator keeps devices in quarantine: each takes one fix out. See plants.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aggregator.jobs import Jobs
from aggregator.ledger import Ledger
from aggregator.rounds import Rounds
from aggregator.store import Store
from broker.messages import Offer
from fleet.world.patches import Patches


def write_later(patches: Patches) -> None:
    """Make a quarantine, or its end, durable when the next one comes."""
    quarantine, waiting = Store.quarantine, dict[int, Callable[[], None]]()

    def write(self: Store, *args: Any) -> None:
        before = waiting.pop(id(self), None)
        waiting[id(self)] = lambda: quarantine(self, *args)
        if before is not None:
            before()

    patches.set(Store, "quarantine", write)


def count_all_the_same(patches: Patches) -> None:
    """Neither draw a device in quarantine nor wait for it, and count what it offers."""
    weigh = Ledger.weigh

    def weigh_anyway(self: Ledger, offer: Offer, last: Any, ended: str, _barred: str = "") -> Any:
        return weigh(self, offer, last, ended)

    patches.set(Ledger, "weigh", weigh_anyway)


def wait_all_the_same(patches: Patches) -> None:
    """Go on to wait for a device that is put in quarantine while a round is open."""
    refresh = Rounds.refresh

    def refresh_unless_barred(self: Rounds, device: str, now: float) -> None:
        if not self._members.barred(device):
            refresh(self, device, now)

    patches.set(Rounds, "refresh", refresh_unless_barred)


def release_silently(patches: Patches) -> None:
    """Tell no job of a device that is released."""
    tell_of = Jobs.tell_of

    def tell_of_bars(self: Jobs, device: str) -> None:
        if device in self._roster.quarantined:
            tell_of(self, device)

    patches.set(Jobs, "tell_of", tell_of_bars)
